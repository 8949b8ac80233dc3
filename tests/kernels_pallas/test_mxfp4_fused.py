"""What training uses is what the specification says, but for the three liberties its file names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels_pallas.mxfp4 import ABSMAX_RTN, ABSMAX_SR, OCP, QUEST, Quantizer, fused, reference

NEAREST = Quantizer(scale="quest", exponent="nearest", rounding="even")
X = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32) * np.exp2(
    np.random.default_rng(1).integers(-20, 20, (64, 1))
).astype(np.float32)
U = np.asarray(jax.random.uniform(jax.random.key(0), X.shape))
QUANTIZERS = {"ocp": OCP, "absmax": ABSMAX_RTN, "stochastic": ABSMAX_SR, "quest": QUEST, "nearest": NEAREST}
run = jax.jit(fused.quantize, static_argnums=1)


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_codes_scales_masks_and_values_are_those_of_the_reference(name, dtype):
    q, x = QUANTIZERS[name], jnp.asarray(X, dtype)
    u = U if q.rounding == "stochastic" else None
    got = run(x, q, u)
    codes, scales, mask = jax.jit(reference.quantize, static_argnums=1)(x, q, u)
    # No scale of these lies at a power of two, where the order of a sum would show.
    np.testing.assert_array_equal(got.scales, scales)
    np.testing.assert_array_equal(got.codes & 15, codes)
    np.testing.assert_array_equal(got.values, reference.dequantize(codes, scales))
    if mask is not None:
        np.testing.assert_array_equal(got.codes > 15, mask)


@pytest.mark.parametrize("name", ["absmax", "quest"])
def test_what_is_kept_for_the_backward_pass_gives_values_and_mask_again(name):
    q = QUANTIZERS[name]
    got = run(X, q)
    kept = got.kept()
    np.testing.assert_array_equal(kept.values(), got.values)
    np.testing.assert_array_equal(np.signbit(kept.values()), np.signbit(got.values))  # of zeros too
    np.testing.assert_array_equal(kept.masked(jnp.asarray(X)), np.where(np.asarray(got.codes) > 15, X, 0))
    np.testing.assert_array_equal(kept._replace(mask=None).masked(jnp.asarray(X)), X)
    assert sum(a.size for a in jax.tree.leaves(kept)) == X.size * 5.25 / 8


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_spoils_its_group_and_no_other(name, bad):
    q, x = QUANTIZERS[name], X.copy()
    x[3, 70] = bad
    got = run(x, q, U if q.rounding == "stochastic" else None)
    spoilt = np.zeros(X.shape, bool)
    spoilt[3, 64:96] = True
    np.testing.assert_array_equal(np.isnan(got.values), spoilt)
    np.testing.assert_array_equal(np.isnan(got.kept().values()), spoilt)
    assert np.asarray(got.scales)[3, 2] == reference.NAN_SCALE
    assert not np.asarray(got.codes)[3, 64:96].any()


def test_zeros_are_zeros():
    for q in (OCP, ABSMAX_RTN, QUEST):
        got = run(np.zeros((2, 32), np.float32), q)
        assert not np.asarray(got.values).any()
        assert not np.asarray(got.kept().values()).any()
