"""What a measurement says on the terminal: what ran where, a table, and what follows from it."""

from mpiconsensus.bench.allgather import NeighborAllgather
from mpiconsensus.bench.loader import LOADING, STEP
from mpiconsensus.tabletext import plain


def rounds(result):
    """Return the lines of `bench round`."""
    rows, switch = [], result["switch"]
    for size in result["figures"]:
        names = {f"floor ({size['floor_by']})": ("", size["floor_s"])}
        if switch:
            names[f"floor + {_switches(switch)}"] = ("", size["floor_and_switches_s"])
        names |= {name: (_range(side), side["median_s"]) for name, side in size["sides"].items() if "over_floor" in side}
        first = f"{size['parameters']:,}"
        for name, (spread, seconds) in names.items():
            over = f"{seconds / size['floor_s']:.2f}", _over_allgather(size, seconds)
            rows.append([f"{first:13}{name}", f"{1e3 * seconds:.4g}", spread, *over])
            first = ""
    heads = [f"{'parameters':13}", "ms a round", "range", "/ floor", f"/ {NeighborAllgather.name}"]
    lines = [*_head(result), *plain(heads, rows), ""]
    for size in result["figures"]:
        lines.append(
            f"floor      {size['parameters']:,}: a round moves {told(size['moved_bytes'])}; all ranks together copy "
            f"{size['copy_bytes_per_s'] / 1e9:.1f} GB/s, read and written, {_where(size)}"
        )
    if switch:
        lines.append(f"switch     {1e6 * switch['median_s']:.1f} us ({1e6 * switch['min_s']:.1f} to {1e6 * switch['max_s']:.1f}): {switch['how']}")
        lines += [_allowed(size, result["machine"]["ranks_on_node"]) for size in result["figures"]]
    lines += [f"left out   {name}: {why}" for name, why in result["left_out"].items()]
    return [*lines, _advice(**result["recommendation"]), *_warnings(result)]


def _advice(transport, reason, auto):
    if transport in (None, auto):
        return f"take       {auto}: {reason}; transport.name = auto takes it"
    return f"take       {transport}: {reason}; transport.name = auto takes {auto}: for {transport} give --set transport.name={transport}"


def _allowed(size, ranks):
    """Return the line that holds each way against twice the floor and a switch a rank: it waits once a round, and is woken."""
    found = ", ".join(f"{name} {side['median_s'] / size['allowed_s']:.2f}" for name, side in size["sides"].items() if "over_floor" in side)
    return f"switches   {size['parameters']:,}: of twice the floor and {ranks} switches, one a rank, {1e3 * size['allowed_s']:.4g} ms: {found}"


def _switches(switch):
    return f"{switch['in_a_round']} switch{'es' * (switch['in_a_round'] != 1)}"


def _over_allgather(size, seconds):
    side = size["sides"].get(NeighborAllgather.name)
    return f"{seconds / side['median_s']:.2f}" if side else "-"


def _where(size):
    rows, copied = told(size["footprint_bytes"]), told(size["copied_bytes"])
    if size["footprint_in"] == "memory":
        return f"from memory: the rows of a node, {rows}, exceed the last-level cache ({copied} copied in turn)"
    if size["footprint_in"] == "cache":
        return f"from cache: the rows of a node, {rows}, fit the last-level cache"
    return f"over {copied}; how large the last-level cache is, is not known"


def loader(result):
    """Return the lines of `bench loader`."""
    figures = result["figures"]
    step = figures["sides"][STEP]["samples_per_s"]
    rows = [[name, f"{1e3 * side['median_s']:.4g}", _range(side), f"{side['samples_per_s']:,.0f}", f"{side['samples_per_s'] / step:.2f}"] for name, side in figures["sides"].items()]
    rate = figures["sides"][LOADING]["samples_per_s"] / step
    share = f"loading is {100 * figures['share']:.1f} % of a training step, which loads, then computes"
    verdict = f"loads {rate:.1f} x what a step consumes; {share}" if rate >= 1 else f"loads only {rate:.2f} x what a step consumes: loading limits; {share}"
    heads = ["", "ms a batch", "range", "samples/s", f"/ {STEP}"]
    return [*_head(result), *plain(heads, rows), "", f"loading    {verdict}", *_warnings(result)]


def step(result):
    """Return the lines of `bench step`."""
    rows = [[name, f"{1e3 * side['median_s']:.4g}", _range(side)] for name, side in result["figures"]["sides"].items()]
    ratios = [
        f"ratio      {name}: {found['median']:.3f} ({found['min']:.3f} to {found['max']:.3f}), median over the passes"
        for name, found in result["figures"]["ratios"].items()
    ]
    return [*_head(result), *plain(["", "ms a step", "range"], rows), "", *ratios, *_warnings(result)]


def _head(result):
    machine = result["machine"]
    caches = ", ".join(f"{level} {told(size)}" for level, size in machine["caches"].items()) or "caches not told"
    ranks, threads, nodes = machine["ranks"], machine["threads"], machine["nodes"]
    where = f"{ranks} rank{'s' * (ranks > 1)} x {threads} thread{'s' * (threads > 1)}, {nodes} node{'s' * (nodes > 1)}"
    return [
        f"measured   {result['settings']['what']}; medians of {result['settings']['repeats']} passes in turn, {machine['date']}",
        f"runs on    {where}; {machine['mpi']}",
        f"machine    {machine['cpu']}, {machine['cores']} core{'s' * (machine['cores'] > 1)}; {caches}; memory {told(machine['memory'])}",
        "",
    ]


def _warnings(result):
    return [f"warning: {sentence}" for sentence in result["warnings"]]


def _range(side):
    return f"{1e3 * side['min_s']:.4g} to {1e3 * side['max_s']:.4g}"


def told(size):
    """Return bytes as text in powers of 1024, as caches are told: '32 MiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.4g} {unit}"
        size /= 1024
