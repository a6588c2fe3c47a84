"""Every key of a job, its type, default and meaning; reading, checking and writing of jobs.

The one list, KEYS, feeds the command line, the documentation and the checks. A job is a `Job`:
`job.training.lr`; nothing outside this module knows how it was put together.
"""

import json
import math
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from mpiconsensus.errors import UserError, did_you_mean


class Key(NamedTuple):
    """One key: `kind` is int, float, bool, str, bound (a whole number, or inf), ints or floats (a number, or a list of one a vertex)."""

    name: str
    kind: str
    default: object
    help: str
    choices: tuple = ()
    low: float | None = None
    high: float | None = None


# What moves rows in algorithms with rounds, and in asynchronous ones.
EXCHANGES = ("inprocess", "shared", "neighbor")
MAILBOXES = ("inprocess", "shared", "rma", "p2p")
KEYS = [
    Key("topology.graph", "str", "auto", "graph: ring:4, torus:6x6, regular:50,4, file:PATH, ... (mpiconsensus topology list); without its size one vertex a rank; auto: by the number of ranks"),
    Key("topology.weights", "str", "auto", "mixing weights (docs/choose-a-graph.md); file: those of the graph's file; auto: metropolis, uniform where the graph is directed", ("auto", "uniform", "lazy", "max-degree", "metropolis", "best-constant", "fastest", "fastest-nonnegative", "fastest-laplacian", "push-sum", "file", "file:PATH")),
    Key("topology.seed", "int", 0, "seed of random graphs; apart from training.seed, so that repeats share the graph", low=0),
    Key("placement.map", "str", "block", "which rank hosts which vertex; block: contiguous runs; cartesian: tiles of a torus or grid; partition: few edges between nodes, then between ranks, by METIS (needs pymetis); auto: cartesian or partition where fewer edges cross than with block. The numbers are the same", ("block", "cartesian", "partition", "auto")),
    Key("data.dataset", "str", "digits", "embedded data, used where data.shards is empty; a fifth of digits and of mushrooms is the test set; mushrooms-all: all 8124 train, in the order of the file, and the same fifth tests, which is then no measure of generalisation", ("digits", "mushrooms", "mushrooms-all")),
    Key("data.shards", "str", "", "directory of HDF5 shards, one a vertex (made by data_prep/)"),
    Key("data.partition", "str", "iid", "division of the embedded data over vertices: iid; dirichlet:0.3 (each class by proportions from Dirichlet(0.3)); labels:2 (2 classes a vertex); sorted by class; contiguous (in the order of the data set, the last vertex takes the remainder); by:label (a class stays together); shards are divided when they are made"),
    Key("data.shuffle", "str", "local", "samples of an epoch; local: a vertex keeps its shard; global: a fresh uniform division of all samples in every epoch; partial: each vertex gives and takes data.exchange_fraction of its samples at the end of an epoch; neighbors: the same over the edges of the graph alone", ("local", "global", "partial", "neighbors")),
    Key("data.exchange_fraction", "float", 0.1, "Q of data.shuffle = partial and neighbors: share of its samples that a vertex gives at the end of an epoch", low=0.0, high=1.0),
    Key("data.mix_owners", "bool", False, "true: data.shuffle may hand samples to other vertices although the partition is another than iid, which keeps owners or classes apart"),
    Key("data.memory", "float", 0, "MiB for the samples of a vertex; a larger shard is streamed from its file in blocks, shuffled within windows of them; 0: every shard is read whole", low=0),
    Key("data.normalize", "str", "published", "published: the data set's published mean and deviation, computed where it has none; computed: from the training data; none", ("published", "computed", "none")),
    Key("data.augment", "str", "auto", "crop: 4 pixels of padding; flip: horizontal, at random; flipalt: at random in the first pass, then the other way in turn; cutout: a square of half the sides goes to the mean; auto: crop-flip for CIFAR, else none", ("auto", "none", "crop", "flip", "flipalt", "cutout", "crop-flip", "crop-flipalt", "crop-cutout", "flip-cutout", "flipalt-cutout", "crop-flip-cutout", "crop-flipalt-cutout")),
    Key("model.name", "str", "auto", "a model of `mpiconsensus models`, any torchvision classification model, or package:builder; auto: by the data"),
    Key("model.norm", "str", "batch", "normalisation layers: batch, or group in its place", ("batch", "group")),
    Key("model.buffers", "str", "local", "batch-norm running statistics at a mixing step: stay local, are mixed like parameters, or restart", ("local", "mixed", "reset")),
    Key("model.hidden", "ints", [64], "widths of the hidden layers of the MLP", low=1, high=100_000),
    Key("training.epochs", "int", 30, "passes over the data", low=1),
    Key("training.max_steps", "int", 0, "end after this many steps whatever the epochs; 0: no bound", low=0),
    Key("training.batch_size", "int", 16, "samples a vertex and step; a smaller shard is one batch", low=1),
    Key("training.optimizer", "str", "sgd", "optimizer", ("sgd", "adam")),
    Key("training.lr", "float", 0.05, "learning rate before scaling and warm-up", low=0.0),
    Key("training.momentum", "float", 0.9, "momentum of sgd", low=0.0, high=1.0),
    Key("training.weight_decay", "float", 1e-4, "L2 coefficient added to the gradient", low=0.0),
    Key("training.scale_lr", "bool", False, "linear scaling rule: multiply lr by the number of vertices"),
    Key("training.warmup_epochs", "float", 0.0, "epochs of linear warm-up, by iteration", low=0.0),
    Key("training.decay", "str", "none", "learning rate after the warm-up", ("none", "milestones", "cosine")),
    Key("training.milestones", "ints", [81, 122], "epochs after which lr is multiplied by training.gamma", low=1),
    Key("training.gamma", "float", 0.1, "factor at a milestone", low=0.0, high=1.0),
    Key("training.nonconvex", "float", 0.0, "c of a regulariser c sum_j x_j^2 / (1 + x_j^2), which is added to the loss of each vertex", low=0.0),
    Key("training.clip", "float", 0.0, "largest norm of a vertex's gradient; 0: no clipping", low=0.0),
    Key("training.momentum_policy", "str", "local", "optimizer state at a mixing step: stays local, is mixed like parameters, or is reset", ("local", "mixed", "reset")),
    Key("training.init", "str", "identical", "initial parameters of the vertices", ("identical", "independent")),
    Key("training.start", "str", "", "initial parameters by a formula of their position j = 1, ..., d, at every vertex, in place of training.init: numbers, j, d, + - * / // % **, parentheses, sin, cos, sqrt; for example (37 * j % 113) / d; empty: drawn"),
    Key("training.seed", "int", 1, "seed of initialisation, partition, shuffling, augmentation, dropout and schedules", low=0),
    Key("training.precision", "str", "float32", "arithmetic of the model; bf16: autocast, parameters stay float32", ("float64", "float32", "tf32", "bf16")),
    Key("training.arithmetic", "str", "flat", "flat: fused passes over a vertex's contiguous parameters (a step is within 1 ulp of torch.optim's for sgd, 8 for adam); torch: torch.optim, tensor by tensor", ("flat", "torch")),
    Key("training.concurrency", "str", "serial", "gradients of the vertices that a rank hosts; serial: one after the other; streams: a CUDA stream each; batched: all in one call of torch.func.vmap (equal up to rounding, not bit for bit); auto: batched where there is a GPU and a rank has several vertices of one batch size, else serial", ("serial", "streams", "batched", "auto")),
    Key("training.memory_format", "str", "auto", "layout of images and convolution weights; auto: channels_last", ("auto", "contiguous", "channels_last")),
    Key("training.device", "str", "auto", "auto: a CUDA device where there is one", ("auto", "cpu", "cuda")),
    Key("training.threads", "int", 0, "threads a rank; 0: cores of the node / ranks on the node, at least 1 (OMP_NUM_THREADS wins)", low=0, high=1024),
    Key("algorithm.name", "str", "consensus", "an algorithm of `mpiconsensus algorithms`", ("consensus", "gossip", "push-sum", "local-sgd", "one-shot", "allreduce", "bounded-staleness", "async-gossip", "adpsgd", "dcgd", "ef14", "ef21", "ef21-sgdm", "diana", "marina", "choco-sgd", "choco-gossip", "beer")),
    Key("algorithm.order", "str", "atc", "atc: adapt, then combine; cta: combine, then the gradient at the mixed point; dpsgd: x <- W x - a g(x), gradient at the unmixed point", ("atc", "cta", "dpsgd")),
    Key("algorithm.period", "ints", 1, "mixing period q: mix at steps k that q divides (k from 0); a list gives one a vertex", low=1),
    Key("algorithm.rounds", "int", 1, "consensus rounds r a mixing step", low=1),
    Key("algorithm.delay", "int", 0, "1: order atc mixes with the rows of one step ago, so that the exchange hides behind the gradient; consensus: x <- y + (W - I) y_before, W damped so that this contracts; push-sum: overlap SGP, what was sent arrives a step later; the mean is kept, agreement comes more slowly", low=0, high=1),
    Key("algorithm.pairs", "int", 1, "gossip: edges b drawn at a mixing step, with replacement", low=1),
    Key("algorithm.mix", "str", "mutual", "unequal periods; mutual: an edge acts when both its ends mix (keeps the mean); thesis: a vertex that mixes takes its row of W (the mean drifts)", ("thesis", "mutual")),
    Key("algorithm.tau", "int", 8, "local-sgd: steps between averages over all vertices", low=1),
    Key("algorithm.tau_growth", "int", 0, "local-sgd: steps by which each interval between averages is longer than the one before: tau, tau + growth, tau + 2 growth, ...", low=0),
    Key("algorithm.staleness", "bound", 8, "bounded-staleness: a vertex mixes at its step t once every neighbour has published step t - s; 0: synchronous; inf: it waits for nobody", low=0),
    Key("algorithm.max_age", "bound", math.inf, "bounded-staleness: the oldest row that is mixed, in steps of the reader; the weight of an older one goes to the diagonal", low=0),
    Key("algorithm.age_damping", "float", 0.0, "bounded-staleness: the weight of a row of age a is divided by (1 + a) to this power, what is lost goes to the diagonal; 0: plain weights", low=0.0),
    Key("algorithm.ends", "str", "all", "an asynchronous run ends when all vertices have taken their steps, or when the first has", ("all", "first")),
    Key("algorithm.final_average", "bool", False, "an asynchronous run averages the vertices exactly once at its end"),
    Key("algorithm.train_every", "ints", 0, "a vertex trains at steps that this divides; a list gives one a vertex; 0: from hetero.powers (1 where they are equal)", low=0),
    Key("compression.operator", "str", "top-k:0.01", "of compressed algorithms: a compressor of `mpiconsensus compressors`, with what it keeps as a count or a share, such as top-k:0.01, rand-k:22, svd:4, qsgd:16, top-k:0.2+power-of-two"),
    Key("compression.scope", "str", "vector", "what is compressed at a time; vector: all parameters as one; tensor: each by itself (low rank leaves vectors as they are); bucket:N: pieces of N elements"),
    Key("compression.supports", "str", "auto", "of operators that draw which numbers they keep (rand-k, subspace); shared: all vertices draw alike, and messages are summed; own: each its own, and messages are gathered; auto: own for diana and marina, whose step sizes need it, else shared", ("auto", "shared", "own")),
    Key("compression.multiple", "float", 0.0, "learning rate as a multiple of the algorithm's step size of theory; 0: training.lr", low=0.0),
    Key("compression.smoothness", "floats", [], "L of the mean loss and sqrt(mean L_i^2) of the vertices' losses, for the step size of theory; empty: computed, for model.name = linear", low=0.0),
    Key("compression.eta", "float", 0.1, "ef21-sgdm: share of the new gradient in the momentum; 1: ef21", low=1e-6, high=1.0),
    Key("compression.dense_probability", "float", 0.0, "marina: share of the steps that send gradients as they are; 0: the share of a message's bits in a gradient's", low=0.0, high=1.0),
    Key("compression.gamma", "float", 0.0, "choco-sgd, choco-gossip, beer: step size of the gossip; 0: the one that is proven, far below what works", low=0.0, high=1.0),
    Key("compression.importance_steps", "int", 1, "importance and the md operators: steps of mirror descent by which the weights of a step are sought, each a gradient", low=1, high=100),
    Key("compression.importance_eta", "float", 0.0, "importance and the md operators: step of mirror descent on the weights; 0: 1 / (lr^2 L d max|g|^2), which needs the smoothness", low=0.0),
    Key("compression.importance_scale", "str", "d", "the weights of importance: their sum is d (all 1 is the plain step), their largest is 1 (max), or their sum is 1 (unit)", ("d", "max", "unit")),
    Key("compression.importance_normalised", "bool", False, "md-greedy-weighted and md-weighted-greedy: true: what is sent is scaled by k / the sum of the weights chosen, as the authors' code does and their paper does not"),
    Key("compression.importance_bounds", "floats", [], "[a, b]: weights of importance are clipped to them, so that the operator importance contracts; empty: not", low=0.0),
    Key("hetero.powers", "floats", [], "computing power of each vertex: data are divided in proportion; empty: equal", low=0.0),
    Key("hetero.speed", "floats", 1.0, "speed of the gradients of each vertex, emulated: 0.25 takes four times as long; the real run sleeps, the virtual clock counts", low=1e-6, high=1e6),
    Key("hetero.slowdown_probability", "float", 0.0, "share of the gradients that are slow, drawn from (seed, vertex, step), emulated", low=0.0, high=1.0),
    Key("hetero.slowdown_factor", "float", 4.0, "how many times as long a slow gradient takes", low=1.0, high=1e6),
    Key("hetero.slowdown_steps", "int", 1, "steps in a row that are slow together", low=1),
    Key("hetero.clock", "str", "machine", "of asynchronous algorithms; machine: vertices take the time that they take; virtual: modelled time, all vertices in one process", ("machine", "virtual")),
    Key("hetero.step_s", "float", 0.1, "virtual clock: seconds of a gradient at speed 1", low=1e-6, high=1e6),
    Key("hetero.least_step_s", "float", 0.0, "the machine's clock: seconds that a gradient at speed 1 takes at least, emulated by sleeping", low=0.0, high=1e6),
    Key("hetero.link_delay_s", "float", 0.0, "seconds until what is sent over an edge arrives, whatever its size, emulated; averages over all vertices are not held up", low=0.0, high=1e6),
    Key("hetero.link_bandwidth", "float", 0.0, "bytes a second over an edge, emulated, 1 or more; 0: without bound", low=0.0),
    Key("hetero.node_size", "int", 1, "vertices of a modelled node, contiguous; edges within one have neither emulated delay nor bound", low=1),
    Key("transport.name", "str", "auto", "inprocess: one process; shared: rows of a node are read in place, those of other nodes come by messages (asynchronous: one-sided reads); neighbor: messages between all ranks; asynchronous algorithms: rma: one-sided reads between all ranks; p2p: messages, for an MPI without one-sided progress (mpiconsensus doctor --mpi); auto: the fastest that fits", tuple(dict.fromkeys(("auto", *EXCHANGES, *MAILBOXES)))),
    Key("transport.reduction", "str", "ordered", "averages over all vertices: ordered (bit-identical for every placement) or mpi (MPI_Allreduce)", ("ordered", "mpi")),
    Key("evaluation.every", "int", 0, "epochs between evaluations; 0: as often as a tenth of the training time allows", low=0),
    Key("evaluation.samples", "int", 0, "test samples of an evaluation within the run; 0: as many as a tenth of the training time allows; the closing one takes all", low=0),
    Key("evaluation.batch_size", "int", 64, "samples a forward pass of an evaluation", low=1),
    Key("evaluation.validation_fraction", "float", 0.0, "share of each shard held out for choosing; above 0 the test set is touched at the end only", low=0.0, high=0.9),
    Key("checkpoint.every_minutes", "float", 10.0, "minutes of training between two checkpoints, by the clock of rank 0; 0: not by the clock", low=0.0),
    Key("checkpoint.every_epochs", "int", 0, "epochs between two checkpoints; 0: not by epochs", low=0),
    Key("log.directory", "str", "runs", "where run directories are made"),
    Key("log.name", "str", "", "name of the run directory; empty: from the job, numbered"),
    Key("log.gradient_norm", "bool", False, "log the 2-norm of the mean over vertices of their gradients at every step (an average over all vertices a step)"),
    Key("log.flush_s", "float", 30.0, "longest time between two flushes of a rank's log, in seconds", low=0.0),
]
BY_NAME = {key.name: key for key in KEYS}
SWEEPS = {"grid", "run"}  # tables by which a sweep is told from a job
TABLES = list(dict.fromkeys(key.name.split(".")[0] for key in KEYS))


class Job:
    """A checked job: `job.training.lr`, one namespace a table. `name` is the job file's stem, or empty."""

    def __init__(self, values, name=""):
        self.name = name
        for table in TABLES:
            setattr(self, table, SimpleNamespace())
        for key in KEYS:
            table, word = key.name.split(".")
            setattr(getattr(self, table), word, values.get(key.name, key.default))

    def get(self, name):
        table, word = name.split(".")
        return getattr(getattr(self, table), word)

    def replace(self, **changes):
        """Return a copy with `table__key=value` replaced and checked."""
        values = {key.name: self.get(key.name) for key in KEYS}
        for word, value in changes.items():
            name = word.replace("__", ".", 1)
            values[name] = check(find(name), value)
        return Job(values, self.name)

    def to_toml(self):
        """Return the resolved job as TOML; read back it gives the same job."""
        lines = []
        for table in TABLES:
            lines.append(f"[{table}]")
            lines += [f"{k.name.split('.')[1]} = {toml_value(self.get(k.name))}" for k in KEYS if k.name.startswith(table + ".")]
            lines.append("")
        return "\n".join(lines)


def load(path=None, overrides=()):
    """Return the Job of a TOML file (None: every default) with `table.key=value` overrides applied."""
    values, name = {}, ""
    if path is not None:
        path = Path(path)
        name = path.stem
        tables = read_toml(path)
        if SWEEPS & tables.keys():
            raise UserError(f"{str(path)!r} is a sweep, which is many runs: use `mpiconsensus sweep {path}`.")
        values = _flatten(tables, str(path))
    return Job(values | dict(map(override, overrides)), name)


def override(text):
    """Return (name, value) of a `table.key=value` of the command line, checked."""
    word, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text!r}: write table.key=value, for example --set training.epochs=3.")
    key = find(word.strip())
    return key.name, check(key, _parse(value.strip(), key.kind))


def loads(text, where):
    """Return the Job of a TOML text, as `to_toml` gives it; `where` names it in errors."""
    try:
        return Job(_flatten(tomllib.loads(text), where))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where} is not TOML: {error}.") from None


def find(name):
    """Return the Key called `name`, or raise UserError with the nearest one."""
    if name not in BY_NAME:
        table = name.split(".")[0]
        here = [k.name for k in KEYS if k.name.startswith(table + ".")]
        allowed = f"keys of [{table}]: {', '.join(k.split('.')[1] for k in here)}." if here else f"tables: {', '.join(TABLES)}."
        raise UserError(f"unknown key {name!r}; {allowed}{did_you_mean(name, BY_NAME)} `mpiconsensus config` lists all.")
    return BY_NAME[name]


def check(key, value):
    """Return `value` as the key's type, or raise UserError that names the key, the value and what is allowed."""

    def refuse(allowed, hint=""):
        raise UserError(f"{key.name} = {toml_value(value)} is not allowed; {allowed}.{hint}")

    if key.kind in ("ints", "floats"):
        if isinstance(value, list):
            return [check(key._replace(kind=key.kind[:-1]), item) for item in value]
        if isinstance(key.default, list):
            refuse("give a list of numbers, for example [1, 2]")
        return check(key._replace(kind=key.kind[:-1]), value)
    if key.kind == "bound":
        if value in ("inf", math.inf):
            return math.inf
        if not isinstance(value, int) or isinstance(value, bool):
            refuse("give a whole number, or inf")
        return check(key._replace(kind="int"), value)
    kinds = {"int": int, "float": (int, float), "bool": bool, "str": str}[key.kind]
    if not isinstance(value, kinds) or (isinstance(value, bool) and key.kind != "bool"):
        refuse({"int": "give a whole number", "float": "give a number", "bool": "give true or false", "str": "give a text"}[key.kind])
    if key.kind == "float":
        value = float(value)
        if not math.isfinite(value):
            refuse("give a finite number")
    paths = tuple(choice[:-4] for choice in key.choices if choice.endswith(":PATH"))
    if key.choices and value not in key.choices and not (paths and value.startswith(paths) and value not in paths):
        refuse(f"choose one of {', '.join(key.choices)}", did_you_mean(value, key.choices))
    if key.low is not None and value < key.low:
        refuse(f"the smallest value is {key.low:g}")
    if key.high is not None and value > key.high:
        refuse(f"the largest value is {key.high:g}")
    return value


def per_vertex(name, value, n):
    """Return the list of n numbers that a key of kind ints or floats stands for; UserError on another length."""
    if not isinstance(value, list):
        return [value] * n
    if len(value) != n:
        raise UserError(f"{name} has {len(value)} entries, the graph has {n} vertices; give one number, or {n} of them.")
    return value


def toml_value(value):
    """Return a TOML literal of a str, bool, int, float or list of these."""
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, float):
        return repr(value)
    # TOML forbids one character that JSON allows.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


def read_toml(path, what="job file"):
    """Return the tables of a TOML file, or raise UserError; `what` names it there."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        without = ", and without a job file every default applies" if what == "job file" else ""
        raise UserError(f"{what} {str(path)!r} does not exist; examples lie in jobs/{without}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {str(path)!r} cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{what} {str(path)!r} is not TOML: {error}.") from None


def _flatten(tables, where):
    values = {}
    for table, entries in tables.items():
        if not isinstance(entries, dict):
            raise UserError(f"{where}: key {table!r} stands outside any table; write it under [table], tables are {', '.join(TABLES)}.")
        if table not in TABLES:
            raise UserError(f"{where}: unknown table [{table}]; tables are {', '.join(TABLES)}.{did_you_mean(table, TABLES)}")
        for word, value in entries.items():
            try:
                key = find(f"{table}.{word}")
                values[key.name] = check(key, value)
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
    return values


def _parse(text, kind):
    """Return the value of `text` on the command line: TOML where it is TOML, else the bare word."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        value = text
    return text if kind == "str" and not isinstance(value, str) else value
