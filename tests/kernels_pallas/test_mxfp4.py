"""MXFP4: the reference against a search in float64 and ml_dtypes' casts; the kernel in the interpreter against it, to the bit."""

import functools
import itertools
import math

import hypothesis
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu

from framework.errors import UserError
from framework.mesh import MeshConfig
from kernels_pallas import e2m1, hadamard, mxfp4
from kernels_pallas.mxfp4 import ABSMAX_RTN, ABSMAX_SR, MXFP4, OCP, QUEST, Quantizer, dequantize, kernel, quantize

QUANTIZERS = [
    Quantizer(scale=scale, exponent=exponent, rounding=rounding)
    for scale, exponent, rounding in itertools.product(
        ("ocp", "absmax", "quest"), ("floor", "nearest"), ("even", "down", "stochastic")
    )
]
USUAL = [OCP, QUEST, ABSMAX_RTN, ABSMAX_SR]
VALUES = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
RAMP = (np.arange(32, dtype=np.float32) - 15.5) / 8  # the specification's x_i
SIGNS = np.where(np.arange(32) % 3 == 0, -1.0, 1.0).astype(np.float32)
SHAPES = [(1, 32), (5, 96), (7, 160), (3, 2, 64), (64,), (40, 512)]


def fast(values, few):
    """Parameters, all but a few of which are for the slow run: each is a program to compile."""
    return [v if v in few else pytest.param(v, marks=pytest.mark.slow) for v in values]


def name(q):
    return f"{q.scale}-{q.exponent}-{q.rounding}"


@functools.partial(jax.jit, static_argnames=("q", "impl", "rotated"))
def run(x, q=OCP, u=None, signs=None, *, rotated=False, impl="reference"):
    """The packed tensor, its codes one by one, and the mask."""
    if rotated:
        packed, mask = mxfp4.rotate_quantize(x, q, signs=signs, u=u, impl=impl)
    else:
        packed, mask = quantize(x, q, u=u, impl=impl)
    return packed, e2m1.unpack(packed.codes), mask


@functools.partial(jax.jit, static_argnames="impl")
def values_of(packed, *, impl="reference"):
    return dequantize(packed, impl=impl)


def assert_same(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), got, want)


def uniform(shape, q, seed=1):
    return None if q.rounding != "stochastic" else np.random.default_rng(seed).random(shape, np.float32)


def special(shape):
    """Groups of all kinds: of one octave and of all, zeros, constants, subnormal, tiny, huge, ties, with a NaN or an infinity."""
    groups, rng = math.prod(shape) // 32, np.random.default_rng(0)
    normal = rng.standard_normal((groups, 32))
    x = (normal * np.exp2(rng.integers(-20, 20, (groups, 1)))).astype(np.float32)
    bits = rng.integers(0, 2**32, (groups, 32), np.uint32).view(np.float32)
    ties = np.resize([0.25, -0.75, 1.25, 1.75, -2.5, 3.5, 5.0, 6.0], 32)
    kinds = [
        lambda i: x[i],
        lambda i: np.where(np.isfinite(bits[i]), bits[i], 1.0),
        lambda i: np.zeros(32) if i % 3 else np.full(32, -0.0),
        lambda i: np.full(32, 1e38 if i % 2 else 0.1),
        lambda i: normal[i] * 1e-39,
        lambda i: normal[i] * 1e-36,
        lambda i: normal[i] * 1e38,
        lambda i: np.where(np.arange(32) == i % 32, np.inf if i % 2 else np.nan, normal[i]),
        lambda i: ties * 2.0 ** (i % 7),
    ]
    with np.errstate(over="ignore"):
        rows = [np.clip(kinds[i % len(kinds)](i), -3.4e38, 3.4e38).astype(np.float32) for i in range(groups)]
        rows = [np.where(np.isinf(kinds[7](i)), np.inf, r) if i % len(kinds) == 7 else r for i, r in enumerate(rows)]
    return np.stack(rows).astype(np.float32).reshape(shape)


def search(x, q, u=None):
    """Codes, scale codes and mask of finite groups [G, 32], element by element in float64; and which groups are clear."""
    x, clear = np.asarray(x, np.float64), np.ones(len(x), bool)
    largest = np.abs(x).max(1)
    if q.scale == "quest":
        largest = 2.92247856 / 6 * x.std(1) + 1e-8
        bounds = largest / np.exp2(np.floor(np.log2(largest)))
        # In float32 the last bits of a standard deviation depend on the order of sums, and more of them where it nearly cancels.
        edges = (1.0, 2.0, 2**0.5)
        clear = np.min([np.abs(bounds - edge) for edge in edges], 0) > 1e-5 * (1 + np.abs(x.mean(1)) / x.std(1))
    mantissa, exponent = np.frexp(largest)
    e = exponent - 1 + (q.exponent == "nearest") * (2 * mantissa > 2**0.5) - (0 if q.scale == "quest" else 2)
    e = np.clip(np.where(largest < 2.0**-126, -127, e), -127, 125)
    z = np.abs(x) / np.exp2(e)[:, None]
    if q.scale == "absmax":
        z = (0.75 * z).astype(np.float32).astype(np.float64)
    above = np.minimum(np.searchsorted(VALUES, z, side="left"), 7)
    below = np.maximum(above - 1, 0)
    below = np.where(VALUES[above] <= z, above, below)
    up = z - VALUES[below]
    down = VALUES[above] - z
    if q.rounding == "stochastic":
        choose = u < up / np.maximum(up + down, 1e-300)
    else:
        tie = (below % 2 == 1) if q.rounding == "even" else np.zeros_like(below, bool)
        choose = (up > down) | ((up == down) & tie)
    codes = np.where(choose | (z >= 6), above, below) | (8 * np.signbit(x))
    return codes, e + 127, z < 6, clear


@pytest.mark.parametrize("q", fast(QUANTIZERS, QUANTIZERS[::8]), ids=name)
def test_codes_scales_and_masks_are_those_of_a_search_in_float64(q):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((200, 32)) * np.exp2(rng.integers(-100, 100, (200, 1)))
    x = np.concatenate([x, rng.standard_t(2, (200, 32)), special((200 * 32,)).reshape(200, 32)]).astype(np.float32)
    x = x[np.isfinite(x).all(1) & (np.abs(x).max(1) < 1e37)]
    if q.scale == "quest":
        x = x[np.asarray(x, np.float64).std(1) > 1e-30]  # constants have a test of their own
    u = uniform(x.shape, q)
    codes, scales, mask, clear = search(x, q, u)
    assert clear.mean() > 0.9
    packed, got, got_mask = run(x, q, u)
    np.testing.assert_array_equal(packed.scales[clear, 0], scales[clear])
    np.testing.assert_array_equal(got[clear], codes[clear])
    assert (got_mask is not None) == q.masks
    if q.masks:
        np.testing.assert_array_equal(got_mask[clear], mask[clear])


def test_ocp_is_the_cast_of_ml_dtypes_at_every_exponent_of_float32():
    rng = np.random.default_rng(0)
    exponents = np.arange(-149, 128)
    x = (rng.uniform(-1, 1, (len(exponents), 32)) * np.exp2(exponents.astype(np.float64))[:, None]).astype(np.float32)
    x[:, 0] = np.exp2(exponents.astype(np.float64))  # the largest
    e = np.maximum(np.where(exponents < -126, -127, exponents) - 2, -127)
    z = x.astype(np.float64) / np.exp2(e.astype(np.float64))[:, None]
    want = np.clip(z, -6, 6).astype(ml_dtypes.float4_e2m1fn)
    packed, codes, _ = run(x)
    np.testing.assert_array_equal(codes, want.view(np.uint8) & 15)
    scales = np.exp2(e.astype(np.float32)).astype(ml_dtypes.float8_e8m0fnu)
    np.testing.assert_array_equal(packed.scales[:, 0], scales.view(np.uint8))


@pytest.mark.parametrize(("rounding", "want"), [("even", [0, 2, 2, 4, 4, 6, 6]), ("down", [0, 1, 2, 3, 4, 5, 6])])
def test_a_tie_goes_to_the_even_code_or_to_the_smaller_magnitude(rounding, want):
    x = np.zeros((2, 32), np.float32)
    x[0, :7], x[:, 31] = e2m1.MIDPOINTS, 4.0  # 4 makes the scale 1
    x[1, :7] = np.nextafter(np.float32(e2m1.MIDPOINTS), np.float32(9))
    _, codes, _ = run(np.concatenate([x, -x]), Quantizer(rounding=rounding))
    assert np.asarray(codes[:2, :7]).tolist() == [want, [1, 2, 3, 4, 5, 6, 7]]
    np.testing.assert_array_equal(np.asarray(codes[2:, :7]), np.asarray(codes[:2, :7]) | 8)


@pytest.mark.parametrize("impl", ["reference", "interpret", "xla"])
@pytest.mark.parametrize("q", fast(USUAL, [QUEST]), ids=name)
def test_what_is_not_finite_spoils_its_own_group_and_is_not_hidden(q, impl):
    x = np.random.default_rng(0).standard_normal((3, 96)).astype(np.float32)
    bad = x.copy()
    bad[0, 40], bad[1, 0], bad[2, 95] = np.nan, np.inf, -np.inf
    u = uniform(x.shape, q)
    (good, before, kept), (packed, codes, mask) = jax.device_get([run(y, q, u=u, impl=impl) for y in (x, bad)])
    spoilt = np.array([[False, True, False], [True, False, False], [False, False, True]])
    of_elements = np.repeat(spoilt, 32, axis=1)
    np.testing.assert_array_equal(packed.scales, np.where(spoilt, 255, good.scales))
    np.testing.assert_array_equal(np.isnan(values_of(packed)), of_elements)
    np.testing.assert_array_equal(codes, np.where(of_elements, 0, before))
    if q.masks:
        np.testing.assert_array_equal(mask, kept & ~of_elements)


def test_zeros_stay_zeros_and_keep_their_signs():
    x = np.zeros((2, 32), np.float32)
    x[1] = -0.0
    for q in (OCP, QUEST):
        packed, codes, mask = run(x, q, uniform(x.shape, q))
        assert np.asarray(codes).tolist() == [[0] * 32, [8] * 32]
        assert not np.asarray(values_of(packed)).any()
        assert mask is None or np.asarray(mask).all()


def test_a_constant_has_no_deviation_so_that_quest_saturates_at_once():
    # The scale is 1e-8, which is 2 ** -27 rounded down: all elements are cut to 6 of it, and masked.
    x = np.array([[1.0], [1e38], [-3e-4], [6 * 2.0**-27], [5.99 * 2.0**-27]], np.float32) * np.ones(32, np.float32)
    packed, codes, mask = run(x, QUEST)
    assert np.asarray(packed.scales)[:, 0].tolist() == [100] * 5
    assert np.asarray(codes)[:, 0].tolist() == [7, 7, 15, 7, 7]
    assert np.asarray(mask).all(1).tolist() == [False, False, False, False, True]


@pytest.mark.parametrize("impl", ["reference", "interpret"])
def test_squares_of_huge_numbers_do_not_overflow_nor_units_vanish(impl):
    # Rotated, one number becomes 32 of one size a and both signs, whose deviation is a: the scale is 2^floor(log2(0.487 a)).
    x = np.zeros((7, 160), np.float32)
    x[3, 19] = -1.5e38
    packed, codes, mask = run(x, QUEST, u=None, signs=SIGNS, rotated=True, impl=impl)
    assert int(packed.scales[3, 0]) - 127 == math.floor(math.log2(2.92247856 / 6 * 1.5e38 / 32**0.5))
    assert set(np.asarray(codes)[3, :32].tolist()) == {4, 12}  # a is 2.49 scales, nearest to 2
    assert np.asarray(mask).all()


def test_scales_are_cut_to_those_there_are():
    x = np.zeros((4, 32), np.float32)
    x[:, 5] = [np.finfo(np.float32).max, 2.0**-126, 2.0**-149, 3 * 2.0**-127]
    packed, codes, _ = run(x)
    assert np.asarray(packed.scales)[:, 0].tolist() == [252, 0, 0, 0]  # 2^125; nothing is below 2^-127
    # In units of 2^-127: 2 is code 4; 2^-22 is too small; 3 is code 5.
    assert np.asarray(codes)[:, 5].tolist() == [7, 4, 0, 5]
    assert float(values_of(packed)[0, 5]) == 6 * 2.0**125
    assert float(jnp.max(values_of(run(x, Quantizer(exponent="nearest"))[0]))) == 6 * 2.0**125


def test_stochastic_rounding_goes_up_where_u_is_below_the_share_and_leaves_the_grid_alone():
    # Section 9 e of the specification; 4 makes the scale 1, and 5 and 6 are between 4 and 8.
    q = Quantizer(rounding="stochastic")
    x, u = np.full(32, 4.0, np.float32), np.zeros(32, np.float32)
    x[:8], u[:8] = [0.6, 0.6, 5, 5, 0.5, 3, 6, 7.9], [0.1, 0.3, 0.49, 0.5, 0, 0, 0, 0.99]
    assert np.asarray(run(x, q, u)[1])[:8].tolist() == [2, 1, 7, 6, 1, 5, 7, 7]
    u[:] = 0.999999
    assert np.asarray(run(x, q, u)[1])[4:9].tolist() == [1, 5, 7, 7, 6]


def test_stochastic_rounding_with_the_scale_of_absmax_has_no_bias():
    x = np.random.default_rng(0).standard_normal(32).astype(np.float32)
    u = np.broadcast_to(((np.arange(1000) + 0.5) / 1000)[:, None].astype(np.float32), (1000, 32))
    packed, _, _ = run(np.broadcast_to(x, (1000, 32)), ABSMAX_SR, u)
    # Of 1000 even steps of u, at most one is on the wrong side: a gap of at most 2 by 4/3 times the scale.
    unit = 2.0 ** (int(packed.scales[0, 0]) - 127) * 4 / 3
    np.testing.assert_allclose(np.asarray(values_of(packed)).mean(0), x, atol=unit * 2 / 1000)


def test_the_ramp_becomes_what_the_official_kernel_makes_of_it():
    # Section 9 a of the specification: the first 16 values, the others are their negatives in reverse.
    def values(q):
        packed, _, mask = run(RAMP, q)
        out = np.asarray(values_of(packed))
        np.testing.assert_array_equal(out[16:], -out[:16][::-1])
        return int(packed.scales[0]), out[:16], mask

    scale, out, mask = values(QUEST)
    assert scale == 126
    assert out.tolist() == [-2, -2, -1.5, -1.5, -1.5, -1.5, -1, -1, -1, -0.75, -0.75, -0.5, -0.5, -0.25, -0.25, 0]
    assert np.asarray(mask).all()
    scale, out, _ = values(ABSMAX_RTN)
    assert scale == 125
    thirds = [-6, -6, -6, -4, -4, -4, -4, -3, -3, -2, -2, -1.5, -1.5, -1, -0.5, 0]
    np.testing.assert_allclose(out, np.array(thirds) / 3, rtol=2**-23)  # the gain is rounded
    scale, out, _ = values(OCP)
    assert scale == 125
    assert (out * 4).tolist() == [-6, -6, -6, -6, -6, -6, -4, -4, -4, -3, -3, -2, -2, -1, -1, 0]


def test_the_rotated_ramp_becomes_what_the_official_kernel_makes_of_it():
    # Section 9 b of the specification.
    places = np.array([1, 2, 4, 8, 16])
    packed, _, mask = run(RAMP, QUEST, rotated=True)
    assert int(packed.scales[0]) == 126
    np.testing.assert_array_equal(values_of(packed)[places], [-0.25, -0.75, -1.5, -3, -3])
    assert np.flatnonzero(~np.asarray(mask)).tolist() == [16]
    packed, _, _ = run(RAMP, ABSMAX_RTN, rotated=True)
    assert int(packed.scales[0]) == 127
    np.testing.assert_allclose(values_of(packed)[places], np.array([-2, -2, -4, -8, -16]) / 3, rtol=2**-23)


@pytest.mark.parametrize(
    ("q", "error", "misaligned"),
    [(QUEST, 0.0269, None), (ABSMAX_RTN, 0.01384, 0.0087), (ABSMAX_SR, 0.0281, 0.0)],
    ids=["quest", "nearest", "stochastic"],
)
def test_errors_on_normal_numbers_are_those_of_the_official_kernel(q, error, misaligned):
    # Section 9 d of the specification: 8192 groups. Errors of a group differ by about their size: 2 / sqrt(8192) of the mean, 2 %.
    x = np.random.default_rng(0).standard_normal((8192, 32)).astype(np.float32)
    packed, _, _ = run(x, q, uniform(x.shape, q), rotated=True)
    y = np.asarray(hadamard.hadamard(x, impl="xla"))
    out = np.asarray(values_of(packed))
    assert np.mean((out - y) ** 2) == pytest.approx(error, rel=0.02)
    if misaligned is not None:
        assert 1 - np.mean(np.sum(y * out, 1) / np.sum(y * y, 1)) == pytest.approx(misaligned, abs=0.001)


def test_all_scales_times_all_codes_are_exact():
    codes = np.broadcast_to(np.resize(np.arange(16), 32), (256, 32)).astype(np.uint8)
    scales = np.arange(256, dtype=np.uint8)[:, None]
    exact = np.where(codes & 8, -1.0, 1.0) * VALUES[codes & 7] * np.exp2(scales.astype(np.float64) - 127)
    with np.errstate(over="ignore"):
        want = exact.astype(np.float32)  # infinite where float32 ends
    packed = MXFP4(e2m1.pack(codes), jnp.asarray(scales))
    for impl in ("reference", "interpret"):
        got = np.asarray(values_of(packed, impl=impl))
        assert np.isnan(got[255]).all()
        np.testing.assert_array_equal(got[:255].view(np.int32), want[:255].view(np.int32))  # signs of zeros too


def test_two_codes_are_a_byte_the_even_one_in_the_low_bits():
    codes = np.random.default_rng(0).integers(0, 16, (3, 2, 64))
    packed = e2m1.pack(codes)
    assert packed.shape == (3, 2, 32)
    np.testing.assert_array_equal(packed, codes[..., 0::2] + 16 * codes[..., 1::2])
    np.testing.assert_array_equal(e2m1.unpack(packed), codes)
    with pytest.raises(ValueError, match="the last dimension is odd"):
        e2m1.pack(codes[..., :63])


def test_the_tensor_is_a_tree_with_a_shape_in_a_little_more_than_four_bits_a_number():
    packed, _, _ = run(np.ones((3, 64), np.float32), ABSMAX_RTN)
    assert packed.shape == (3, 64)
    leaves, tree = jax.tree.flatten(packed)
    assert sum(leaf.nbytes for leaf in leaves) == 3 * 64 * 4.25 / 8
    assert jax.tree.unflatten(tree, leaves).gain == 4 / 3


def test_fake_quantisation_is_there_and_back():
    x = special((5, 96))
    got = jax.jit(mxfp4.fake_quantize, static_argnums=1)(x, ABSMAX_RTN)
    np.testing.assert_array_equal(got, values_of(run(x, ABSMAX_RTN)[0]))


@pytest.mark.parametrize("q", fast(USUAL, [QUEST, ABSMAX_SR]), ids=name)
def test_the_kernel_is_the_reference_to_the_bit(q):
    x, options = special((7, 160)), {"signs": SIGNS, "rotated": True}
    u = uniform(x.shape, q)
    assert_same(*(run(x, q, u=u, impl=impl, **options) for impl in ("interpret", "reference")))


@pytest.mark.slow
@pytest.mark.parametrize("rotated", [False, True], ids=["plain", "rotated"])
@pytest.mark.parametrize("q", QUANTIZERS, ids=name)
def test_the_kernel_is_the_reference_with_all_quantisers(q, rotated):
    x = special((5, 288))
    options = {"u": uniform(x.shape, q), "signs": None, "rotated": rotated}
    assert_same(run(x, q, impl="interpret", **options), run(x, q, **options))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("q", "rotated"), [(QUEST, True), (ABSMAX_SR, False)], ids=["rotated", "plain"])
def test_the_kernel_is_the_reference_on_all_shapes_and_types(q, rotated, shape, dtype):
    x = jnp.asarray(special(shape), dtype)
    options = {"u": uniform(shape, q), "signs": SIGNS if rotated else None, "rotated": rotated}
    got, want = run(x, q, impl="interpret", **options), run(x, q, **options)
    assert_same(got, want)
    assert_same(values_of(got[0], impl="interpret"), values_of(want[0]))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(130, 4096 + 96), (300, 320)], ids=str)
def test_the_kernel_is_the_reference_over_several_blocks(shape):
    x, options = special(shape), {"u": None, "signs": SIGNS, "rotated": True}
    got, want = run(x, QUEST, impl="interpret", **options), run(x, QUEST, **options)
    assert_same(got, want)
    assert_same(values_of(got[0], impl="interpret"), values_of(want[0]))


@pytest.mark.slow
@pytest.mark.parametrize("q", [QUEST, ABSMAX_SR], ids=name)
def test_the_kernel_in_the_interpreter_of_tpus_is_the_reference(q):
    x = special((5, 96))
    options = {"rotated": True, "signs": jnp.asarray(SIGNS)}
    u = uniform(x.shape, q)
    codes, scales, mask = kernel.quantize(jnp.asarray(x), q, u, interpret=pltpu.InterpretParams(), **options)
    want, _, want_mask = run(x, q, u, **options)
    assert_same((codes, scales, mask), (want.codes, want.scales, want_mask))
    values = kernel.dequantize(codes, scales, want.gain, interpret=pltpu.InterpretParams())
    assert_same(values, values_of(want))


@pytest.mark.parametrize("q", fast([OCP, QUEST, Quantizer(scale="absmax", exponent="nearest")], [QUEST]), ids=name)
@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=96), spread=st.integers(0, 31))
def test_whatever_the_bits_the_kernel_is_the_reference(q, bits, spread):
    x = np.resize(np.array(bits, np.uint32), (3, 96))
    x = ((x >> spread) ^ (x << 31)).view(np.float32)  # fewer bits: small numbers, and equal ones
    assert_same(*(run(x, q, u=None, impl=impl) for impl in ("interpret", "reference")))


def test_a_code_made_without_the_kernel_differs_only_within_rounding_of_a_boundary():
    x = np.random.default_rng(0).standard_normal((7, 160)).astype(np.float32)
    got, want = (
        np.asarray(values_of(run(x, QUEST, u=None, signs=SIGNS, rotated=True, impl=i)[0])) for i in ("xla", "reference")
    )
    assert np.sum(got != want) <= 1  # of 1120: float32 has 2 ** 24 numbers where there are 16 codes
    assert np.abs(got - want).max() <= 1  # a gap, or a scale that is its neighbour


@pytest.mark.slow
def test_nothing_flows_back_through_codes():
    x = special((2, 32))
    grad = jax.jit(jax.grad(lambda x: jnp.sum(dequantize(run(x, QUEST, impl="interpret")[0], impl="interpret"))))(x)
    assert not np.asarray(grad).any()


@pytest.mark.parametrize(
    ("shape", "options", "said"),
    [
        ((4, 48), {}, r"\[4, 48\] cannot be cut into groups of 32.*Pad it"),
        ((4, 32), {"q": ABSMAX_SR}, "needs u.*jax.random.uniform"),
        ((4, 32), {"u": np.zeros((4, 32))}, "rounding='even' does not use u"),
        ((4, 32), {"q": ABSMAX_SR, "u": np.zeros((4, 1))}, r"u \[4, 1\] must have the shape of x \[4, 32\]"),
        ((4, 32), {"q": Quantizer(scale="max")}, "quantizer.scale='max' is not known. Use 'ocp' or"),
        ((4, 32), {"impl": "triton"}, "impl='triton' is not one"),
        ((4, 32), {"impl": "pallas"}, "pallas quantize cannot run: it is a TPU kernel.*runs on cpu.*'auto'"),
        ((0, 32), {"impl": "interpret"}, "is empty"),
    ],
)
def test_what_cannot_be_done_is_said(shape, options, said):
    with pytest.raises(ValueError, match=said):
        quantize(np.zeros(shape, np.float32), **options)


def test_on_a_mesh_of_several_devices_the_kernel_runs_within_shard_map_only():
    x, rows = special((8, 64)), jax.sharding.PartitionSpec("data")
    with jax.set_mesh(MeshConfig(data=4).build()):
        with pytest.raises(UserError, match=r"cannot split a kernel over the 4 devices.*within jax.shard_map"):
            quantize(x, impl="interpret")
        inner = jax.shard_map(
            lambda x: quantize(x, impl="interpret")[0], in_specs=rows, out_specs=rows, check_vma=False
        )
        assert_same(jax.jit(inner)(x), run(x)[0])


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="asks what happens on a GPU, and there is none")
def test_on_a_gpu_auto_is_the_reference_and_the_kernel_says_that_it_is_for_tpus():
    x = special((8, 64))
    assert_same(quantize(x)[0], quantize(x, impl="reference")[0])
    with pytest.raises(UserError, match="it is a TPU kernel, and this program runs on gpu"):
        quantize(x, impl="pallas")
