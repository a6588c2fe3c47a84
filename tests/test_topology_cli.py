"""mpiconsensus topology: what each view prints and writes, what it refuses, and what it does not load."""

import csv
import json

import networkx as nx
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import cli
from test_architecture import loaded

from mpiconsensus import topology, weights
from mpiconsensus.cli import group
from mpiconsensus.errors import UserError
from mpiconsensus.survey import drawing, sparse


def topo(*words):
    """Run `mpiconsensus topology words` in this process; return its output, raise what it raises."""
    done = CliRunner().invoke(group, ["topology", *map(str, words)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def lines(text):
    return dict(line.split(None, 1) if "  " not in line else [part.strip() for part in line.split("  ", 1)] for line in text.splitlines() if line)


def test_the_list_has_every_graph_and_every_method():
    text, found = topo("list"), json.loads(topo("list", "--json"))
    assert list(found["graphs"]) == list(topology.FORMS) and list(found["weights"]) == list(weights.METHODS)
    for form in topology.FORMS.values():
        assert form.example in text and form.meaning.split()[0] in text
    assert all(f"\n  {name}\n" in text for name in weights.METHODS)


def test_show_prints_a_line_a_figure():
    shown = lines(topo("show", "torus:6x6", "--weights", "best-constant", "--parameters", "1.5k", "--nodes", 4))
    expected = {
        "graph": "torus:6x6", "vertices": "36", "edges": "72", "degree": "4", "diameter": "6", "edge connectivity": "4",
        "algebraic connectivity": "1", "weights": "best-constant", "|lambda_2|": "0.7778", "spectral gap": "0.22222",
        "rounds to shrink 1000x": "28 (asymptotic rate, the worst case)", "smallest weight": "0.11111", "mean": "kept",
        "sent a round": "864 kB in all, at most 24 kB by a vertex (1,500 parameters, float32)",
        "crosses nodes": "28 of 72 edges, 336 kB a round (4 nodes, block)",
    }  # fmt: skip
    assert {name: shown[name] for name in expected} == expected
    text = topo("show", "torus:6x6", "--weights", "best-constant")
    assert text.endswith("Each round leaves 77.8 % of the disagreement, in the long run and in the worst case; 28 rounds shrink it 1000 times.\n"
                         "Every round keeps the mean.\n")  # fmt: skip


def test_show_prints_json_with_all_digits():
    found = json.loads(topo("show", "torus:6x6", "--weights", "best-constant", "--json", "--nodes", 4))
    # Xiao and Boyd 2004: best-constant weights of the torus 6x6, eigenvalues 1 and 8 of L.
    assert found["lambda_2"] == pytest.approx(7 / 9, abs=1e-11) and found["spectral_gap"] == pytest.approx(2 / 9, abs=1e-11)
    assert (found["vertices"], found["edges"], found["edges_crossing"], found["rows_a_round"]) == (36, 72, 28, 144)
    assert "bytes_a_round" not in found


@pytest.mark.parametrize(
    ("spec", "method", "told"),
    [
        ("one-peer-exponential:8", "uniform", "3 (exact agreement)"),
        ("matchings:ring:6", "metropolis", "measured rate)"),
        ("directed-exponential:12", "push-sum", "(asymptotic rate)"),
    ],
)
def test_the_rounds_say_what_they_are(spec, method, told):
    assert lines(topo("show", spec, "--weights", method))["rounds to shrink 1000x"].endswith(told)


def test_near_one_the_digits_that_count_are_shown():
    shown = lines(topo("show", "ring:1000"))["|lambda_2|"]
    true = 1 - (2 - 2 * np.cos(2 * np.pi / 1000)) / 3
    assert 1 - float(shown) == pytest.approx(1 - true, rel=0.01)


def test_the_model_gives_the_bytes():
    # ResNet-20 with option A has 0.27 M parameters (He et al. 2016, table 6); by its layers 269,722.
    shown = lines(topo("show", "ring:4", "--model", "resnet20"))["sent a round"]
    assert 4 * 2 * 4 * 269_722 == 8_631_104 and shown.startswith("8.63 MB in all, at most 2.16 MB by a vertex")
    assert "269,722 parameters, float32: resnet20 for 3x32x32 samples, 10 classes" in shown


def test_a_seed_draws_another_graph():
    first, again, other = (json.loads(topo("show", "random:30,60", "--json", "--seed", seed)) for seed in (1, 1, 2))
    assert first == again and first["algebraic_connectivity"] != other["algebraic_connectivity"]
    graph = topology.build("random:30,60", 2)
    assert other["algebraic_connectivity"] == pytest.approx(np.linalg.eigvalsh(nx.laplacian_matrix(graph).toarray())[1])


def test_compare_has_a_row_a_graph_and_method_as_given(tmp_path):
    out = tmp_path / "all.csv"
    words = ("compare", "star:8", "ring:8", "complete:8", "--weights", "metropolis,best-constant", "--parameters", 1000)
    text = topo(*words, "--csv", out)
    rows = [line.split() for line in text.splitlines()[1:7]]
    pairs = [[spec, method] for spec in ("star:8", "ring:8", "complete:8") for method in ("metropolis", "best-constant")]
    assert [row[:2] for row in rows] == pairs and str(out) in text
    found = json.loads(topo(*words, "--json"))
    assert [[f["graph"], f["weights"]] for f in found] == pairs
    with out.open() as file:
        written = list(csv.DictReader(file))
    assert [[row["graph"], row["weights"]] for row in written] == pairs
    for row, figures, shown in zip(written, found, rows, strict=True):
        assert float(row["lambda_2"]) == figures["lambda_2"] and float(row["bytes_a_round"]) == figures["bytes_a_round"]
        assert float(shown[7]) == pytest.approx(figures["lambda_2"], abs=5e-5)
    # eigenvalues of the star's Laplacian: 1 and n
    assert found[1]["lambda_2"] == pytest.approx(7 / 9, abs=1e-11)


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_plot_writes_the_format_of_its_name(tmp_path, suffix, magic):
    pytest.importorskip("matplotlib")
    out = tmp_path / f"g{suffix}"
    assert str(out) in topo("plot", "torus:3x4", "-o", out)
    assert out.read_bytes().startswith(magic) and list(tmp_path.iterdir()) == [out]


def test_plot_draws_every_edge_and_every_weight():
    pytest.importorskip("matplotlib")
    net = topology.net("grid:3x4", 1)
    left, right, *_ = drawing.graph_and_weights(net, "metropolis").axes
    (segments,) = (c.get_segments() for c in left.collections if len(c.get_paths()) == 17)
    places = drawing.layout(net).places
    assert {frozenset(map(tuple, s.round(6))) for s in segments} == {frozenset(map(tuple, places[e].round(6))) for e in net.edges}
    assert np.array_equal(right.images[0].get_array(), sparse.of(net, "metropolis").dense()) and right.images[0].norm.vmin < 0
    # around a torus an edge is two stubs, not a line through the vertices between
    torus = topology.net("torus:4x5", 1)
    lines, owner = drawing._segments(drawing.layout(torus), *torus.edges.T)
    assert len(lines) == 40 + 4 + 5 and np.linalg.norm(lines[:, 0] - lines[:, 1], axis=1).max() <= 1 + 1e-12
    assert sorted(set(owner)) == list(range(40))


def test_a_negative_weight_is_drawn_apart(monkeypatch):
    pytest.importorskip("matplotlib")
    net = topology.net("complete:3", 1)
    W = np.array([[0.6, 0.5, -0.1], [0.5, 0.1, 0.4], [-0.1, 0.4, 0.7]])
    mixing = sparse.from_edges(3, net.edges, W[tuple(net.edges.T)])
    monkeypatch.setattr(sparse, "of", lambda *_: mixing)
    left, right, *_ = drawing.graph_and_weights(net, "file").axes
    plain, apart, _ = left.collections
    assert len(plain.get_segments()) == 2 and len(apart.get_segments()) == 1
    assert plain.get_linestyle()[0][1] is None and apart.get_linestyle()[0][1] is not None
    assert "negative: -0.1" in left.get_legend().get_texts()[0].get_text()
    assert sorted(map(tuple, right.collections[0].get_offsets())) == [(0, 2), (2, 0)]


def test_simulate_prints_a_table_and_writes_both_files(tmp_path):
    pytest.importorskip("matplotlib")
    text = topo("simulate", "chords:20,0", "chords:20,1", "--rounds", 12, "-o", tmp_path / "c", "--format", "svg", "--dimension", 2, "--seed", 3)
    assert "2 numbers a vertex, seed 3" in text and text.splitlines()[2].split()[:3] == ["round", "chords:20,0", "|lambda_2|^t"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.h5", "c.svg"]
    with pytest.raises(UserError, match=r"c\.h5: the file is there already.*--force"):
        topo("simulate", "ring:5", "-o", tmp_path / "c")
    topo("simulate", "ring:5", "-o", tmp_path / "c", "--format", "svg", "--force")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("show", "torus"), "has no size; give it, for example torus:6x6"),
        (("show", "auto"), "takes its size from the ranks"),
        (("show", "rign:4"), "Did you mean 'ring'"),
        (("show", "ring:4", "--weights", "metropolsi"), "Did you mean 'metropolis'"),
        (("show", "ring:4", "--parameters", "x"), "--parameters 'x' is not allowed"),
        (("show", "ring:4", "--parameters", "9", "--model", "mlp"), "are both given"),
        (("show", "ring:4", "--nodes", "5"), "--nodes 5: the graph has 4 vertices"),
        (("compare", "ring:4", "--csv", "none/x.csv"), "there is no directory 'none'"),
        (("compare", "ring:4", "--weights", "metropolis,x"), "'x' is not known"),
        (("plot", "ring:501", "-o", "a.png"), "at most 500"),
        (("plot", "ring:5", "-o", "a.gif"), "choose one of .png, .pdf, .svg"),
        (("plot", "ring:5", "-o", "here"), "the suffix says the format"),
        (("simulate", "ring:4", "ring"), "has no size"),
        (("simulate", "ring:4", "-o", "none/x"), "there is no directory 'none'"),
        (("shwo",), "Did you mean 'show'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_named(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=told):
        topo(*words)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(UserError, match=r"a\.csv: the file is there already"):
        topo("compare", "ring:4", "--csv", "a.csv")
    assert (tmp_path / "a.csv").read_text() == "mine"
    topo("compare", "ring:4", "--csv", "a.csv", "--force")
    assert (tmp_path / "a.csv").read_text().startswith("graph,")
    (tmp_path / "ring-4.png").mkdir()
    with pytest.raises(UserError, match="that is a directory"):
        topo("plot", "ring:4", "--force")


def test_showing_a_graph_is_light():
    heavy = ("torch", "mpi4py", "cvxpy", "scipy", "matplotlib", "h5py", "rich", "networkx", "pandas")
    run = "from mpiconsensus.cli import group; group.main(['topology', {}], standalone_mode=False)"
    assert loaded(run.format("'show', 'ring:36'"), *heavy) == []
    assert loaded(run.format("'show', 'random:50,150'"), *heavy) == ["networkx"]
    assert loaded(run.format("'list'"), *heavy) == []


def test_a_mistake_has_one_line_and_exit_code_2():
    done = cli("topology", "show", "torus")
    assert done.returncode == 2 and done.stderr == "mpiconsensus: graph 'torus' has no size; give it, for example torus:6x6 (grid that closes on itself).\n"


def test_vertices_go_to_nodes_as_a_placement_says():
    """A 6x6 torus cut into four 3x3 tiles: each tile has 3 edges across each of its 4 sides, 4 tiles share them."""
    found = json.loads(topo("show", "torus:6x6", "--nodes", 4, "--placement", "cartesian", "--parameters", 10, "--json"))
    assert (found["edges_crossing"], found["placement"]) == (4 * 3 * 4 // 2, "cartesian")
    assert found["bytes_a_round_crossing"] == 24 * 2 * 10 * 4


@pytest.mark.parametrize("spec, method", [("ring:8", "metropolis"), ("directed-ring:8", "uniform"), ("one-peer-exponential:8", "uniform")])
def test_auto_says_which_weights_it_took(spec, method):
    assert json.loads(topo("show", spec, "--json"))["weights"] == method
    assert f", {method} weights," in topo("simulate", spec, "--rounds", 2)
