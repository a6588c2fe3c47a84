"""The report's figures against numbers worked out by hand."""

import csv
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mpiconsensus import report, tabletext
from mpiconsensus.cli.results import report as command
from mpiconsensus.runlog import RankLog, columns
from mpiconsensus.runread import Run

NAN = float("nan")


def make(run_dir, accuracy, closing=None, ended=True, losses=None):
    """A run of len(accuracy) epochs; accuracy[e] holds one number a vertex."""
    n = len(accuracy[0])
    log = RankLog(run_dir / "log" / "rank-0000.h5", 0, range(n), network=True)
    log.describe(
        '[algorithm]\nname = "consensus"\n',
        {"model": "resnet20", "parameters": 272474, "data": "digits", "mpi": "Open MPI 5", "ranks": 2, "threads": 1},
        {"n": n, "edges": [(0, 0)], "W": np.eye(n), "lambda2_modulus": 1 / 3, "spectral_gap": 2 / 3,
         "spec": f"ring:{n}", "weights": "metropolis"},
    )  # fmt: skip
    for e, row in enumerate(accuracy):
        zeros = {c.name: np.zeros(n if c.vertex else (), c.dtype) for c in columns("epochs")}
        loss = losses[e] if losses else np.arange(n) + e
        log.epoch(**zeros | {"epoch": e + 1, "accuracy": row, "train_loss": loss, "bytes_sent": 10**6 * (e + 1)})
        zeros = {c.name: np.zeros((), c.dtype) for c in columns("network")}
        figures = {"epoch": e + 1, "mean_accuracy": row[0], "consensus_distance": 0.0125 * (e + 1)}
        log.network(**zeros | figures | {"samples_per_s": 1234.4, "seconds": 2.5})
    if closing:
        log.closing(accuracy=closing, loss=[0.25, 0.5, 0.75, 1.0][:n], mean_accuracy=0.875, best_epoch=2,
                    mean_accuracy_recalibrated=NAN, consensus_distance=0.5, mass=NAN, samples=360, split="test")  # fmt: skip
    log.close(ended)
    return Run(run_dir)


def printed(*runs, **options):
    out = io.StringIO()
    report.show(list(runs), out, **options)
    return out.getvalue().splitlines()


def test_mean_and_deviation_are_those_of_a_sample():
    # deviations from the mean 0.5: -.3 -.1 .1 .3; squares sum to 0.2; over n - 1 = 3
    assert report.mean_sd([0.2, 0.4, 0.6, 0.8]) == (pytest.approx(0.5), pytest.approx((0.2 / 3) ** 0.5))
    mean, sd = report.mean_sd([0.25])
    assert mean == 0.25
    assert np.isnan(sd)


def test_the_table_of_a_run(tmp_path):
    run = make(tmp_path / "torus", [[0.2, 0.4, 0.6, 0.8], [NAN] * 4], closing=[0.9, 0.92, 0.94, 0.96])
    assert printed(run) == [
        "run        torus",
        "graph      ring:4: 4 vertices, metropolis weights, |lambda_2| = 0.3333",
        "data       digits",
        "model      resnet20, 272,474 parameters",
        "algorithm  consensus",
        "runs on    ranks x threads: 2 x 1; Open MPI 5",
        "",
        "epoch    loss      accuracy %  mean model %  distance  samples/s  MB sent  seconds",
        "1      1.5000  50.00 +- 25.82         20.00    0.0125       1234      4.0      2.5",
        "2      2.5000               -             -     0.025       1234      8.0      2.5",
        "",
        "closing evaluation",
        "evaluated                             360 samples of test, every vertex",
        "accuracy %, mean +- sd over vertices                      93.00 +- 2.58",
        "accuracy %, lowest to highest                            90.00 to 96.00",
        "accuracy %, mean model                                            87.50",
        "loss, mean +- sd over vertices                         0.6250 +- 0.3227",
        "best epoch                                                            2",
    ]


def test_the_summary_takes_the_closing_evaluation_else_the_last_evaluated_epoch(tmp_path):
    rows = [[0.2, 0.4], [0.5, 0.7], [NAN, NAN]]
    cut = report.summary(make(tmp_path / "a", rows, ended=False))
    assert (cut["accuracy"], cut["accuracy_sd"]) == (pytest.approx(0.6), pytest.approx(0.2 / 2**0.5))
    assert (cut["loss"], cut["bytes_sent"], cut["epochs"], cut["complete"]) == (2.5, 12 * 10**6, 3, False)
    ended = report.summary(make(tmp_path / "b", rows, closing=[0.8, 0.9]))
    assert (ended["accuracy"], ended["accuracy_sd"]) == (pytest.approx(0.85), pytest.approx(0.1 / 2**0.5))
    assert (ended["accuracy_min"], ended["accuracy_max"], ended["mean_accuracy"]) == (0.8, 0.9, 0.875)


def test_the_loss_is_over_the_vertices_that_trained(tmp_path, recwarn):
    run = make(tmp_path, [[0.5, 0.5], [0.5, 0.5]], losses=[[NAN, 3.0], [NAN, NAN]])
    assert [line.split()[1] for line in printed(run)[8:10]] == ["3.0000", "-"]
    assert not list(recwarn)


def test_one_vertex_has_no_deviation_and_a_cut_run_says_so(tmp_path):
    lines = printed(make(tmp_path, [[0.5]], ended=False))
    assert "incomplete: the log ends after step 0, epoch 1" in lines
    assert lines[-1].split() == ["1", "0.0000", "50.00", "50.00", "0.0125", "1234", "1.0", "2.5"]


def test_a_run_without_an_epoch_has_a_header(tmp_path):
    path = tmp_path / "bare" / "log" / "rank-0000.h5"
    with make(tmp_path / "fresh", [[0.5]]) as run, RankLog(path, 0, [0], network=True) as log:
        log.describe("", {}, run.graph)
    assert printed(Run(tmp_path / "bare"))[:4] == [
        "run        bare", "graph      ring:1: 1 vertices, metropolis weights, |lambda_2| = 0.3333",
        "data       -", "model      -, - parameters",
    ]  # fmt: skip


def test_last_bounds_the_epochs_printed(tmp_path):
    run = make(tmp_path, [[0.5, 0.6]] * 14)
    assert [line.split()[0] for line in printed(run, last=3)[8:]] == ["12", "13", "14"]
    assert len(printed(run)[8:]) == 10
    assert len(printed(run, last=0)[8:]) == 14


def test_several_runs_are_one_row_each(tmp_path):
    first = make(tmp_path / "first", [[0.2, 0.4]], closing=[0.8, 0.9])
    second = make(tmp_path / "second", [[0.5, 0.7]], ended=False)
    head, one, two = printed(first, second)
    assert head.split("  ")[0] == "run"
    assert [cell.strip() for cell in one.split("  ") if cell] == [
        "first", "ring:2", "0.3333", "consensus", "digits", "resnet20", "1", "0.5000", "85.00 +- 7.07", "87.50",
        "0.0125", "2.0", "2.5",
    ]  # fmt: skip
    assert "1 (incomplete)" in two
    assert "60.00 +- 14.14" in two


def test_a_terminal_gets_the_same_cells_in_a_frame(tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    text = "\n".join(printed(make(tmp_path, [[0.2, 0.4, 0.6, 0.8]])))
    assert "50.00 +- 25.82" in text
    assert "┃" in text


def test_the_formats_hold_the_figures_of_the_table(tmp_path):
    with make(tmp_path / "a_b", [[0.2, 0.4, 0.6, 0.8], [NAN] * 4], closing=[0.9, 0.92, 0.94, 0.96]) as run:
        markdown, latex = (report.text([run], form).splitlines() for form in ("markdown", "latex"))
        last = report.text([run], "markdown", 1).splitlines()
        rows = list(csv.DictReader(report.text([run], "csv").splitlines()))
        (found,) = json.loads(report.text([run], "json"))
    assert markdown[:2] == ["- run a_b", "- graph ring:4: 4 vertices, metropolis weights, |lambda_2| = 0.3333"]
    assert markdown[7] == "| epoch | loss | accuracy % | mean model % | distance | samples/s | MB sent | seconds |"
    assert markdown[9] == "| 1 | 1.5000 | 50.00 ± 25.82 | 20.00 | 0.0125 | 1234 | 4.0 | 2.5 |"
    assert "| accuracy %, mean ± sd over vertices | 93.00 ± 2.58 |" in markdown
    assert [line.split()[1] for line in last[9:10]] == ["2"] and len(last) == len(markdown) - 1
    assert latex[0] == "% run a_b" and r"1 & 1.5000 & 50.00 $\pm$ 25.82 & 20.00 & 0.0125 & 1234 & 4.0 & 2.5 \\" in latex
    assert sum(line == r"\begin{tabular}{lrrrrrrr}" for line in latex) == 1
    # deviations from 0.5: -.3 -.1 .1 .3; squares sum to 0.2; over n - 1 = 3
    assert float(rows[0]["accuracy_sd"]) == pytest.approx((0.2 / 3) ** 0.5) and float(rows[0]["accuracy"]) == pytest.approx(0.5)
    assert (rows[1]["epoch"], rows[1]["accuracy"], rows[1]["bytes_sent"]) == ("2", "", "8000000")
    assert (found["run"], found["accuracy_max"], found["mean_accuracy_recalibrated"]) == ("a_b", 0.96, None)
    assert [row["accuracy"] for row in found["epoch_rows"]] == [pytest.approx(0.5), None]


def test_several_runs_in_a_format_are_a_row_each(tmp_path):
    runs = [make(tmp_path / "first_1", [[0.2, 0.4]], closing=[0.8, 0.9]), make(tmp_path / "second", [[0.5, 0.7]], ended=False)]
    markdown, latex = (report.text(runs, form).splitlines() for form in ("markdown", "latex"))
    assert len(markdown) == 4 and r"| first\_1 | ring:2 |" in markdown[2] and r"\|lambda\_2\|" in markdown[0]
    assert r"first\_1 & ring:2 & 0.3333" in "\n".join(latex) and r"$|\lambda_2|$ & algorithm" in latex[3]
    rows = list(csv.DictReader(report.text(runs, "csv").splitlines()))
    assert [(row["run"], row["complete"]) for row in rows] == [("first_1", "True"), ("second", "False")]
    assert [float(row["accuracy"]) for row in rows] == pytest.approx([0.85, 0.6])
    assert rows[1]["best_epoch"] == "" and rows[0]["best_epoch"] == "2"
    assert [found["run"] for found in json.loads(report.text(runs, "json"))] == ["first_1", "second"]


def test_the_command_knows_the_formats_and_prints_every_epoch_as_numbers(tmp_path):
    make(tmp_path / "run", [[0.5, 0.6]] * 14).close()
    for words, lines in ((["--format", "csv"], 15), (["--format", "csv", "--epochs", "3"], 4), (["--format", "markdown"], 19)):
        result = CliRunner().invoke(command, [str(tmp_path / "run"), *words])
        assert result.exit_code == 0 and len(result.stdout.splitlines()) == lines, result.output
    assert "'html' is not one of" in CliRunner().invoke(command, [str(tmp_path / "run"), "--format", "html"]).stderr


def test_what_latex_and_markdown_would_take_for_their_own_is_escaped():
    cell = r"a\b & 5% $x_1 #{y} ~ ^"
    (row,) = [line for line in tabletext.latex(["h"], [[cell]]) if line.startswith("a")]
    assert row == r"a\textbackslash{}b \& 5\% \$x\_1 \#\{y\} \textasciitilde{} \textasciicircum{} \\"
    assert tabletext.markdown(["h"], [["a|b*c_d`<"]])[-1] == r"| a\|b\*c\_d\`\< |"


@pytest.fixture
def curves():
    path = Path(__file__).parent.parent / "analysis" / "curves.py"
    spec = importlib.util.spec_from_file_location("curves", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_spread_of_a_curve_leaves_out_what_was_not_measured(curves):
    found = curves.spread(np.array([[0.2, 0.4, 0.6, 0.8], [0.5, NAN, 0.7, NAN], [NAN, NAN, 0.3, NAN], [NAN] * 4]), "x")
    want = {"x_mean": [0.5, 0.6, 0.3, NAN], "x_sd": [(0.2 / 3) ** 0.5, 0.2 / 2**0.5, NAN, NAN],
            "x_min": [0.2, 0.5, 0.3, NAN], "x_max": [0.8, 0.7, 0.3, NAN]}  # fmt: skip
    for name, values in want.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)


def test_the_numbers_drawn_lie_beside_the_picture(curves, tmp_path):
    pytest.importorskip("matplotlib")
    make(tmp_path / "a" / "run", [[0.25, 0.75], [NAN, NAN]])
    make(tmp_path / "b" / "run", [[0.5, 0.5]])
    out = tmp_path / "figure.pdf"
    runs = [str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run" / "run.h5")]
    result = CliRunner().invoke(curves.main, [*runs, "-o", str(out)])
    assert result.exit_code == 0, result.output
    with open(out.with_suffix(".csv")) as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["epoch"], row["accuracy_mean"], row["accuracy_min"]) for row in rows] == [
        ("a/run", "1", "0.5", "0.25"), ("a/run", "2", "", ""), ("b/run", "1", "0.5", "0.5"),
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_picture_is_of_the_format_of_its_suffix(curves, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    make(tmp_path / "cost_$5", [[0.25, 0.75], [NAN, NAN]])
    out = tmp_path / f"figure{suffix}"
    result = CliRunner().invoke(curves.main, [str(tmp_path / "cost_$5"), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<svg"}[suffix] in out.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["gone"], "does not exist; give a run directory"), (["run", "-o", "x.gif"], "choose one of .png, .pdf, .svg"),
     (["run", "run"], "given twice"), (["bare"], "holds no whole epoch")],
)  # fmt: skip
def test_what_cannot_be_drawn_is_named(curves, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with make(tmp_path / "run", [[0.5]]) as run, RankLog(Path("bare/log/rank-0000.h5"), 0, [0], network=True) as log:
        log.describe("", {}, run.graph)
    result = CliRunner().invoke(curves.main, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
