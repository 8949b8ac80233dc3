"""The product of two MXFP4 tensors: all implementations against float64, the kernel in the interpreter also for every element."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from framework.errors import UserError
from framework.mesh import MeshConfig
from kernels_pallas import e2m1
from kernels_pallas.mxfp4 import ABSMAX_RTN, MXFP4, kernel, matmul, rotate_quantize

# Rows of a (leading dimensions too), rows of b, K. A single number; nothing aligned; K of one chunk, of two that end within one, of
# a block, of more; rows and columns of more than one block.
GRID = {
    "smallest": ((1,), 1, 32),
    "ragged": ((5,), 7, 96),
    "leading dimensions": ((3, 2), 64, 160),
    "a vector": ((), 40, 64),
    "one chunk": ((33,), 130, 512),
    "ragged second chunk": ((4,), 5, 544),
    "two blocks": ((9,), 3, 8192),
    "ragged second block": ((3,), 2, 4096 + 96),
    "blocks of rows": ((600,), 530, 32),
}
FAST = {"ragged", "leading dimensions", "ragged second chunk"}


@functools.partial(jax.jit, static_argnames="impl")
def run(a, b, *, impl):
    return matmul(a, b, impl=impl)


def random(shape, k, seed, gain=1.0, scales=(107, 147)):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (*shape, k // 2), dtype=np.uint8)
    return MXFP4(jnp.asarray(codes), jnp.asarray(rng.integers(*scales, (*shape, k // 32), dtype=np.uint8)), gain)


def exact(x):
    """Values in float64, the gain as well."""
    packed, scales = np.asarray(x.codes), np.asarray(x.scales, np.float64)
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(x.shape)
    size = np.array(e2m1.VALUES)[codes & 7] * np.where(codes & 8, -1.0, 1.0)
    return size * np.repeat(np.exp2(scales - 127), 32, axis=-1) * x.gain


def check(got, a, b):
    left, right = exact(a), exact(b)
    k = left.shape[-1]
    # Products are exact. Sums of k of them are rounded, at worst each time, relative to the sum of their sizes; then the gain is.
    bound = (k + 2) * 2**-24 * (np.abs(left) @ np.abs(right).T)
    assert (np.abs(np.asarray(got, np.float64) - left @ right.T) <= bound).all()


@pytest.mark.parametrize("case", [c if c in FAST else pytest.param(c, marks=pytest.mark.slow) for c in GRID])
def test_without_a_kernel_it_is_the_product_in_float64(case):
    rows, n, k = GRID[case]
    a, b = random(rows, k, 0, 4 / 3), random((n,), k, 1, 4 / 3)
    got = run(a, b, impl="xla")
    assert got.shape == (*rows, n)
    assert got.dtype == jnp.float32
    check(got, a, b)


@pytest.mark.parametrize("case", [c if c in FAST else pytest.param(c, marks=pytest.mark.slow) for c in GRID])
def test_the_kernel_is_the_product_in_float64(case):
    rows, n, k = GRID[case]
    a, b = random(rows, k, 0, 4 / 3), random((n,), k, 1)
    got = run(a, b, impl="interpret")
    assert got.shape == (*rows, n)
    assert got.dtype == jnp.float32
    check(got, a, b)


@pytest.mark.parametrize("impl", ["xla", "interpret"])
def test_every_element_under_every_scale_is_itself_times_one(impl):
    codes = np.broadcast_to(np.resize(np.arange(16), 32), (256, 32)).astype(np.uint8)
    a = MXFP4(e2m1.pack(codes), jnp.arange(256, dtype=jnp.uint8)[:, None])
    one = MXFP4(e2m1.pack(2 * np.eye(32, dtype=np.uint8)), jnp.full((32, 1), 127, jnp.uint8))
    got, want = np.asarray(run(a, one, impl=impl)), exact(a)
    finite = np.abs(want).max(1) < 2.0**128
    assert np.flatnonzero(~finite).tolist() == [253, 254, 255]  # 6 * 2^126 is beyond float32; 255 is NaN
    assert not np.isfinite(got[~finite]).any()  # infinity times 0 is NaN
    normal = np.abs(want[finite]) >= 2.0**-126
    np.testing.assert_array_equal(got[finite][normal], want[finite][normal])
    # Numbers below are subnormal: the hardware may have them as zeros.
    small = got[finite][~normal]
    assert ((small == 0) | (small == want[finite][~normal])).all()


@pytest.mark.parametrize("impl", ["xla", "interpret"])
def test_a_group_that_is_nan_spoils_its_row_and_no_other(impl):
    a, b = random((5,), 96, 0), random((7,), 96, 1)
    bad_a = MXFP4(a.codes, a.scales.at[1, 2].set(255))
    bad_b = MXFP4(b.codes, b.scales.at[4, 0].set(255))
    got = np.isnan(run(bad_a, bad_b, impl=impl))
    want = np.zeros((5, 7), bool)
    want[1], want[:, 4] = True, True
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("impl", ["xla", "interpret"])
def test_gains_are_multiplied_in_once(impl):
    a, b = random((5,), 96, 0), random((7,), 96, 1)
    plain = np.asarray(run(a, b, impl=impl))
    both = run(MXFP4(a.codes, a.scales, 4 / 3), MXFP4(b.codes, b.scales, 4 / 3), impl=impl)
    np.testing.assert_allclose(both, plain * (16 / 9), rtol=2**-23)


def test_a_product_of_rotated_tensors_is_near_that_of_the_tensors():
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal((rows, 320)).astype(np.float32) for rows in (24, 40))
    signs = np.where(np.arange(32) % 3 == 0, -1.0, 1.0).astype(np.float32)
    pack = jax.jit(lambda x: rotate_quantize(x, ABSMAX_RTN, signs=signs, impl="xla")[0])
    y = np.asarray(run(pack(x), pack(w), impl="interpret"))
    # Each operand has a relative error of about the root of 0.0138 (the specification's), and errors of both add up in squares.
    assert np.linalg.norm(y - x @ w.T) < 1.1 * (2 * 0.0138) ** 0.5 * np.linalg.norm(x @ w.T)


@pytest.mark.slow
def test_the_kernel_in_the_interpreter_of_tpus_is_the_product_in_float64():
    for rows, n, k in (((5,), 7, 96), ((3,), 2, 4096 + 96)):
        a, b = random(rows, k, 0), random((n,), k, 1)
        got = kernel.matmul((a.codes, a.scales), (b.codes, b.scales), interpret=pltpu.InterpretParams())
        check(got, a, b)


def test_what_cannot_be_multiplied_is_refused():
    a = random((4,), 64, 0)
    for other in (random((4,), 32, 0), random((2, 4), 64, 0)):
        with pytest.raises(
            ValueError, match=r"a \[4, 64\] and b .* cannot be multiplied: give a \[..., K\] and b \[N, K\]"
        ):
            matmul(a, other)
    with pytest.raises(UserError, match=r"pallas matmul cannot run: it is a TPU kernel.*runs on cpu.*'auto'"):
        matmul(a, a, impl="pallas")


@pytest.mark.slow
def test_on_a_mesh_of_several_devices_the_kernel_runs_within_shard_map_only():
    a, b = random((8,), 64, 0), random((6,), 64, 1)
    rows, whole = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    with jax.set_mesh(MeshConfig(data=4).build()):
        with pytest.raises(UserError, match=r"cannot split a kernel over the 4 devices.*within jax.shard_map"):
            matmul(a, b, impl="interpret")
        inner = functools.partial(matmul, impl="interpret")
        split = jax.shard_map(inner, in_specs=(rows, whole), out_specs=rows, check_vma=False)
        check(jax.jit(split)(a, b), a, b)
