"""A table as text: aligned lines, Markdown, LaTeX; and numbers as CSV and JSON.

Cells are texts; '92.05 +- 0.09' is a mean and a deviation. `bold` names the (row, column) places of bold cells.
"""

import csv
import io
import json
import math
import re

FORMATS = ("table", "markdown", "latex", "csv", "json")
_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
          "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": "$|$", "<": "$<$", ">": "$>$"}  # fmt: skip


def plain(heads, rows, bold=()):
    """Return aligned lines: the first column to the left, the others to the right; bold cells between asterisks."""
    rows = [[f"*{cell}*" if (r, c) in bold else cell for c, cell in enumerate(cells)] for r, cells in enumerate(rows)]
    widths = [max(len(cells[i]) for cells in [heads, *rows]) for i in range(len(heads))]
    places = ["<", *">" * (len(heads) - 1)]
    return [
        "  ".join(f"{cell:{place}{width}}" for cell, place, width in zip(cells, places, widths, strict=True)).rstrip()
        for cells in [heads, *rows]
    ]


def markdown(heads, rows, bold=()):
    """Return the lines of a Markdown table."""

    def line(cells):
        return "| " + " | ".join(cells) + " |"

    rows = [
        [f"**{_markdown(cell)}**" if (r, c) in bold else _markdown(cell) for c, cell in enumerate(cells)] for r, cells in enumerate(rows)
    ]
    return [line(map(_markdown, heads)), line([":--", *["--:"] * (len(heads) - 1)]), *map(line, rows)]


def latex(heads, rows, bold=()):
    """Return the lines of a LaTeX tabular with the rules of package booktabs."""
    rows = [[rf"\textbf{{{_latex(cell)}}}" if (r, c) in bold else _latex(cell) for c, cell in enumerate(cells)] for r, cells in enumerate(rows)]
    lines = [" & ".join(cells) + r" \\" for cells in [list(map(_latex, heads)), *rows]]
    return [
        r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}", r"\toprule", lines[0], r"\midrule",
        *lines[1:], r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


TEXTS = {"table": plain, "markdown": markdown, "latex": latex}


def records(rows, form):
    """Return dicts of numbers and texts as the text of a CSV file (no figure: an empty field) or JSON (null)."""
    if form == "json":
        return json.dumps(_json(rows), indent=1)
    out = io.StringIO()
    fields = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(out, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if _is_nan(value) else value for name, value in row.items()} for row in rows)
    return out.getvalue().removesuffix("\n")


def _json(value):
    if isinstance(value, dict):
        return {name: _json(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_json(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_nan(value):
    return value is None or (isinstance(value, float) and math.isnan(value))


def _markdown(text):
    return re.sub(r"([\\|*_`<])", r"\\\1", text).replace("+-", "±")


def _latex(text):
    text = text.replace("|lambda_2|", "\0")
    text = "".join(_LATEX.get(character, character) for character in text).replace("\0", r"$|\lambda_2|$")
    return text.replace("+-", r"$\pm$")  # digits stay text: \textbf does not reach into mathematics
