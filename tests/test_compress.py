"""Compressors against their definitions, constants at the worst case, and messages against their lengths.

Constants: Beznosikov, Horvath, Richtarik & Safaryan, On biased compression for distributed learning, JMLR 2023; Horvath et al.,
Natural compression for distributed deep learning, 2019.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpiconsensus import compress
from mpiconsensus.compress import base, bits, lowrank, powers, sparse, support
from mpiconsensus.errors import UserError

BOTH = [np.float32, np.float64]
EVERY = ["identity", "top-k:0.2", "top-k:7+power-of-two", "top-k:7+natural", "rand-k:0.2", "rand-k-unbiased:9", "rand-k-unbiased:9+natural", "svd:2",
         "randomised-svd:2", "power-step:2", "pivoted-qr:2", "subspace:2", "importance:7",
         "md-stochastic:7", "md-greedy:7", "md-greedy-weighted:7", "md-weighted-greedy:7", "natural", "power-of-two", "power-of-two-log", "terngrad", "sign", "fp16", "bf16",
         "qsgd:4"]  # fmt: skip


def random(seed=0):
    return np.random.default_rng(seed)


def mean_error(c, x, draws=4000):
    """Return the averages over draws of |C(x) - x|^2 / |x|^2, |C(x)|^2 / |x|^2 and C(x) - x."""
    r, norm = random(1), float(x @ x)
    out = np.array([c(x, r) for _ in range(draws)], np.float64)
    return np.square(out - x).sum(1).mean() / norm, np.square(out).sum(1).mean() / norm, out.mean(0) - x


@given(st.integers(1, 40), st.lists(st.integers(0, 2**40), min_size=1, max_size=60))
def test_integers_are_packed_in_so_many_bits(width, values):
    values = np.array(values) % 2**width
    message = bits.pack(values, width)
    assert len(message) == -(-width * len(values) // 8)
    np.testing.assert_array_equal(bits.unpack(message, width, len(values)), values)


@given(st.integers(1, 3000), st.floats(0.0005, 1), st.integers(0, 10**6), st.sampled_from(["spread", "start", "end"]))
def test_supports_come_back_and_are_as_short_as_their_best_code(d, share, seed, where):
    k = max(1, round(share * d))
    chosen = {"spread": np.sort(random(seed).choice(d, k, replace=False)), "start": np.arange(k), "end": np.arange(d - k, d)}[where]
    message = support.encode(chosen, d)
    found, size = support.decode(np.concatenate([message, np.full(9, 255, np.uint8)]), d, k)
    np.testing.assert_array_equal(found, chosen)
    assert size == len(message)
    assert len(message) <= 1 + min(-(-d // 8), -(-k * (d - 1).bit_length() // 8))


def test_index_bits_are_those_of_the_literature():
    # d = 112, k = 22: plain 154, bitmap 112, binomial 77
    assert (support.index_bits(112, 22), support.index_bits(4, 1), support.index_bits(9, 9)) == (77, 2, 0)
    assert support.index_bits(10**6, 10**4) == math.ceil(math.log2(math.comb(10**6, 10**4)))


def test_gaps_at_one_per_cent_take_few_bits_more_than_the_entropy():
    d, k = 100_000, 1000
    length = np.mean([8 * len(support.encode(np.sort(random(s).choice(d, k, replace=False)), d)) for s in range(20)])
    assert support.index_bits(d, k) < length < 1.05 * support.index_bits(d, k)


@pytest.mark.parametrize("dtype", BOTH)
def test_top_k_keeps_the_largest_and_among_equals_the_first(dtype):
    x = np.array([1, -3, 2, 3, 0.5, -2, 3, -1], dtype)
    for k in range(1, 9):
        order = sorted(range(8), key=lambda i: (-abs(x[i]), i))[:k]
        expected = np.where(np.isin(np.arange(8), order), x, 0)
        np.testing.assert_array_equal(compress.make(f"top-k:{k}", 8, dtype)(x), expected)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=50), st.data())
def test_top_k_is_a_stable_sort_s_answer(values, data):
    x = np.array(values, np.float32)
    k = data.draw(st.integers(1, len(x)))
    order = sorted(range(len(x)), key=lambda i: (-abs(x[i]), i))[:k]
    np.testing.assert_array_equal(compress.make(f"top-k:{k}", len(x))(x), np.where(np.isin(np.arange(len(x)), order), x, 0))


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("kind", ["normal", "ties", "few", "equal", "sorted", "heavy", "not finite", "seldom"])
def test_a_sample_does_not_change_the_answer(kind, dtype):
    d, r = 3 * sparse.SAMPLE + 77, random(8)
    x = {
        "normal": r.standard_normal(d),
        "ties": r.integers(-9, 10, d),
        "few": np.where(r.random(d) < 1e-3, 1 + r.random(d), 0),
        "equal": np.full(d, -0.5),
        "sorted": -np.arange(d),
        "heavy": r.standard_cauchy(d) ** 3,
        "not finite": np.where(r.random(d) < 1e-4, [[np.nan], [-np.inf]], r.standard_normal(d))[r.integers(2)],
        "seldom": np.where(np.arange(d) == 5, 3, r.standard_normal(d)),
    }[kind].astype(dtype)
    order = np.argsort(-np.where(np.isnan(x), np.inf, np.abs(x)), kind="stable")
    for k in (1, 30, d // 100, d // 5, d - 3):
        np.testing.assert_array_equal(sparse.largest(x, k), np.sort(order[:k]))


def test_a_sample_that_misleads_costs_time_alone(monkeypatch):
    x = random(1).standard_normal(sparse.SAMPLE + 1).astype(np.float32)
    order = np.argsort(-np.abs(x), kind="stable")
    sizes = np.sort(np.abs(x)).view(np.int32)
    for floor, ceiling in ((sizes[-5], sizes[-2]), (sizes[100], sizes[200]), (0, 0), (sizes[-1] + 1, sizes[-1] + 1)):
        monkeypatch.setattr(sparse, "_likely_bounds", lambda whole, k, a=floor, b=ceiling: (a, b))
        np.testing.assert_array_equal(sparse.largest(x, 1000), np.sort(order[:1000]))


def test_top_k_contracts_by_k_over_d_exactly_where_all_are_equal():
    x = np.full(40, -2.5)
    c = compress.make("top-k:8", 40, np.float64)
    assert c.alpha == 0.2
    assert np.square(c(x) - x).sum() == (1 - c.alpha) * (x @ x)


def test_rand_k_is_drawn_without_replacement_and_all_pairs_alike():
    c, r = compress.make("rand-k:2", 5, np.float64), random()
    x = np.arange(1.0, 6.0)
    drawn = [tuple(np.flatnonzero(c(x, r))) for _ in range(6000)]
    counts = [drawn.count(pair) for pair in itertools.combinations(range(5), 2)]
    assert sum(counts) == 6000  # never the same element twice
    # chi-squared of 9 degrees of freedom: above 27.9 once in a thousand seeds
    assert sum((count - 600) ** 2 / 600 for count in counts) < 27.9


def test_rand_k_reaches_its_constants_for_every_x():
    x = random(3).standard_normal(12)
    _, square, bias = mean_error(compress.make("rand-k-unbiased:3", 12, np.float64), x)
    assert compress.make("rand-k-unbiased:3", 12).constant == 4
    assert square == pytest.approx(4, rel=0.06)  # a draw's relative deviation is below 1.2: 3 of 1.2 / sqrt(4000)
    assert np.abs(bias).max() < 4 * np.abs(x).max() * math.sqrt(3 / 4000)
    assert mean_error(compress.make("rand-k:3", 12, np.float64), x)[0] == pytest.approx(1 - 0.25, rel=0.06)


@pytest.mark.parametrize("spec", ["top-k:8", "rand-k:8"])
def test_an_unbiased_compressor_of_the_values_is_scaled_in_a_contractive_one(spec):
    # all 4/3, where natural has zeta = 9/8: natural / zeta leaves 1 - 1 / zeta of what is kept
    c = compress.make(f"{spec}+natural", 40, np.float64)
    assert c.alpha == pytest.approx(0.2 * 8 / 9)
    # of a kept element the error is (1/4)^2 or (1/3)^2 of its square: deviation below 0.5 / sqrt(8 * 4000) of 0.2
    assert mean_error(c, np.full(40, 4 / 3))[0] == pytest.approx(1 - c.alpha, abs=4 * 0.2 * 0.5 / math.sqrt(8 * 4000))
    assert compress.make(f"{spec}+fp16", 40).alpha is None


@pytest.mark.parametrize("dtype", BOTH)
def test_natural_is_unbiased_and_reaches_nine_eighths_at_four_thirds(dtype):
    x = np.full(50_000, 4 / 3, dtype)
    out = compress.make("natural", len(x), dtype)(x, random()).astype(np.float64)
    assert set(np.unique(out)) == {1.0, 2.0}
    # E C = 4/3 with deviation 0.47 / sqrt(50,000) = 0.0021; E C^2 = 2 = 9/8 (4/3)^2, deviation 1.41 / sqrt(50,000) = 0.0063
    assert out.mean() == pytest.approx(4 / 3, abs=4 * 0.0021)
    assert np.square(out).mean() == pytest.approx(9 / 8 * 16 / 9, abs=4 * 0.0063)


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize(("name", "edge"), [("power-of-two", 1.5), ("power-of-two-log", math.sqrt(2))])
def test_power_of_two_breaks_where_it_should_and_contracts_as_told(dtype, name, edge):
    below, above = np.nextafter(dtype(edge), dtype(0)), np.nextafter(dtype(edge), dtype(2))
    c = compress.make(name, 6, dtype)
    below, above = np.nextafter(below, dtype(0)), np.nextafter(above, dtype(2))
    x = np.array([below, above, -below, -8 * above, 1.0, -2.0], dtype)
    np.testing.assert_array_equal(c(x), [1, 2, -1, -16, 1, -2])
    worst = max((1 - edge) ** 2, (2 - edge) ** 2) / edge**2  # on either side of the break
    assert 1 - worst == pytest.approx(c.alpha, rel=1e-12)


@pytest.mark.parametrize("name", ["natural", "power-of-two", "power-of-two-log"])
@pytest.mark.parametrize("dtype", BOTH)
def test_powers_keep_zero_signs_and_extremes(name, dtype):
    tiny, big = np.finfo(dtype).tiny, np.finfo(dtype).max
    x = np.array([0, -0.0, tiny, -tiny, tiny / 8, big, -big, np.inf, -np.inf, np.nan], dtype)
    out = compress.make(name, len(x), dtype)(x, random())
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(np.signbit(out[:9]), np.signbit(x[:9]))
    assert out[0] == out[1] == 0 and (out[2], out[3]) == (tiny, -tiny) and out[4] in (0, tiny)
    assert out[5] == 2.0 ** (np.finfo(dtype).maxexp - 1)


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("name", ["power-of-two", "power-of-two-log", "sign", "bf16"])
def test_codes_of_long_vectors_are_those_of_their_parts(name, dtype):
    d = 2 * base.PIECE + 4321
    x = (random(4).standard_normal(d) * np.exp(random(5).standard_normal(d))).astype(dtype)
    out = compress.make(name, d, dtype)(x)
    if name == "sign":
        np.testing.assert_allclose(out, np.sign(x) * np.abs(x).mean(dtype=np.float64), rtol=1e-6)
        return
    expected = [compress.make(name, len(part), dtype)(part) for part in np.split(x, range(1000, d, 1000))]
    np.testing.assert_array_equal(out, np.concatenate(expected))


def test_natural_rounds_any_two_elements_independently(monkeypatch):
    # up with probability 1/3, two elements together with 1/9, whether they are of one piece or fellows in two
    monkeypatch.setattr(powers, "PIECE", 64)
    monkeypatch.setattr(powers, "BLOCK", 32)
    c, r = compress.make("natural", 160), random(6)
    x = np.full(160, 4 / 3, np.float32)
    up = np.array([c(x, r) == 2 for _ in range(4000)])
    np.testing.assert_allclose(up.mean(0), 1 / 3, atol=5 * math.sqrt(2 / 9 / 4000))
    for one, other in ((0, 64), (0, 32), (5, 133), (64, 128), (3, 4), (70, 90), (1, 66)):
        assert (up[:, one] & up[:, other]).mean() == pytest.approx(1 / 9, abs=4 * math.sqrt(8 / 81 / 4000))


def test_qsgd_is_unbiased_and_within_its_constant_at_the_worst_vectors():
    for s, x in ((1, np.full(25, 0.2)), (4, np.full(25, 0.2)), (2, random(5).standard_normal(25))):
        c = compress.make(f"qsgd:{s}", 25, np.float64)
        _, square, bias = mean_error(c, x)
        assert square <= 1.03 * c.constant
        assert np.abs(bias).max() < 4 * np.linalg.norm(x) / s * 0.5 / math.sqrt(4000) + 1e-12
        levels = c(x, random()) / np.linalg.norm(x) * s
        np.testing.assert_allclose(levels, np.round(levels), atol=1e-12)
    # one level, all equal: the second moment is sqrt(d) = 1 + sqrt(d) - 1
    assert mean_error(compress.make("qsgd:1", 25, np.float64), np.full(25, 0.2))[1] == pytest.approx(5, rel=0.06)


def test_terngrad_reaches_its_constant():
    d = 26
    rest = 1 / (1 + math.sqrt(d))
    x = np.array([1.0] + [-rest] * (d - 1))
    c = compress.make("terngrad", d, np.float64)
    _, square, bias = mean_error(c, x, 20_000)
    assert c.constant == (1 + math.sqrt(d)) / 2
    assert square == pytest.approx(c.constant, rel=0.02)
    assert np.abs(bias).max() < 4 * 0.5 / math.sqrt(20_000)
    assert set(np.unique(c(x, random()))) <= {0.0, 1.0, -1.0}


def test_sign_contracts_by_its_formula():
    x = np.array([3.0, -1.0, 0.5, -0.5])
    c = compress.make("sign", 4, np.float64)
    np.testing.assert_array_equal(c(x), [1.25, -1.25, 1.25, -1.25])
    assert np.square(c(x) - x).sum() / (x @ x) == pytest.approx(1 - 5**2 / (4 * (x @ x)), rel=1e-12)
    one = np.eye(9)[4]
    c = compress.make("sign", 9, np.float64)
    assert np.square(c(one) - one).sum() == pytest.approx(1 - c.alpha, rel=1e-12)  # 1 / d at a single entry


@pytest.mark.parametrize("dtype", BOTH)
def test_short_floats_are_the_nearest(dtype):
    x = (random(7).standard_normal(1000) * 1000).astype(np.float32).astype(dtype)
    np.testing.assert_array_equal(compress.make("fp16", 1000, dtype)(x), x.astype(np.float16).astype(dtype))
    down = (x.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)  # 8 bits of significand, towards zero and away
    up = (down.view(np.uint32) + 0x10000).view(np.float32)
    nearest = np.where(np.abs(x - down) < np.abs(up - x), down, up)
    np.testing.assert_array_equal(compress.make("bf16", 1000, dtype)(x), nearest)
    assert np.abs(nearest - x).max() > 0
    ties = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8], dtype)
    np.testing.assert_array_equal(compress.make("bf16", 2, dtype)(ties), [1, 1 + 2.0**-6])
    # 1 + 2^-8 is the worst: an error of 2^-8 of it, within the constant
    assert (1 - 1 / ties[0]) ** 2 <= 1 - compress.make("bf16", 2).alpha
    for name, top in (("fp16", 65504), ("bf16", (2 - 2.0**-7) * 2.0**127)):
        np.testing.assert_array_equal(compress.make(name, 2, dtype)(np.array([3.4e38, -3.4e38], dtype)), [top, -top])


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("spec", EVERY)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_seen_or_become_the_largest(spec, bad, dtype):
    x = random(5).standard_normal(61).astype(dtype)
    x[30] = bad
    c = compress.make(spec, 61, dtype)
    with np.errstate(all="ignore"):
        out = c(x, random(2))
    kind = spec.partition(":")[0]
    if kind in ("rand-k", "rand-k-unbiased", "md-stochastic", "md-greedy", "md-greedy-weighted"):
        return  # whether element 30 is kept does not depend on what it is
    if "power" in spec.replace("power-step", "") or "natural" in spec:
        assert np.abs(out).max() == 2.0 ** (np.finfo(dtype).maxexp - 1) * (8 / 9 if spec == "top-k:7+natural" else 1)
    elif kind in ("fp16", "bf16") and not np.isnan(bad):
        assert np.isfinite(out).all() and abs(out[30]) > 65000
    else:
        assert not np.isfinite(out).all()
    state = c.state_dict()
    assert all(value is None or np.isfinite(value).all() for value in state.values())


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("spec", ["qsgd:4", "terngrad", "sign", "pivoted-qr:2", "svd:2", "top-k:7", "importance:7"])
def test_numbers_too_small_and_too_large_to_be_squared_are_compressed(spec, dtype):
    x = random(3).standard_normal(60).astype(dtype)
    c = compress.make(spec, 60, dtype)
    plain = c(x, random(1))
    for power in (-100, 100) if dtype == np.float32 else (-600, 600):
        np.testing.assert_allclose(c(x * dtype(2.0) ** power, random(1)) * dtype(2.0) ** -power, plain, rtol=1e-4 if dtype == np.float32 else 1e-10,
                                   atol=1e-5 if dtype == np.float32 else 1e-10)  # fmt: skip


@pytest.mark.parametrize(("d", "expected"), [(112, (8, 14)), (36, (6, 6)), (12, (3, 4)), (13, (4, 4)), (1, (1, 1)), (2, (1, 2))])
def test_vectors_are_laid_into_the_matrix_nearest_a_square(d, expected):
    assert lowrank.matrix_shape(d) == expected
    x = random(1).standard_normal(d)
    full = compress.make(f"svd:{min(expected)}", d, np.float64)
    np.testing.assert_allclose(full(x), x, atol=1e-12)


def test_tensors_are_their_first_dimension_by_the_others():
    assert lowrank.matrix_shape(16 * 3 * 9, (16, 3, 3, 3)) == (16, 27)


def test_svd_reaches_r_over_min_where_the_spectrum_is_flat():
    q, _ = np.linalg.qr(random(2).standard_normal((6, 6)))
    c = compress.make("svd:2", 36, np.float64, (6, 6))
    error = np.square(c(q.reshape(-1)) - q.reshape(-1)).sum() / 36 * 6
    assert error == pytest.approx(1 - c.alpha, rel=1e-10)
    u, s, vt = np.linalg.svd(random(4).standard_normal((5, 8)))
    a = (u * s) @ vt[:5]
    best = (u[:, :2] * s[:2]) @ vt[:2]
    np.testing.assert_allclose(compress.make("svd:2", 40, np.float64, (5, 8))(a.reshape(-1)).reshape(5, 8), best, atol=1e-12)


@pytest.mark.parametrize(("m", "n", "r"), [(6, 6, 2), (4, 9, 3), (9, 4, 1)])
def test_pivoted_qr_leaves_one_minus_r_over_n_at_the_identity(m, n, r):
    c = compress.make(f"pivoted-qr:{r}", m * n, np.float64, (m, n))
    assert c.alpha == r / n
    a = np.eye(m, n) if m >= n else np.tile(np.eye(m), (1, 3))[:, :n]
    left = np.square(c(a.reshape(-1)) - a.reshape(-1)).sum() / np.square(a).sum()
    assert left == pytest.approx(1 - r / n) if m >= n else left <= 1 - r / n
    for seed in range(20):
        a = random(seed).standard_normal(m * n)
        assert np.square(c(a) - a).sum() < (1 - c.alpha) * (a @ a)


def test_pivoted_qr_takes_the_longest_column_of_what_is_left():
    # longest first: column 1; of what that leaves, column 2 has (0, 1, 0), column 0 has (0, 0, 2)
    a = np.array([[0.5, 3.0, 2.5], [0.0, 0.0, 1.0], [2.0, 0.0, 0.0]])
    out = compress.make("pivoted-qr:2", 9, np.float64, (3, 3))(a.reshape(-1)).reshape(3, 3)
    np.testing.assert_allclose(out, [[0.5, 3, 2.5], [0, 0, 0], [2, 0, 0]], atol=1e-14)
    one = np.outer(random(1).standard_normal(5), random(2).standard_normal(4)).reshape(-1)  # rank 1: the second column finds nothing
    np.testing.assert_allclose(compress.make("pivoted-qr:3", 20, np.float64, (5, 4))(one), one, atol=1e-14)


@pytest.mark.parametrize("spec", ["randomised-svd:2", "power-step:2"])
def test_sketches_are_at_least_as_good_as_their_bound_on_a_flat_spectrum(spec):
    q, _ = np.linalg.qr(random(2).standard_normal((6, 6)))
    errors = []
    for seed in range(300):
        c, r = compress.make(spec, 36, np.float64, (6, 6)), random(seed)
        errors.append(np.square(c(q.reshape(-1), r) - q.reshape(-1)).sum() / 6)
    assert np.mean(errors) <= 1 - 2 / 6 + 1e-9


def test_a_power_step_from_a_blind_direction_is_drawn_anew():
    a = np.outer(np.arange(1.0, 5.0), np.array([1.0, 0, 0, 0, 0]))
    c = compress.make("power-step:1", 20, np.float64, (4, 5))
    c.q = np.eye(5)[:, 1:2]  # A q = 0
    np.testing.assert_allclose(c(a.reshape(-1), random()), a.reshape(-1), atol=1e-12)


def test_power_steps_in_a_row_converge_to_the_singular_vectors():
    a = random(9).standard_normal((6, 10)).reshape(-1)
    c, r = compress.make("power-step:2", 60, np.float64, (6, 10)), random()
    for _ in range(200):
        out = c(a, r)
    np.testing.assert_allclose(out, compress.make("svd:2", 60, np.float64, (6, 10))(a), atol=1e-6)


def test_a_subspace_is_unbiased_reaches_its_constant_and_adds_up():
    a, b = random(1).standard_normal((2, 24))
    c = compress.make("subspace:2", 24, np.float64, (4, 6))
    _, square, bias = mean_error(c, a)
    assert square == pytest.approx(c.constant, rel=0.06) and c.constant == 2
    assert np.abs(bias).max() < 4 * np.abs(a).max() / math.sqrt(4000) * 2
    messages = [c.encode(x, random(5)).view(np.float64) for x in (a, b)]
    out = np.empty(24)
    c.decode(np.ascontiguousarray(messages[0] + messages[1]).view(np.uint8), out, random(5))
    np.testing.assert_allclose(out, c(a + b, random(5)), atol=1e-12)


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("spec", EVERY)
@pytest.mark.parametrize("kind", ["normal", "zero", "one"])
def test_every_message_is_decoded_by_another_one_of_its_kind(spec, dtype, kind):
    d = 1 if kind == "one" else 61
    if kind == "one":
        spec = spec.replace(":7", ":1").replace(":9", ":1").replace(":2", ":1")
    x = np.zeros(d, dtype) if kind == "zero" else random(11).standard_normal(d).astype(dtype)
    one, other = compress.make(spec, d, dtype), compress.make(spec, d, dtype)
    message, out = one.encode(x, random(3)), np.full(d, 7, dtype)
    assert message.dtype == np.uint8
    other.decode(message, out, random(3))
    np.testing.assert_array_equal(out, compress.make(spec, d, dtype)(x, random(3)))
    if kind == "zero":
        np.testing.assert_array_equal(out, 0)


@pytest.mark.parametrize("spec", EVERY)
def test_messages_are_as_long_as_the_formula_but_for_heads_and_whole_bytes(spec):
    d = 4000
    c = compress.make(spec, d)
    sizes = [8 * len(c.encode(random(s).standard_normal(d).astype(np.float32), random(s))) for s in range(3)]
    # a tag and two paddings; the code of gaps is not the entropy (5 %), nor is a base-3 byte (1 %)
    slack = 24 + 0.05 * (support.index_bits(d, c.k) if hasattr(c, "k") and not c.shared else 0) + 0.01 * d * (spec == "terngrad")
    assert all(abs(size - c.bits) <= slack for size in sizes), (sizes, c.bits)


def test_everything_kept_is_no_compression():
    x = random(2).standard_normal(30).astype(np.float32)
    for spec in ("top-k:30", "top-k:1.0", "rand-k:30", "rand-k-unbiased:30"):
        np.testing.assert_array_equal(compress.make(spec, 30)(x, random()), x)
    for spec in ("svd:5", "randomised-svd:5", "pivoted-qr:5"):
        np.testing.assert_allclose(compress.make(spec, 30)(x, random()), x, atol=1e-5)


def test_powers_go_on_past_a_piece_of_the_cache():
    d = powers.PIECE * 2 + 17
    x = random(4).standard_normal(d).astype(np.float32)
    out = compress.make("power-of-two", d)(x)
    np.testing.assert_array_equal(out, np.sign(x) * 2.0 ** np.floor(np.log2(np.abs(x.astype(np.float64)) * 4 / 3)))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("topk:3", "Did you mean 'top-k'"), ("top-k", "top-k:0.01"), ("top-k:0", "share above 0"), ("top-k:1.5", "share above 0"),
        ("top-k:-3", "share above 0"), ("svd:0.5", "whole number"), ("natural:3", "takes no number"), ("natural+sign", "behind the plus"),
        ("top-k:3+svd", "behind the plus"), ("qsgd", "qsgd:4"), ("rand-k-unbiased:3+power-of-two", "not unbiased"), ("top-k:99", "keeps 99 of 30"),
        ("svd:6", "5 x 6 here; give a rank of at most 5"), ("subspace:40", "at most 5"), ("qsgd:16777217", "at most 16777216 levels"),
    ],
)  # fmt: skip
def test_a_wrong_spec_is_told_in_one_line(spec, words):
    with pytest.raises(UserError, match=words) as told:
        compress.make(spec, 30)
    assert "\n" not in str(told.value)
