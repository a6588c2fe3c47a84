"""Compiled sums: the bits of torch.lerp whatever the lengths and shares, and torch alone where they cannot be had."""

import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, environment

from mpiconsensus import blending, mixing
from mpiconsensus.pieces import pieces
from mpiconsensus.transport import memory


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The shared library, built here and now from its source."""
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler here: the package then is installed without compiled sums")
    where = tmp_path_factory.mktemp("built")
    words = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", where, "--build-temp", where / "temp"]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    (path,) = where.glob("mpiconsensus/_blend*")
    assert done.returncode == 0 and "warning" not in done.stderr.lower(), done.stderr
    return path


@pytest.fixture
def built(library, monkeypatch):
    found = blending.load(str(library))
    if found == ({}, 1) and "AVX" not in torch.backends.cpu.get_cpu_capability():
        pytest.skip("no fused multiply-add here, or torch is told to use none")
    assert set(found[0]) == set(blending.NAMES), "compiled, and refused since its bits are not torch's"
    monkeypatch.setattr(blending, "kernels", lambda: found)
    return found


def problem(dtype, d, counts, seed=0):
    """Return (out rows, sums): a sum of so many rows each, of shares of every kind."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(max(counts), d, dtype=dtype, generator=generator)
    shares = [1.0, 0.5, -0.5, 0.3, -0.2, 0.7, -1.3, 1.0, 0.0, 0.49999999999]
    outs = torch.full((len(counts), d), torch.nan, dtype=dtype)
    sums = [(pieces(out), [(pieces(rows[(s + j) % count]), shares[j]) for j in range(count)]) for s, (out, count) in enumerate(zip(outs, counts))]
    return outs, sums


def blend(sums, stream=False):
    """Sum by compiled code and return True, or return False where torch has to."""
    run = blending.prepare(sums, stream)
    if run:
        run()
    return bool(run)


def by_torch(sums):
    """The definition: from the first row, one torch.lerp a further row, each over the whole row."""
    found = []
    for _, ((first, _), *rest) in sums:
        total = torch.cat(first)
        for row, share in rest:
            total = torch.lerp(total, torch.cat(row), share)
        found.append(total)
    return torch.stack(found)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d, counts", [(256, [2]), (256 * 5, [1, 4, 10]), (256 * 131, [5, 3]), (256 * 1100, [4, 1])])
def test_the_bits_are_torchs(built, dtype, d, counts, stream):
    outs, sums = problem(dtype, d, counts)
    assert blend(sums, stream)
    assert torch.equal(outs, by_torch(sums))


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_written_but_the_sums(built, stream):
    around = torch.full((3, 512), 7.0)
    _, ((_, terms),) = problem(torch.float32, 512, [3])
    before = [torch.cat(row).clone() for row, _ in terms]
    assert blend([(pieces(around[1]), terms)], stream)
    assert bool((around[0] == 7).all() and (around[2] == 7).all() and (around[1] != 7).any())
    assert all(torch.equal(torch.cat(row), was) for (row, _), was in zip(terms, before, strict=True))


def test_rows_that_agree_stay_as_they_are(built):
    row = torch.randn(1024, generator=torch.Generator().manual_seed(1))
    out = torch.empty(1024)
    assert blend([(pieces(out), [(pieces(row), 1.0), (pieces(row.clone()), 1 / 3), (pieces(row.clone()), 0.9)])])
    assert torch.equal(out, row)


def test_an_out_row_off_the_cache_lines_is_written_too(built):
    store = torch.zeros(1 + 512)
    _, ((_, terms),) = problem(torch.float32, 512, [4])
    sums = [(pieces(store[1:]), terms)]
    assert blend(sums, True) and torch.equal(store[1:], by_torch(sums)[0]) and store[0] == 0


@pytest.mark.parametrize("dtype, d, threads", [(torch.float32, 1000, 1), (torch.bfloat16, 512, 1), (torch.float32, 512, 2)])
def test_what_it_cannot_sum_is_torchs(built, dtype, d, threads):
    outs, sums = problem(dtype, d, [3, 2])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert not blend(sums)
        mixing.Sums(sums, stream=True).run()
    finally:
        torch.set_num_threads(before)
    assert torch.equal(outs, by_torch(sums))


def test_without_compiled_code_the_bits_are_the_same(built, monkeypatch):
    outs, sums = problem(torch.float32, 256 * 1100, [4, 3])
    mixing.Sums(sums).run()
    compiled = outs.clone()
    monkeypatch.setattr(blending, "kernels", lambda: ({}, 1))
    mixing.Sums(sums).run()
    assert torch.equal(outs, compiled)


def test_a_library_that_cannot_be_loaded_or_sums_otherwise_is_not_taken(library, tmp_path, monkeypatch):
    (tmp_path / "other.so").write_bytes(b"of another machine")
    assert blending.load(str(tmp_path / "other.so")) == ({}, 1)
    lerp = torch.lerp
    monkeypatch.setattr(torch, "lerp", lambda a, b, share: lerp(a.double(), b.double(), share).to(a.dtype) if a.dtype == torch.float32 else lerp(a, b, share))
    assert torch.float32 not in blending.load(str(library))[0]


@pytest.mark.parametrize("shape, dtype", [((3, 300_000), torch.float64), ((1, memory.HUGE), torch.uint8), ((2, 10), torch.float32)])
def test_rows_in_huge_pages_are_zeros_that_stay(shape, dtype):
    rows = memory.zeros(shape, dtype)
    assert (rows.shape, rows.dtype, rows.is_contiguous()) == (shape, dtype, True) and not rows.any()
    assert rows.data_ptr() % (memory.HUGE if rows.nbytes >= memory.HUGE else 1) == 0
    last = rows[-1]
    last[-1] = 5
    del rows
    torch.zeros(1 << 20)  # what is free would be taken
    assert last[-1] == 5 and not last[:-1].any()
