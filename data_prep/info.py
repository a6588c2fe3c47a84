"""Say what a set of shards holds: sizes, labels and skew of every shard."""

import json
from pathlib import Path

import click
import common
import numpy as np

from mpiconsensus.data import partition
from mpiconsensus.data.manifest import file_name
from mpiconsensus.data.shards import open_shards

MEASURE = "total variation distance between a shard's distribution of labels and that of all training samples"
WIDEST = 20  # classes whose counts fit a line


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common.reports_errors
def main(out, as_json):
    """Print sizes, label histogram and skew of the shards at OUT.

    Skew is the total variation distance between a shard's distribution of labels and that of all training samples,
    1/2 sum_c |h_ic / N_i - h_c / N|: 0 where they are alike, the share of its samples that would have to change class.
    Only the manifest is read; shards made before labels were counted there are opened.
    """
    facts = describe(out)
    for shard in facts["shards"]:
        if not shard["bytes"]:
            common.say(f"note: {out / file_name(shard['vertex'], len(facts['shards']))} is missing or empty; data_prep/verify.py {out} says more.")
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    shape, shards = "x".join(map(str, facts["shape"])), facts["shards"]
    click.echo(f"{facts['dataset']}: {sum(s['samples'] for s in shards)} training samples in {len(shards)} shards, ", nl=False)
    click.echo(f"{facts['test_samples']} test samples, {len(facts['class_names'])} classes, shape {shape}, {facts['bytes'] / 1e6:.1f} MB")
    powers = f", powers {', '.join(f'{power:g}' for power in facts['powers'])}" if facts["powers"] else ""
    click.echo(f"partition {facts['partition']}, seed {facts['seed']}{powers}")
    click.echo(f"skew {facts['skew']['mean']:.3f} (mean), {facts['skew']['largest']:.3f} (largest): {MEASURE}")
    click.echo()
    narrow = len(facts["class_names"]) <= WIDEST
    click.echo(f"{'shard':>6} {'samples':>9} {'skew':>6}  {'samples of each class' if narrow else 'classes, largest class'}")
    for shard in shards:
        counts = shard["labels"]
        row = " ".join(f"{count:>5}" for count in counts)
        if not narrow:
            largest = int(np.argmax(counts))
            row = f"{np.count_nonzero(counts)} of {len(counts)}, {facts['class_names'][largest]} ({counts[largest]})"
        click.echo(f"{shard['vertex']:>6} {shard['samples']:>9} {shard['skew']:>6.3f}  {row}")


def describe(out):
    """Return the facts of the set at `out` as JSON can hold them."""
    found = open_shards(out)
    manifest, facts, n = found.manifest, found.facts, found.manifest["shards"]
    counts = manifest.get("labels")
    if counts is None:
        counts = [np.bincount(found.load(vertex).y, minlength=facts.classes).tolist() for vertex in range(n)]
    skew = partition.skew(counts)
    sizes = [_bytes(out / file_name(vertex, n)) for vertex in [*range(n), -1]]
    shards = [
        {"vertex": vertex, "samples": size, "bytes": sizes[vertex], "skew": float(skew[vertex]), "labels": counts[vertex]}
        for vertex, size in enumerate(found.sizes)
    ]
    kept = {name: manifest[name] for name in ("dataset", "shape", "class_names", "partition", "seed", "powers", "licence", "citation")}
    kept |= {"test_samples": manifest["test_size"], "bytes": sum(sizes), "shards": shards}
    return kept | {"skew": {"mean": float(skew.mean()), "largest": float(skew.max()), "measure": MEASURE}}


def _bytes(path):
    return path.stat().st_size if path.is_file() else 0


if __name__ == "__main__":
    main()
