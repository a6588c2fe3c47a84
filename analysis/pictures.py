"""What the figures have in common: their look, the files that they are saved to, and the errors of a script in one line.

Colours go from dark to light and come with dashes, markers or hatches, so that a print in grey is readable.
"""

import csv
import functools
import os
import sys
from collections import Counter
from pathlib import Path

import click
import numpy as np

from analysis.runs import check_keys, finals
from mpiconsensus.errors import UserError

SUFFIXES = (".png", ".pdf", ".svg")
# Okabe and Ito's colours, which keep apart for the colour-blind and, with the dashes, in grey
STYLES = [("#000000", "-", "o"), ("#0072B2", "--", "s"), ("#D55E00", "-.", "^"), ("#009E73", ":", "D"),
          ("#CC79A7", (0, (5, 1)), "v"), ("#E69F00", (0, (3, 1, 1, 1)), "P"),
          ("#56B4E9", (0, (1, 1)), "X")]  # fmt: skip
SETTINGS = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "lines.linewidth": 1.2,
            "hatch.linewidth": 0.5, "pdf.fonttype": 42, "svg.fonttype": "none"}  # fmt: skip
BELOW = len(STYLES)  # so many entries of a legend stand below the panels, more beside them
SINGLE, DOUBLE = 3.5, 7.2  # widths of a journal's column and page in inches


class Script(click.Command):
    """A script's command: whatever is wrong is one line on standard error and exit code 2."""

    def main(self, args=None, **extra):
        name = Path(self.callback.__globals__["__file__"]).name
        try:
            super().main(args, **{**extra, "standalone_mode": False})
        except UserError as error:
            _tell(name, error, 2)
        except click.ClickException as error:
            _tell(name, error.format_message(), 2)
        except click.Abort:
            _tell(name, "interrupted.", 130)
        except BrokenPipeError:  # the reader of the output went away
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        sys.exit(0)


def _tell(name, message, code):
    click.echo(f"{name}: {message}", err=True)
    sys.exit(code)


def script(doc):
    """Return the decorator of a script's main function; `doc`, its module's docstring, is its help, the usage line left out."""
    text = "\n\n".join(part for part in doc.split("\n\n") if not part.startswith("    "))
    return click.command(cls=Script, help=text, context_settings={"help_option_names": ["-h", "--help"]})


RUNS = click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")


def output(default):
    """Return the option -o of a script that draws."""
    return click.option("-o", "--out", default=default, type=click.Path(path_type=Path), show_default=True,
                        help="Picture: .png, .pdf or .svg; the numbers go beside it as .csv.")  # fmt: skip


def check(out):
    """Raise UserError, ahead of any reading, where a picture cannot be made or `out` cannot take it."""
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"picture {str(out)!r}: the suffix says the format; choose one of {', '.join(SUFFIXES)}.")
    if not out.absolute().parent.is_dir():
        raise UserError(f"picture {str(out)!r}: there is no directory {str(out.parent)!r}; make it, or give another place with -o.")
    _matplotlib()


def _matplotlib():
    try:
        import matplotlib
    except ImportError:
        raise UserError("pictures need matplotlib; install it: pip install matplotlib.") from None
    return matplotlib


def styled(draw):
    """Run a function that draws under SETTINGS."""

    @functools.wraps(draw)
    def inside(*args, **options):
        with _matplotlib().rc_context(SETTINGS):
            return draw(*args, **options)

    return inside


@styled
def canvas(columns=1, width=SINGLE, height=2.7):
    """Return (figure, list of its axes side by side, lettered where there are several); no window and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for axis, letter in zip(axes, "abc", strict=False):
        if columns > 1:
            axis.set_title(letter, loc="left", fontweight="bold")
        axis.grid(color="0.9", linewidth=0.5)
        axis.set_axisbelow(True)
    return figure, axes


@styled
def save(figure, out, rows):
    """Write the picture and, beside it, the rows (dicts with the same keys) as CSV: both whole, or neither."""
    numbers = out.with_suffix(".csv")
    aside = {path: path.with_name(f".{path.name}.{os.getpid()}.new") for path in (numbers, out)}
    try:
        with open(aside[numbers], "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({k: "" if v is None or v != v else v for k, v in row.items()} for row in rows)  # noqa: PLR0124 (NaN)
        figure.savefig(aside[out], format=out.suffix.lower()[1:], dpi=300)
        for path in (numbers, out):
            os.replace(aside[path], path)
    except OSError as error:
        raise UserError(f"cannot write {str(out)!r}: {error.strerror}; give another place with -o.") from None
    finally:
        for path in aside.values():
            path.unlink(missing_ok=True)


def told(out, called):
    """Say what was made, of which runs."""
    click.echo(f"{out} and {out.with_suffix('.csv')}: {', '.join(called)}")


def of_finals(runs, out, rows, draw, *keys):
    """Read the ends of `runs`, draw(rows(ends, *keys), *keys) to `out` with the rows beside it, and say so; keys: of the job, None for none."""
    check(out)
    check_keys(*keys)
    ends = finals(runs)
    made = rows(ends, *keys)
    save(draw(made, *keys), out, made)
    told(out, [final.name for final in ends])


def styles(count, groups=None):
    """Return `count` styles; any two of up to 49 differ in colour, or in both dashes and marker.

    groups: the group of each line; those of one share a colour where more than seven lines make up to seven groups of up to seven.
    """
    turn = len(STYLES)
    places = [divmod(i, turn) for i in range(count)]  # (how often the colour was taken before, colour)
    names = list(dict.fromkeys(groups or ()))
    if count > turn and 1 < len(names) <= turn and max(Counter(groups).values()) <= turn:
        places = [(groups[:i].count(name), names.index(name)) for i, name in enumerate(groups)]
    return [(STYLES[c][0], STYLES[(c + r) % turn][1], STYLES[(c + 2 * r + r // turn) % turn][2]) for r, c in places]


def line(axis, x, y, style, label=None):
    """Draw one line with a few markers, over what is a number."""
    colour, dashes, marker = style
    here = ~(np.isnan(x) | np.isnan(y))
    every = max(1, int(here.sum()) // 8)
    first = int(0.618 * len(axis.lines) * every) % every  # or the markers of many lines hide one another
    look = {"color": colour, "linestyle": dashes, "marker": marker, "markersize": 3, "markevery": (first, every)}
    axis.plot(x[here], y[here], label=label, **look)


def band(axis, x, rows, name, style, label=None, scale=1):
    """Draw the mean of a column of `spread` over its lowest to highest vertex, a bar where there is one point; gaps are bridged."""
    mean, low, high = (scale * column(rows, f"{name}_{s}") for s in ("mean", "min", "max"))
    here = ~np.isnan(mean)
    if here.sum() == 1:  # a band without width would not be seen
        axis.vlines(x[here], low[here], high[here], color=style[0], alpha=0.3, linewidth=4)
    axis.fill_between(x[here], low[here], high[here], color=style[0], alpha=0.18, linewidth=0)
    line(axis, x, mean, style, label)


def bars(axis, x, rows, name, deviation, style):
    """Draw plus and minus a deviation as bars, where there is one."""
    size = column(rows, deviation)
    if not np.isnan(size).all():
        axis.errorbar(x, column(rows, name), size, color=style[0], linestyle="none", capsize=2, elinewidth=0.8)


def column(rows, name):
    """Return one column of the rows as an array."""
    return np.array([row[name] for row in rows], "f8")


def whole_numbers(axis):
    """Tick an x-axis of epochs or steps at whole numbers."""
    from matplotlib import ticker

    axis.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))


def decades(axis, which="y"):
    """Make an axis logarithmic; over few decades its ticks are plain numbers."""
    from matplotlib import ticker

    (axis.set_xscale if which == "x" else axis.set_yscale)("log")
    low, high = axis.get_xlim() if which == "x" else axis.get_ylim()
    if high < 300 * low:
        scale = axis.xaxis if which == "x" else axis.yaxis
        scale.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
        scale.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        scale.set_minor_formatter(ticker.NullFormatter())


def ticks_at(axis, values, texts=None):
    """Tick an x-axis at these values, written out."""
    axis.set_xticks(values, texts or [f"{v:g}" for v in values])
    axis.set_xticks([], minor=True)


def height(panels, count):
    """Return the height in inches of a figure whose panels are so high, with the legend of so many entries."""
    return panels + (0.16 if count <= BELOW else 0.04) * count


@styled
def legend(figure, count, columns=None):
    """Put the legend below the panels, in one column where the texts are many; more than BELOW widen the figure and stand beside."""
    if count <= BELOW:
        figure.legend(loc="outside lower center", ncols=columns or (1 if count > 2 else 2), frameon=False, handlelength=4)
        return
    inches, high = figure.get_size_inches()
    rows = int((high - 0.2) / 0.165)
    made = figure.legend(loc="outside right upper", ncols=-(-count // rows), frameon=False, handlelength=4, columnspacing=1)
    wide = made.get_window_extent(figure.canvas.get_renderer()).width / figure.dpi
    figure.set_size_inches(inches + wide + 0.1, high)


def plain(text):
    """Return a text for matplotlib, which would take a dollar sign for mathematics."""
    return str(text).replace("$", r"\$")


def run_label(run, name, *notes):
    """Return the legend's text of a run: its name, graph and |lambda_2|, `notes`, and whether it is incomplete."""
    told = [plain(run.graph["spec"])]
    if np.isfinite(run.graph["lambda2_modulus"]):
        told.append(rf"$|\lambda_2|$ = {run.graph['lambda2_modulus']:.3f}")
    told += [*notes, *(["incomplete"] if not run.complete else [])]
    return f"{plain(name)} ({', '.join(told)})"


def unit(largest, units):
    """Return (factor, name) of the largest unit that `largest` reaches; units: [(size, name)], ascending."""
    return max((u for u in units if largest >= u[0]), default=units[0])


BYTES = [(1, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB")]
SECONDS = [(1, "s"), (60, "min"), (3600, "h")]
