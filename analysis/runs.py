"""Runs as the scripts take them: found, named and compared; figures over vertices and over seeds.

n vertices, E epochs. Accuracies are in percent.
"""

import re
from typing import NamedTuple

import numpy as np

from mpiconsensus import sweepdirectory
from mpiconsensus.config import BY_NAME
from mpiconsensus.config import find as known_key
from mpiconsensus.errors import UserError
from mpiconsensus.report import summary
from mpiconsensus.runread import Run

APART = re.compile(r"training\.seed|log\..*|checkpoint\..*")  # keys in which two runs of one job may differ
# parts of topology.graph that stand as keys of their own: ring:16 is a ring of 16 vertices
OF_GRAPH = ("topology.kind", "topology.vertices")


def find(paths):
    """Return [(run directory or run.h5, the argument that it came from)]; a directory of runs, or of a sweep, stands for those in it."""
    found = []
    for path in paths:
        if sweepdirectory.is_sweep(path):
            found += [(run, path) for run in sweepdirectory.runs(path) if _is_run(run)] or [(path, path)]
            continue
        inside = [p for p in path.iterdir() if p.is_dir() and _is_run(p)] if path.is_dir() and not _is_run(path) else []
        found += [(p, path) for p in sorted(inside, key=lambda p: natural(p.name)) or [path]]
    return found


def natural(text):
    """Return a key by which q2 sorts ahead of q16."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.findall(r"\d+|\D+", str(text))]


def _is_run(path):
    return (path / "run.h5").exists() or any((path / "log").glob("rank-*.h5"))


def names(paths):
    """Return a name a run: the directory's, with as many of those above as tell all apart."""
    parts = [path.resolve().parts for path in paths]
    parts = [p[:-1] if p[-1] == "run.h5" else p for p in parts]
    for depth in range(1, max(map(len, parts)) + 1):
        found = ["/".join(p[-depth:]) for p in parts]
        if len(set(found)) == len(found):
            return found
    raise UserError("a run is given twice; give each once.")


def opened(paths):
    """Yield (name, Run) of every run of `paths`, each open until the next is asked for."""
    found = [path for path, _ in find(paths)]
    for path, name in zip(found, names(found), strict=True):
        with Run(path) as run:
            yield name, run


def spread(values, name):
    """Return mean, sd (ddof = 1), min and max over the vertices of (E, n) values, those that are NaN left out."""
    here = ~np.isnan(values)
    count = here.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(here, values, 0).sum(axis=1) / count
        sd = np.sqrt(np.where(here, (values - mean[:, None]) ** 2, 0).sum(axis=1) / (count - 1))
    low, high = np.where(here, values, np.inf).min(axis=1), np.where(here, values, -np.inf).max(axis=1)
    low[count == 0] = high[count == 0] = mean[count == 0] = np.nan
    sd[count < 2] = np.nan
    return {f"{name}_mean": mean, f"{name}_sd": sd, f"{name}_min": low, f"{name}_max": high}


def epochs_of(run):
    """Return the number of whole epochs in the log of `run`, or raise UserError where there is none."""
    count = len(run.epochs("epoch"))
    if not count:
        raise UserError(f"run {str(run.path)!r} holds no whole epoch; wait for one, or leave the run out.")
    return count


class Final(NamedTuple):
    """The end of a run. `config` maps every key to its resolved value; `accuracy` (n,) is of the closing evaluation.

    `ages` counts the rows that were mixed at each age over all vertices, None in logs of earlier versions.
    """

    name: str
    origin: str
    config: dict
    facts: dict
    n: int
    accuracy: np.ndarray
    figures: dict
    ages: np.ndarray | None = None

    @property
    def seed(self):
        return self.config["training.seed"]


def finals(paths, several=False):
    """Return the Final of every run of `paths`; raise UserError for a run without an end, or ends that measure different things.

    several: there may be several data sets, and ends are held against those on the same.
    """
    for path in filter(sweepdirectory.is_sweep, paths):
        if missing := [run.name for run in sweepdirectory.runs(path) if not _is_run(run)]:
            raise UserError(
                f"sweep {str(path)!r} is incomplete: {len(missing)} of its runs are missing ({missing[0]}{', ...' * (len(missing) > 1)}); "
                "call its `mpiconsensus sweep` again, or give the runs that are to be compared."
            )
    origins = [_name(origin) for _, origin in find(paths)]
    made = [_final(name, origin, run) for (name, run), origin in zip(opened(paths), origins, strict=True)]
    firsts = {}
    for what, of in (("data", data_of), ("samples", lambda f: (f.figures["samples"], f.figures["split"]))):
        for other in made:
            first = firsts.setdefault(data_of(other) if several else None, other)
            if of(other) != of(first):
                raise UserError(
                    f"runs {first.name} and {other.name} cannot be compared: they were evaluated on different {what} "
                    f"({_words(of(first))}; {_words(of(other))}); give runs of one kind."
                )
    return made


def data_of(final):
    """Return the name of the data set of a Final, or None where an old log does not say."""
    return final.facts.get("data")


def _name(path):
    return path.resolve().parent.name if path.name == "run.h5" else path.resolve().name


def _words(value):
    return " of ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _final(name, origin, run):
    if not run.complete or not run.closing:
        raise UserError(
            f"run {str(run.path)!r} is incomplete: its log ends after step {len(run.steps('step'))}, without the evaluation at the end; "
            "finish it, or leave it out."
        )
    return Final(name, origin, config_of(run), run.facts, run.graph["n"], 100 * run.closing["accuracy"], summary(run), None if run.ages is None else run.ages.sum(axis=1))


def config_of(run):
    """Return {key: value} of a run's job, what was `auto` resolved where the log tells, defaults for keys younger than the run."""
    values = {name: key.default for name, key in BY_NAME.items()}
    values |= {f"{table}.{word}": value for table, keys in run.config.items() for word, value in keys.items()}
    spec = run.graph["spec"]
    values |= {"data.partition": str(run.data["partition"])} if "partition" in run.data else {}  # shards are divided already
    values |= {"topology.graph": spec, "topology.kind": spec.partition(":")[0], "topology.vertices": run.graph["n"]}
    return values | ({"model.name": run.facts["model"]} if run.facts.get("model") else {})


def differing(runs, but=()):
    """Return {key: values} of the keys in which Finals differ, those of APART, OF_GRAPH and `but` left out."""
    but = {*OF_GRAPH, *but} | ({"topology.graph"} if set(but) & set(OF_GRAPH) else set())
    values = {key: list(dict.fromkeys(_hashable(f.config.get(key)) for f in runs)) for key in dict.fromkeys(k for f in runs for k in f.config)}
    return {key: found for key, found in values.items() if len(found) > 1 and key not in but and not APART.fullmatch(key)}


def refuse_other_keys(runs, but, what):
    """Raise UserError where runs differ in other keys than `but`, so that a picture of `what` would mix up two things."""
    if other := differing(runs, but):
        key, values = next(iter(other.items()))
        more = f" and {len(other) - 1} more keys" if len(other) > 1 else ""
        raise UserError(
            f"the runs differ in {key} ({', '.join(map(str, values[:4]))}){more}, not in {what} alone; "
            "give runs that agree in it, or tell them apart with --by."
        )


def refuse_twice(made, line, x):
    """Raise UserError where two rows, which are of two jobs, have one place on one line."""
    seen = {}
    for row in made:
        other = seen.setdefault((row[line], row[x]), row)
        if other is not row:
            raise UserError(f"runs {other['runs'].split()[0]} and {row['runs'].split()[0]} are of two jobs and both at {row[x]}; tell them apart with --by.")


def _hashable(value):
    return tuple(value) if isinstance(value, list) else value


def check_keys(*keys):
    """Raise UserError, which names the nearest, for a key that no job has; None stands for an option not given."""
    for key in keys:
        if key is not None and key not in OF_GRAPH:
            known_key(key)


def value_of(final, key):
    """Return a key's value as a number or text."""
    value = final.config[key]
    return str(value) if isinstance(value, list | bool) else value


def jobs(runs):
    """Return the Finals in lists of one job, which differ in the seed alone; raise UserError for a job and seed given twice."""
    groups = {}
    for final in runs:
        key = tuple(sorted((k, str(v)) for k, v in final.config.items() if not APART.fullmatch(k)))
        group = groups.setdefault(key, [])
        for other in group:
            if other.seed == final.seed:
                raise UserError(f"runs {other.name} and {final.name} are of one job and one seed ({final.seed}); give one of them.")
        group.append(final)
    return list(groups.values())


def over_seeds(group):
    """Return the accuracy of the runs of one job in percent: mean, spread over the vertices, and apart from it over the seeds.

    sd_vertices: root of the mean over runs of the variance over vertices. sd_seeds: of the runs' means. NaN where there is one.
    """
    means = np.array([final.accuracy.mean() for final in group])
    variances = np.array([final.accuracy.var(ddof=1) if final.n > 1 else np.nan for final in group])
    every = np.concatenate([final.accuracy for final in group])
    return {
        "accuracy_mean": float(means.mean()), "accuracy_sd_vertices": float(np.sqrt(variances.mean())),
        "accuracy_min": float(every.min()), "accuracy_max": float(every.max()),
        "accuracy_sd_seeds": float(means.std(ddof=1)) if len(means) > 1 else float("nan"), "seeds": len(group),
    }  # fmt: skip
