"""Every implementation of the training loss on one grid, against all logits at once in float32."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels_pallas.cross_entropy import cross_entropy
from kernels_pallas.cross_entropy.chunked import LEAST, LOGITS, pick_chunk

SHAPES = [(2, 128, 32, 256), (3, 5, 7, 33), (1, 1, 4, 2)]


def data(shape, dtype=jnp.float32, transposed=False):
    b, t, d, v = shape
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.standard_normal((b, t, d)), dtype)
    unembed = jnp.asarray(rng.standard_normal((v, d) if transposed else (d, v)) / d**0.5, jnp.float32)
    targets = jnp.asarray(rng.integers(0, v, (b, t)))
    weights = jnp.asarray(rng.random((b, t)) * (rng.random((b, t)) < 0.7) + (np.arange(t) == 0), jnp.float32)
    return hidden, unembed, targets, weights


def value_and_grad(arrays, **options):
    hidden, unembed, targets, weights = arrays
    run = jax.value_and_grad(lambda h, w: 3.0 * cross_entropy(h, w, targets, weights, **options), argnums=(0, 1))
    return jax.jit(run)(hidden, unembed)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("impl", "chunk"), [("chunked", None), ("chunked", 4), ("logprob", None)])
def test_value_and_gradient_equal_the_reference(shape, impl, chunk, transposed):
    arrays = data(shape, transposed=transposed)
    got = value_and_grad(arrays, impl=impl, chunk=chunk, transposed=transposed)
    want = value_and_grad(arrays, impl="reference", transposed=transposed)
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-5)  # float32 sums of up to 256 terms, in another order


def test_value_without_gradient_is_the_same_number():
    hidden, unembed, targets, weights = data(SHAPES[0])
    alone = cross_entropy(hidden, unembed, targets, weights, impl="chunked", chunk=100)
    (tripled, _) = value_and_grad((hidden, unembed, targets, weights), impl="chunked", chunk=100)
    np.testing.assert_allclose(3 * alone, tripled, rtol=1e-6)


def test_tokens_without_weight_may_have_any_target_and_send_no_gradient():
    hidden, unembed, targets, weights = data(SHAPES[0])
    weights = weights.at[:, 60:].set(0)
    for impl in ("chunked", "logprob", "reference"):
        odd = value_and_grad((hidden, unembed, targets.at[:, 60:].set(-100), weights), impl=impl)
        chex.assert_trees_all_close(odd, value_and_grad((hidden, unembed, targets, weights), impl=impl))
        assert not odd[1][0][:, 60:].any()


def test_a_target_outside_of_the_vocabulary_with_weight_is_nan_and_not_some_number():
    hidden, unembed, targets, _ = data(SHAPES[1])
    ones = jnp.ones(targets.shape)
    for impl in ("chunked", "logprob"):
        assert jnp.isnan(cross_entropy(hidden, unembed, targets.at[0, 0].set(33), ones, impl=impl))


def test_bfloat16_hidden_states_accumulate_in_float32_and_the_matrix_gradient_stays_float32():
    hidden, unembed, targets, weights = data(SHAPES[0], jnp.bfloat16)
    value, (dh, dw) = value_and_grad((hidden, unembed, targets, weights), impl="chunked", chunk=64)
    want, (_, want_dw) = value_and_grad((hidden.astype(jnp.float32), unembed, targets, weights), impl="reference")
    assert (dh.dtype, dw.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(
        value, want, rtol=2e-3
    )  # the matrix is rounded to 8 bits: 2**-9, averaged over many tokens
    # Probabilities and hidden states are rounded to 8 bits before they are multiplied, 2**-9 each, and 256 of them are summed.
    np.testing.assert_allclose(dw, want_dw, atol=0.01 * float(jnp.abs(want_dw).max()))


def test_chunks_are_equal_and_small():
    assert pick_chunk(4096, 4096) == 2048
    assert pick_chunk(4100, 4096) == 1367
    assert pick_chunk(10, 152_064) == 10
    assert pick_chunk(10_000, 152_064) <= LEAST
    assert pick_chunk(10**6, 32_000) * 32_000 <= LOGITS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": jnp.zeros((2, 3), int)}, r"targets \[2, 3\]"),
        ({"unembed": jnp.ones((256, 32))}, "transposed=True"),
        ({"impl": "fast"}, "'chunked'"),
    ],
)
def test_wrong_input_says_what_is_wrong(change, message):
    names = ("hidden", "unembed", "targets", "weights")
    with pytest.raises(ValueError, match=message):
        cross_entropy(**(dict(zip(names, data(SHAPES[0]), strict=True)) | change))
