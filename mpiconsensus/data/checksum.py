"""The checksums of a set's files, by the version of its format.

They tell what a disk, a copy or a program has altered, and are no proof against somebody who means to deceive: who can write a
shard can write the manifest beside it. CRC-32 finds every altered byte, and other damage but for one case in 2^32, at more than twice
the speed of sha256. What a set was made of is in the manifest by sha256.
"""

import hashlib
import zlib


class Crc32:
    """CRC-32 as zlib, gzip and PNG have it, with the methods of hashlib's objects."""

    def __init__(self):
        self._value = 0

    def update(self, content):
        self._value = zlib.crc32(content, self._value)

    def hexdigest(self):
        return f"{self._value:08x}"


KINDS = {1: ("sha256", hashlib.sha256), 2: ("sha256", hashlib.sha256), 3: ("crc32", Crc32)}


def name(version):
    """Return what the checksums of a version of the format are called, in file attributes and in the manifest."""
    return KINDS[version][0]


def start(version):
    """Return an object with `update` and `hexdigest` for a version of the format."""
    return KINDS[version][1]()


def samples(shard, version):
    """Return the checksum of the bytes of x, y and id of a Shard, one after another."""
    found = start(version)
    for array in shard:
        found.update(array if array.flags.c_contiguous else array.copy())
    return found.hexdigest()


def recorded(version):
    """Return the names under which the manifest has the checksums of a file: of its samples, and of the rest."""
    kind = name(version)
    return f"samples_{kind}", kind if version == 1 else f"frame_{kind}"
