"""The registry of algorithms: one a file, one line here."""

from mpiconsensus.algorithms.allreduce import AllReduce
from mpiconsensus.algorithms.asynchronous import AdPsgd, AsyncGossip, BoundedStaleness
from mpiconsensus.algorithms.base import Algorithm, Setting
from mpiconsensus.algorithms.consensus import Consensus
from mpiconsensus.algorithms.gossip import Gossip
from mpiconsensus.algorithms.local_sgd import LocalSGD
from mpiconsensus.algorithms.one_shot import OneShot
from mpiconsensus.algorithms.push_sum import PushSum
from mpiconsensus.errors import require_choice

__all__ = ["REGISTRY", "Algorithm", "Setting", "make"]

REGISTRY = {cls.name: cls for cls in (Consensus, Gossip, PushSum, LocalSGD, OneShot, AllReduce, BoundedStaleness, AsyncGossip, AdPsgd)}


def make(setting):
    """Return the algorithm that setting.options.name says."""
    return REGISTRY[require_choice("algorithm.name", setting.options.name, REGISTRY)](setting)
