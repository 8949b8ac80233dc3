"""Attention: every implementation against the written-out reference, on one grid, forward and gradient."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from framework.mesh import MeshConfig
from kernels_pallas.attention import attention, blocked, cudnn, reference, splash

# Kernels of other platforms run here in the interpreter (splash), and as the same call of jax with its XLA version (cudnn).
IMPLEMENTATIONS = {
    "blocked": blocked.attention,
    "splash": functools.partial(splash.attention, interpret=True),
    "cudnn": functools.partial(cudnn.attention, implementation="xla"),
}
# (B, T, H, K, h), window. Aligned to a TPU's lanes and unaligned, in one block and in several; grouped, single and equal heads;
# as small as it gets; windows of one token, across blocks, longer than the row.
GRID = [
    ((1, 256, 4, 2, 64), None),
    ((4, 200, 4, 1, 8), None),
    ((4, 200, 2, 2, 16), 130),
    ((4, 33, 4, 2, 8), 5),
    ((2, 5, 2, 1, 4), 1),
    ((2, 7, 2, 1, 4), 50),
    ((1, 1, 1, 1, 2), None),
]
# Products summed in another order and a softmax in another order: a few float32 steps (1.2e-7) of numbers up to about 10, where
# gradients of keys are sums over hundreds of queries.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def make(shape, dtype=np.float32):
    batch, length, heads, kv_heads, size = shape
    rng = np.random.default_rng(sum(shape))
    q = rng.standard_normal((batch, length, heads, size)).astype(dtype)
    k, v = (rng.standard_normal((batch, length, kv_heads, size)).astype(dtype) for _ in range(2))
    return q, k, v, rng.standard_normal(q.shape).astype(dtype)


def layouts(batch, length):
    """Segment ids [B, T]: none; rows of every kind; all rows padded on the right, which cuDNN treats apart."""
    index = np.arange(length)
    third = max(length // 3, 1)
    packed, right, left = 1 + index // third, np.where(index < length - third, 1, 0), np.where(index < third, 0, 1)
    both = np.where((index < third // 2) | (index >= length - third // 2), 0, packed)
    kinds = {"mixed": [both, packed, left, right], "right": [right, np.ones_like(right)]}
    stacked = {name: np.stack([rows[b % len(rows)] for b in range(batch)]) for name, rows in kinds.items()}
    return {"whole": None} | {name: rows.astype(np.int32) for name, rows in stacked.items()}


@functools.partial(jax.jit, static_argnames=("run", "window"))
def value_and_grads(q, k, v, g, segments, *, run, window):
    """The output on real tokens and the gradients; nobody reads the output of padding, so it sends no gradient."""
    real = 1 if segments is None else (segments != 0)[..., None, None]
    out, pull = jax.vjp(lambda q, k, v: run(q, k, v, segments, window=window), q, k, v)
    return {"finite": jnp.all(jnp.isfinite(out)), "out": out * real, "grads": pull((g * real).astype(out.dtype))}


@functools.cache
def expected(shape, window, layout):
    segments = layouts(*shape[:2])[layout]
    return value_and_grads(*make(shape), segments, run=reference.attention, window=window)


@pytest.mark.parametrize(("shape", "window"), GRID, ids=str)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_every_implementation_gives_the_values_and_gradients_of_the_reference(name, shape, window):
    args = make(shape)
    for layout, segments in layouts(*shape[:2]).items():
        got = value_and_grads(*args, segments, run=IMPLEMENTATIONS[name], window=window)
        want = expected(shape, window, layout)
        assert got["finite"], layout  # also on padding
        chex.assert_trees_all_close(got, want, **CLOSE, custom_message=layout)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_bfloat16_is_accumulated_in_float32(name):
    shape = (1, 200, 2, 1, 16)
    q, k, v, g = make(shape, jnp.bfloat16)
    exact = tuple(np.asarray(x, np.float32) for x in (q, k, v, g))
    got = value_and_grads(q, k, v, g, None, run=IMPLEMENTATIONS[name], window=None)
    want = value_and_grads(*exact, None, run=reference.attention, window=None)
    assert got["out"].dtype == jnp.bfloat16
    for a, b in zip(
        jax.tree.leaves((got["out"], got["grads"])), jax.tree.leaves((want["out"], want["grads"])), strict=True
    ):
        # Probabilities, scaled queries, score gradients and results are each rounded to 8 bits once: 4 * 2^-9 of the largest.
        np.testing.assert_allclose(np.asarray(a, np.float32), b, rtol=0, atol=4 * 2**-9 * np.abs(b).max())


@pytest.mark.parametrize("name", ["reference", *IMPLEMENTATIONS])
def test_a_window_counts_the_token_itself(name):
    # Values are their own place in the row, scores are equal: the output is the mean place of what a token looks at.
    run = IMPLEMENTATIONS.get(name, reference.attention)
    q = np.zeros((1, 6, 1, 4), np.float32)
    v = np.broadcast_to(np.arange(6, dtype=np.float32)[None, :, None, None], (1, 6, 1, 4))
    out = run(q, q, v, None, window=3)[0, :, 0, 0]
    np.testing.assert_allclose(out, [0, 0.5, 1, 2, 3, 4], rtol=1e-6)


@pytest.mark.parametrize(
    ("impl", "message"),
    [
        (
            "splash",
            r"splash attention cannot run: it is a TPU kernel, and this program runs on cpu.*model\.attention='auto'",
        ),
        ("cudnn", r"cudnn attention cannot run: it needs an NVIDIA GPU, and this program runs on cpu.*'auto'"),
        ("flash", r"impl='flash' is not one\. Use 'auto' or 'blocked' or"),
    ],
)
def test_an_implementation_asked_for_by_name_never_falls_back(impl, message):
    q, k, v, _ = make((1, 4, 1, 1, 8))
    with pytest.raises(ValueError, match=message):
        attention(q, k, v, impl=impl)


def test_auto_is_blocked_on_a_cpu_in_a_mesh_and_outside():
    q, k, v, _ = make((2, 16, 2, 1, 8))
    text = lambda impl: jax.jit(lambda q, k, v: attention(q, k, v, impl=impl)).lower(q, k, v).as_text()  # noqa: E731
    assert text("auto") == text("blocked") != text("reference")
    with jax.set_mesh(MeshConfig(data=2).build()):
        assert text("auto") == text("blocked") != text("reference")


def like(dtype, size):
    q, kv = (jax.ShapeDtypeStruct((2, 100, heads, size), dtype) for heads in (4, 2))
    return q, kv, kv


@pytest.mark.parametrize(
    ("arrays", "capability", "message"),
    [
        (like(jnp.bfloat16, 128), 9.0, None),
        (like(jnp.float16, 64), 8.0, None),
        (like(jnp.bfloat16, 256), 9.0, None),
        (like(jnp.bfloat16, 256), None, None),
        (like(jnp.float32, 64), 9.0, "takes bfloat16 or float16.*float32.*model.dtype='bfloat16'"),
        (like(jnp.bfloat16, 256), 8.0, "head_dim=256 .* at most 128"),
        (like(jnp.bfloat16, 36), 9.0, "head_dim=36 must be a multiple of 8"),
        (like(jnp.bfloat16, 64), 7.5, r"compute capability 8\.0 .* has 7\.5"),
    ],
    ids=str,
)
def test_cudnn_says_what_it_cannot_do(arrays, capability, message):
    reason = cudnn.unsupported_shape(*arrays, capability)
    assert (reason is None) == (message is None)
    if message is not None:
        assert re.search(message, reason)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="here the kernel would be found; it is tested below")
def test_auto_is_cudnn_on_a_gpu_for_the_types_it_takes():
    gpu = AbstractMesh((1,), ("data",), (AxisType.Auto,), abstract_device=AbstractDevice("H100", None, platform="gpu"))
    with jax.sharding.use_abstract_mesh(gpu):
        # The kernel was chosen, and jax looks for it: there is no cuDNN here.
        with pytest.raises(RuntimeError, match="cuDNN is not detected"):
            jax.eval_shape(attention, *like(jnp.bfloat16, 64))
        with pytest.raises(ValueError, match=r"cudnn attention cannot run: it takes bfloat16 or float16"):
            jax.eval_shape(functools.partial(attention, impl="cudnn"), *like(jnp.float32, 64))
        assert jax.eval_shape(attention, *like(jnp.float32, 64)).shape == (2, 100, 4, 64)  # blocked


def test_splash_says_what_it_cannot_do():
    assert splash.unsupported_shape(*like(jnp.bfloat16, 64)) is None
    assert "float16" in splash.unsupported_shape(*like(jnp.float16, 64))
    assert splash.unsupported_shape(*like(jnp.bfloat16, 64), context=2) is None
    assert "use sequences of 256 tokens" in splash.unsupported_shape(*like(jnp.bfloat16, 64), window=8, context=2)


@pytest.mark.skipif(
    jax.default_backend() != "gpu", reason="cuDNN needs an NVIDIA GPU; its arguments are tested with XLA above"
)
@pytest.mark.parametrize(("shape", "window"), [((2, 256, 4, 2, 64), None), ((2, 200, 4, 2, 64), 33)], ids=str)
def test_cudnn_on_a_gpu_gives_the_values_and_gradients_of_the_reference(shape, window):
    q, k, v, g = make(shape, jnp.bfloat16)
    exact = tuple(np.asarray(x, np.float32) for x in (q, k, v, g))
    for layout, segments in layouts(*shape[:2]).items():
        run = functools.partial(attention, impl="cudnn")
        got = value_and_grads(q, k, v, g, segments, run=run, window=window)
        want = value_and_grads(*exact, segments, run=reference.attention, window=window)
        assert got["finite"], layout
        for a, b in zip(jax.tree.leaves(got["grads"]), jax.tree.leaves(want["grads"]), strict=True):
            # bfloat16 as above, and cuDNN keeps probabilities and score gradients in 8 bits too.
            np.testing.assert_allclose(
                np.asarray(a, np.float32), b, rtol=0, atol=8 * 2**-9 * np.abs(b).max(), err_msg=layout
            )
