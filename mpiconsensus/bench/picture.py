"""The picture of a measurement: seconds of a round against the size of the model, or bars with their range."""

# Okabe and Ito's colours, with dashes and markers: told apart by the colour-blind, and in grey.
STYLES = [("#0072B2", "-", "o"), ("#D55E00", "--", "s"), ("#009E73", "-.", "^"), ("#CC79A7", ":", "D"), ("#E69F00", (0, (5, 1)), "v")]
SETTINGS = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "lines.linewidth": 1.2,
            "pdf.fonttype": 42, "svg.fonttype": "none"}  # fmt: skip


def rounds(result):
    """Return the figure of `bench round`: medians over parameters on logarithmic axes, ranges as bars; the floor dashed."""
    sizes = sorted(result["figures"], key=lambda size: size["parameters"])
    x = [size["parameters"] for size in sizes]
    names = list(dict.fromkeys(n for size in sizes for n, side in size["sides"].items() if "over_floor" in side))
    with _figure() as (figure, axis):
        axis.plot(x, [1e3 * size["floor_s"] for size in sizes], color="black", linestyle="--", marker="_", label="floor: a copy of the same bytes")
        if result["switch"]:
            switched = [1e3 * size["floor_and_switches_s"] for size in sizes]
            count = result["switch"]["in_a_round"]
            axis.plot(x, switched, color="0.5", linestyle=":", marker="_", label=f"floor + {count} switch{'es' * (count != 1)}")
        for name, (colour, dashes, marker) in zip(names, STYLES * len(names)):
            here = [(size["parameters"], size["sides"][name]) for size in sizes if name in size["sides"]]
            median = [1e3 * side["median_s"] for _, side in here]
            spread = [[1e3 * (side["median_s"] - side["min_s"]) for _, side in here], [1e3 * (side["max_s"] - side["median_s"]) for _, side in here]]
            look = {"color": colour, "linestyle": dashes, "marker": marker, "markersize": 4, "capsize": 2}
            axis.errorbar([at for at, _ in here], median, spread, label=name, **look)
        axis.set(xscale="log", yscale="log", xlabel="parameters", ylabel="ms a round", title=_title(result))
        axis.grid(color="0.9", linewidth=0.5)
        axis.legend(frameon=False)
    return figure


def bars(result):
    """Return the figure of `bench loader` and `bench step`: a bar a side, its median; the line is the range."""
    sides = result["figures"]["sides"]
    with _figure() as (figure, axis):
        median = [1e3 * side["median_s"] for side in sides.values()]
        spread = [[1e3 * (side["median_s"] - side["min_s"]) for side in sides.values()], [1e3 * (side["max_s"] - side["median_s"]) for side in sides.values()]]
        axis.barh(list(sides), median, xerr=spread, capsize=2, color=[STYLES[i % len(STYLES)][0] for i in range(len(sides))], height=0.6)
        axis.invert_yaxis()
        axis.set(xlabel="ms a batch" if result["kind"] == "loader" else "ms a step", title=_title(result))
    return figure


class _figure:
    """A matplotlib figure and its one axis, drawn with SETTINGS; its own canvas, no window and no global state."""

    def __enter__(self):
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.settings = matplotlib.rc_context(SETTINGS)
        self.settings.__enter__()
        figure = Figure(figsize=(4.8, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots()

    def __exit__(self, *error):
        self.settings.__exit__(*error)


def _title(result):
    machine = result["machine"]
    ranks, cores = machine["ranks"], machine["cores"]
    return f"{result['settings']['what']}\n{machine['cpu']}, {ranks} rank{'s' * (ranks > 1)} x {machine['threads']}, {cores} cores".replace("$", r"\$")
