"""The figures' numbers against the log read with h5py, and what a script says of runs that it cannot draw."""

import csv
import importlib
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, environment
from test_report import make

from mpiconsensus.errors import UserError
from mpiconsensus.runlog import RankLog

pytest.importorskip("matplotlib")
sys.path.insert(0, str(ROOT))

SCRIPTS = ["curves", "consensus", "breakdown", "averaging_period", "scaling", "traffic", "compare", "shuffle_fraction"]
NAN = float("nan")


def script(name):
    return importlib.import_module(f"analysis.{name}")


def drawn(name, out, *words, drawing="draw"):
    """Run a script in this process and return (its figure, the rows of its CSV)."""
    module, figures = script(name), []
    inner = getattr(module, drawing)

    def watched(*arguments):
        figures.append(inner(*arguments))
        return figures[0]

    setattr(module, drawing, watched)
    try:
        result = CliRunner().invoke(module.main, [str(word) for word in (*words, "-o", out)])
    finally:
        setattr(module, drawing, inner)
    assert result.exit_code == 0, result.output
    assert out.stat().st_size > 1000 and not list(out.parent.glob(".*.new"))
    with open(out.with_suffix(".csv")) as file:
        return figures[0], list(csv.DictReader(file))


def log(path):
    return h5py.File(path / "run.h5", "r")


def numbers(rows, name):
    return np.array([float(row[name] or "nan") for row in rows])


def test_curves_are_the_log_s_mean_and_range_over_the_vertices(small_runs, tmp_path):
    paths = [small_runs / "periods" / "q1-s1", small_runs / "gossip"]
    figure, rows = drawn("curves", tmp_path / "c.png", *paths)
    with log(paths[0]) as one, log(paths[1]) as two:
        for f, here in ((one, rows[:3]), (two, rows[3:])):
            for name in ("accuracy", "train_loss"):
                values = f[f"epochs/{name}"][:]
                for word, expected in (("mean", values.mean(1)), ("sd", values.std(1, ddof=1)), ("min", values.min(1)), ("max", values.max(1))):
                    np.testing.assert_allclose(numbers(here, f"{name}_{word}"), expected, rtol=1e-12)
            # a vertex's bytes: from the steps up to the end of each epoch
            sent = [f["steps/bytes_sent"][:end].sum(axis=0).mean() for end in f["epochs/step"][:]]
            np.testing.assert_allclose(numbers(here, "bytes_sent_vertex"), sent, rtol=1e-12)
            np.testing.assert_array_equal(numbers(here, "consensus_distance"), f["network/consensus_distance"][:])
    assert [len(axis.lines) for axis in figure.axes] == [2, 2, 2]
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), 100 * numbers(rows[3:], "accuracy_mean"))


@pytest.mark.parametrize(("x", "column", "label"), [("bytes", "bytes_sent_vertex", "sent by a vertex ("), ("time", "seconds", "time (s)")])
def test_curves_against_bytes_and_time_have_their_unit(small_runs, tmp_path, x, column, label):
    figure, rows = drawn("curves", tmp_path / "c.svg", small_runs / "complete", "--x", x)
    axis = figure.axes[0]
    assert axis.get_xlabel().startswith(label)
    factor = {"(kB)": 1e3, "(s)": 1}[axis.get_xlabel().split()[-1]]
    np.testing.assert_allclose(axis.lines[0].get_xdata() * factor, numbers(rows, column))
    assert (np.diff(axis.lines[0].get_xdata()) > 0).all()


def mixing_rounds(period, rounds, first, last):
    """Count the rounds of the steps first, ..., last - 1 of average consensus one by one."""
    return sum(rounds for k in range(first, last) if k % period == 0)


@pytest.mark.parametrize(("name", "period"), [("q1-s1", 1), ("q4-s2", 4)])
def test_the_thin_line_is_the_graph_s_decay_from_the_first_value(small_runs, tmp_path, name, period):
    path = small_runs / "periods" / name
    figure, rows = drawn("consensus", tmp_path / "c.pdf", path)
    with log(path) as f:
        # |lambda_2| from W itself: the second largest modulus, ring:4 with Metropolis weights
        second = np.sort(np.abs(np.linalg.eigvalsh(f["graph/W"][:])))[-2]
        steps, distance = f["epochs/step"][:].tolist(), f["network/consensus_distance"][:]
    assert second == pytest.approx(1 / 3)
    rounds = [mixing_rounds(period, 1, steps[0], s) for s in steps]
    assert numbers(rows, "rounds_since_first").tolist() == rounds and rounds[-1] > 0
    np.testing.assert_allclose(numbers(rows, "graph_alone"), [distance[0] * second**t for t in rounds], rtol=1e-9)
    np.testing.assert_array_equal(numbers(rows, "consensus_distance"), distance)
    bold, thin = figure.axes[0].lines[:2]
    assert thin.get_linewidth() < bold.get_linewidth()
    assert (thin.get_xdata()[0], thin.get_ydata()[0]) == (steps[0], pytest.approx(distance[0]))
    # on a logarithmic axis the line is straight: its slope a step is that of a round, a period apart
    slope = np.diff(np.log(thin.get_ydata())) / np.diff(thin.get_xdata())
    np.testing.assert_allclose(slope, np.log(second) * rounds[-1] / (steps[-1] - steps[0]), rtol=1e-6)


def test_rounds_that_are_not_w_have_no_thin_line(small_runs, tmp_path):
    _, rows = drawn("consensus", tmp_path / "c.png", small_runs / "gossip", "--x", "epoch")
    assert {row["graph_alone"] for row in rows} == {""} and {row["rounds_since_first"] for row in rows} == {""}
    between = script("consensus").rounds_between
    job = {"algorithm.name": "consensus", "algorithm.delay": 0, "algorithm.period": [2, 2], "algorithm.rounds": 3}
    for first, last in ((0, 1), (1, 2), (3, 9), (4, 4)):
        assert between(job, first, [last]).tolist() == [mixing_rounds(2, 3, first, last)]
    for other in ({"algorithm.delay": 1}, {"algorithm.period": [1, 2]}, {"algorithm.name": "local-sgd"}):
        assert between(job | other, 0, [4]) is None


def test_the_breakdown_adds_up_to_the_time_of_a_step(small_runs, tmp_path):
    paths = [small_runs / "two-ranks", small_runs / "complete"]
    figure, rows = drawn("breakdown", tmp_path / "b.png", *paths)
    for path, row in zip(paths, rows, strict=True):
        with log(path) as f:
            steps, rank_of = len(f["steps/step"]), f["rank_of_vertex"][:]
            wall = (f["epochs/samples"][:].sum(axis=1) / f["network/samples_per_s"][:]).sum() / steps
            for part in ("io_s", "compute_s", "wait_s", "mix_s", "hidden_s"):
                of_ranks = [f[f"steps/{part}"][:][:, rank_of == rank].sum() / steps for rank in np.unique(rank_of)]
                for word, expected in (("", np.mean(of_ranks)), ("_min", min(of_ranks)), ("_max", max(of_ranks))):
                    assert float(row[part + word]) == pytest.approx(expected, rel=1e-9), part + word
        assert float(row["step_s"]) == pytest.approx(wall)
        assert sum(float(row[part]) for part in ("io_s", "compute_s", "wait_s", "mix_s", "other_s")) == pytest.approx(wall)
    assert [row["ranks"] for row in rows] == ["2", "1"]
    bars = figure.axes[0].patches
    assert len(bars) == 6 * 2, "a bar a part and run, and what they hid"
    assert bars[-2].get_width() == pytest.approx(1e3 * float(rows[0]["hidden_s"])) and bars[-2].get_width() > 0 == bars[-1].get_width()
    assert sum(bar.get_width() for bar in bars[:10:2]) == pytest.approx(1e3 * (float(rows[0]["step_s"]) - min(0, float(rows[0]["other_s"]))))


def test_hidden_time_stands_beside_the_sum(tmp_path):
    table = [{"io_s": 0.001, "compute_s": 0.002, "wait_s": 0.003, "mix_s": 0.001, "other_s": 0.0, "hidden_s": 0.004}]
    bars = script("breakdown").draw(table, ["run"]).axes[0].patches
    assert len(bars) == 6
    assert bars[-1].get_hatch() and bars[-1].get_width() == pytest.approx(4) and bars[-1].get_x() == 0
    assert bars[-1].get_y() > bars[0].get_y() + bars[0].get_height() - 1e-9


def test_traffic_is_accuracy_against_what_was_sent(small_runs, tmp_path):
    figure, rows = drawn("traffic", tmp_path / "t.png", small_runs / "gossip", small_runs / "complete")
    with log(small_runs / "gossip") as f:
        sent = [f["steps/bytes_sent"][:end].sum() / 4 for end in f["epochs/step"][:]]
        np.testing.assert_allclose(numbers(rows[:3], "bytes_sent_vertex"), sent)
        np.testing.assert_allclose(numbers(rows[:3], "accuracy_mean"), f["epochs/accuracy"][:].mean(axis=1))
    assert [len(axis.lines) for axis in figure.axes] == [2, 2]
    assert {axis.get_xscale() for axis in figure.axes} == {"log"} and figure.axes[0].get_xlabel() == "sent by a vertex (kB)"
    np.testing.assert_allclose(1e3 * figure.axes[0].lines[0].get_xdata(), sent)


def test_what_was_reached_before_the_first_byte_has_no_place_on_a_logarithmic_axis():
    row = {"graph": "ring:4"} | {f"{name}_{word}": 0.5 for name in ("accuracy", "train_loss") for word in ("mean", "min", "max")}
    figure = script("traffic").draw([("run", [row | {"bytes_sent_vertex": sent} for sent in (0.0, 2e3, 4e3)])])
    assert [axis.lines[0].get_xdata().tolist() for axis in figure.axes] == [[2, 4], [2, 4]]


def seeds(where, name):
    """Return the closing accuracies in percent of two seeds of one job, (2, n)."""
    with log(where / f"{name}-s1") as one, log(where / f"{name}-s2") as two:
        return 100 * np.array([one["closing/accuracy"][:], two["closing/accuracy"][:]])


def test_a_point_is_a_job_and_its_two_spreads_are_apart(small_runs, tmp_path):
    where = small_runs / "periods"
    figure, rows = drawn("averaging_period", tmp_path / "a.png", where)
    assert [row["period"] for row in rows] == ["1", "4"]
    for row in rows:
        found = seeds(where, f"q{row['period']}")
        assert float(row["accuracy_mean"]) == pytest.approx(found.mean())
        assert (float(row["accuracy_min"]), float(row["accuracy_max"])) == (pytest.approx(found.min()), pytest.approx(found.max()))
        assert float(row["accuracy_sd_seeds"]) == pytest.approx(found.mean(axis=1).std(ddof=1))
        assert float(row["accuracy_sd_vertices"]) == pytest.approx(np.sqrt(found.var(axis=1, ddof=1).mean()))
        assert row["seeds"] == "2"
    with log(where / "q4-s1") as one, log(where / "q4-s2") as two:
        ends = [f["network/consensus_distance"][-1] for f in (one, two)]
    assert float(rows[1]["consensus_distance"]) == pytest.approx(np.mean(ends))
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 4]
    assert [len(axis.containers) for axis in figure.axes] == [1, 1], "bars over the seeds"


def rate_log(path, ranks, vertices, rates, batch=16, model="mlp"):
    """A log of `vertices` on `ranks` ranks whose epochs trained so many samples a second."""
    make(path, [[0.5] * vertices], ended=False)
    with h5py.File(path / "run.h5", "r+") as file:
        toml = f'[algorithm]\nname = "consensus"\n[training]\nbatch_size = {batch}\n[model]\nname = "{model}"\n'
        del file["config/toml"], file["network/samples_per_s"]
        file["config/toml"], file["network/samples_per_s"] = toml, np.array(rates)
        file["config/facts"][...] = file["config/facts"][()].replace(b"resnet20", model.encode())
        file["rank_of_vertex"][:] = np.arange(vertices) * ranks // vertices
    for part in (path / "log").iterdir():
        part.unlink()
    return path


def test_scaling_is_measured_against_the_fewest_ranks(tmp_path):
    runs = [rate_log(tmp_path / "one", 1, 4, [90, 100, 900]), rate_log(tmp_path / "two", 2, 4, [150]), rate_log(tmp_path / "again", 2, 4, [170])]
    figure, rows = drawn("scaling", tmp_path / "s.png", *runs, rate_log(tmp_path / "four", 4, 4, [200]))
    assert {row["kind"] for row in rows} == {"strong"}
    assert numbers(rows, "ranks").tolist() == [1, 2, 4]
    assert numbers(rows, "samples_per_s").tolist() == [100, 160, 200], "the median of epochs, the mean of runs"
    assert numbers(rows, "ideal_samples_per_s").tolist() == [100, 200, 400]
    assert numbers(rows, "efficiency") == pytest.approx([1, 0.8, 0.5])
    assert (rows[1]["samples_per_s_min"], rows[1]["samples_per_s_max"]) == ("150.0", "170.0")
    assert figure.axes[0].lines[0].get_ydata().tolist() == [100, 200, 400], "the ideal line"
    assert figure.axes[1].lines[1].get_ydata() == pytest.approx([100, 80, 50])


def test_weak_scaling_is_told_by_the_batch_a_rank(tmp_path):
    first = rate_log(tmp_path / "one", 1, 2, [100])
    _, rows = drawn("scaling", tmp_path / "s.png", first, rate_log(tmp_path / "four", 4, 8, [300]))
    assert {row["kind"] for row in rows} == {"weak"} and numbers(rows, "efficiency") == pytest.approx([1, 0.75])
    kind_of, made = script("scaling").kind_of, lambda r, n: {"run": f"r{r}", "ranks": r, "batch": n, "same": {}}
    for wanted, runs, words in (
        ("auto", [made(1, 8), made(2, 12)], "neither strong nor weak"),
        ("weak", [made(1, 8), made(2, 8)], "not weak scaling"),
        ("strong", [made(1, 8), made(2, 16)], "not strong scaling"),
        ("auto", [made(2, 8), made(2, 8)], "all these runs have 2 ranks"),
    ):
        with pytest.raises(UserError, match=words):
            kind_of(runs, wanted)


def test_a_comparison_has_a_line_a_sweep_or_a_value(small_runs, tmp_path):
    figure, rows = drawn("compare", tmp_path / "k.png", small_runs / "periods", small_runs / "complete", "--x", "algorithm.period")
    assert [(row["line"], row["x"], row["seeds"]) for row in rows] == [("periods", "1", "2"), ("periods", "4", "2"), ("runs", "1", "1")]
    assert float(rows[1]["accuracy_mean"]) == pytest.approx(seeds(small_runs / "periods", "q4").mean())
    assert len(figure.axes[0].get_legend_handles_labels()[1]) == 2
    words = [small_runs / "periods" / "q1-s1", small_runs / "complete"]
    figure, rows = drawn("compare", tmp_path / "k.pdf", *words)
    assert [(row["key"], row["x"]) for row in rows] == [("topology.graph", "complete:4"), ("topology.graph", "ring:4")]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["complete:4", "ring:4"]
    _, rows = drawn("compare", tmp_path / "k.svg", *words, "--x", "topology.vertices", "--by", "topology.kind")
    assert [(row["line"], row["x"]) for row in rows] == [("topology.kind = ring", "4"), ("topology.kind = complete", "4")]


def test_what_is_ten_comes_behind_nine():
    assert sorted(["q16-s1", "q2-s1", "q1-s1", "q2-s10", "ring"], key=script("runs").natural) == ["q1-s1", "q2-s1", "q2-s10", "q16-s1", "ring"]


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """The current directory, with logs that are cut, of another version, and no log at all."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "cut", [[0.5, 0.6]], ended=False)
    with make(tmp_path / "newer", [[0.5, 0.6]]) as run, RankLog(tmp_path / "bare" / "log" / "rank-0000.h5", 0, [0], network=True) as bare:
        bare.describe("", {}, run.graph)
    with h5py.File(tmp_path / "newer" / "run.h5", "r+") as file:
        file.attrs["format_version"] = 99
    (tmp_path / "newer" / "log" / "rank-0000.h5").unlink()
    (tmp_path / "empty").mkdir()
    return tmp_path


def refused(name, *words):
    """Run a script that must refuse, and return its one line."""
    result = CliRunner().invoke(script(name).main, [str(word) for word in words])
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{name}.py: ")
    return line


def test_shuffle_fraction_has_the_log_s_accuracies_and_bytes(small_runs, tmp_path):
    """Of 1,437 digits of 80 bytes over 4 vertices, 360 at the fullest: floor(0.3 x 360) arrive, or as many again with global."""
    paths = [small_runs / "shuffle" / "global", small_runs / "periods" / "q1-s1", small_runs / "shuffle" / "partial"]
    figure, rows = drawn("shuffle_fraction", tmp_path / "c.png", *paths)
    assert [row["fraction"] for row in rows] == ["0.0", "0.3", "global"]
    assert [row["sample_bytes_stored_vertex"] for row in rows] == [str(80 * count) for count in (360, 360 + 108, 2 * 360)]
    for row, path in zip(rows, (paths[1], paths[2], paths[0]), strict=True):
        with log(path) as f:
            np.testing.assert_allclose(float(row["accuracy_mean"]), 100 * f["closing/accuracy"][:].mean(), rtol=1e-12)
            assert float(row["sample_bytes_sent_vertex"]) == f["epochs/sample_bytes_sent"][:].sum() / 4
    accuracy, samples = figure.axes
    assert [text.get_text() for text in accuracy.get_xticklabels()] == ["0", "0.3", "global"]
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), numbers(rows, "accuracy_mean"))
    assert len(samples.lines[0].get_xdata()) == 2, "nothing sent has no place on a logarithmic axis"


@pytest.mark.parametrize("name", [*SCRIPTS, "table"])
def test_what_is_no_run_is_told_in_one_line_and_nothing_is_written(broken, name):
    before = sorted(broken.iterdir())
    for path, words in (("nowhere", "does not exist"), ("empty", "not a run directory"), ("newer", "log format 99, this program reads 1")):
        assert words in refused(name, path)
    assert "No such option" in refused(name, "cut", "--sets")
    if name != "table":
        assert "choose one of .png, .pdf, .svg" in refused(name, "cut", "-o", "x.gif")
        assert "there is no directory" in refused(name, "cut", "-o", "nowhere/x.png")
    assert "given twice" in refused(name, "cut", "cut")
    unfinished = "is incomplete: its log ends after step 0" if name in ("averaging_period", "compare", "shuffle_fraction", "table") else "holds no whole epoch"
    assert unfinished in refused(name, "cut" if "incomplete" in unfinished else "bare")
    assert sorted(broken.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [("averaging_period", ["periods", "complete"], "differ in topology.graph"),
     ("averaging_period", ["complete", "cta", "--by", "topology.graph"], "differ in algorithm.order"),
     ("averaging_period", ["periods/q1-s1", "periods/q1-s2"], "have the averaging period 1; give runs of at least two"),
     ("averaging_period", ["complete", "mushrooms"], "different data (digits; mushrooms)"),
     ("averaging_period", ["complete", "--by", "topology.grap"], "Did you mean 'topology.graph'"),
     ("shuffle_fraction", ["periods/q1-s1", "cta"], "differ in algorithm.order"),
     ("shuffle_fraction", ["periods/q1-s1", "periods/q1-s2"], "have the exchange fraction 0.0; give runs of at least two"),
     ("compare", ["periods/q4-s1", "cta", "complete"], "differ in topology.graph, algorithm.order, algorithm.period; say with --x"),
     ("compare", ["periods/q1-s1", "periods/q1-s2"], "do not differ in any key"),
     ("compare", ["complete", "periods/q1-s1", "--x", "topology.vertices"], "both at 4; tell them apart with --by"),
     ("compare", ["single", "mushrooms"], "different data"),
     ("scaling", ["complete", "cta"], "algorithm.order is atc and cta"),
     ("traffic", ["single"], "has sent nothing"),
     ("consensus", ["single"], "never apart")],
)  # fmt: skip
def test_runs_that_cannot_be_compared_are_refused_with_the_reason(small_runs, monkeypatch, name, words, told):
    monkeypatch.chdir(small_runs)
    before = sorted(small_runs.iterdir())
    assert told in refused(name, *words)
    assert sorted(small_runs.iterdir()) == before


def test_one_job_and_seed_counts_once(small_runs, tmp_path):
    shutil.copytree(small_runs / "periods", tmp_path / "copied")
    assert "one job and one seed (1)" in refused("averaging_period", small_runs / "periods", tmp_path / "copied" / "q4-s1")


def test_without_matplotlib_and_with_a_full_disk_nothing_is_written_over(small_runs, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    out = tmp_path / "c.png"
    for path in (out, out.with_suffix(".csv")):
        path.write_text("mine")

    def full(*words, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", full)
        assert "No space left on device" in refused("curves", small_runs / "complete", "-o", out)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        assert "pip install matplotlib" in refused("curves", small_runs / "complete", "-o", out)
        assert "pip install matplotlib" in refused("curves", "nowhere"), "told ahead of any reading"
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["mine", "mine"]


def test_the_scripts_load_neither_torch_nor_mpi(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + "".join(f"import analysis.{name}\n" for name in [*SCRIPTS, "table"])
    heavy = "torch", "mpi4py", "networkx", "matplotlib", "rich"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print([m for m in {heavy} if m in sys.modules])"],
        capture_output=True, text=True, env=environment(), cwd=tmp_path, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [*SCRIPTS, "table"])
def test_help_says_what_is_drawn(name):
    result = CliRunner().invoke(script(name).main, ["--help"])
    assert result.exit_code == 0 and "RUN..." in result.output and "-h, --help" in result.output and "python analysis" not in result.output


def test_staleness_is_accuracy_time_and_ages_of_each_bound(small_runs, tmp_path):
    figure, rows = drawn("staleness", tmp_path / "s.png", small_runs / "stale")
    names = ["s0", "s2", "inf"]
    assert [float(row["staleness"]) for row in rows] == [0, 2, float("inf")] and [row["runs"] for row in rows] == names
    for name, row in zip(names, rows, strict=True):
        with log(small_runs / "stale" / name) as f:
            counts = f["ages/rows"][:].sum(axis=1)
            assert float(row["accuracy_mean"]) == pytest.approx(100 * f["closing/accuracy"][:].mean(), rel=1e-12)
            assert float(row["seconds"]) == pytest.approx(f["steps/ended_s"][:].max(), rel=1e-12)
        assert int(row["rows_mixed"]) == counts.sum() > 0
        shares = [float(row[f"age_{age}"]) for age in range(len(counts))]
        np.testing.assert_allclose(shares, counts / counts.sum(), atol=1e-12)
        assert float(row["age_mean"]) == pytest.approx(np.average(np.arange(len(counts)), weights=counts))
    assert float(rows[0]["age_0"]) == 1 and float(rows[2]["age_0"]) < 1
    # whoever waits for slow-downs is through later
    assert float(rows[0]["seconds"]) > float(rows[1]["seconds"]) >= float(rows[2]["seconds"])
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["0", "2", "inf"]
    np.testing.assert_allclose(figure.axes[2].lines[1].get_ydata(), 100 * np.cumsum([float(rows[1][f"age_{a}"]) for a in range(len(counts))]))


def test_staleness_is_of_runs_that_have_a_bound(small_runs, tmp_path):
    result = CliRunner().invoke(script("staleness").main, [str(small_runs / "gossip"), str(small_runs / "complete"), "-o", str(tmp_path / "s.png")])
    assert result.exit_code == 2 and "has no bound on staleness; leave it out" in result.output
