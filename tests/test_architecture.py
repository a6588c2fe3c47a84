"""The rooms of the house: who may import whom, and what must stay light."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT, environment

PACKAGE = ROOT / "mpiconsensus"
# From the outside in: a room may import from rooms that stand below it, and from `anyone`.
FLOORS = [
    {"cli"},
    {"sweep"},
    {"asynchronous"},
    {"run", "inference", "cost", "network", "bench", "watch"},
    {"evaluation", "progress", "saving", "provenance", "status"},
    {"training", "report", "trace", "resume", "assembly", "livelog", "logpace"},
    {"compressing"},
    {"stepper", "optim", "concurrency", "runread"},
    {"algorithms", "merging", "modelfiles", "doctor", "record", "rundirectory", "checkpoint", "pulse", "sweepdirectory"},
    {"mixing", "transport", "wiring", "machine", "placement", "runlog"},
    {"schedule", "survey"},
    {"block", "models", "data", "weights", "runtime", "diskrows", "compress"},
    {"topology", "pieces", "blending", "mapping", "description", "hetero", "formula", "regulariser", "arithmetic"},
]
ANYONE = {"errors", "config", "randomness", "limits", "outputs", "process", "signals", "slurm", "tabletext"}


def imports(path):
    """Yield (module words, whether at the top of the file) of every import of a file."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "mpiconsensus" else [node.module]
        for name in names:
            yield name.split("."), id(node) in top


def files():
    return [p for p in PACKAGE.rglob("*.py") if p.name not in ("__main__.py",) and p != PACKAGE / "__init__.py"]


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_room_stands_on_a_floor():
    placed = set().union(*FLOORS) | ANYONE
    assert {room(p) for p in files()} == placed


def test_arrows_point_down_only():
    height = {name: i for i, floor in enumerate(FLOORS) for name in floor}
    for path in files():
        here = room(path)
        for words, _ in imports(path):
            if words[0] != "mpiconsensus" or len(words) < 2 or words[1] in ANYONE | {here, "__version__"}:
                continue
            assert here not in ANYONE, f"{path.name} is for anyone and imports {words[1]}"
            assert height[words[1]] > height[here] or {here, words[1]} <= {"transport", "mixing"} | {"block", "data"}, (
                f"{path.relative_to(PACKAGE)} imports {words[1]}, which stands no lower"
            )


def test_only_transport_and_runtime_touch_mpi_and_only_lazily():
    for path in files():
        for words, at_top in imports(path):
            if words[0] == "mpi4py":
                assert path == PACKAGE / "runtime.py" and not at_top
        if room(path) not in ("transport", "runtime", "machine", "provenance"):
            assert "mpi()" not in path.read_text(), path


def test_data_logs_and_jobs_know_no_algorithm():
    for path in files():
        if room(path) in ("data", "runlog", "merging", "runread", "config"):
            used = {words[1] for words, _ in imports(path) if words[0] == "mpiconsensus" and len(words) > 1}
            assert used <= ANYONE | {"data", "runlog", "description", "diskrows", "merging"}, path


def test_analysis_needs_neither_torch_nor_mpi():
    for path in (ROOT / "analysis").glob("*.py"):
        assert not {"torch", "mpi4py"} & {words[0] for words, _ in imports(path)}


def loaded(code, *names):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*[m for m in {names!r} if m in sys.modules])"],
        capture_output=True, text=True, env=environment(), timeout=120, check=True,
    )  # fmt: skip
    return done.stdout.split("\n")[-2].split()


HEAVY = ("torch", "mpi4py", "networkx", "h5py", "scipy", "cvxpy", "pandas", "matplotlib", "torchvision", "rich")


def test_the_package_and_its_help_are_light():
    assert loaded("import mpiconsensus", *HEAVY) == []
    assert loaded("from mpiconsensus.cli import group; group.main(['--help'], standalone_mode=False)", *HEAVY) == []
    assert loaded("from mpiconsensus.cli import group; group.main(['config'], standalone_mode=False)", *HEAVY) == []
    assert loaded("from mpiconsensus.cli import group; group.main(['topology', 'show', '--help'], standalone_mode=False)", *HEAVY) == []
    assert loaded("from mpiconsensus.cli import group; group.main(['bench', 'round', '--help'], standalone_mode=False)", *HEAVY) == []


def test_training_does_not_load_what_it_does_not_need(tmp_path):
    run = f"group.main(['train', '--out', {str(tmp_path / 'run')!r}, '--set', 'training.max_steps=2'], standalone_mode=False)"
    found = loaded(f"from mpiconsensus.cli import group; {run}", *HEAVY, "torch._dynamo", "mpi4py.MPI")
    assert found == ["torch", "h5py"]


@pytest.mark.parametrize("path", sorted(files()), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_reads_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 340
