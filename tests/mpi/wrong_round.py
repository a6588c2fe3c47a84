"""Run under mpirun or alone: `mpiconsensus argv[2:]` with a fault in the rounds, which argv[1] names."""

import sys

from mpiconsensus import cli, mixing
from mpiconsensus.bench import allgather
from mpiconsensus.bench import round as rounds
from mpiconsensus.schedule import full

FAULT = sys.argv[1]
run_round, x = mixing.run_round, allgather.NeighborAllgather.x


def after(change):
    """Let `change` have the first row of the rank once a round is done."""

    def faulty(exchange, rows, *others):
        run_round(exchange, rows, *others)
        change(rows.x(0))

    mixing.run_round = faulty


if FAULT == "wrong_weight":
    rounds.full = lambda rows: full([(js, ws * (1 + 3e-5 * (js == 0))) for js, ws in rows])
elif FAULT == "lost_element":
    after(lambda row: row[-1:].fill_(0.5))
elif FAULT == "not_a_number":
    after(lambda row: row[:1].fill_(float("nan")))
elif FAULT == "nothing_done":
    mixing.run_round = lambda *of_round: None
elif FAULT == "allgather":
    allgather.NeighborAllgather.x = lambda self, i: x(self, i)[::-1].copy()
sys.argv[1:] = sys.argv[2:]
cli.main()
