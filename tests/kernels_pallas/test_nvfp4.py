"""NVFP4 against ml_dtypes and against the formula in float64, number by number."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.errors import UserError
from kernels_pallas import e2m1, nvfp4
from kernels_pallas.nvfp4 import GROUP, NVFP4, reference, tensor_scale

# Compiled as a whole: hundreds of small programs would take longer.
quantize = jax.jit(nvfp4.quantize, static_argnames=("rounding", "impl"))
fake_quantize = jax.jit(nvfp4.fake_quantize, static_argnames="rounding")
dequantize = jax.jit(nvfp4.dequantize, static_argnames="impl")
matmul = jax.jit(nvfp4.matmul)

F32, E4M3 = np.float32, np.dtype(ml_dtypes.float8_e4m3fn)
LARGEST = float(np.finfo(F32).max)
TINY = 2.0**-126
GRID = np.array(e2m1.VALUES)
E4M3_GRID = np.arange(127, dtype=np.uint8).view(E4M3).astype(np.float64)


def flushed(x: float) -> float:
    return x if abs(x) >= TINY else 0.0


def nearest(x: float, grid: np.ndarray, ties: str = "even") -> int:
    """Index of the grid's nearest number to x >= 0, in float64; grids have even codes at even indices."""
    below = int(np.searchsorted(grid, x, side="right")) - 1
    if below + 1 == len(grid):
        return below
    middle = (grid[below] + grid[below + 1]) / 2
    if x == middle:
        return below if ties == "down" or below % 2 == 0 else below + 1
    return below + (x > middle)


def slow(x: np.ndarray, ties: str = "even", scale: float | None = None) -> tuple[np.ndarray, np.ndarray, float]:
    """Codes, group scales and G of the card: float64, and float32 where the specification says that something is rounded."""
    x = np.asarray(x, np.float64)
    finite = np.abs(x[np.isfinite(x)])
    if scale is None:
        largest = finite.max(initial=0.0)
        scale = 1.0 if largest == 0 else float(F32(min(float(F32(2688.0)) / largest, 2.0**126)))
    codes, scales = np.zeros(x.shape, np.uint8), np.zeros((*x.shape[:-1], x.shape[-1] // 16), np.uint8)
    for at in np.ndindex(scales.shape):
        place = (*at[:-1], slice(16 * at[-1], 16 * at[-1] + 16))
        group = x[place]
        if not np.isfinite(group).all():
            scales[at] = 0x7F
            continue
        with np.errstate(over="ignore"):
            product = flushed(float(F32(np.abs(group).max() * scale)))
            s = nearest(min(product / 6, 448.0), E4M3_GRID)
            scales[at] = s
            for i, v in enumerate(group):
                z = flushed(float(F32(abs(v) * scale)))
                if s:
                    codes[place][i] = nearest(min(z / E4M3_GRID[s], 6.0), GRID, ties) | (8 if np.signbit(v) else 0)
    return codes, scales, scale


def slow_values(codes: np.ndarray, scales: np.ndarray, scale: float) -> np.ndarray:
    s = scales.view(E4M3).astype(np.float64).repeat(16, axis=-1)
    signs = np.where(codes & 8, -1.0, 1.0)
    reciprocal = float(F32(1 / scale))
    value = (signs * GRID[codes & 7] * s * reciprocal).astype(F32)
    return np.where(np.abs(value) < TINY, value * 0, value)


def check(x, packed: NVFP4, ties: str = "even", scale: float | None = None) -> None:
    codes, scales, scale = slow(np.asarray(x, np.float64), ties, scale)
    assert float(packed.scale) == scale
    np.testing.assert_array_equal(packed.scales, scales)
    np.testing.assert_array_equal(e2m1.unpack(packed.codes), codes)
    np.testing.assert_array_equal(dequantize(packed), slow_values(codes, scales, scale))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(F32)


CASES = {
    "normal": normal(4, 32),
    "outliers, so that scales become subnormal and 0": normal(4, 32)
    * np.exp2(-np.arange(8.0) * 3).reshape(4, 2).repeat(16, 1),
    "zeros": np.zeros((4, 32)),
    "negative zeros": -np.zeros((4, 32)),
    "one number that is not 0": np.eye(4, 32, 5) * [[1], [0], [0], [0]],
    "constant": np.full((4, 32), 3.0),
    "huge": normal(4, 32) * 5e37,
    "largest": np.linspace(-LARGEST, LARGEST, 128).reshape(4, 32),
    "tiny": normal(4, 32) * 1e-37,
    "subnormal": normal(4, 32) * 1e-39,
    "subnormal beside normal": normal(4, 32) * [[1e-39], [1e-36], [1e-38], [1e-37]],
    "smallest": np.eye(4, 32, 5) * 1.4e-45,
    "midpoints": np.tile([*GRID, *-GRID, *e2m1.MIDPOINTS, *e2m1.MIDPOINTS, 6.0, -6.0], (4, 1)),
}


@pytest.mark.parametrize("ties", ["even", "down"])
@pytest.mark.parametrize("name", CASES)
def test_codes_scales_and_values_are_those_of_the_formula_in_float64(name, ties):
    x = CASES[name].astype(F32)
    check(x, quantize(x, rounding=ties), ties)


@pytest.mark.slow
def test_programs_of_single_operations_and_of_all_of_them_agree():
    x = np.concatenate([case.astype(F32) for case in CASES.values()])
    for a, b in zip(jax.tree.leaves(nvfp4.quantize(x)), jax.tree.leaves(quantize(x)), strict=True):
        np.testing.assert_array_equal(a, b)
    one = normal(2, 3, 32)
    check(one, nvfp4.quantize(one))
    assert nvfp4.dequantize(nvfp4.quantize(np.zeros((0, 32), F32))).shape == (0, 32)


SHAPES = [(4, 64), (3, 2, 48), (5, 272), (33, 2064), (16,)]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rounding", ["even", "down", "stochastic"])
def test_the_kernel_gives_the_bits_of_the_reference(shape, rounding):
    x = normal(*shape)
    x.reshape(-1)[:3] = [0.0, 1e-39, -0.0]
    x.reshape(-1)[-1] = np.nan
    u = np.random.default_rng(1).uniform(size=shape).astype(F32) if rounding == "stochastic" else None
    scales = [tensor_scale(x), *([tensor_scale(x, rows=True)] if rounding == "even" else [])]
    for scale in scales:
        want = quantize(x, rounding=rounding, scale=scale, u=u, impl="reference")
        got = quantize(x, rounding=rounding, scale=scale, u=u, impl="interpret")
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(dequantize(want, impl="interpret"), dequantize(want, impl="reference"))


def test_the_kernel_gives_the_bits_of_the_reference_on_one_small_shape():
    x = jnp.asarray(normal(3, 288), jnp.bfloat16)
    want, got = quantize(x, impl="reference"), quantize(x, impl="interpret")
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(dequantize(want, impl="interpret"), dequantize(want, impl="reference"))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=32, max_size=32), st.booleans())
def test_any_32_numbers_become_what_the_formula_says(numbers, down):
    x = np.array(numbers, F32)
    ties = "down" if down else "even"
    check(x, quantize(x, rounding=ties), ties)


def test_bfloat16_is_quantised_as_the_same_numbers_in_float32():
    x = jnp.asarray(normal(4, 32), jnp.bfloat16)
    for a, b in zip(jax.tree.leaves(quantize(x)), jax.tree.leaves(quantize(x.astype(jnp.float32))), strict=True):
        np.testing.assert_array_equal(a, b)
    check(x.astype(jnp.float32), quantize(x))


def test_group_scales_are_rounded_and_saturated_as_ml_dtypes_rounds_what_is_clipped_first():
    rng = np.random.default_rng(0)
    bits = (rng.integers(np.uint32(0x39000000), np.uint32(0x44400000), 200_000) >> 4 << 4).astype(np.uint32)
    halves = (E4M3_GRID[:-1] + E4M3_GRID[1:]) / 2
    around = [np.nextafter(F32(h), F32(d)) for h in halves for d in (0, 1e9)]
    s = np.concatenate([bits.view(F32), halves.astype(F32), E4M3_GRID.astype(F32), [0.0, 449, 460, 1e4]]).astype(F32)
    exact = s[(s * F32(6)).astype(np.float64) == s.astype(np.float64) * 6]  # so that product / 6 is s itself
    assert len(exact) > 20_000
    want = np.minimum(exact, 448).astype(E4M3).view(np.uint8)
    np.testing.assert_array_equal(jax.jit(reference.group_scale)(exact * F32(6)), want)
    near = np.array([min(float(F32(6) * a) / 6, 448.0) for a in around])
    np.testing.assert_array_equal(
        reference.group_scale((near * 6).astype(F32)), [nearest(float(F32(x * 6)) / 6, E4M3_GRID) for x in near]
    )


def test_scales_are_the_bits_of_float8_e4m3fn():
    codes = np.arange(128, dtype=np.uint8)
    np.testing.assert_array_equal(reference.e4m3_value(codes), codes.view(E4M3).astype(F32))


def test_elements_are_those_of_ml_dtypes_where_the_scales_are_one():
    x = np.concatenate([np.clip(normal(16 * 64) * 2, -6, 6), np.arange(-16, 16) / 4]).astype(F32).reshape(-1, 16)
    x[:, 0] = 6.0  # so that every group has the scale 1
    packed = quantize(x, scale=1.0)
    np.testing.assert_array_equal(packed.scales, np.full((66, 1), F32(1).astype(E4M3).view(np.uint8)))
    want = np.clip(x, -6, 6).astype(ml_dtypes.float4_e2m1fn)
    np.testing.assert_array_equal(dequantize(packed), want.astype(F32))
    np.testing.assert_array_equal(e2m1.unpack(packed.codes), want.view(np.uint8) & 15)


def test_the_largest_number_of_a_tensor_is_kept_to_rounding():
    for seed in range(5):
        x = normal(4, 32, seed=seed) * F32(10.0**seed)
        place = np.unravel_index(np.abs(x).argmax(), x.shape)
        got = float(dequantize(quantize(x))[place])
        assert got == pytest.approx(float(x[place]), rel=3e-7)  # two quotients and two products, of 2^-24 each


def test_a_group_whose_scale_rounds_to_zero_is_zeros():
    x = np.concatenate([np.full(16, 1.0), np.full(16, 1e-6)]).astype(F32)
    packed = quantize(x)
    assert packed.scales[1] == 0
    np.testing.assert_array_equal(e2m1.unpack(packed.codes)[16:], np.zeros(16))
    np.testing.assert_array_equal(dequantize(packed)[16:], np.zeros(16))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_makes_its_group_nan_and_no_other(bad):
    x = normal(4, 32)
    clean = quantize(x)
    x[1, 20] = bad
    packed = quantize(x)
    values = np.asarray(dequantize(packed))
    assert np.isnan(values[1, 16:]).all()
    rest = np.ones((4, 32), bool)
    rest[1, 16:] = False
    if float(clean.scale) == float(packed.scale):
        np.testing.assert_array_equal(values[rest], np.asarray(dequantize(clean))[rest])
    check(x, packed)
    product = np.asarray(matmul(packed, quantize(normal(4, 32))))
    assert np.isnan(product[1]).all()
    assert np.isfinite(product[[0, 2, 3]]).all()


def test_a_given_scale_is_used_and_what_is_larger_saturates():
    x = normal(4, 32)
    half = float(tensor_scale(x)) * 4
    packed = quantize(x, scale=half)
    check(x, packed, scale=half)
    assert np.abs(dequantize(packed)).max() == F32(2688 * float(F32(1 / half)))
    big = x * F32(1e30)
    check(big, quantize(big, scale=2.0**126), scale=2.0**126)  # products are infinite


def test_shards_with_one_scale_are_the_whole():
    x = normal(4, 64)
    whole, scale = quantize(x), tensor_scale(x)
    parts = [quantize(x[:, a : a + 32], scale=scale) for a in (0, 32)]
    np.testing.assert_array_equal(np.concatenate([p.codes for p in parts], -1), whole.codes)
    np.testing.assert_array_equal(np.concatenate([p.scales for p in parts], -1), whole.scales)


def test_one_scale_a_row_quantises_each_row_as_a_tensor_of_its_own():
    x = normal(4, 32) * F32(10.0) ** np.arange(4)[:, None].astype(F32)
    got = fake_quantize(x, scale=tensor_scale(x, rows=True))
    np.testing.assert_array_equal(got, np.stack([fake_quantize(row) for row in x]))


def test_fake_quantize_is_dequantize_of_quantize():
    x = normal(4, 32)
    np.testing.assert_array_equal(fake_quantize(x), dequantize(quantize(x)))


def test_stochastic_rounding_takes_a_neighbour_by_the_formula_and_never_moves_a_number_of_the_grid():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-6, 6, 16 * 50), np.tile([*GRID, *-GRID], 5)]).astype(F32).reshape(-1, 16)
    x[:, 0] = 6.0
    u = rng.uniform(size=x.shape).astype(F32)
    got = np.asarray(dequantize(quantize(x, rounding="stochastic", scale=1.0, u=u)))
    size = np.abs(x).astype(np.float64)
    below = np.searchsorted(GRID, size, side="right") - 1
    above = np.minimum(below + 1, 7)
    share = (size - GRID[below]) / np.maximum(GRID[above] - GRID[below], 0.5)
    want = np.where(u < share, GRID[above], GRID[below]) * np.sign(x)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(got[50:], x[50:])


@pytest.mark.slow
def test_stochastic_rounding_has_no_bias():
    x = normal(1, 64)
    draws = 2000
    u = jax.random.uniform(jax.random.key(0), (draws, 64))
    many = jnp.broadcast_to(x, (draws, 64))
    got = np.asarray(fake_quantize(many, rounding="stochastic", scale=tensor_scale(x), u=u), np.float64)
    # Scales round, so elements above the largest of a group saturate: compare those that do not.
    top = np.abs(got).max(axis=0)
    error = np.abs(got.mean(axis=0) - x[0])
    spread = got.std(axis=0) / np.sqrt(draws)
    inside = np.abs(x[0]) < top - 1e-6
    assert inside.sum() > 55
    assert (error[inside] < 5 * spread[inside] + 1e-6).all()  # 5 standard errors: 1 in 30,000 over 64 numbers


def test_matmul_is_the_product_of_the_values():
    a, b = quantize(normal(2, 3, 64)), quantize(normal(5, 64, seed=1))
    exact = np.asarray(dequantize(a), np.float64) @ np.asarray(dequantize(b), np.float64).T
    # Each of 64 terms, and what each operand and the sum are multiplied by, rounded in float32.
    np.testing.assert_allclose(matmul(a, b), exact, rtol=0, atol=64 * 2**-24 * np.abs(exact).max() + 1e-7)
    assert matmul(a, b).shape == (2, 3, 5)


def test_integers_are_multiplied_without_any_rounding():
    rng = np.random.default_rng(0)
    a, b = (rng.choice(GRID, size=(4, 64)).astype(F32) for _ in range(2))
    a[:, ::16] = b[:, ::16] = 6.0
    left, right = (quantize(x, scale=1.0) for x in (a, b))
    np.testing.assert_array_equal(matmul(left, right), a.astype(np.float64) @ b.astype(np.float64).T)


def test_a_packed_tensor_is_a_tree_of_four_and_a_half_bits_a_number():
    packed = quantize(normal(8, 64))
    assert packed.shape == (8, 64)
    assert packed.codes.nbytes + packed.scales.nbytes == 8 * 64 * 4.5 / 8
    assert packed.codes.dtype == packed.scales.dtype == np.uint8
    moved = jax.jit(lambda x: x)(packed)
    np.testing.assert_array_equal(moved.codes, packed.codes)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros((2, 24), F32), {}, "Pad it with zeros to a multiple of 16"),
        (np.zeros((), F32), {}, "cannot be cut into groups of 16"),
        (np.zeros((2, 32), np.int32), {}, "give float32 or bfloat16"),
        (np.zeros((2, 32), F32), {"rounding": "up"}, "Use 'even' or 'down' or 'stochastic'"),
        (np.zeros((2, 32), F32), {"rounding": "stochastic"}, "u=jax.random.uniform"),
        (np.zeros((2, 32), F32), {"u": np.zeros((2, 32), F32)}, "does not use u"),
        (np.zeros((2, 32), F32), {"rounding": "stochastic", "u": np.zeros(32, F32)}, "must have the shape of x"),
        (np.zeros((2, 32), F32), {"scale": np.ones(2, F32)}, r"one for each row \[2, 1\]"),
    ],
    ids=str,
)
def test_mistakes_say_what_to_give(x, options, message):
    with pytest.raises(ValueError, match=message):
        nvfp4.quantize(x, **options)


def test_operands_that_do_not_fit_and_unknown_implementations_are_refused():
    a, b = quantize(normal(2, 32)), quantize(normal(2, 48))
    with pytest.raises(ValueError, match="cannot be multiplied"):
        matmul(a, b)
    rows = quantize(normal(2, 32), scale=np.ones((2, 1), F32))
    with pytest.raises(ValueError, match="the right operand needs one scale"):
        matmul(a, rows)
    with pytest.raises(UserError, match="'auto' or 'pallas'"):
        quantize(normal(2, 32), impl="triton")
    assert GROUP == 16
