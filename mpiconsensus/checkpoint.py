"""Checkpoints on disk: RUN/checkpoint/step-NNNNNNNNN holds a safetensors file a rank and manifest.json.

What is written lies in a directory beside until every file is on the disk; then that is renamed, and of the earlier ones
the newest is kept. Whoever is killed on the way leaves those as they were. State is keyed by vertex: any number of
ranks reads it, each the files that hold its vertices. Nothing is pickled: tensors lie in the files, all else is JSON in
their metadata and in the manifest, which has the sha256 of every file and of itself.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import torch

from mpiconsensus import outputs
from mpiconsensus.errors import UserError

FORMAT, VERSION = "mpiconsensus checkpoint", 1
KEPT = 2


class Unwritten(Exception):
    """A checkpoint that the disk refuses; those before are as they were."""


class Checkpoint:
    """A checkpoint whose files were found whole. content: what the manifest tells, a dict."""

    def __init__(self, path, content):
        self.path, self.content = path, content

    def vertices(self, wanted):
        """Return {vertex: its state} of the vertices `wanted`, from the files that hold them."""
        found = {}
        for entry in self.content["files"]:
            for vertex in sorted(set(wanted) & set(entry["vertices"])):
                found[vertex] = self._read(entry["name"], f"vertex-{vertex}")
        return found

    def common(self):
        """Return what is one for the network."""
        return self._read(self.content["files"][0]["name"], "common")

    def _read(self, name, part):
        from safetensors import safe_open

        with safe_open(self.path / name, "pt") as file:
            return _unpack(json.loads(file.metadata()[part]), file.get_tensor)


def write(run_dir, world, step, vertices, common, content):
    """Write the checkpoint of `step` and remove the ones that are too many; collective.

    vertices: {hosted vertex: its state}; common: what is one for the network, of rank 0, None elsewhere; content: facts
    for the manifest, of rank 0. States are dicts and lists of tensors, numbers, texts and None. Raise Unwritten on
    every rank where one cannot write.
    """
    folder = Path(run_dir) / "checkpoint" / f"step-{step:09d}"
    aside = folder.with_name(f"{folder.name}.new")
    first = world.rank == 0
    try:
        _together(world, lambda: _make(aside) if first else None)
        entry = _together(world, lambda: _save(aside / f"rank-{world.rank:04d}.safetensors", vertices, common))
        entries = world.gather(entry)
        _together(world, lambda: _put(aside, folder, {**content, "step": step, "files": entries}) if first else None)
    except Unwritten:
        if first:
            shutil.rmtree(aside, ignore_errors=True)
        raise


def choose(run_dir, world):
    """Return (the newest Checkpoint that is whole or None, [(name, what is wrong)] of the newer ones); collective.

    Raise UserError where there are checkpoints and none is whole, and for one of a newer version.
    """
    damaged = []
    for name in world.bcast(names(run_dir) if world.rank == 0 else None):
        path = Path(run_dir) / "checkpoint" / name
        content, wrong = world.bcast(world.agree(_manifest, path) if world.rank == 0 else world.agree(lambda: None))
        if not wrong:
            mine = [_fault(path, entry) for entry in content["files"][world.rank :: world.size]]
            wrong = next((fault for faults in world.allgather(mine) for fault in faults if fault), "")
        if not wrong:
            return Checkpoint(path, content), damaged
        damaged.append((name, wrong))
    if damaged:
        told = "; ".join(f"{name}: {wrong}" for name, wrong in damaged)
        raise UserError(
            f"no checkpoint of {str(run_dir)!r} is whole ({told}); copy it again from where it is whole, or train anew in another directory."
        )
    return None, []


def names(run_dir):
    """Return the names of the checkpoints of a run directory, the newest first."""
    folder = Path(run_dir) / "checkpoint"
    return sorted((p.name for p in folder.glob("step-*") if re.fullmatch(r"step-\d{9,}", p.name)), reverse=True)


def set_aside(run_dir, damaged):
    """Rename checkpoints that are not whole, so that they do not count, and remove what a killed writing left."""
    folder = Path(run_dir) / "checkpoint"
    for name in damaged:
        shutil.rmtree(folder / f"damaged-{name}", ignore_errors=True)
        os.rename(folder / name, folder / f"damaged-{name}")
    for path in folder.glob("step-*.new"):
        shutil.rmtree(path)


def _together(world, function):
    """Call `function` here; raise Unwritten on every rank where it failed on any."""
    from safetensors import SafetensorError

    result, why = None, None
    try:
        result = function()
    except (OSError, SafetensorError) as error:
        why = str(error)
    failures = [w for w in world.allgather(why) if w]
    if failures:
        raise Unwritten(failures[0])
    return result


def _make(aside):
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)


def _save(path, vertices, common):
    """Write a rank's file; return its entry in the manifest."""
    from safetensors.torch import save_file

    tensors, metadata = {}, {}
    for vertex, state in vertices.items():
        metadata[f"vertex-{vertex}"] = json.dumps(_pack(state, f"{vertex}", tensors))
    if common is not None:
        metadata["common"] = json.dumps(_pack(common, "common", tensors))
    save_file(tensors, path, metadata)
    outputs.synchronise(path)
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path), "vertices": [int(v) for v in vertices]}


def _put(aside, folder, content):
    """Write the manifest, give the checkpoint its name and remove the ones that are too many."""
    manifest = {"format": FORMAT, "format_version": VERSION, "sha256": _digest(content), "content": content}
    path = aside / "manifest.json"
    path.write_text(json.dumps(manifest, indent=1) + "\n")
    outputs.synchronise(path)
    outputs.synchronise(aside)
    if folder.exists():  # of a future that was given up
        shutil.rmtree(folder)
    os.rename(aside, folder)
    outputs.synchronise(folder.parent)
    for name in names(folder.parent.parent)[KEPT:]:
        shutil.rmtree(folder.parent / name, ignore_errors=True)


def _manifest(path):
    """Return (content, what is wrong or ""); UserError for a newer version."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        form, version, content = manifest["format"], manifest["format_version"], manifest["content"]
        if form == FORMAT and isinstance(version, int) and version > VERSION:
            raise UserError(
                f"checkpoint {str(path)!r} has format {version}, this program reads {VERSION}; "
                "install the version of mpiconsensus that wrote it, or a newer one."
            )
        whole = form == FORMAT and version == VERSION and manifest["sha256"] == _digest(content)
        return (content, "") if whole else (None, "manifest.json was changed")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, f"manifest.json cannot be read ({getattr(error, 'strerror', None) or type(error).__name__})"


def _fault(path, entry):
    """Return what is wrong with a file, or ""."""
    file = path / entry["name"]
    try:
        size = file.stat().st_size
        if size != entry["bytes"]:
            return f"{entry['name']} has {size} bytes, not {entry['bytes']}"
        return "" if _sha256(file) == entry["sha256"] else f"the sha256 of {entry['name']} differs"
    except OSError as error:
        return f"{entry['name']}: {error.strerror}"


def _pack(value, name, tensors):
    """Return `value` as JSON holds it; its tensors go into `tensors` under names that begin with `name`."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
        return {"array": _pack(value, name, tensors)["tensor"]}
    if isinstance(value, torch.Tensor):
        # Strides are a part of the state: arithmetic on rows of another order rounds otherwise.
        last = value.dim() == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=torch.channels_last)
        tensors[name] = (value.permute(0, 2, 3, 1) if last else value).detach().cpu().contiguous()
        return {"tensor": name, "channels_last": last}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_pack(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]}
    return value


def _unpack(value, tensor):
    """Return what _pack was given; tensor(name) gives the tensors."""
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return tensor(value["array"]).numpy()
    if "tensor" in value:
        found = tensor(value["tensor"])
        return found.permute(0, 3, 1, 2) if value["channels_last"] else found
    if "dict" in value:
        return {key: _unpack(item, tensor) for key, item in value["dict"]}
    return [_unpack(item, tensor) for item in value["list"]]


def _digest(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
