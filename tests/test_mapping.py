"""Maps onto nodes and ranks: exact counts, closed forms of tiles, cuts against every assignment there is."""

import itertools
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, cli
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiconsensus import topology
from mpiconsensus.errors import UserError
from mpiconsensus.mapping import MAPS, assign, crossing, plan, sides
from mpiconsensus.mapping.partition import Links, partition


def graph(spec, seed=0):
    return topology.net(spec, 1, seed)


def crossings(net, ranks, how):
    owner, node = plan(net, ranks, how)
    return [sum(part[i] != part[j] for i, j in net.edges.tolist()) for part in (node, owner)]


@pytest.mark.parametrize("spec", ["torus:3x5", "torus:2x4", "grid:4x3", "grid:2x3x4", "torus:3x4x5"])
def test_vertices_of_a_lattice_are_numbered_row_by_row(spec):
    net, lattice = graph(spec), sides(spec)
    places = list(itertools.product(*map(range, lattice)))
    for i, j in net.edges.tolist():
        steps = [abs(a - b) for a, b in zip(places[i], places[j])]
        assert sum(step > 0 for step in steps) == 1
        assert all(step in (0, 1) or (spec.startswith("torus") and step == side - 1) for step, side in zip(steps, lattice))


def test_edges_and_bytes_that_cross():
    net, part = graph("ring:6"), np.array([0, 0, 0, 1, 1, 1])
    assert crossing(net.edges, part, 100) == (2, 400)  # a row of 100 bytes in each direction of two edges
    arcs = np.array([(0, 3), (3, 0), (1, 2)])
    assert crossing(arcs, part, 100, directed=True) == (2, 200)


# Tiles of a torus LxL on p x p nodes: p cut lines of L edges each way; a grid has one line less.
@pytest.mark.parametrize(
    "spec, nodes, cut",
    [("torus:6x6", 4, 2 * 2 * 6), ("torus:6x6", 9, 2 * 3 * 6), ("torus:12x12", 16, 2 * 4 * 12), ("grid:5x10", 5, 4 * 5),
     ("grid:6x9", 6, 1 * 9 + 2 * 6), ("torus:6x6x6", 8, 3 * 2 * 36), ("grid:4x4x4", 8, 3 * 16), ("torus:8x4", 2, 2 * 4)],
)  # fmt: skip
def test_tiles_are_as_square_as_they_go(spec, nodes, cut):
    net = graph(spec)
    owner, node = plan(net, [1] * nodes, "cartesian")
    assert crossing(net.edges, node).edges == cut
    assert set(np.bincount(owner)) == {net.n // nodes}


def test_a_number_of_nodes_that_divides_no_side():
    for spec, nodes in (("torus:6x6", 5), ("torus:8x8", 5), ("torus:5x5", 4)):
        tiles, runs = (crossings(graph(spec), [1] * nodes, how)[0] for how in ("cartesian", "block"))
        assert tiles < runs


def test_within_a_node_ranks_have_tiles_too():
    net = graph("torus:8x8")
    owner, node = plan(net, [4] * 4, "cartesian")
    # Sixteen tiles of 2 x 2: four lines of cuts each way.
    assert crossing(net.edges, owner).edges == 2 * 4 * 8
    assert crossing(net.edges, node).edges == 2 * 2 * 8
    assert (node == owner // 4).all()


@st.composite
def layouts(draw):
    """Draw a graph and ranks a node that it has room for."""
    kind = draw(st.sampled_from(["torus", "grid", "random", "regular"]))
    if kind in ("torus", "grid"):
        lattice = draw(st.lists(st.integers(2, 6), min_size=2, max_size=3))
        spec = f"{kind}:{'x'.join(map(str, lattice))}"
    else:
        n = draw(st.integers(4, 30))
        spec = f"random:{n},{2 * n - 2}" if kind == "random" else f"regular:{n + n % 2},3"
    net = graph(spec, draw(st.integers(0, 9)))
    ranks = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5).filter(lambda ranks: sum(ranks) <= net.n))
    return net, ranks


@settings(max_examples=40, deadline=None)
@given(layouts())
def test_counts_are_as_even_as_they_go_and_auto_is_never_worse_than_block(layout):
    net, ranks = layout
    for how in MAPS:
        if how == "cartesian" and not sides(net.spec):
            continue
        owner, node = plan(net, ranks, how)
        counts = np.bincount(owner, minlength=sum(ranks))
        assert counts.sum() == net.n and counts.max() - counts.min() <= 1
        assert (node == np.repeat(np.arange(len(ranks)), ranks)[owner]).all()
        if how in ("cartesian", "partition"):  # a node has its share to within one vertex
            shares = net.n * np.array(ranks) / sum(ranks)
            assert (np.abs(np.bincount(node, minlength=len(ranks)) - shares) < 1).all()
        assert (owner == plan(net, ranks, how)[0]).all()
    assert crossings(net, ranks, "auto") <= crossings(net, ranks, "block")


def test_block_is_runs_in_the_order_of_the_ranks_wherever_these_lie():
    owner, taken = assign(graph("ring:7"), np.array([0, 1, 0]), "block")
    assert owner.tolist() == [0, 0, 0, 1, 1, 2, 2] and taken == "block"


def test_auto_knows_that_blocks_in_the_order_of_ranks_jump_between_nodes():
    # Halves of a 4 x 4 torus: two lines of four edges cross, and four lines where rows lie on alternate nodes.
    net = graph("torus:4x4")
    for node_of_rank, by_block, taken in (([0, 1, 0, 1], 16, "cartesian"), ([0, 0, 1, 1], 8, "block")):
        node_of_rank = np.array(node_of_rank)
        cuts = [crossing(net.edges, node_of_rank[assign(net, node_of_rank, how)[0]]).edges for how in ("block", "auto")]
        assert cuts == [by_block, 8] and assign(net, node_of_rank, "auto")[1] == taken


def least_cut(net, counts):
    """Return the fewest edges that cross over all assignments of exactly so many vertices."""
    parts = np.repeat(np.arange(len(counts)), counts)
    every = {p for p in itertools.permutations(parts.tolist()) if p[0] == 0 or len(set(counts)) > 1}
    return min(sum(p[i] != p[j] for i, j in net.edges.tolist()) for p in every)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("counts", [[4, 4], [3, 5], [3, 3, 2]])
def test_a_small_partition_is_the_best_there_is(seed, counts):
    net = graph("random:8,13", seed)
    part = partition(net.n, net.edges, counts)
    assert np.bincount(part).tolist() == counts
    assert crossing(net.edges, part).edges == least_cut(net, counts)


@pytest.mark.parametrize("size, cliques", [(6, 5), (150, 4)])
def test_cliques_in_a_ring_are_found_whatever_their_labels(size, cliques):
    n = size * cliques
    label = np.random.default_rng(size).permutation(n)
    inside = [(c * size + i, c * size + j) for c in range(cliques) for i, j in itertools.combinations(range(size), 2)]
    between = [(c * size, (c + 1) % cliques * size + 1) for c in range(cliques)]
    edges = label[np.array(inside + between)]
    part = partition(n, edges, [size] * cliques)
    assert crossing(edges, part).edges == cliques
    assert all(len(set(part[label[c * size : (c + 1) * size]])) == 1 for c in range(cliques))


def test_uneven_parts_are_evened_with_the_least_loss():
    # A path in the parts 0 0 0 0 1 1 2: one vertex of part 0 is too many, and each has no edge to part 2, so the cheapest
    # is an end of the path: it leaves one neighbour, any other two or one at the border.
    net = graph("grid:1x7")
    links = Links(7, net.edges)
    part = links.even(np.array([0, 0, 0, 0, 1, 1, 2]), np.array([3, 2, 2]))
    assert np.bincount(part).tolist() == [3, 2, 2]
    assert links.cut(part) == crossing(net.edges, part).edges == 3
    # What moved first draws its neighbour after it: a path is still cut once.
    assert links.even(np.array([0, 0, 0, 0, 0, 0, 1]), np.array([4, 3])).tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_an_exchange_takes_what_gains_most_and_sees_the_edge_between_the_two():
    # Two squares of a cube whose labels are mixed up in one pair; then two joined vertices, where nothing is gained.
    cube = np.array([(i, i ^ bit) for i in range(8) for bit in (1, 2, 4) if i < i ^ bit])
    part = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    assert Links(8, cube).cut(Links(8, cube).exchange(part)) == 4
    assert Links(2, np.array([(0, 1)])).exchange(np.array([0, 1])).tolist() == [0, 1]


def test_opposite_arcs_weigh_twice():
    # A ring of four whose edges 1-2 and 3-0 go both ways: these stay uncut.
    arcs = np.array([(1, 2), (2, 1), (2, 3), (3, 0), (0, 3), (0, 1)])
    part = partition(4, arcs, [2, 2])
    assert part[1] == part[2] != part[3] == part[0]


def test_a_map_that_cannot_be_is_one_line(monkeypatch):
    with pytest.raises(UserError, match="torus or a grid.*margulis:25.*partition"):
        plan(graph("margulis:25"), [1, 1], "cartesian")
    with pytest.raises(UserError, match="placement.map.*'blok'.*block, cartesian, partition, auto"):
        plan(graph("ring:4"), [1, 1], "blok")
    with pytest.raises(UserError, match="5 ranks.*4 vertices.*mpirun -n 4"):
        plan(graph("ring:4"), [3, 2], "auto")
    monkeypatch.setitem(sys.modules, "pymetis", None)
    with pytest.raises(UserError, match="pip install pymetis.*--placement block"):
        plan(graph("ring:4"), [1, 1], "partition")
    assert assign(graph("margulis:25"), np.arange(5), "auto")[1] == "block"
    assert assign(graph("torus:6x6"), np.arange(4), "auto")[1] == "cartesian"


def test_auto_leaves_a_graph_that_is_too_large_for_a_partition(monkeypatch):
    net = graph("regular:50,4")
    assert assign(net, np.arange(5), "auto")[1] == "partition"
    monkeypatch.setattr("mpiconsensus.mapping.MOST_EDGES", 99)
    assert assign(net, np.arange(5), "auto")[1] == "block"


def test_the_command_line_says_what_crosses_or_what_is_wrong():
    done = cli("train", "--placement", "cartesian", "--set", "topology.graph=torus:4x4", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.search(r'map = "cartesian"\n', done.stdout)
    assert re.search(r"# placement +cartesian; of 32 edges 0 cross ranks, 0 cross nodes", done.stdout)
    for words, told in (("cartesian", "torus or a grid"), ("metis", "block, cartesian, partition, auto")):
        done = cli("train", "--placement", words, "--dry-run")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and told in done.stderr


def test_the_table_of_the_docs_is_what_the_maps_give():
    page = (ROOT / "docs" / "run-on-slurm.md").read_text()
    rows = re.findall(r"^\| `(\w+:[\dx,]+)` on (\d+) \| (\d+) \| (\d+|-) \| (\d+) \|$", page, re.MULTILINE)
    assert len(rows) >= 6
    for spec, nodes, *told in rows:
        net = graph(spec)
        ranks = [net.n // int(nodes)] * int(nodes)
        for how, figure in zip(MAPS, told):
            if figure == "-":
                assert not sides(spec) and how == "cartesian"
            else:
                assert crossings(net, ranks, how)[0] == int(figure), (spec, how)


def test_a_wiring_and_a_net_are_mapped_alike():
    net = graph("grid:3x4")
    alike = SimpleNamespace(spec=net.spec, n=net.n, edges=net.edges)
    assert (plan(alike, [2, 2], "cartesian")[0] == plan(net, [2, 2], "cartesian")[0]).all()
