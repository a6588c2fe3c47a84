"""Who owns which sample: division of a data set over vertices, and held-out parts.

All functions are local and pure: the same arguments give the same indices on every rank.

Array legend: N samples, n vertices, C classes.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from mpiconsensus.errors import UserError, did_you_mean
from mpiconsensus.randomness import generator


class Form(NamedTuple):
    """One form of a partition: an example of its spec, what it means, the kind of its argument (None: it has none)."""

    example: str
    meaning: str
    kind: type | None = None


FORMS = {
    "iid": Form("iid", "at random"),
    "dirichlet": Form("dirichlet:0.3", "each class divided by proportions drawn from Dirichlet(ALPHA)", float),
    "labels": Form("labels:2", "K classes a vertex", int),
    "sorted": Form("sorted", "sorted by class, then cut"),
    "contiguous": Form("contiguous", "in the order of the data set, cut into equal parts, the last with the remainder"),
    "by": Form("by:label", "samples with the same value of a column stay together", str),
    "owners": Form("owners", "samples with the same id in a file of owners stay together"),
}
EXACT = ("iid", "sorted")  # their sizes are `sizes(...)`; the others' follow the labels or the owners, or leave the remainder to the last
ALPHA = 1e-4, 1e6


def parse(spec):
    """Return (form, argument) of a spec such as iid, dirichlet:0.3 or labels:2; raise UserError for another."""
    name, colon, word = str(spec).partition(":")
    form = FORMS.get(name)
    allowed = ", ".join(f.example for f in FORMS.values())
    if form is None:
        raise UserError(f"partition {spec!r} is not known; write one of {allowed}.{did_you_mean(name, FORMS)}")
    if bool(colon) != (form.kind is not None):
        raise UserError(f"partition {spec!r}: {name} takes {'one word behind a colon' if form.kind else 'nothing behind it'}; for example {form.example}.")
    if form.kind is None:
        return name, None
    try:
        argument = form.kind(word)
    except ValueError:
        argument = None
    if name == "dirichlet" and not (argument is not None and ALPHA[0] <= argument <= ALPHA[1]):
        raise UserError(f"partition {spec!r}: alpha is a number from {ALPHA[0]:g} to {ALPHA[1]:g}; for example {form.example}.")
    if name == "labels" and not (argument is not None and argument >= 1):
        raise UserError(f"partition {spec!r}: the number of classes a vertex is 1 or more; for example {form.example}.")
    if name == "by" and not argument:
        raise UserError(f"partition {spec!r} names no column; for example {form.example}.")
    return name, argument


def assign(spec, labels, n, seed, powers=None, ids=None):
    """Return n ascending int64 index arrays, none empty, that hold each of 0..N-1 once.

    `labels` (N,) int64 are classes; `ids` (N,) owners of samples, for by:COLUMN and owners; `powers` as in `sizes`.

    iid            a random permutation, cut into `sizes`
    sorted         samples in the order of their classes, cut into `sizes`
    contiguous     samples in their order: N // n each, the last vertex also takes the remainder; where the powers differ, cut into
                   `sizes`
    dirichlet:A    class c is cut at random by q_c ~ Dirichlet(A n p), p the powers' shares: A for each vertex where they
                   are equal (Yurochkin et al., Bayesian Nonparametric Federated Learning of Neural Networks, ICML 2019,
                   section 4). A vertex left without takes a sample of the largest.
    labels:K       a vertex takes the K classes that fewest have, at random among equals; a class is cut at random, in
                   proportion to the powers of those that take it
    by, owners     owners are given whole, the largest first, to the vertex with the fewest samples for its power; as many
                   owners as vertices: one each, in ascending order

    Raise UserError for fewer samples than vertices, and where classes or owners do not go round.
    """
    name, argument = parse(spec)
    count = len(labels)
    powers = check_powers(powers, n)
    exact = sizes(count, n, powers)
    if name == "iid":
        return divide(count, n, seed, powers)
    if name == "sorted":
        parts = np.split(np.argsort(labels, kind="stable"), np.cumsum(exact)[:-1])
    elif name == "contiguous":
        equal = powers is None or len(set(powers)) == 1
        parts = np.split(np.arange(count), np.arange(1, n) * (count // n) if equal else np.cumsum(exact)[:-1])
    elif name == "dirichlet":
        parts = _dirichlet(argument, labels, n, seed, powers or [1.0] * n)
    elif name == "labels":
        parts = _labels(argument, labels, n, seed, powers or [1.0] * n)
    else:
        parts = _owners(spec, np.asarray(ids), n, powers or [1.0] * n)
    return [np.sort(part).astype(np.int64, copy=False) for part in parts]


def _classes(labels, random):
    """Yield (class, its samples in random order) of the classes that have samples."""
    for label in np.unique(labels):
        yield int(label), random.permutation(np.flatnonzero(labels == label))


def _dirichlet(alpha, labels, n, seed, powers):
    random = generator(seed, "partition")
    shares = np.array(powers) / max(powers)
    concentration = np.maximum(alpha * n * shares / shares.sum(), 1e-300)
    parts = [[] for _ in range(n)]
    for _, rows in _classes(labels, random):
        cuts = np.rint(np.cumsum(random.dirichlet(concentration))[:-1] * len(rows)).astype(np.int64)
        for part, piece in zip(parts, np.split(rows, cuts)):
            part.append(piece)
    parts = [np.concatenate(part) for part in parts]
    lengths = np.array([len(part) for part in parts])
    for vertex in np.flatnonzero(lengths == 0):
        largest = int(np.argmax(lengths))
        given = random.integers(lengths[largest])
        parts[vertex] = parts[largest][given : given + 1]
        parts[largest] = np.delete(parts[largest], given)
        lengths[[vertex, largest]] = 1, lengths[largest] - 1
    return parts


def _labels(k, labels, n, seed, powers):
    random = generator(seed, "partition")
    classes = dict(_classes(labels, random))
    if k > len(classes):
        raise UserError(f"partition labels:{k}: the data have {len(classes)} classes; take labels:{len(classes)} at most.")
    if n * k < len(classes):
        raise UserError(
            f"partition labels:{k}: {n} vertices with {k} of {len(classes)} classes each leave classes without a vertex; "
            f"take labels:{-(-len(classes) // n)} or more."
        )
    takers = {label: [] for label in classes}
    for vertex in random.permutation(n):
        # Fewest first, equals at random: every class has as many takers as any other, or one less.
        order = sorted(random.permutation(list(classes)).tolist(), key=lambda label: len(takers[label]))
        for label in order[:k]:
            takers[label].append(int(vertex))
    parts = [[] for _ in range(n)]
    for label, rows in classes.items():
        if len(rows) < len(takers[label]):
            raise UserError(
                f"partition labels:{k}: class {label} has {len(rows)} samples for {len(takers[label])} vertices; "
                f"take a smaller number of classes a vertex, fewer vertices, or more data."
            )
        counts = sizes(len(rows), len(takers[label]), [powers[vertex] for vertex in takers[label]])
        for vertex, piece in zip(takers[label], np.split(rows, np.cumsum(counts)[:-1])):
            parts[vertex].append(piece)
    return [np.concatenate(part) for part in parts]


def _owners(spec, ids, n, powers):
    owners, owner_of, counts = np.unique(ids, return_inverse=True, return_counts=True)
    if len(owners) < n:
        raise UserError(
            f"partition {spec}: {len(owners)} owners for {n} vertices, and an owner's samples stay together; "
            f"choose a graph of {len(owners)} vertices or fewer."
        )
    if len(owners) == n:
        return [np.flatnonzero(owner_of == owner) for owner in range(n)]
    load, vertex_of = np.zeros(n), np.empty(len(owners), np.int64)
    for rank, owner in enumerate(np.argsort(-counts, kind="stable")):
        # The first n owners go to n vertices, the strongest first: nobody stays without.
        free = np.argsort(-np.array(powers), kind="stable")[rank] if rank < n else np.argmin((load + counts[owner]) / powers)
        vertex_of[owner] = free
        load[free] += counts[owner]
    return [np.flatnonzero(vertex_of[owner_of] == vertex) for vertex in range(n)]


def histogram(parts, labels, classes):
    """Return the samples of each class at each vertex, int64 (n, C)."""
    return np.array([np.bincount(labels[part], minlength=classes) for part in parts])


def skew(counts):
    """Return the label skew of each vertex, float64 (n,), of a histogram (n, C); 0 where a vertex is like the whole.

    The total variation distance between the vertex's distribution of labels and that of all samples,
    1/2 sum_c |h_ic / N_i - h_c / N|: the share of its samples that would have to change class.
    """
    counts = np.asarray(counts, np.float64)
    whole = counts.sum(axis=0) / counts.sum()
    return 0.5 * np.abs(counts / counts.sum(axis=1, keepdims=True) - whole).sum(axis=1)


def divide(count, n, seed, powers=None):
    """Return n ascending int64 index arrays that divide 0..count-1 at random.

    Independent and identically distributed parts: a random permutation, cut into pieces of `sizes(...)`.
    Raise UserError as `sizes` does.
    """
    cuts = np.cumsum(sizes(count, n, powers))[:-1]
    order = generator(seed, "partition").permutation(count).astype(np.int64, copy=False)
    return [np.sort(part) for part in np.split(order, cuts)]


def sizes(count, n, powers=None):
    """Return n sample counts in proportion to `powers` (None or empty: equal) that sum to `count`.

    Largest remainders take what the whole parts leave, the lower vertex first among equals; a vertex whose
    share is below one sample gets one from the largest. Raise UserError for powers that are not n positive
    numbers, and for fewer samples than vertices.
    """
    powers = check_powers(powers, n) or [1] * n
    if count < n:
        raise UserError(
            f"fewer samples than vertices: {count} samples for {n} vertices; choose a smaller graph or more data."
        )
    # Fractions: exact for every float, so that equal shares are equal.
    shares = [Fraction(power) for power in powers]
    total = sum(shares)
    shares = [count * share / total for share in shares]
    result = [math.floor(share) for share in shares]
    by_remainder = sorted(range(n), key=lambda i: result[i] - shares[i])
    for i in by_remainder[: count - sum(result)]:
        result[i] += 1
    for i in range(n):
        if result[i] == 0:
            result[result.index(max(result))] -= 1
            result[i] = 1
    return result


def check_powers(powers, n):
    """Return `powers` as a list (None or empty: None); raise UserError unless they are n positive finite numbers."""
    if powers is None or len(powers) == 0:
        return None
    powers = list(powers)
    if len(powers) != n:
        raise UserError(f"{len(powers)} powers for {n} vertices; give {n} positive numbers, one a vertex, or none.")
    for vertex, power in enumerate(powers):
        if not (power > 0 and math.isfinite(power)):
            raise UserError(f"the power of vertex {vertex} is {power}; give positive, finite numbers.")
    return powers


def hold_out(count, held, seed, vertex=0):
    """Return (kept, held) ascending int64 indices of a random division of 0..count-1; `held` of them held out."""
    order = generator(seed, "hold-out", vertex).permutation(count).astype(np.int64, copy=False)
    return np.sort(order[held:]), np.sort(order[:held])
