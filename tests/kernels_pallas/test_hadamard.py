"""The block Hadamard transform: against scipy's matrix, and the kernel in the interpreter against the reference to the bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.experimental.pallas import tpu as pltpu

from framework.errors import UserError
from framework.mesh import MeshConfig
from kernels_pallas import hadamard as rotation
from kernels_pallas.hadamard import hadamard, kernel, random_signs

SIGNS = np.where(np.arange(32) % 3 == 0, -1.0, 1.0).astype(np.float32)
# Five rounds of sums in float32 and a product, of 32 numbers up to 4: each step rounds by at most 2 ** -24 of 128 / sqrt(32).
CLOSE = {"rtol": 0, "atol": 6 * 2**-24 * 128 / 32**0.5}

# Rows and columns, block, bfloat16, signs, inverse. Columns that end within a chunk or within a block of them; all sizes of block.
GRID = {
    "one group": ((1, 32), 32, False, True, False),
    "ragged": ((5, 96), 32, False, True, True),
    "bfloat16": ((7, 160), 32, True, False, False),
    "three dimensions": ((3, 2, 64), 32, False, False, True),
    "one dimension": ((96,), 32, False, True, False),
    "two grid steps": ((300, 2080), 32, False, True, False),
    "blocks of one": ((2, 5), 1, False, False, False),
    "blocks of four": ((33, 12), 4, True, True, True),
    "blocks of a register": ((9, 384), 128, False, True, False),
    "wide blocks": ((3, 3072), 1024, False, True, True),
}
FAST = {"ragged", "bfloat16", "two grid steps"}


def numbers(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).clip(-4, 4).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("impl", "block", "inverse"))
def run(x, signs=None, *, impl="auto", block=32, inverse=False):
    return hadamard(x, signs, block=block, inverse=inverse, impl=impl)


@pytest.mark.parametrize("block", [1, 2, 16, 32, 128])
def test_the_matrix_is_scipys_in_natural_order(block):
    want = scipy.linalg.hadamard(block) / np.sqrt(block)
    np.testing.assert_allclose(rotation.matrix(block), want, rtol=2**-23)  # the root in float32
    i, j = np.indices((block, block))
    assert np.array_equal(rotation.matrix(block) < 0, np.bitwise_count(i & j) % 2 == 1)


@pytest.mark.parametrize("impl", ["reference", "xla", "interpret"])
@pytest.mark.parametrize("signs", [None, SIGNS], ids=["fixed", "signs"])
def test_rows_are_multiplied_by_signs_and_then_by_the_matrix(impl, signs):
    x = numbers((5, 96))
    h = scipy.linalg.hadamard(32) / np.sqrt(32)
    factors = np.ones(32) if signs is None else signs
    want = ((x.reshape(5, 3, 32).astype(np.float64) * factors) @ h).reshape(5, 96)
    np.testing.assert_allclose(run(x, signs, impl=impl), want, **CLOSE)


@pytest.mark.parametrize("impl", ["reference", "xla", "interpret"])
def test_the_inverse_undoes_it_and_products_are_kept(impl):
    x, w = numbers((5, 96)), numbers((4, 96), 1)
    y, v = run(x, SIGNS, impl=impl), run(w, SIGNS, impl=impl)
    twice = {"rtol": 0, "atol": 2 * CLOSE["atol"]}
    np.testing.assert_allclose(run(y, SIGNS, impl=impl, inverse=True), x, **twice)
    np.testing.assert_allclose(run(run(x, impl=impl), impl=impl), x, **twice)  # H H = I
    np.testing.assert_allclose(np.asarray(y) @ np.asarray(v).T, x @ w.T, atol=96 * 4 * 2 * CLOSE["atol"])


def test_a_ramp_becomes_what_the_official_kernel_makes_of_it():
    # Section 9 b of the specification: x_i = (i - 15.5) / 8.
    y = np.asarray(run((np.arange(32, dtype=np.float32) - 15.5) / 8, impl="reference"))
    want = np.zeros(32)
    want[[1, 2, 4, 8, 16]] = [-0.353553, -0.707107, -1.414214, -2.828427, -5.656854]
    np.testing.assert_allclose(y, want, atol=1e-6)  # six digits are given


@pytest.mark.parametrize("case", [c if c in FAST else pytest.param(c, marks=pytest.mark.slow) for c in GRID])
def test_the_kernel_is_the_reference_to_the_bit(case):
    shape, block, bfloat16, signed, inverse = GRID[case]
    x = jnp.asarray(numbers(shape), jnp.bfloat16 if bfloat16 else jnp.float32)
    signs = random_signs(jax.random.key(3), block) if signed else None
    got, want = (run(x, signs, impl=impl, block=block, inverse=inverse) for impl in ("interpret", "reference"))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, want)


@pytest.mark.slow
def test_the_kernel_in_the_interpreter_of_tpus_is_the_reference():
    x = numbers((5, 96))
    got = kernel.hadamard(x, jnp.asarray(SIGNS), 32, True, pltpu.InterpretParams())
    np.testing.assert_array_equal(got, run(x, SIGNS, impl="reference", inverse=True))


def test_numbers_that_are_not_finite_stay_in_their_block():
    x = numbers((2, 96))
    x[0, 40], x[1, 3] = np.nan, np.inf
    for impl in ("reference", "interpret", "xla"):
        good = np.isfinite(np.asarray(run(x, impl=impl))).reshape(2, 3, 32)
        assert good.all(-1).tolist() == [[True, False, True], [False, True, True]]
        assert not good[0, 1].any()


@pytest.mark.parametrize("inverse", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_gradient_of_the_kernel_is_that_of_the_product(inverse):
    x, g = numbers((5, 96)), numbers((5, 96), 1)

    def loss(x, signs, impl):
        return jnp.sum(hadamard(x, signs, inverse=inverse, impl=impl) * g)

    got, want = (jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)(x, SIGNS, impl) for impl in ("interpret", "xla"))
    np.testing.assert_allclose(got[0], want[0], **CLOSE)
    np.testing.assert_allclose(
        got[1], want[1], rtol=1e-5, atol=15 * 4 * CLOSE["atol"]
    )  # a sum over 15 blocks, times up to 4


@pytest.mark.slow
def test_the_gradient_of_bfloat16_numbers_is_bfloat16():
    x = jnp.asarray(numbers((2, 32)), jnp.bfloat16)
    dx = jax.jit(jax.grad(lambda x: jnp.sum(hadamard(x, impl="interpret") ** 2)))(x)
    assert dx.dtype == jnp.bfloat16
    np.testing.assert_allclose(dx.astype(jnp.float32), 2 * x.astype(jnp.float32), rtol=2**-7)  # rounded to 8 bits


def test_signs_are_as_often_one_as_the_other():
    signs = np.asarray(random_signs(jax.random.key(0), 4096))
    assert set(signs) == {-1.0, 1.0}
    assert abs(signs.mean()) < 4 / 64  # four standard deviations of a mean of 4096


@pytest.mark.parametrize(
    ("shape", "options", "said"),
    [
        ((4, 48), {}, r"\[4, 48\] cannot be cut into blocks of 32.*Pad it"),
        ((), {}, "cannot be cut"),
        ((4, 48), {"block": 24}, "block=24 is no power of two"),
        ((4, 64), {"signs": np.ones(16)}, r"signs \[16\] must be \[32\]"),
        ((4, 64), {"impl": "triton"}, "impl='triton' is not one. Use 'auto'"),
        ((4, 64), {"impl": "pallas"}, "pallas hadamard cannot run: it is a TPU kernel.*runs on cpu.*'auto'"),
        ((4, 2048), {"impl": "interpret", "block": 2048}, "block=2048 is more than it holds.*at most 1024"),
        ((0, 64), {"impl": "interpret"}, r"\[0, 64\] is empty"),
    ],
)
def test_what_cannot_be_done_is_said(shape, options, said):
    with pytest.raises(ValueError, match=said):
        hadamard(np.zeros(shape, np.float32), **options)


def test_types_that_are_no_floats_are_refused_and_float16_goes_without_the_kernel():
    with pytest.raises(ValueError, match="type int32; give float32 or bfloat16"):
        hadamard(np.zeros((1, 32), np.int32))
    half = numbers((2, 32)).astype(np.float16)
    with pytest.raises(UserError, match="takes float32 and bfloat16, and x is float16"):
        hadamard(half, impl="interpret")
    np.testing.assert_allclose(run(half), run(half.astype(np.float32), impl="reference"), **CLOSE)


def test_on_a_mesh_of_several_devices_the_kernel_runs_within_shard_map_only():
    mesh, x = MeshConfig(data=4).build(), numbers((8, 64))
    rows = jax.sharding.PartitionSpec("data")
    with jax.set_mesh(mesh):
        with pytest.raises(UserError, match=r"cannot split a kernel over the 4 devices.*within jax.shard_map"):
            hadamard(x, impl="interpret")
        np.testing.assert_allclose(run(x), run(x, impl="reference"), **CLOSE)
        inner = functools.partial(hadamard, impl="interpret")
        split = jax.jit(jax.shard_map(inner, in_specs=rows, out_specs=rows, check_vma=False))
        np.testing.assert_array_equal(split(x), run(x, impl="reference"))
        with pytest.raises(UserError, match=r"use jax.shard_map with check_vma=False"):
            jax.jit(jax.shard_map(inner, in_specs=rows, out_specs=rows))(x)
