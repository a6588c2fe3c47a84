"""Each algorithm on an (n, d) matrix X of parameters. W: (n, n), row = receiver; G(X, k): (n, d) gradients.

step(k, X, G, a, W, edges, options) -> the X of the next step. Written from the papers, apart from the package.
"""

import numpy as np


def weights(n, edges):
    """Metropolis: 1 / (1 + the larger degree) on an edge, the rest of a row on the diagonal."""
    degree = np.bincount(np.ravel(edges), minlength=n)
    w = np.zeros((n, n))
    for i, j in edges:
        w[i, j] = w[j, i] = 1 / (1 + max(degree[i], degree[j]))
    return w + np.diag(1 - w.sum(axis=1))


def consensus(k, x, g, a, w, period=1, rounds=1, order="atc"):
    m = np.linalg.matrix_power(w, rounds) if k % period == 0 else np.eye(len(w))
    if order == "atc":
        return m @ (x - a * g(x, k))
    if order == "cta":
        x = m @ x
        return x - a * g(x, k)
    return m @ x - a * g(x, k)


def unequal(k, x, g, a, w, train_every, period, mix):
    """Vertices that train every train_every[i] steps and mix every period[i]."""
    n = len(w)
    trains = np.array([k % q == 0 for q in train_every])
    mixes = np.array([k % q == 0 for q in period])
    x = x - a * trains[:, None] * g(x, k)
    if mix == "thesis":
        m = np.where(mixes[:, None], w, np.eye(n))
    else:
        m = np.where(np.outer(mixes, mixes), w, 0.0)
        np.fill_diagonal(m, 0.0)
        m += np.diag(1 - m.sum(axis=1))
    return m @ x


def gossip(k, x, g, a, pairs):
    """pairs: the edges that were drawn for step k, in order."""
    x = x - a * g(x, k)
    for i, j in pairs:
        x[[i, j]] = x[[i, j]].mean(axis=0)
    return x


def push_sum(k, x, w, g, a, matrix):
    """x: sums, w: push-sum weights; matrix: column-stochastic. Return the next (x, w); de-biased: x / w."""
    x = x - a * g(x / w[:, None], k)
    return matrix @ x, matrix @ w


def overlap_push_sum(k, x, w, flight, g, a, matrix, starts):
    """Overlap SGP, one step late: flight: (x, w) of what was sent at the step before. Return the next x, w, flight.

    matrix: column-stochastic, that of the exchange that starts at step k; starts: whether one does.
    """
    x = x - a * g(x / w[:, None], k)
    kept = np.diag(matrix) if starts else np.ones(len(w))
    off = (matrix - np.diag(np.diag(matrix))) * starts
    return kept[:, None] * x + flight[0], kept * w + flight[1], (off @ x, off @ w)


def column_stochastic(n, arcs):
    """1 / (1 + out-degree) for each arc (sender, receiver) and for the sender itself."""
    a = np.eye(n)
    for j, i in arcs:
        a[i, j] = 1.0
    return a / a.sum(axis=0)


def local_sgd(k, x, g, a, tau):
    x = x - a * g(x, k)
    return np.broadcast_to(x.mean(axis=0), x.shape).copy() if (k + 1) % tau == 0 else x


def one_shot(k, x, g, a, last):
    x = x - a * g(x, k)
    return np.broadcast_to(x.mean(axis=0), x.shape).copy() if k == last else x


def allreduce(k, x, g, a):
    return x - a * g(x, k).mean(axis=0)


def softmax_gradient(row, x, y, classes):
    """Gradient of the mean cross entropy of logits W x + b at row = (W, b) flattened; x (B, p), y (B,)."""
    p = x.shape[1]
    w, b = row[: classes * p].reshape(classes, p), row[classes * p :]
    z = x @ w.T + b
    z = np.exp(z - z.max(axis=1, keepdims=True))
    z /= z.sum(axis=1, keepdims=True)
    z[np.arange(len(y)), y] -= 1
    z /= len(y)
    return np.concatenate([(z.T @ x).ravel(), z.sum(axis=0)])
