"""The model of a run: one safetensors file a vertex and one for the mean model, in RUN/model/last and RUN/model/best.

RUN/model/index.json tells, for each of the two, the accuracy of every vertex, the best vertex and what chose it.
Every file is written aside and renamed. Nothing is ever unpickled.
"""

import json
import os
import shutil
from math import isnan
from pathlib import Path

from mpiconsensus.errors import TrainingError, UserError, require_choice

WHICH = ("last", "best")


def save_vertices(run_dir, which, vertices, metadata, accuracies):
    """Write the weights of some vertices; local to the rank that hosts them.

    `vertices` maps a vertex to its state dict of tensors and `accuracies` to its accuracy. `metadata` is a dict that
    JSON can hold, stored in each file: model, shape, classes, norm, hidden, dataset, mean, std, class_names, epoch.
    Raise TrainingError where the disk refuses.
    """
    for vertex, state in vertices.items():
        own = {"vertex": vertex, "accuracy": float(accuracies[vertex])}
        _save(_path(run_dir, vertex, which), state, {**metadata, **own})


def save_mean(run_dir, which, state, metadata):
    """Write the weights of the mean model, as `save_vertices` does; one rank."""
    _save(_path(run_dir, "mean", which), state, {**metadata, "vertex": "mean"})


def save_index(run_dir, which, accuracies, epoch, selected_by):
    """Record the accuracy of every vertex, {vertex: accuracy}, in model/index.json; one rank, after the files.

    The best vertex is the one of the highest accuracy, the lowest number among equals; a NaN is never the best.
    `selected_by` names the data the accuracies were measured on: "validation" or "test".
    """
    path = Path(run_dir) / "model" / "index.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    index = _index(run_dir) if path.exists() else {}
    best = min(accuracies, key=lambda vertex: (isnan(accuracies[vertex]), -accuracies[vertex], vertex))
    index[which] = {
        "best_vertex": int(best),
        "accuracy": {str(vertex): float(value) for vertex, value in sorted(accuracies.items())},
        "selected_by": selected_by,
        "epoch": epoch,
    }
    _aside(path, lambda aside: Path(aside).write_text(json.dumps(index, indent=1) + "\n"))


def load(run_dir, vertex="mean", which="last"):
    """Return (state dict of tensors, metadata dict) of a vertex, "mean" or "best"; UserError where there is none."""
    path = find(run_dir, vertex, which)
    with _open(path) as file:
        metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (not a dict)


def export(run_dir, vertex, out_path, which="last"):
    """Copy one model file to `out_path`, whole or not at all; UserError where that is taken. Return the path."""
    source, out = find(run_dir, vertex, which), Path(out_path)
    if not out.parent.is_dir():
        raise UserError(f"cannot write {str(out)!r}: directory {str(out.parent)!r} does not exist; create it.")
    with _open(source):
        pass  # a damaged file is not passed on
    try:
        _aside(out, lambda aside: shutil.copyfile(source, aside), _put_new)
    except FileExistsError:
        raise UserError(f"{str(out)!r} is there already; give another name, or remove it first.") from None
    except OSError as error:
        raise UserError(f"cannot write {str(out)!r}: {error.strerror}; give a path that can be written.") from None
    return out


def find(run_dir, vertex="mean", which="last"):
    """Return the path of a vertex's file: a number, "mean", or "best" by model/index.json; UserError where missing."""
    require_choice("which", which, WHICH)
    folder = Path(run_dir) / "model"
    if not Path(run_dir).is_dir():
        raise UserError(f"run {str(run_dir)!r} does not exist; give a run directory, as made by `mpiconsensus train`.")
    if not folder.is_dir():
        raise UserError(f"run {str(run_dir)!r} holds no model/: it ended before the first saving; train it anew.")
    if vertex == "best":
        index = _index(run_dir)
        if which not in index:
            raise UserError(f"{str(folder)!r} names no best vertex of {which!r}; give one by number, or mean.")
        vertex = index[which]["best_vertex"]
    word = str(vertex)
    path = _path(run_dir, int(word), which) if word.isdecimal() else _path(run_dir, word, which)
    if (word == "mean" or word.isdecimal()) and path.exists():
        return path
    there = sorted(p.stem.removeprefix("vertex-") for p in (folder / which).glob("*.safetensors"))
    numbers = [int(stem) for stem in there if stem.isdecimal()]
    known = f"vertices {numbers[0]} to {numbers[-1]}" if numbers else "no vertex"
    raise UserError(
        f"vertex {word!r} has no model in {str(folder / which)!r}; it holds {known}"
        f"{', and mean' if 'mean' in there else ''}; give a number, mean or best."
    )


def _save(path, state, metadata):
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {}
    for name, tensor in state.items():
        # the format takes contiguous tensors (channels_last ones are strided), and tied ones apart
        tensor = tensor.detach().cpu().contiguous()
        tied = any(tensor.data_ptr() == other.data_ptr() for other in plain.values())
        plain[name] = tensor.clone() if tied else tensor
    words = {key: json.dumps(value) for key, value in metadata.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _aside(path, lambda aside: save_file(plain, aside, words))
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"the model {str(path)!r} cannot be written: {error}; free space there.") from None


def _path(run_dir, vertex, which):
    stem = vertex if isinstance(vertex, str) else f"vertex-{vertex:04d}"
    return Path(run_dir) / "model" / which / f"{stem}.safetensors"


def _index(run_dir):
    path = Path(run_dir) / "model" / "index.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{str(path)!r} is missing; give a vertex by number, or mean.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r} cannot be read ({error}); give a vertex by number, or mean.") from None


def _open(path):
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{str(path)!r} is damaged ({error}); export another vertex, or train again.") from None


def _put_new(aside, path):
    try:
        os.link(aside, path)  # unlike a renaming, refuses a name that is taken
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(path) from None
        os.replace(aside, path)


def _aside(path, write, put=os.replace):
    """Write a file beside `path`, flush it to the disk, and `put` it there."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        write(str(aside))
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        put(aside, path)
    finally:
        aside.unlink(missing_ok=True)
