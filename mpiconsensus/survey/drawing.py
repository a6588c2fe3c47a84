"""Pictures of graphs, their weights and their consensus; matplotlib. Readable in grey: dashes, markers and signs beside colours."""

import math
from contextlib import contextmanager
from itertools import cycle
from typing import NamedTuple

import numpy as np

from mpiconsensus import outputs
from mpiconsensus.errors import UserError
from mpiconsensus.survey import rates, sparse
from mpiconsensus.survey.rates import SUMS

MOST = 500
MOST_CELLS = 150
SETTINGS = {"font.size": 8, "axes.linewidth": 0.6, "pdf.fonttype": 42, "svg.fonttype": "none", "axes.titlesize": 8}
# Okabe and Ito's colours from dark to light, with markers.
STYLES = [("#000000", "o"), ("#0072B2", "s"), ("#D55E00", "^"), ("#009E73", "D"), ("#CC79A7", "v"), ("#E69F00", "P"), ("#56B4E9", "X")]
NEGATIVE = "#D55E00"
CIRCLES = ("ring", "circulant", "chords", "complete", "exponential", "small-world")


def graph_and_weights(net, method):
    """Return the figure of a Net and its W: the graph at the left, W at the right; UserError past MOST vertices.

    Of a graph that changes, the union and the mean of W over its exchanges.
    """
    if net.n > MOST:
        raise UserError(f"graph {net.spec!r} has {net.n} vertices; a picture shows at most {MOST}, take a smaller one of the kind.")
    figures = rates.of_changing(net, method) if net.changing else rates.of_constant(net, method)
    title = f"{net.spec}, {method} weights, $|\\lambda_2|$ = {figures['lambda_2']:.4f}"
    if net.changing:
        W = rates.average(net, method)
        title += f", mean over {net.changing.period or rates.EXCHANGES} exchanges"
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
            marks = {"marker": marker, "markersize": 3.5, "markevery": (number * every // len(found), every)}
            axis.plot(y, color=colour, linewidth=1.3, label=label, **marks)
            if curve.bound is not None:
                axis.plot(np.where(curve.bound > 0, curve.bound, np.nan), color=colour, linewidth=0.7, linestyle=(0, (4, 2)))
        axis.plot([], color="0.4", linewidth=0.7, linestyle=(0, (4, 2)), label=r"$|\lambda_2|^t$")
        lowest = min(c.disagreement[c.disagreement > 0].min(initial=1.0) for c in found)
        axis.set(yscale="log", xlim=(0, max(rounds, 1)), ylim=(max(lowest / 2, 1e-17), 1.5))
        axis.set(xlabel="round t", ylabel=r"disagreement $\|X_t-\bar x\|_F\,/\,\|X_0-\bar x\|_F$")
        axis.grid(color="0.9", linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=7)
    return figure


def save(figure, path):
    """Write a figure in the format of the suffix, whole or not at all."""
    import matplotlib

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


class Layout(NamedTuple):
    """Where vertices are drawn: coordinates (n, q) times projection (q, 2); period (q,), inf where nothing closes on itself."""

    coordinates: np.ndarray
    projection: np.ndarray = np.eye(2)
    period: np.ndarray = np.full(2, np.inf)

    @property
    def places(self):
        return self.coordinates @ self.projection


def layout(net):
    """Return the Layout of a Net: lattices as lattices, circulants on a circle, others by springs."""
    name, _, text = net.spec.removeprefix("matchings:").partition(":")
    name = name.removeprefix("one-peer-").removeprefix("directed-")
    if name in ("grid", "torus"):
        return _lattice([int(side) for side in text.split("x")], name == "torus")
    if name in CIRCLES or net.n < 3:
        return Layout(_circle(net.n))
    if name == "star":
        return Layout(np.concatenate([np.zeros((1, 2)), _circle(net.n - 1)]))
    if name == "path":
        return Layout(np.stack([np.arange(net.n), np.zeros(net.n)], axis=1))
    import networkx as nx

    graph = nx.Graph(net.edges.tolist())
    placed = nx.spring_layout(graph, pos=dict(enumerate(_circle(net.n))), seed=1, iterations=300, method="force")
    return Layout(np.array([placed[v] for v in range(net.n)]))


def _circle(n):
    angle = np.pi / 2 - 2 * np.pi * np.arange(n) / n  # vertex 0 at the top, then clockwise
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _lattice(sides, closed):
    """Rows downwards and columns to the right; the first of three sides goes backwards."""
    grid = np.stack(np.unravel_index(np.arange(math.prod(sides)), sides), axis=1).astype(float)
    projection = np.array([[0.37, 0.29], [0.0, -1.0], [1.0, 0.0]])[-len(sides) :]
    # Two vertices around a side are neighbours once.
    period = np.array([side if closed and side > 2 else np.inf for side in sides])
    return Layout(grid, projection, period)


def _graph(figure, axis, net, W):
    from matplotlib.collections import LineCollection

    places = layout(net)
    at = places.places
    j, i = net.edges.T if net.directed else net.edges.T[::-1]
    w = W[i, j] if net.directed else (W[i, j] + W[j, i]) / 2
    negative = w < -SUMS
    colours, mappable = _colours(w[~negative])
    axis.set_aspect("equal")
    axis.set_axis_off()
    half = 0.5 / max(1.0, math.sqrt(net.n) / 12)
    for chosen, colour, dashes in ((~negative, colours, "-"), (negative, NEGATIVE, (0, (3, 1.5)))):
        if net.directed:
            _arrows(axis, at, net.edges[chosen], colour)
        else:
            segments, owner = _segments(places, j[chosen], i[chosen])
            colour = colour if isinstance(colour, str) else colour[owner]
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
        low, high = (f"{end(w[negative]):.3g}" for end in (np.min, np.max))
        axis.plot([], color=NEGATIVE, linestyle=(0, (3, 1.5)), label=f"negative: {low}" if low == high else f"negative: {low} to {high}")
        axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, -0.08))
    axis.set_title("".join(text))


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


def _segments(places, start, end):
    """Return the lines of the edges (k, 2, 2), and of which edge each is: an edge around a torus is a stub at either end."""
    at, step = places.coordinates, places.coordinates[end] - places.coordinates[start]
    around = np.abs(step) > places.period / 2
    short = step - np.where(around, np.sign(step) * np.where(around, places.period, 0), 0)
    bent = around.any(axis=1)
    plain, bent = np.flatnonzero(~bent), np.flatnonzero(bent)
    lines = [
        np.stack([at[start[plain]], at[end[plain]]], axis=1),
        np.stack([at[start[bent]], at[start[bent]] + 0.45 * short[bent]], axis=1),
        np.stack([at[end[bent]], at[end[bent]] - 0.45 * short[bent]], axis=1),
    ]
    return np.concatenate(lines) @ places.projection, np.concatenate([plain, bent, bent])


def _arrows(axis, at, arcs, colours):
    from matplotlib.patches import FancyArrowPatch

    for number, (sender, receiver) in enumerate(arcs):
        colour = colours if isinstance(colours, str) else colours[number]
        style = {"arrowstyle": "-|>", "mutation_scale": 7, "shrinkA": 5, "shrinkB": 5, "connectionstyle": "arc3,rad=0.12"}
        axis.add_patch(FancyArrowPatch(at[sender], at[receiver], color=colour, linewidth=0.9, zorder=1, **style))
    axis.update_datalim(at)


def _heat_map(figure, axis, W):
    bound, extend = np.abs(W).max(), "neither"
    if len(W) <= MOST_CELLS:
        image = axis.imshow(W, cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
    else:
        # A cell would be thinner than a pixel: points, and the range of the edges, since there are a pale few of them.
        edge = np.abs(W - np.diag(np.diag(W))).max()
        bound, extend = edge, "both" if edge < bound else "neither"
        i, j = np.nonzero(W)
        image = axis.scatter(j, i, c=W[i, j], s=1.5, marker="s", linewidth=0, cmap="RdBu_r", vmin=-bound, vmax=bound, rasterized=True)
        axis.set(xlim=(-0.5, len(W) - 0.5), ylim=(len(W) - 0.5, -0.5), aspect="equal", facecolor="0.97")
    i, j = np.nonzero(W < -SUMS)
    if len(i):
        # Both ends of the map are dark in grey: a bar marks what is negative.
        size = np.clip(3200 / len(W) ** 1.6, 0.3, 40)
        axis.scatter(j, i, s=size, marker="_", color="black", linewidth=0.8)
    axis.set(xlabel="sender j", ylabel="receiver i", title="W" + " (bars: negative)" * bool(len(i)))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.yaxis.get_major_locator().set_params(integer=True)
    figure.colorbar(image, ax=axis, location="bottom", shrink=0.7, aspect=35, extend=extend, label="$w_{ij}$")
