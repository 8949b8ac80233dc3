"""Log-probability and entropy of given tokens: every implementation on one grid, and against independent truths."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from kernels_pallas.logprob import token_logprobs
from kernels_pallas.logprob.chunked import WHOLE, pick_chunk

# (B, T, D, V), chunk, unembed stored as [V, D]. Aligned; uneven with a tail; a tail of one column; one chunk wider
# than the vocabulary; as small as it gets.
CASES = [
    ((2, 8, 16, 128), 32, False),
    ((3, 5, 7, 37), 10, False),
    ((3, 5, 7, 37), 10, True),
    ((2, 3, 4, 33), 16, True),
    ((2, 4, 8, 20), 64, False),
    ((2, 4, 8, 20), 64, True),
    ((1, 1, 1, 1), 1, False),
]
# Two matrix products summed in another order, |logits| < 40: a few float32 steps of 4e-6.
CLOSE = {"rtol": 1e-5, "atol": 2e-5}


def make(shape, dtype=jnp.float32, transposed=False):
    """Data by numpy: drawing it with jax would compile for longer than the tests run."""
    batch, time, width, vocab = shape
    rng = np.random.default_rng(sum(shape))
    hidden = rng.standard_normal((batch, time, width)).astype(dtype)
    unembed = rng.standard_normal((width, vocab)).astype(dtype)
    targets = rng.integers(0, vocab, (batch, time), dtype=np.int32)
    weights = rng.standard_normal((2, batch, time)).astype(np.float32)  # the cotangents of logp and entropy
    return hidden, unembed.T if transposed else unembed, targets, weights


@functools.partial(jax.jit, static_argnames=("impl", "chunk", "transposed"))
def value_and_grads(hidden, unembed, targets, weights, temperature, entropy_temperature=None, **kwargs):
    def loss(hidden, unembed):
        logp, entropy = token_logprobs(
            hidden, unembed, targets, temperature, entropy_temperature=entropy_temperature, **kwargs
        )
        return jnp.sum(weights[0] * logp + weights[1] * entropy), (logp, entropy)

    grads, out = jax.grad(loss, (0, 1), has_aux=True)(hidden, unembed)
    return out, grads


def float64_truth(hidden, unembed, targets, weights, temperature, entropy_temperature):
    """The formulas in float64 numpy, gradients by hand: shares nothing with either implementation."""
    hidden, unembed, weights = (np.asarray(a, np.float64) for a in (hidden, unembed, weights))
    logits = hidden @ unembed

    def softmax(t):
        x = logits / t
        x = x - x.max(-1, keepdims=True)
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    p, q = softmax(temperature), softmax(entropy_temperature)
    onehot = np.eye(unembed.shape[1])[np.asarray(targets)]
    logp = np.log((p * onehot).sum(-1))
    entropy = -(q * np.log(q)).sum(-1)
    d = weights[0][..., None] * (onehot - p) / temperature
    d -= weights[1][..., None] * q * (np.log(q) + entropy[..., None]) / entropy_temperature
    return (logp, entropy), (d @ unembed.T, np.einsum("btd,btv->dv", hidden, d))


@pytest.mark.parametrize(("shape", "chunk", "transposed"), CASES, ids=str)
def test_chunked_equals_reference_forward_and_gradient(shape, chunk, transposed):
    args = make(shape, transposed=transposed)
    rows = shape[0]
    for temperature in (np.ones(rows), np.full(rows, 0.6), np.linspace(0.5, 1.5, rows)):  # [B]: one compilation
        got = value_and_grads(*args, temperature, impl="chunked", chunk=chunk, transposed=transposed)
        want = value_and_grads(*args, temperature, impl="reference", transposed=transposed)
        chex.assert_trees_all_close(got, want, **CLOSE)


def test_temperatures_and_entropy_temperatures_per_token_equal_the_reference():
    args = make((3, 5, 7, 37))
    temperatures = (np.linspace(0.5, 1.5, 15).reshape(3, 5), np.array([1.0, 0.7, 1.0]))
    got = value_and_grads(*args, *temperatures, impl="chunked", chunk=10)
    chex.assert_trees_all_close(got, value_and_grads(*args, *temperatures, impl="reference"), **CLOSE)


@pytest.mark.parametrize("impl", ["chunked", "reference"])
@pytest.mark.parametrize("temperatures", [(1.0, None), (0.6, None), (0.6, 1.0)], ids=str)
def test_both_implementations_equal_float64_numpy(impl, temperatures):
    temperature, entropy_temperature = temperatures
    args = make((3, 5, 7, 37))
    chunk = 10 if impl == "chunked" else None
    got = value_and_grads(*args, temperature, entropy_temperature, impl=impl, chunk=chunk)
    want = float64_truth(*args, temperature, entropy_temperature or temperature)
    chex.assert_trees_all_close(got, jax.tree.map(np.float32, want), **CLOSE)


@pytest.mark.parametrize("chunk", [10, 64], ids=["chunks", "one_chunk"])
@pytest.mark.parametrize("dtypes", [(jnp.bfloat16, jnp.bfloat16), (jnp.bfloat16, jnp.float32)], ids=str)
def test_bfloat16_inputs_accumulate_in_float32(dtypes, chunk):
    hidden, unembed, targets, weights = make((3, 5, 7, 37))
    low = (hidden.astype(dtypes[0]), unembed.astype(dtypes[1]))
    (out, grads) = value_and_grads(*low, targets, weights, 1.0, impl="chunked", chunk=chunk)
    exact = (low[0].astype(jnp.float32), low[1].astype(jnp.float32))
    (want_out, want_grads) = value_and_grads(*exact, targets, weights, 1.0, impl="reference")
    assert [g.dtype for g in grads] == list(dtypes)
    # Products of bfloat16 numbers are exact in float32: the outputs differ by float32 rounding only.
    chex.assert_trees_all_close(out, want_out, atol=2e-5)
    # dlogits and the returned gradient are each rounded to bfloat16 once: 2 * 2^-9 of the largest terms (about 8).
    chex.assert_trees_all_close(jax.tree.map(lambda g: g.astype(jnp.float32), grads), want_grads, rtol=8e-3, atol=4e-2)


@pytest.mark.parametrize(
    ("used", "chunk", "remat"),
    [("logp", 10, False), ("logp", 64, True), ("entropy", 10, True), ("entropy", 64, False)],
)
def test_gradient_of_one_output_alone(used, chunk, remat):
    # Leaves the other cotangent symbolically zero, which the backward pass treats apart, also inside jax.checkpoint.
    hidden, unembed, targets, weights = make((3, 5, 7, 37))
    i = ("logp", "entropy").index(used)
    weights[1 - i] = 0.0

    def loss(hidden, unembed):
        out = token_logprobs(hidden, unembed, targets, 0.6, chunk=chunk, entropy_temperature=1.0)
        return jnp.sum(weights[i] * out[i])

    want = float64_truth(hidden, unembed, targets, weights, 0.6, 1.0)[1]
    got = jax.jit(jax.grad(jax.checkpoint(loss) if remat else loss, (0, 1)))(hidden, unembed)
    chex.assert_trees_all_close(got, jax.tree.map(np.float32, want), **CLOSE)


def test_finite_differences_of_the_chunked_gradient():
    hidden, unembed, targets, weights = make((2, 3, 4, 33))
    _, grads = value_and_grads(hidden, unembed, targets, weights, 0.6, impl="chunked", chunk=16)
    # Through the float64 transcription: float32 differences would be noise at this step.
    for i, array in enumerate((hidden, unembed)):
        direction = np.random.default_rng(i).standard_normal(array.shape)
        sums = []
        for step in (1e-5, -1e-5):
            moved = [np.asarray(hidden, np.float64), np.asarray(unembed, np.float64)]
            moved[i] = moved[i] + step * direction
            logp, entropy = float64_truth(*moved, targets, weights, 0.6, 0.6)[0]
            sums.append(float(np.sum(np.asarray(weights[0]) * logp + np.asarray(weights[1]) * entropy)))
        np.testing.assert_allclose(np.vdot(np.asarray(grads[i]), direction), (sums[0] - sums[1]) / 2e-5, rtol=1e-4)


@pytest.mark.parametrize("impl", ["chunked", "reference"])
def test_extreme_logits_stay_finite_and_entropy_stays_in_its_bounds(impl):
    vocab = 37
    scales = np.array([0.0, 1e-3, 1.0, 1e2, 1e4], np.float32)  # [T]: from a uniform distribution to a single token
    unembed = np.sin(np.arange(vocab, dtype=np.float32))[None, :]  # [1, V], so logits reach +-1e4
    hidden = np.stack([scales, -scales])[..., None]  # [2, T, 1]
    targets = np.full((2, 5), 11)  # sin(11) is the lowest logit of the first row, the highest of the second
    chunk = 10 if impl == "chunked" else None
    (logp, entropy), grads = value_and_grads(hidden, unembed, targets, np.ones((2, 2, 5)), 0.6, impl=impl, chunk=chunk)
    chex.assert_tree_all_finite((logp, entropy, grads))
    assert np.all(logp <= 0)
    assert np.all(entropy >= 0)
    assert np.all(entropy <= np.log(vocab) + 1e-6)  # one float32 step of log(37)
    np.testing.assert_allclose(entropy[:, 0], np.log(vocab), rtol=1e-6)
    np.testing.assert_allclose(entropy[:, -1], 0.0, atol=1e-6)
    assert logp[0, -1] < -1e4
    np.testing.assert_allclose(logp[1, -1], 0.0, atol=1e-3)  # half a float32 step of a tempered logit of 1.7e4


@pytest.mark.parametrize(("impl", "chunk"), [("chunked", 10), ("chunked", 64), ("reference", None)], ids=str)
def test_a_target_out_of_range_is_nan_and_sends_no_gradient(impl, chunk):
    hidden, unembed, targets, weights = make((3, 5, 7, 37))
    bad = targets.copy()
    bad[0, 0], bad[2, 4] = -100, 37
    weights[0, 0, 0] = weights[0, 2, 4] = 0.0
    (logp, entropy), grads = value_and_grads(hidden, unembed, bad, weights, 1.0, impl=impl, chunk=chunk)
    (_, want_entropy), want = value_and_grads(hidden, unembed, targets, weights, 1.0, impl=impl, chunk=chunk)
    assert np.argwhere(np.isnan(logp)).tolist() == [[0, 0], [2, 4]]
    chex.assert_trees_all_close((entropy, grads), (want_entropy, want), atol=1e-6)


def shapes_in(jaxpr):
    for eqn in jaxpr.eqns:
        yield from (var.aval.shape for var in eqn.outvars)
        for param in jax.tree.leaves(eqn.params, is_leaf=lambda p: hasattr(p, "jaxpr") or hasattr(p, "eqns")):
            inner = getattr(param, "jaxpr", param)
            if hasattr(inner, "eqns"):
                yield from shapes_in(inner)


@pytest.mark.parametrize("impl", ["chunked", "reference"])
def test_only_the_reference_makes_a_tensor_of_tokens_by_vocabulary(impl):
    args = make((4, 16, 8, 100))  # tokens x vocabulary = 6400 numbers; the matrix has 800
    run = functools.partial(value_and_grads.__wrapped__, impl=impl, chunk=32 if impl == "chunked" else None)
    largest = max(np.prod(s) for s in shapes_in(jax.make_jaxpr(lambda *a: run(*a, 0.6))(*args).jaxpr))
    assert largest == (4 * 16 * 32 if impl == "chunked" else 4 * 16 * 100)


def test_the_automatic_chunk_keeps_small_logits_whole_and_bounds_large_ones():
    assert pick_chunk(16 * 64, 272) == 272
    assert pick_chunk(512, 151_936) == 17 * 128
    for tokens in (1, 32, 512, 4096, 100_000):
        for vocab in (272, 8192, 151_936):
            chunk = pick_chunk(tokens, vocab)
            assert chunk == vocab or tokens * vocab > WHOLE
            assert chunk <= vocab


@pytest.mark.parametrize("unembed_spec", [P(), P("fsdp", "tensor")], ids=str)
def test_eight_devices_give_the_values_of_one(unembed_spec):
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    hidden, unembed, targets, weights = make((8, 4, 16, 96))
    batch = NamedSharding(mesh, P(("data", "fsdp")))
    sharded = (
        jax.device_put(hidden, batch),
        jax.device_put(unembed, NamedSharding(mesh, unembed_spec)),
        jax.device_put(targets, batch),
        jax.device_put(weights, NamedSharding(mesh, P(None, ("data", "fsdp")))),
    )
    got = value_and_grads(*sharded, 0.6, impl="chunked", chunk=40)
    want = value_and_grads(hidden, unembed, targets, weights, 0.6, impl="reference")
    chex.assert_trees_all_close(got, want, **CLOSE)


H, W, TARGETS = np.zeros((2, 3, 4), np.float32), np.zeros((4, 9), np.float32), np.zeros((2, 3), np.int32)


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((H[0], W, TARGETS), {}, ValueError, r"hidden \[3, 4\]"),
        ((H, W, TARGETS[:1]), {}, ValueError, r"targets \[1, 3\]"),
        ((H, W.T, TARGETS), {}, ValueError, "transposed=True"),
        ((H, W, TARGETS), {"transposed": True}, ValueError, "transposed=False"),
        ((H.astype(np.int32), W, TARGETS), {}, TypeError, "hidden has dtype int32"),
        ((H, W.astype(np.float64), TARGETS), {}, TypeError, "unembed has dtype float64"),
        ((H, W, TARGETS.astype(np.float32)), {}, TypeError, "targets has dtype float32"),
        ((H, W, TARGETS, 0.0), {}, ValueError, "temperature=0.0"),
        ((H, W, TARGETS, np.ones(3)), {}, ValueError, r"temperature has shape \[3\]"),
        ((H, W, TARGETS), {"entropy_temperature": -1.0}, ValueError, "entropy_temperature=-1.0"),
        ((H, W, TARGETS), {"chunk": 0}, ValueError, "chunk=0"),
        ((H, W, TARGETS), {"impl": "pallas"}, ValueError, "impl='pallas'"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_was_given(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        token_logprobs(*args, **kwargs)
