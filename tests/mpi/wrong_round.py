"""Run under mpirun or alone: `mpiconsensus argv[2:]` with a fault in the rounds, which argv[1] names."""

import sys

from mpiconsensus import cli, mixing
from mpiconsensus.bench import allgather

FAULT = sys.argv[1]
combine, run_round, x = mixing.combine, mixing.run_round, allgather.NeighborAllgather.x


def wrong_weight(out, terms):
    combine(out, [(terms[0][0] * (1 + 3e-5), terms[0][1]), *terms[1:]])


def lost_element(out, terms):
    combine(out, terms)
    out[-1] = 0.5


def not_a_number(out, terms):
    combine(out, terms)
    out[0] = float("nan")


def nothing_done(exchange, rows, hosted, round_):
    pass


if FAULT == "nothing_done":
    mixing.run_round = nothing_done
elif FAULT == "allgather":
    allgather.NeighborAllgather.x = lambda self, i: x(self, i)[::-1].copy()
elif FAULT != "none":
    mixing.combine = globals()[FAULT]
sys.argv[1:] = sys.argv[2:]
cli.main()
