"""GraphML and node-link JSON: (n, directed, entries) from what networkx reads there, entries as topology.entries takes them."""

import io
import json
import re
import warnings
from xml.parsers import expat

from mpiconsensus.errors import UserError
from mpiconsensus.topology.entries import weight
from mpiconsensus.topology.forms import MAX_VERTICES


def read_graphml(path, data):
    """Read GraphML; a DOCTYPE, in which entities that grow without end are declared, is refused before anything is built."""

    def doctype(*_):
        raise UserError(f"graph file {path} has a DOCTYPE; GraphML needs none: take it out, for its entities can fill the memory.")

    checker = expat.ParserCreate()
    checker.StartDoctypeDeclHandler = doctype
    try:
        checker.Parse(data, True)
    except expat.ExpatError as error:
        raise UserError(f"graph file {path} is not XML: {error}; write GraphML, or an edge list as .txt.") from None
    import networkx as nx

    return _entries(path, _loaded(path, "GraphML", lambda: nx.read_graphml(io.BytesIO(data))))


def read_json(path, data):
    """Read node-link JSON: an object with the lists `nodes` and `edges`, which may be named `links`."""
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"graph file {path} is not JSON: {error}; write networkx.node_link_data's, or an edge list as .txt.") from None
    lists = isinstance(content, dict) and [content.get("nodes"), content.get("edges", content.get("links"))]
    if not lists or not all(isinstance(part, list) and all(isinstance(entry, dict) for entry in part) for part in lists):
        raise UserError(f"graph file {path} is not node-link JSON: it takes an object with the lists of objects 'nodes' and 'edges' (or 'links').")
    import networkx as nx

    # The name that networkx expects differs from version to version.
    content = {**content, "edges": lists[1], "links": lists[1]}
    graph = _loaded(path, "node-link JSON", lambda: nx.node_link_graph(content))
    if extra := set(graph) - {tuple(v) if isinstance(v, list) else v for v in (node.get("id") for node in lists[0])}:
        raise UserError(f"graph file {path}: an edge leads to {min(extra, key=str)!r}, which is not among the nodes; add it there.")
    return _entries(path, graph)


def _loaded(path, kind, load):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load()
    except Exception as error:  # noqa: BLE001 - whatever a library raises over foreign data
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"graph file {path} is not {kind} that networkx reads ({told}); compare it with a file that networkx writes.") from None


def _entries(path, graph):
    n = len(graph)
    if not 1 <= n <= MAX_VERTICES:
        raise UserError(f"graph file {path} has {n} vertices; give 1 to {MAX_VERTICES}.")
    number = {node: _vertex(path, node, n) for node in graph}
    if len(set(number.values())) < n:
        raise UserError(f"graph file {path}: two nodes have one number; the ids are the numbers 0 to {n - 1}, each once.")
    entries = []
    for a, b, attributes in graph.edges(data=True):
        where = f"{path}: the edge {number[a]}-{number[b]}"
        entries.append((number[a], number[b], weight(attributes.get("weight"), where), where))
    return n, graph.is_directed(), entries


def _vertex(path, node, n):
    whole = isinstance(node, int) and not isinstance(node, bool) or isinstance(node, str) and re.fullmatch("[0-9]{1,12}", node)
    if not whole or not 0 <= int(node) < n:
        raise UserError(f"graph file {path}: the node id {node!r}; the ids of {n} nodes are the numbers 0 to {n - 1}: rename the nodes.")
    return int(node)


READERS = {".graphml": read_graphml, ".json": read_json}
