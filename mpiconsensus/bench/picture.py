"""The picture of a measurement: times of a round against the size of the model, or a point a side; ranges as bars."""

import textwrap
from contextlib import contextmanager
from itertools import cycle

# Okabe and Ito's colours, with dashes and markers: told apart by the colour-blind, and in grey.
STYLES = [("#0072B2", "-", "o"), ("#D55E00", "--", "s"), ("#009E73", "-.", "^"), ("#CC79A7", ":", "D"), ("#E69F00", (0, (5, 1)), "v")]
SETTINGS = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "lines.linewidth": 1.2,
            "pdf.fonttype": 42, "svg.fonttype": "none"}  # fmt: skip


def rounds(result):
    """Return the figure of `bench round`: medians over parameters on logarithmic axes; the floor dashed."""
    sizes = sorted(result["figures"], key=lambda size: size["parameters"])
    x = [size["parameters"] for size in sizes]
    names = list(dict.fromkeys(n for size in sizes for n, side in size["sides"].items() if "over_floor" in side))
    with _drawing(result) as (figure, axis):
        floor = [1e3 * size["floor_s"] for size in sizes]
        axis.plot(x, floor, color="black", linestyle="--", marker="_", label="floor: a copy of the same bytes")
        if result["switch"]:
            switched, count = [1e3 * size["floor_and_switches_s"] for size in sizes], result["switch"]["in_a_round"]
            axis.plot(x, switched, color="0.5", linestyle=":", marker="_", label=f"floor + {count} switch{'es' * (count != 1)}")
        for name, (colour, dashes, marker) in zip(names, cycle(STYLES)):
            here = [size for size in sizes if name in size["sides"]]
            median, spread = _milliseconds([size["sides"][name] for size in here])
            look = {"color": colour, "linestyle": dashes, "marker": marker, "markersize": 4, "capsize": 2}
            axis.errorbar([size["parameters"] for size in here], median, spread, label=name, **look)
        axis.set(xscale="log", yscale="log", xlabel="parameters", ylabel="ms a round")
        axis.grid(color="0.9", linewidth=0.5)
        axis.legend(frameon=False)
    return figure


def points(result):
    """Return the figure of `bench loader` and `bench step`: medians of the sides, ranges as bars."""
    sides = result["figures"]["sides"]
    with _drawing(result) as (figure, axis):
        median, spread = _milliseconds(sides.values())
        axis.errorbar(median, range(len(sides)), xerr=spread, fmt="o", color="#0072B2", capsize=3)
        axis.set_yticks(range(len(sides)), list(sides))
        axis.set_ylim(len(sides) - 0.5, -0.5)
        if result["kind"] == "loader":  # a bare indexing and a model step lie orders of magnitude apart
            axis.set(xscale="log", xlabel="ms a batch")
        else:
            axis.set(xlim=(0, None), xlabel="ms a step")
        axis.grid(color="0.9", linewidth=0.5)
    return figure


def _milliseconds(sides):
    """Return (medians, [below, above]) of timing.figures, in milliseconds."""
    below, above = ([1e3 * abs(side[end] - side["median_s"]) for side in sides] for end in ("min_s", "max_s"))
    return [1e3 * side["median_s"] for side in sides], [below, above]


@contextmanager
def _drawing(result):
    """Give a matplotlib figure with a canvas of its own, no window and no global state, and its one axis."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    machine, settings = result["machine"], result["settings"]
    ranks = f"{machine['ranks']} rank{'s' * (machine['ranks'] > 1)} x {machine['threads']}"
    title = [*textwrap.wrap(settings["what"], 75), f"{machine['cpu']}, {machine['cores']} cores, {ranks}"]
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(4.8, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle("\n".join(title).replace("$", r"\$"), fontsize=8)
        yield figure, figure.subplots()
