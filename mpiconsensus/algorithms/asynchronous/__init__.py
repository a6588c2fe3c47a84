"""Algorithms without rounds: each vertex trains at its own pace and mixes what has arrived."""

from mpiconsensus.algorithms.asynchronous.base import Asynchronous

__all__ = ["Asynchronous"]
