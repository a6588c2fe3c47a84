"""Rows in pieces that fit the cache.

The edges of the pieces are fixed and the same for all transports and placements: vector bodies use fused
multiply-adds and tails need not, so the same edges are what makes the sums equal bit for bit.
"""

# The piece that is written stays in a second-level cache of 1 MiB while the rows stream by; a smaller one pays for more
# calls than it saves (measured: 256 KiB is a fifth slower where the rows come from a cache).
PIECE_BYTES = 1 << 20


def piece_elements(row):
    """Return the length of the pieces of a row, a 1-d tensor; on a GPU the whole row is one."""
    return PIECE_BYTES // row.itemsize if row.device.type == "cpu" else max(1, row.numel())


def pieces(row):
    """Return a row as the tuple of views that sums go by."""
    elements = piece_elements(row)
    return (row,) if row.numel() <= elements else row.split(elements)
