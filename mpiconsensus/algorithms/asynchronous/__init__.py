"""Algorithms without rounds: each vertex trains at its own pace and mixes what has arrived."""

from mpiconsensus.algorithms.asynchronous.adpsgd import AdPsgd
from mpiconsensus.algorithms.asynchronous.base import Asynchronous, Needs
from mpiconsensus.algorithms.asynchronous.bounded_staleness import BoundedStaleness
from mpiconsensus.algorithms.asynchronous.gossip import AsyncGossip

__all__ = ["AdPsgd", "AsyncGossip", "Asynchronous", "BoundedStaleness", "Needs"]
