"""Check a set of shards: checksums, shapes, labels, features, the manifest, and that no sample is in two shards."""

import sys
from pathlib import Path

import click
import common
import h5py
import numpy as np

from mpiconsensus.data import partition
from mpiconsensus.data.manifest import file_name
from mpiconsensus.data.shards import open_shards
from mpiconsensus.errors import UserError

ATTRIBUTES = ("class_names", "scale", "mean", "std", "published_mean", "published_std")


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@common.reports_errors
def main(out):
    """Check the set of shards at OUT; exit code 2 where something is wrong, a line for each.

    Compared are the checksums of every file and of its samples, shapes and types, labels with their range and with the
    counts of the manifest, features (finite), class names and moments, the skew, and the ids: each training sample is in exactly one shard.
    """
    problems = list(check(out))
    for problem in problems:
        common.say(f"error: {problem}")
    if problems:
        sys.exit(2)
    manifest = open_shards(out).manifest
    click.echo(
        f"{out}: {manifest['shards']} shards of {manifest['dataset']} and test.h5 are as they were written; "
        f"{sum(manifest['sizes'])} training samples, each in one shard, and {manifest['test_size']} test samples"
    )


def check(out):
    """Yield what is wrong with the set at `out`, one text a fact; one shard is in memory at a time."""
    found = open_shards(out)
    manifest, n = found.manifest, found.manifest["shards"]
    names = [file_name(vertex, n) for vertex in [*range(n), -1]]
    for path in sorted(out.iterdir()):
        if path.name not in (*names, "manifest.json"):
            yield f"{path} is not in the manifest; move it away."
    counts, ids, vertices, wrong = [], [], [], {}
    for vertex, name in zip([*range(n), -1], names):
        # The samples first: what is wrong with them says more than a checksum.
        try:
            shard = found.load_test() if vertex < 0 else found.load(vertex)
        except UserError as error:
            yield str(error)
            continue
        if not found.has_frame(vertex):
            yield f"{out / name}: the file does not have the sha256 of the manifest; copy it again, or make the shards again with data_prep/."
        else:
            wrong |= _other_facts(out / name, found.facts)
        if vertex >= 0:
            counts.append(np.bincount(shard.y, minlength=found.facts.classes))
            ids.append(shard.id)
            vertices.append(np.full(len(shard.id), vertex))
    for fact, path in wrong.items():
        yield f"{out / 'manifest.json'}: {fact} is not what {path} says, which is as it was written; copy the manifest again, or make the shards again with data_prep/."
    if len(counts) == n:
        yield from _against_manifest(out, manifest, np.array(counts))
    yield from _twice(out, np.concatenate([*ids, []]), np.concatenate([*vertices, []]).astype(int), n)


def _other_facts(path, facts):
    """Return {fact: path} for what the file's attributes and the manifest, which has no checksum of its own, say otherwise."""
    with h5py.File(path, "r", locking=False) as file:
        there = {name: file.attrs.get(name) for name in ATTRIBUTES}
    if there["class_names"] is not None:
        there["class_names"] = [name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in there["class_names"]]
    return {name: path for name, value in there.items() if not np.array_equal(_listed(value), _listed(getattr(facts, name)))}


def _listed(value):
    return [] if value is None else np.ravel(value).tolist()


def _against_manifest(out, manifest, counts):
    if "labels" not in manifest:
        return
    differs = np.flatnonzero((np.array(manifest["labels"]) != counts).any(axis=1))
    if len(differs):
        yield f"{out / 'manifest.json'}: labels of shard {differs[0]} are not those in its file; make the shards again with data_prep/."
    elif np.abs(np.array(manifest.get("skew", [])) - partition.skew(counts)).max(initial=0) > 1e-6:
        yield f"{out / 'manifest.json'}: skew is not that of its labels; make the shards again with data_prep/."


def _twice(out, ids, vertices, n):
    order = np.argsort(ids, kind="stable")
    ids, vertices = ids[order], vertices[order]
    again = np.flatnonzero(ids[1:] == ids[:-1])
    if len(again):
        first, second = (out / file_name(vertices[again[0] + k], n) for k in (0, 1))
        yield (
            f"{first} and {second.name} both hold sample {int(ids[again[0]])}, and {len(again) - 1} more are in two shards; "
            f"make the shards again with data_prep/."
        )


if __name__ == "__main__":
    main()
