"""README and docs: the reference pages are what the code says, every command and every Python block runs.

Commands run in a made-up checkout, page by page, with small fake raw data and few steps (`smaller`); what cannot run here
stands in ELSEWHERE with the test that runs it. A command that is in neither fails.
"""

import html
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import ROOT, environment, mpirun
from test_data_prep import cifar10_raw, cifar100_raw, fashion_raw

from mpiconsensus import config, network, runlog
from mpiconsensus.algorithms import REGISTRY, Setting

DOCS = ROOT / "docs"
# These two report measurements; their commands take minutes to days and are run by hand.
MEASURED = {"performance.md", "reproduction.md"}
FIRST = [DOCS / "prepare-data.md", ROOT / "README.md"]  # they make what the other pages use
PAGES = FIRST + sorted(p for p in DOCS.glob("*.md") if p not in FIRST and p.name not in MEASURED)
# Commands that do not run here: how they begin -> what runs them.
ELSEWHERE = {
    "sbatch": "tests/test_slurm.py::test_a_script_starts_its_job_with_its_tasks",
    "bash slurm/prepare_data.sh": "tests/test_slurm.py::test_prepare_data_makes_stripes_and_verifies_what_a_job_needs",
    "bash slurm/ring4.sh": "tests/test_slurm.py::test_a_script_starts_its_job_with_its_tasks",
    "make test-slurm": "Makefile::test-slurm",
    "apptainer": "slurm/mpiconsensus.def::apptainer build",
    "bash slurm/torus36.sh": "tests/test_slurm.py::test_this_machine_makes_the_shards_and_trains_36_vertices",
    "mpiconsensus sweep jobs/gossip_pairs.toml --local": "tests/test_sweep_local.py::test_called_again_it_goes_on_with_what_is_missing",
    "mpiconsensus sweep jobs/gossip_pairs.toml --ranks": "tests/test_sweep_local.py::test_cancel_ends_a_sweep_under_mpirun_and_refuses_what_is_finished",
    "mpiconsensus sweep jobs/gossip_pairs.toml --at-once 8 --submit": "tests/test_sweep_slurm.py::test_submit_files_one_array_of_what_is_missing",
    "mpiconsensus status runs/gossip_pairs": "tests/test_sweep_slurm.py::test_status_tells_what_slurm_knows",
    "mpiconsensus cancel": "tests/test_sweep_slurm.py::test_cancel_ends_tasks_of_an_array",
    "python analysis/table.py runs/gossip_pairs": "tests/test_sweep_local.py::test_analysis_takes_the_sweep_and_keeps_the_spread_over_seeds_apart",
    "python analysis/compare.py runs/gossip_pairs": "tests/test_sweep_local.py::test_analysis_takes_the_sweep_and_keeps_the_spread_over_seeds_apart",
    "mpiconsensus sweep jobs/compression/reference.toml --local": "tests/test_compression_reference.py::test_iterations_and_bits_are_the_published_ones",
    "python analysis/traffic.py runs/reference": "tests/test_analysis_bits.py::test_traffic_counts_bits_and_says_when_the_gradient_was_small",
    "mpiconsensus sweep jobs/shuffle_fashion.toml --local": "tests/test_jobs.py::test_every_run_of_a_sweep_names_what_can_be_built",
    "pip install": "Makefile::pip install",
}
MAIN = "mpirun -n 4 mpiconsensus train"  # other pages use its run directory
STEPS = "--set training.max_steps=2 --set evaluation.samples=20"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page):
    """Return the (language, text) of the fenced blocks of a page."""
    return FENCE.findall(page.read_text())


def commands(language, text):
    """Return the command lines of a block: all lines of sh, those behind a prompt of console."""
    if language == "sh":
        return [line.partition("    #")[0].strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [line[2:] for line in text.splitlines() if line.startswith("$ ")] if language == "console" else []


ALL = list(dict.fromkeys(c for page in PAGES for block in blocks(page) for c in commands(*block)))


def name_of(block):
    """Return the file that the first line of a Python block names, or ''."""
    found = re.match(r"# (\S+\.py)\n", block)
    return found[1] if found else ""


def smaller(command):
    """Return the command for few ranks and steps."""
    if command != MAIN:
        command = re.sub(r"mpirun -n \d+", "mpirun -n 2", command)
    if "mpiconsensus bench" in command:
        command += " --repeats 1"
    return f"{command} {STEPS}" if "mpiconsensus train" in command and "--dry-run" not in command else command


# A process that has loaded what takes seconds forks for each command. argv: modules; a line of input: what to run, its words, and
# the file for what it says.
SERVER = """
import importlib, json, os, runpy, sys, traceback
for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    program, words, out = json.loads(line)
    child = os.fork()
    if not child:
        target = os.open(out, os.O_WRONLY | os.O_CREAT)
        os.dup2(target, 1), os.dup2(target, 2)
        sys.argv, code = [program, *words], 1
        try:
            if program == "mpiconsensus":
                importlib.import_module("mpiconsensus.cli").main()
            sys.path[0] = os.path.dirname(os.path.realpath(program))
            runpy.run_path(program, run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
            if isinstance(code, str):
                print(code, file=sys.stderr)
                code = 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
OF_COMMANDS = ["mpiconsensus.cli.train", "mpiconsensus.cost", "mpiconsensus.inference", "mpiconsensus.run", "mpiconsensus.topology"]
OF_SCRIPTS = ["click", "h5py", "numpy"] + ["matplotlib.pyplot"] * bool(importlib.util.find_spec("matplotlib"))
# Under one mpirun, one command after the other: argv[1] is a file with their words; beside it N.out takes what is said, N.code exit codes.
BATCH = """
import json, os, sys
import mpiconsensus.cli
where = os.path.dirname(sys.argv[1])
for number, words in enumerate(json.load(open(sys.argv[1]))):
    target = os.open(f"{where}/{number}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(target, 1), os.dup2(target, 2), os.close(target)
    sys.argv = ["mpiconsensus", *words]
    try:
        mpiconsensus.cli.main()
    except SystemExit as end:
        sys.stdout.flush()
        with open(f"{where}/{number}.code", "a") as codes:
            codes.write(f"{end.code or 0}\\n")
"""
TOGETHER = "mpirun -n 2 mpiconsensus "  # how commands of the batch begin, made smaller


class Server:
    """A process that runs commands and scripts in `folder` without a start of their own. modules: what it has loaded."""

    def __init__(self, folder, env, modules):
        self.out = folder / "output"
        words = [sys.executable, "-c", SERVER, *modules]
        self.process = subprocess.Popen(words, cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, program, words):
        """Return (exit code, output)."""
        self.out.unlink(missing_ok=True)
        self.process.stdin.write(json.dumps([program, words, str(self.out)]) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return code, self.out.read_text()

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)


class Checkout:
    """A directory in which the commands of the pages find what they would find in a checkout."""

    def __init__(self, folder):
        self.folder, self.done = folder, {}
        shutil.copytree(ROOT / "docs", folder / "docs")
        for name in ("jobs", "data_prep", "analysis"):
            (folder / name).symlink_to(ROOT / name)
        cifar10_raw(folder / "raw" / "cifar-10-batches-bin", records=10)
        cifar100_raw(folder / "raw" / "cifar-100-binary")
        fashion_raw(folder / "raw" / "fashion-mnist", counts=(100, 5))
        rows = ["1 1:1 3:1\n", "2 2:1 4:1\n"] * 20
        (folder / "raw" / "mushrooms").write_text("".join(rows))
        self._programs()
        self.environment = environment(PATH=f"{folder / 'bin'}:{os.environ['PATH']}")
        for page in PAGES:
            for language, text in blocks(page):
                if language == "python" and "/" not in name_of(text) != "":
                    (folder / name_of(text)).write_text(text)
        self.commands, self.scripts = (Server(folder, self.environment, modules) for modules in (OF_COMMANDS, OF_SCRIPTS))

    def _programs(self):
        launcher = shlex.split(os.environ.get("MPIRUN", "mpirun --oversubscribe --bind-to none"))
        beside = Path(sys.executable).parent / launcher[0]
        launcher[0] = str(beside) if beside.exists() else shutil.which(launcher[0])
        (self.folder / "bin").mkdir()
        python = shlex.quote(sys.executable)
        lines = {"mpirun": shlex.join(launcher), "mpiconsensus": f"{python} -m mpiconsensus", "python": python}
        for name, line in lines.items():
            program = self.folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
            program.chmod(0o755)

    def run(self, command):
        """Run a command line, once; keep (exit code, output)."""
        if command in self.done or elsewhere(command):
            return
        words = shlex.split(smaller(command))
        if words[0] == "make":
            env = environment(MAKEFLAGS="", ARGS="")  # those of the `make test` that this may be part of
            done = subprocess.run([words[0], "-n", *words[1:]], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
            self.done[command] = done.returncode, done.stdout + done.stderr
        elif words[0] == "mpiconsensus":
            self.done[command] = self.commands.run(words[0], words[1:])
        elif words[0] == "python":
            self.done[command] = self.scripts.run(words[1], words[2:])
        elif smaller(command).startswith(TOGETHER):
            self.together()
        else:
            self.done[command] = self.shell(smaller(command))

    def together(self):
        """Run all commands that begin with TOGETHER under one mpirun, in which each rank loads torch once."""
        found = [command for command in ALL if smaller(command).startswith(TOGETHER) and not elsewhere(command)]
        batch = self.folder / "batch"
        batch.mkdir()
        (batch / "batch.py").write_text(BATCH)
        (batch / "words.json").write_text(json.dumps([shlex.split(smaller(command).removeprefix(TOGETHER)) for command in found]))
        _, said = self.shell("mpirun -n 2 python batch/batch.py batch/words.json", timeout=400)
        for number, command in enumerate(found):
            output, codes = batch / f"{number}.out", batch / f"{number}.code"
            ended = codes.read_text().split() if codes.exists() else []
            code = max(map(int, ended)) if len(ended) == 2 else -1
            self.done[command] = code, output.read_text() if output.exists() else said

    def shell(self, line, timeout=120):
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        return done.returncode, done.stdout + done.stderr


def elsewhere(command):
    """Return what runs a command that does not run here, or ''."""
    command = re.sub(r"^(\w+=(\"[^\"]*\"|\S*) )+", "", command)  # settings from the environment
    return next((where for start, where in ELSEWHERE.items() if command.startswith(start)), "")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Run every page from its top to its end; Python blocks without a file name run where they stand."""
    here = Checkout(tmp_path_factory.mktemp("checkout"))
    try:
        for page in PAGES:
            for number, (language, text) in enumerate(blocks(page)):
                for command in commands(language, text):
                    here.run(command)
                if language == "python" and not name_of(text) and page not in NETWORKS:
                    (here.folder / "block.py").write_text(text)
                    here.done[page.name, number] = here.shell("python block.py")
        yield here
    finally:
        here.commands.close()
        here.scripts.close()


NETWORKS = [ROOT / "README.md", DOCS / "bring-your-own-model.md"]


@pytest.mark.parametrize("command", ALL)
def test_a_command_runs(checkout, command):
    if where := elsewhere(command):
        file, _, name = where.partition("::")
        assert name in (ROOT / file).read_text()
        for word in shlex.split(command)[1:]:
            assert not word.endswith((".sh", ".py", ".toml")) or (ROOT / word.rpartition("=")[2]).exists()
        return
    pictures = ("analysis/", "--plot", "topology plot", "topology simulate")
    if any(word in command for word in pictures) and not importlib.util.find_spec("matplotlib"):
        pytest.skip("matplotlib is not installed")
    code, output = checkout.done[command]
    assert code == 0, output
    if command == "make train":  # its commands are printed; the last one runs here as the README's own
        assert re.search(r"mpirun .*-n 4 mpiconsensus train\s*$", output)
    if command == "make test":
        assert "-m pytest" in output


@pytest.mark.parametrize("page", [p for p in PAGES if p not in NETWORKS], ids=lambda p: p.name)
def test_a_python_block_runs(checkout, page):
    for key, (code, output) in checkout.done.items():
        assert key[0] != page.name or code == 0, output


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_output_shown_is_what_appears(checkout, page):
    for language, text in blocks(page):
        if language == "console":
            (command,) = commands(language, text)
            _, output = checkout.done[command]
            shown = [line for line in text.splitlines()[1:] if line != "..."]
            assert shown and not [line for line in shown if line not in output.splitlines()]


# Around the blocks: what a user has. Each vertex has samples of its own, so that only averaging makes them equal.
PRELUDE = """
import torch
rank = int(__import__("os").environ.get("OMPI_COMM_WORLD_RANK") or __import__("mpi4py.MPI").MPI.COMM_WORLD.rank)
torch.manual_seed(rank)
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loss_function = torch.nn.functional.cross_entropy
batches = [(torch.randn(5, 4), torch.randint(2, (5,))) for _ in range(3)]
tensor = torch.tensor([float(rank)])
first = model.weight.detach().clone()
"""
CHECKS = """
assert tensor.tolist() == [0.5], tensor
assert net.consensus_distance() < 1e-6 and (model.weight.detach() - first).abs().max() > 1e-3
"""


def test_the_networks_of_the_pages_average(tmp_path):
    readme, own = ("".join(text for language, text in blocks(p) if language == "python" and not name_of(text)) for p in NETWORKS)
    script = tmp_path / "blocks.py"
    script.write_text(f"{PRELUDE}{readme}{CHECKS}{own}\nassert tensor.tolist() == [0.5] * 3, tensor\nprint('averaged')\n")
    done = mpirun(2, script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["averaged"] * 2


def test_the_lines_of_the_readme_are_those_of_the_docstring():
    text = next(text for language, text in blocks(ROOT / "README.md") if language == "python")
    shown = text.partition("import mpiconsensus\n")[2].strip()
    documented = network.Network.__doc__
    assert shown == textwrap.dedent(documented[documented.index("        net = ") :]).strip()


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem + "_of_docs", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


reference = module(DOCS / "reference.py")


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_reference_page_is_what_the_code_says(checkout, name):
    committed = (DOCS / f"{name}.md").read_text()
    assert committed == reference.PAGES[name](), "run `python docs/reference.py`"
    assert committed == (checkout.folder / "docs" / f"{name}.md").read_text()


def row(page, name):
    (line,) = [line for line in (DOCS / page).read_text().splitlines() if line.startswith(f"| `{name}` |")]
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.removeprefix("| ").removesuffix(" |"))]


@pytest.mark.parametrize("key", config.KEYS, ids=lambda k: k.name)
def test_a_key_is_documented(key):
    _, _, default, meaning = row("job-keys.md", key.name)
    assert default == f"`{config.toml_value(key.default)}`"
    assert all(f"`{choice}`" in meaning for choice in key.choices) and key.help in meaning


@pytest.mark.parametrize("column", runlog.COLUMNS, ids=lambda c: f"{c.group}-{c.name}")
def test_a_column_is_documented(column):
    _, shape, unit, meaning = row("log-layout.md", f"/{column.group}/{column.name}")
    assert (unit, meaning) == (column.unit, column.meaning) and ("n" in re.findall(r"\w+", shape)) == column.vertex


def test_algorithms_are_documented():
    for name, cls in REGISTRY.items():
        assert cls.reference in row("algorithms.md", name)[-1]
        assert f"`{name}`" in (DOCS / "choose-an-algorithm.md").read_text()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda p: p.name)
def test_what_a_page_names_is_there(page):
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            assert (page.parent / file).exists(), target
            headings = re.findall(r"^#+ (.*)$", (page.parent / file).read_text(), re.MULTILINE) if anchor else []
            assert not anchor or anchor in [h.lower().replace(" ", "-") for h in headings], target
    for word in re.findall(r"`([^`\n]+)`", text):
        key = re.match(rf"({'|'.join(config.TABLES)})\.(\w+)", word)
        if key and not word.endswith((".h5", ".toml", ".json", ".py", ")")):
            assert key[0] in config.BY_NAME, word
        if re.fullmatch(r"(mpiconsensus|tests|docs|jobs|slurm|data_prep|analysis)/[\w/]*(\.\w+)?", word):
            assert (ROOT / word).exists(), word


def test_the_algorithm_of_the_page_is_its_reference():
    texts = {name_of(text): text for language, text in blocks(DOCS / "add-an-algorithm.md") if language == "python"}
    made, expected = {}, {}
    exec(texts["mpiconsensus/algorithms/sweep.py"], made)  # noqa: S102 - the page's own code
    exec(texts["tests/reference/matrix.py"], expected)  # noqa: S102
    edges = np.array([(0, 1), (0, 3), (1, 2), (2, 3)])
    options = config.Job({}).algorithm
    schedule = made["Sweep"](Setting(4, [], edges, options, [], 1, 9))
    x = y = start = np.random.default_rng(0).normal(size=(4, 3))
    for k in range(9):
        g = np.sin(y)
        y = y - 0.1 * g
        for round_ in schedule.rounds(k):
            y = round_.matrix() @ y
            assert round_.keeps_mean
        x = expected["sweep"](k, x, lambda x, k: np.sin(x), 0.1, edges)
    assert np.abs(x - y).max() < 1e-14 and np.ptp(y, axis=0).max() < 0.5 * np.ptp(start, axis=0).max()


def text_of(svg):
    ElementTree.fromstring(svg)  # a browser shows nothing of a file that is not well-formed
    return [html.unescape(line).replace("\xa0", " ").strip() for line in re.findall(r"<text[^>]*clip-path[^>]*>([^<]*)</text>", svg)]


def test_the_picture_shows_what_a_run_says(checkout):
    again = module(checkout.folder / "docs" / "terminal.py")
    again.main(checkout.folder / "runs" / "digits-ring4-0001")
    old, new = text_of((DOCS / "terminal.svg").read_text()), text_of((checkout.folder / "docs" / "terminal.svg").read_text())
    assert len(old) > 20 and old[:6] == new[:6]
