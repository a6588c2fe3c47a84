"""Train jobs of jobs/thesis/ for 20 steps on a linear model, as runs in runs/: `python thesis_runs.py DIRECTORY JOB...`.

DIRECTORY holds the shards. A fork a run: torch is loaded once.
"""

import os
import sys

SMALL = ["training.max_steps=20", "model.name=logistic", "evaluation.every=1000"]


def main(where, *jobs):
    import torch

    import mpiconsensus.cli
    import mpiconsensus.cli.train
    import mpiconsensus.run
    import mpiconsensus.topology

    os.chdir(where)
    torch.set_num_threads(1)
    for job in jobs:
        if not (child := os.fork()):
            words = [word for key in SMALL for word in ("--set", key)]
            sys.argv = ["mpiconsensus", "train", f"jobs/thesis/{job}.toml", "--out", f"runs/{job}", *words]
            mpiconsensus.cli.main()
        assert os.waitpid(child, 0)[1] == 0, job


if __name__ == "__main__":
    main(*sys.argv[1:])
