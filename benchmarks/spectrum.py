"""Time and peak memory of the figures of large graphs, each in a process of its own.

    python benchmarks/spectrum.py [SPEC...] [--weights metropolis]

A line a graph: seconds to build it, seconds for all that `mpiconsensus topology show` prints, seconds of the whole process
with its imports, peak memory of the process, algebraic connectivity and 1 - |lambda_2|.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

SPECS = ("random:100000,300000", "regular:100000,6", "small-world:100000,6,0.1", "grid:300x333", "tree:2,15", "ring:100000")


def measure(spec, method):
    """Return the figures of one graph, measured in this process."""
    start = time.perf_counter()
    from mpiconsensus import topology
    from mpiconsensus.survey import figures as survey
    from mpiconsensus.survey import tell

    net = topology.net(spec, 1)
    built = time.perf_counter()
    figures = tell.plain(survey.survey(net, method))
    return {"build_s": built - start, "figures_s": time.perf_counter() - built, "figures": figures}


@click.command()
@click.argument("specs", nargs=-1)
@click.option("--weights", default="metropolis", show_default=True)
@click.option("--alone", is_flag=True, hidden=True)
def main(specs, weights, alone):
    """Print a line a graph."""
    if alone:
        found = measure(specs[0], weights)
        print(json.dumps(found | {"peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
        return
    print(f"{'graph':28} {'edges':>8} {'build s':>8} {'figures s':>9} {'process s':>9} {'peak MB':>8}  algebraic connectivity, spectral gap")
    for spec in specs or SPECS:
        start = time.perf_counter()
        words = [sys.executable, __file__, spec, "--weights", weights, "--alone"]
        found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        whole, figures = time.perf_counter() - start, found["figures"]
        print(
            f"{spec:28} {figures['edges']:8,} {found['build_s']:8.1f} {found['figures_s']:9.1f} {whole:9.1f} "
            f"{found['peak_bytes'] / 1e6:8.0f}  {figures['algebraic_connectivity']}, {figures['spectral_gap']}"
        )


if __name__ == "__main__":
    main()
