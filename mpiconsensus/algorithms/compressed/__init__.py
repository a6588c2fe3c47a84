"""Algorithms whose messages are compressed: among all vertices, and over the edges of a graph."""

from mpiconsensus.algorithms.compressed.base import AmongAll, Compressed, OnGraph
from mpiconsensus.algorithms.compressed.beer import Beer
from mpiconsensus.algorithms.compressed.choco import ChocoGossip, ChocoSGD
from mpiconsensus.algorithms.compressed.dcgd import DCGD
from mpiconsensus.algorithms.compressed.diana import Diana
from mpiconsensus.algorithms.compressed.ef14 import EF14
from mpiconsensus.algorithms.compressed.ef21 import EF21, EF21SGDM
from mpiconsensus.algorithms.compressed.marina import Marina

__all__ = ["METHODS", "AmongAll", "Compressed", "OnGraph"]

METHODS = (DCGD, EF14, EF21, EF21SGDM, Diana, Marina, ChocoSGD, ChocoGossip, Beer)
