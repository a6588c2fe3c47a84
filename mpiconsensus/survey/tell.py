"""The figures of a survey as text: lines, a table, JSON and CSV."""

import csv
import math
import re

from mpiconsensus.survey.rates import Between
from mpiconsensus.tabletext import plain as aligned

__all__ = ["aligned", "file_name", "lines", "plain", "side_by_side", "write_csv"]


def lines(figures, what=""):
    """Return the (name, text) pairs of a survey; `what` says of which model its parameters are."""
    of = figures.get
    arcs = "arcs" if "arcs" in figures else "edges"
    pairs = [("graph", of("graph")), ("vertices", f"{of('vertices'):,}"), (arcs, f"{of(arcs):,}"), ("degree", _degree(figures))]
    pairs += [("diameter", _number(of("diameter"))), ("edge connectivity", _number(of("edge_connectivity")))]
    if "algebraic_connectivity" in figures:
        pairs.append(("algebraic connectivity", _number(of("algebraic_connectivity"))))
    pairs += [("weights", of("weights"))]
    if "exchanges" in figures:
        period = "never come again" if of("period") is None else f"come again after {of('period')}"
        pairs.append(("measured over", f"{of('exchanges')} exchanges; the graphs {period}"))
    pairs += [("|lambda_2|", _second(figures)), ("spectral gap", _number(of("spectral_gap")))]
    if of("single_round_factor") is not None:
        pairs.append(("worst single round", f"{_number(of('single_round_factor'))} of the disagreement is left"))
    rounds = "exact agreement" if of("exact_after") else "measured rate" if "exchanges" in figures else "asymptotic rate"
    rounds += ", the worst case" * figures["symmetric"]
    count = _number(of("rounds_to_shrink_1000"), never=of("lambda_2") is not None)
    pairs.append(("rounds to shrink 1000x", f"{count} ({rounds})"))
    pairs += [("smallest weight", _smallest(figures)), ("mean", of("mean")), ("sent a round", _sent(figures, what))]
    if "nodes" in figures:
        total = of("bytes_a_round_crossing")
        bytes_ = "" if total is None else f", {size(total)} a round"
        crossed = f"{of('edges_crossing'):,} of {of(arcs):,} {arcs}"
        pairs.append(("crosses nodes", f"{crossed}{bytes_} ({of('nodes')} nodes, {of('placement')})"))
    return pairs


def _degree(figures):
    if "arcs" in figures:
        pairs = (f"{name} {_span(figures[f'{name}_degree_min'], figures[f'{name}_degree_max'])}" for name in ("out", "in"))
        return f"{', '.join(pairs)}, mean {figures['degree_mean']:.4g}"
    low, high = figures["degree_min"], figures["degree_max"]
    return f"{low}" if low == high else f"{_span(low, high)}, mean {figures['degree_mean']:.4g}"


def _span(low, high):
    return f"{low}" if low == high else f"{low} to {high}"


def _second(figures):
    second, gap = figures["lambda_2"], figures["spectral_gap"]
    if not isinstance(second, float):
        return _number(second)
    # Near 1 the digits that differ from 1 are those that count.
    digits = 4 if gap >= 1e-3 else min(15, 2 - math.floor(math.log10(gap))) if gap > 0 else 6
    return f"{second:.{digits}f}"


def _smallest(figures):
    text = _number(figures["smallest_weight"])
    negative = figures.get("negative_edges")
    return text + (f" ({negative} edge{'s' * (negative > 1)} negative)" if negative else "")


def _sent(figures, what):
    total, most = figures["rows_a_round"], figures["rows_a_round_vertex_max"]
    if "parameters" not in figures:
        return f"{_number(total)} rows in all, at most {most} by a vertex (their bytes: --parameters or --model)"
    row = f"{figures['parameters']:,} parameters, float32" + (f": {what}" if what else "")
    return f"{size(figures['bytes_a_round'])} in all, at most {size(figures['bytes_a_round_vertex_max'])} by a vertex ({row})"


def _number(value, never=False):
    """Return a figure as text: bounds as such, and what is not known as that."""
    if value is None:
        return "never" if never else "not computed"
    if isinstance(value, Between):
        if value.at_least == 1 and isinstance(value.at_most, int):
            return f"at most {value.at_most}"
        return f"{_number(value.at_least)} to {_number(value.at_most)}, not known closer"
    if value == math.inf:
        return "any number"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{0.0 if abs(value) < 1e-12 else value:.5g}"


def size(count):
    """Return bytes as text in powers of 1000: '14.3 MB'."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            return f"{count:.3g} {unit}"
        count /= 1000


COLUMNS = {
    "graph": "graph", "weights": "weights", "vertices": "vertices", "edges": "edges", "degree": "degree", "diameter": "diameter",
    "algebraic_connectivity": "alg. conn.", "lambda_2": "|lambda_2|", "spectral_gap": "gap", "rounds_to_shrink_1000": "rounds/1000x",
    "smallest_weight": "least w", "edge_connectivity": "edge conn.", "sent": "sent a round",
}  # fmt: skip


def side_by_side(found):
    """Return the lines of a table of surveys, a row each."""
    return aligned(list(COLUMNS.values()), [[_cell(figures, name) for name in COLUMNS] for figures in found])


def _cell(figures, name):
    if name == "degree":
        sides = ["degree"] if "degree_min" in figures else ["out_degree", "in_degree"]
        return "/".join(_span(figures[f"{side}_min"], figures[f"{side}_max"]).replace(" to ", "-") for side in sides)
    if name == "sent":
        return size(figures["bytes_a_round"]) if "parameters" in figures else f"{_number(figures['rows_a_round'])} rows"
    value = figures.get("arcs") if name == "edges" and "arcs" in figures else figures.get(name)
    if isinstance(value, str):
        return value
    if isinstance(value, Between):
        return f"{_number(value.at_least)}..{_number(value.at_most)}"
    if name == "lambda_2" and value is not None:
        return _second(figures)
    if value is None:
        return "never" if name == "rounds_to_shrink_1000" and figures["lambda_2"] is not None else "-"
    return _number(value)


def plain(figures):
    """Return the figures as JSON holds them: bounds as {"at_least", "at_most"}, None where a bound is no number."""
    def told(value):
        if isinstance(value, Between):
            return {"at_least": told(value.at_least), "at_most": told(value.at_most)}
        return None if value == math.inf else value

    return {name: told(value) for name, value in figures.items()}


def write_csv(path, found):
    """Write surveys as CSV, a row each; bounds as 'a..b', an empty cell for what is not known."""
    names = list(dict.fromkeys(name for figures in found for name in figures))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for figures in found:
            cells = {name: f"{v.at_least}..{v.at_most}" if isinstance(v, Between) else v for name, v in figures.items()}
            writer.writerow(cells)


def file_name(spec):
    """Return a spec as a file's name: letters, digits, points and dashes."""
    return re.sub(r"[^\w.]+", "-", spec).strip("-")
