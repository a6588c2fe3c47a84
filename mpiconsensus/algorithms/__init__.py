"""The registry of algorithms: one a file, one line here."""

from mpiconsensus.algorithms.allreduce import AllReduce
from mpiconsensus.algorithms.asynchronous import AdPsgd, AsyncGossip, BoundedStaleness
from mpiconsensus.algorithms.base import Algorithm, Setting, train_every
from mpiconsensus.algorithms.compressed import METHODS
from mpiconsensus.algorithms.consensus import Consensus
from mpiconsensus.algorithms.gossip import Gossip
from mpiconsensus.algorithms.local_sgd import LocalSGD
from mpiconsensus.algorithms.one_shot import OneShot
from mpiconsensus.algorithms.push_sum import PushSum
from mpiconsensus.errors import require_choice

__all__ = ["REGISTRY", "Algorithm", "Setting", "make", "training_periods"]

REGISTRY = {cls.name: cls for cls in (Consensus, Gossip, PushSum, LocalSGD, OneShot, AllReduce, BoundedStaleness, AsyncGossip, AdPsgd, *METHODS)}


def make(setting):
    """Return the algorithm that setting.options.name says."""
    return REGISTRY[require_choice("algorithm.name", setting.options.name, REGISTRY)](setting)


def training_periods(job, n):
    """Return the n training periods of a job; an asynchronous vertex trains at each of its own steps."""
    return [1] * n if REGISTRY[job.algorithm.name].asynchronous else train_every(job.algorithm.train_every, job.hetero.powers, n)
