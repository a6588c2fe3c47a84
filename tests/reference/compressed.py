"""Methods with compressed messages, written from their papers: all vertices in one process, float64, no transport.

n vertices, d parameters. g(X) -> (n, d): each vertex's gradient at its own row of X (n, d). c(k, V) -> (n, d): what the
compressor of each vertex makes of its row at step k. Each function returns the X of every step, (steps, n, d).
"""

import numpy as np


def top(v, k):
    kept = np.zeros_like(v)
    where = np.argsort(-np.abs(v), kind="stable")[:k]
    kept[where] = v[where]
    return kept


def sign(v):
    return np.abs(v).mean() * np.copysign(1.0, v)


def best_rank(v, m, r):
    u, s, vt = np.linalg.svd(v.reshape(m, -1), full_matrices=False)
    return ((u[:, :r] * s[:r]) @ vt[:r]).ravel()


def at(v, where, factor=1.0):
    """Keep the elements `where`, times a factor."""
    kept = np.zeros_like(v)
    kept[where] = factor * v[where]
    return kept


def dither(v, s, u):
    """Alistarh et al. 2017: |v| s / norm rounded up with the probability of its fraction; u (d,): uniform numbers."""
    norm = np.linalg.norm(v)
    scaled = s * np.abs(v) / norm
    low = np.floor(scaled)
    return norm * np.sign(v) * (low + (u >= 1 - (scaled - low))) / s


def among_all(direction):
    """Make a method of a generator that is sent the mean point and yields the step to subtract from it."""

    def method(x, g, a, c, steps, **words):
        n, seen, points = len(x), [], direction(g, a, c, **words)
        next(points)
        for k in range(steps):
            x = x - points.send((k, x))
            next(points)
            assert np.ptp(x, axis=0).max() == 0, "all have the same point"
            seen.append(np.tile(x[0], (n, 1)))
        return np.array(seen)

    return method


@among_all
def dcgd(g, a, c):
    while True:
        k, x = yield
        yield a * c(k, g(x)).mean(axis=0)


@among_all
def ef14(g, a, c):
    error = 0.0
    while True:
        k, x = yield
        wanted = error + a * g(x)
        told = c(k, wanted)
        error = wanted - told
        yield told.mean(axis=0)


@among_all
def ef21(g, a, c, eta=1.0):
    k, x = yield
    v = known = g(x)
    yield a * known.mean(axis=0)
    while True:
        k, x = yield
        v = (1 - eta) * v + eta * g(x)
        known = known + c(k, v - known)
        yield a * known.mean(axis=0)


@among_all
def diana(g, a, c, zeta):
    h = 0.0
    while True:
        k, x = yield
        told = c(k, g(x) - h)
        yield a * (h + told).mean(axis=0)
        h = h + told / zeta


@among_all
def marina(g, a, c, coin):
    """coin(k): whether gradients are sent as they are at step k > 0."""
    k, x = yield
    before = g(x)
    direction = before.mean(axis=0)
    yield a * direction
    while True:
        k, x = yield
        there = g(x)
        direction = there.mean(axis=0) if coin(k) else direction + c(k, there - before).mean(axis=0)
        before = there
        yield a * direction


def choco(x, g, a, c, steps, w, gamma):
    """Koloskova, Stich & Jaggi 2019, algorithm 2: copies[i, j] is what vertex i knows of x_j."""
    n, seen = len(x), []
    near = [[j for j in range(n) if w[i, j] or i == j] for i in range(n)]
    copies = {(i, j): np.zeros(x.shape[1]) for i in range(n) for j in near[i]}
    for k in range(steps):
        half = x - a * g(x) if a else x
        told = c(k, half - np.array([copies[i, i] for i in range(n)]))
        copies = {(i, j): known + told[j] for (i, j), known in copies.items()}
        x = np.array([half[i] + gamma * sum(w[i, j] * (copies[i, j] - copies[i, i]) for j in near[i]) for i in range(n)])
        seen.append(x)
    return np.array(seen)


def beer(x, g, a, c, steps, w, gamma):
    """Zhao et al. 2022, algorithm 1, with G^0 = C(V^0) and H^0 = 0."""
    seen, gap, v, h, known = [], w - np.eye(len(x)), g(x), 0 * x, 0 * x
    for k in range(steps):
        moved = x + gamma * gap @ h - a * v
        h = h + c(k, moved - h)
        known = known + c(k, v - known)
        v = v + gamma * gap @ known + g(moved) - g(x)
        x = moved
        seen.append(x)
    return np.array(seen)
