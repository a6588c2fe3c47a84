"""The list of compressors: what stands there can be named, and its figures are those of the literature's formulas."""

import math

import pytest
from click.testing import CliRunner

from mpiconsensus import compress
from mpiconsensus.cli import group, lists
from mpiconsensus.errors import UserError


def listed(*words):
    done = CliRunner().invoke(lists.compressors, words, catch_exceptions=False)
    assert done.exit_code == 0
    return {line.split()[0]: line for line in done.output.splitlines()[1:]}


def test_every_compressor_is_listed_with_class_constant_and_bits():
    lines = listed()
    assert {spec.partition(":")[0] for spec in lines} == set(compress.REGISTRY)
    k, d = 10_000, 1_000_000
    expected = {
        "top-k:0.01": ("contractive", "alpha = 0.01", f"{32 * k + math.ceil(math.log2(math.comb(d, k))):,}"),
        "rand-k-unbiased:0.01": ("unbiased", "zeta = 100", "320,000"),
        "svd:4": ("contractive", "alpha = 0.004", "256,000"),
        "natural": ("unbiased", "zeta = 1.125", "9,000,000", "28.125%"),
        "terngrad": ("unbiased", "zeta = 500.5"),
        "power-step:4": ("no bound", "PowerSGD"),
        "bf16": ("contractive", "alpha = 0.99998"),
    }
    for spec, words in expected.items():
        assert all(word in lines[spec] for word in words), lines[spec]


def test_a_given_one_is_listed_for_a_given_size():
    lines = listed("top-k:22", "top-k:22+power-of-two", "--size", "112")
    # 22 * 32 + 77 bits, 22 * 9 + 77 bits
    assert "781" in lines["top-k:22"].split() and "275" in lines["top-k:22+power-of-two"].split()
    assert "nearer power of two" in lines["top-k:22+power-of-two"]
    with pytest.raises(UserError, match=r"'top-q'.*Did you mean 'top-k'"):
        lists.compressors.main(["top-k:3", "top-q:3"], standalone_mode=False)


def test_the_list_does_for_a_vector_with_room_for_less():
    assert "svd:4" in listed("--size", "6")
    with pytest.raises(UserError, match=r"svd:4.*2 x 3 here; give a rank of at most 2"):
        lists.compressors.main(["svd:4", "--size", "6"], standalone_mode=False)


def test_a_dry_run_refuses_what_the_method_cannot_do_with():
    with pytest.raises(UserError, match=r"diana needs an unbiased compressor, compression.operator = top-k:3 is not"):
        group.main(["train", "--dry-run", "--set", "algorithm.name=diana", "--set", "compression.operator=top-k:3"], standalone_mode=False)
