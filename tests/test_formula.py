"""Parameters from a formula of their position: what it means, and what it refuses."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpiconsensus import formula
from mpiconsensus.errors import UserError


def values(text, d=7):
    return formula.values("training.start", text, d)


def test_the_start_of_the_reference_problem():
    assert values("(4 * (37 * j % 113) - 225) / 256", 112).tolist() == [(4 * ((37 * j) % 113) - 225) / 256 for j in range(1, 113)]


# Python's whole numbers are exact beyond 2^53: here all are floats.
NUMBERS = st.one_of(st.integers(0, 99).map("{}.0".format), st.floats(0, 50).map(repr), st.sampled_from(["j", "d"]))
FORMULAS = st.recursive(
    NUMBERS,
    lambda part: st.one_of(
        st.builds("({} {} {})".format, part, st.sampled_from(["+", "-", "*", "/", "//", "%"]), part),
        st.builds("{} {} {}".format, part, st.sampled_from(["+", "-", "*"]), part),
        st.builds("-{}".format, part),
        st.builds("({}) ** {}".format, part, st.integers(0, 3)),
        st.builds("{}({})".format, st.sampled_from(["sin", "cos"]), part),
    ),
    max_leaves=6,
)


@given(FORMULAS, st.integers(1, 5))
def test_a_formula_is_what_python_makes_of_it_in_floating_point(text, d):
    names = {"sin": math.sin, "cos": math.cos, "d": float(d), "__builtins__": {}}
    try:
        expected = [eval(text, names | {"j": float(j)}) for j in range(1, d + 1)]
    except (ZeroDivisionError, OverflowError):
        with pytest.raises(UserError, match="not a finite number"):
            values(text, d)
        return
    np.testing.assert_allclose(values(text, d), expected, rtol=1e-9, atol=1e-9)


def test_signs_and_roots_are_python_s():
    assert values("-j % 3").tolist() == [-j % 3 for j in range(1, 8)]
    assert values("-j // 2 ** 2").tolist() == [-j // 4 for j in range(1, 8)]
    assert values(" sqrt(j * j) + -2 ** 2 ").tolist() == [j - 4 for j in range(1, 8)]
    assert values("0.5", 3).tolist() == [0.5] * 3 and values("+d", 3).tolist() == [3] * 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("9 ** 9 ** 9", "9 ** 9 ** 9 is inf"),
        ("1" + "0" * 400, "beyond float64"),
        ("1 / (j - 3)", "at j = 3 1 / (j - 3) is inf"),
        ("sqrt(2 - j)", "at j = 3 sqrt(2 - j) is nan"),
        ("j % 0", "not a finite number"),
        ("k + 1", "'k' is not allowed"),
        ("__import__('os').getcwd()", "not allowed"),
        ("j.real", "'j.real' is not allowed"),
        ("sqrt", "'sqrt' is not allowed"),
        ("sin(j, 2)", "not allowed"),
        ("sin(x=j)", "not allowed"),
        ("exp(j)", "not allowed"),
        ("j if j else 2", "not allowed"),
        ("[j]", "not allowed"),
        ("1j", "'1j' is not allowed"),
        ("True", "'True' is not allowed"),
        ("'a'", "not allowed"),
        ("j << 70", "not allowed"),
        ("j +", "cannot be read"),
        ("j\nj", "cannot be read"),
        ("j = 3", "cannot be read"),
        ("\0", "cannot be read"),
        ("(" * 400 + "j" + ")" * 400, "cannot be read"),
        ("1+" * 600 + "1", "1201 characters, at most 1000"),
    ],
)
def test_anything_else_is_refused_in_one_line(text, words):
    with pytest.raises(UserError) as caught:
        values(text)
    message = str(caught.value)
    assert words in message and message.startswith("training.start = ") and "takes numbers, j, d" in message and "\n" not in message
