"""Pictures of graphs, their weights and their consensus; matplotlib. Readable in grey: dashes, markers and signs beside colours."""

import math
from contextlib import contextmanager
from itertools import cycle

import numpy as np

from mpiconsensus import rates, sparse
from mpiconsensus.errors import UserError

MOST = 500
SETTINGS = {"font.size": 8, "axes.linewidth": 0.6, "pdf.fonttype": 42, "svg.fonttype": "none", "axes.titlesize": 8}
# Okabe and Ito's colours from dark to light, with markers.
STYLES = [("#000000", "o"), ("#0072B2", "s"), ("#D55E00", "^"), ("#009E73", "D"), ("#CC79A7", "v"), ("#E69F00", "P"), ("#56B4E9", "X")]
NEGATIVE = "#D55E00"
CIRCLES = ("ring", "circulant", "chords", "complete", "exponential")


def graph_and_weights(net, method):
    """Return the figure of a Net and its W: the graph at the left, W at the right; UserError past MOST vertices.

    Of a graph that changes, the union and the mean of W over its exchanges.
    """
    if net.n > MOST:
        raise UserError(f"graph {net.spec!r} has {net.n} vertices; a picture shows at most {MOST}, take a smaller one of the kind.")
    figures = rates.of_changing(net, method) if net.changing else rates.of_constant(net, method)
    title = f"{net.spec}, {method} weights, $|\\lambda_2|$ = {figures['lambda_2']:.4f}"
    if net.changing:
        rounds = range(rates.exchanges(net))
        W = sum(sparse.at(net, method, k).dense() for k in rounds) / len(rounds)
        title += f", mean over {len(rounds)} exchanges"
    else:
        W = sparse.of(net, method).dense()
    with _figure((8.0, 4.4)) as figure:
        left, right = figure.subplots(1, 2)
        figure.suptitle(title, fontsize=9)
        _graph(figure, left, net, W)
        _heat_map(figure, right, W)
    return figure


def curves(found):
    """Return the figure of simulate.Curve's: measured solid, |lambda_2|^t thin and dashed in the same colour, logarithmic."""
    with _figure((5.4, 3.8)) as figure:
        axis = figure.subplots()
        rounds = len(found[0].disagreement) - 1
        for number, (curve, (colour, marker)) in enumerate(zip(found, cycle(STYLES))):
            label = curve.spec if curve.lambda_2 is None else f"{curve.spec}, $|\\lambda_2|$ = {curve.lambda_2:.4f}"
            y = np.where(curve.disagreement > 0, curve.disagreement, np.nan)
            every = max(1, rounds // 10)
            axis.plot(y, color=colour, linewidth=1.3, marker=marker, markersize=3.5, markevery=(number * every // len(found), every), label=label)
            if curve.bound is not None:
                axis.plot(np.where(curve.bound > 0, curve.bound, np.nan), color=colour, linewidth=0.7, linestyle=(0, (4, 2)))
        axis.plot([], color="0.4", linewidth=0.7, linestyle=(0, (4, 2)), label=r"$|\lambda_2|^t$")
        lowest = min(c.disagreement[c.disagreement > 0].min(initial=1.0) for c in found)
        axis.set(yscale="log", xlim=(0, max(rounds, 1)), ylim=(max(lowest / 3, 1e-17), 2))
        axis.set(xlabel="round t", ylabel=r"disagreement $\|X_t-\bar x\|_F\,/\,\|X_0-\bar x\|_F$")
        axis.grid(color="0.9", linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=7)
    return figure


def save(figure, path):
    """Write a figure in the format of the suffix, whole or not at all."""
    import matplotlib

    from mpiconsensus import outputs

    with matplotlib.rc_context(SETTINGS):
        outputs.put(path, lambda name: figure.savefig(name, dpi=200))


@contextmanager
def _figure(size):
    """Give a figure with a canvas of its own: no window, no global state."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def positions(net):
    """Return where the vertices are drawn, (n, 2), and the periods of a torus, (2,), inf where a side does not close."""
    name, _, text = net.spec.partition(":")
    name = name.removeprefix("one-peer-").removeprefix("directed-")
    if name in ("grid", "torus"):
        return _lattice([int(side) for side in text.split("x")], name == "torus")
    open_ended = np.full(2, np.inf)
    if name in CIRCLES or net.n < 3:
        return _circle(net.n), open_ended
    if name == "star":
        return np.concatenate([np.zeros((1, 2)), _circle(net.n - 1)]), open_ended
    if name == "path":
        return np.stack([np.arange(net.n), np.zeros(net.n)], axis=1), open_ended
    import networkx as nx

    graph = nx.Graph(net.edges.tolist())
    placed = nx.spring_layout(graph, pos=dict(enumerate(_circle(net.n))), seed=1, iterations=300, method="force")
    return np.array([placed[v] for v in range(net.n)]), open_ended


def _circle(n):
    angle = np.pi / 2 - 2 * np.pi * np.arange(n) / n  # vertex 0 at the top, then clockwise
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _lattice(sides, closed):
    """Rows downwards and columns to the right; the first of three sides as layers side by side, a little lower each."""
    layers, rows, columns = [1] * (3 - len(sides)) + sides
    layer, row, column = np.unravel_index(np.arange(layers * rows * columns), (layers, rows, columns))
    at = np.stack([column + 0.37 * layer * (layers > 1), -row + 0.29 * layer * (layers > 1)], axis=1).astype(float)
    period = np.where(np.array([columns, rows]) > 2, (columns, rows), np.inf) if closed and layers == 1 else np.full(2, np.inf)
    return at, period


def _graph(figure, axis, net, W):
    from matplotlib.collections import LineCollection

    at, period = positions(net)
    j, i = net.edges.T if net.directed else net.edges.T[::-1]
    w = W[i, j]
    negative = w < 0
    colours, mappable = _colours(w[~negative])
    axis.set_aspect("equal")
    axis.set_axis_off()
    half = 0.5 / max(1.0, math.sqrt(net.n) / 12)
    for chosen, colour, dashes in ((~negative, colours, "-"), (negative, NEGATIVE, (0, (3, 1.5)))):
        if net.directed:
            _arrows(axis, at, net.edges[chosen], colour)
        else:
            segments, owner = _segments(at[j[chosen]], at[i[chosen]], period)
            colour = colour[owner] if len(colour) == chosen.sum() and not isinstance(colour, str) else colour
            axis.add_collection(LineCollection(segments, colors=colour, linestyles=dashes, linewidths=2.6 * half + 0.3, zorder=1))
    size = np.clip(9000 / net.n, 6, 130)
    axis.scatter(*at.T, s=size, color="white", edgecolor="0.15", linewidth=0.7, zorder=2)
    if net.n <= 60:
        for vertex, place in enumerate(at):
            axis.annotate(str(vertex), place, ha="center", va="center_baseline", fontsize=5 if net.n > 9 else 6, zorder=3)
    axis.margins(0.06)
    axis.autoscale_view()
    if mappable:
        figure.colorbar(mappable, ax=axis, location="bottom", shrink=0.7, aspect=35, label="weight of an edge")
    text = [] if mappable or not (~negative).any() else [f"every {'other ' * bool(negative.any())}edge: {w[~negative][0]:.4g}"]
    if negative.any():
        axis.plot([], color=NEGATIVE, linestyle=(0, (3, 1.5)), label=f"negative: {w.min():.3g}" + f" to {w[negative].max():.3g}" * (negative.sum() > 1))
        axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, -0.08))
    axis.set_title("\n".join(["the graph", *text]))


def _colours(w):
    """Return a colour for each weight, and what a colour bar shows; one colour and None where all are alike."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    if not len(w) or np.ptp(w) < 1e-9:
        return "#0072B2", None
    # From a light that is seen on white to a dark, so that a print in grey keeps the order.
    shades = ListedColormap(colormaps["viridis_r"](np.linspace(0.12, 1, 256)))
    mappable = ScalarMappable(Normalize(w.min(), w.max()), shades)
    return mappable.to_rgba(w), mappable


def _segments(start, end, period):
    """Return the lines of the edges, and of which edge each is: an edge around a torus is a stub at either end."""
    step = end - start
    around = np.abs(step) > period / 2
    short = step - np.where(around, np.sign(step) * np.where(np.isfinite(period), period, 0), 0)
    wraps = around.any(axis=1)
    plain, bent = np.flatnonzero(~wraps), np.flatnonzero(wraps)
    lines = [
        np.stack([start[plain], end[plain]], axis=1),
        np.stack([start[bent], start[bent] + 0.45 * short[bent]], axis=1),
        np.stack([end[bent], end[bent] - 0.45 * short[bent]], axis=1),
    ]
    return np.concatenate(lines), np.concatenate([plain, bent, bent])


def _arrows(axis, at, arcs, colours):
    from matplotlib.patches import FancyArrowPatch

    for number, (sender, receiver) in enumerate(arcs):
        colour = colours if isinstance(colours, str) else colours[number]
        style = {"arrowstyle": "-|>", "mutation_scale": 7, "shrinkA": 5, "shrinkB": 5, "connectionstyle": "arc3,rad=0.12"}
        axis.add_patch(FancyArrowPatch(at[sender], at[receiver], color=colour, linewidth=0.9, zorder=1, **style))
    axis.update_datalim(at)


def _heat_map(figure, axis, W):
    bound = np.abs(W).max()
    image = axis.imshow(W, cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
    i, j = np.nonzero(W < 0)
    if len(i):
        # Both ends of the map are dark in grey: a bar marks what is negative.
        size = np.clip(3200 / len(W) ** 1.6, 0.3, 40)
        axis.scatter(j, i, s=size, marker="_", color="black", linewidth=0.8)
    axis.set(xlabel="sender j", ylabel="receiver i", title="W" + " (bars: negative)" * bool(len(i)))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.yaxis.get_major_locator().set_params(integer=True)
    figure.colorbar(image, ax=axis, location="bottom", shrink=0.7, aspect=35, label="$w_{ij}$")
