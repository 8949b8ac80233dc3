"""One Quartet layer: the card's numbers, a slow float64 transcription of the algorithm, and what is kept for the backward pass."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from framework.errors import UserError
from kernels_pallas.mxfp4 import QUEST, Quantizer
from models import quartet
from models.quant import BACKWARD_ONLY, FORWARD_ONLY, NAIVE, QUARTET, QUARTET_SR, Quantised
from models.quartet import quartet_project

GRID = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
NEAREST = Quantised(forward=Quantizer(scale="quest", exponent="nearest", rounding="even"))


def h32():
    return np.array([[(-1.0) ** (i & j).bit_count() for j in range(32)] for i in range(32)]) / np.sqrt(32)


def blocks(x, matrix):
    return (x.reshape(-1, 32) @ matrix).reshape(x.shape)


def slow_element(z, rounding, u):
    """One element of E2M1 for |z|, by looking at all of them."""
    if z >= 6:
        return 6.0
    below = max(v for v in GRID if v <= z)
    above = min(v for v in GRID if v > z)
    if rounding == "stochastic":
        return above if u < (z - below) / (above - below) else below
    if z - below == above - z:
        return below if rounding == "down" or list(GRID).index(below) % 2 == 0 else above
    return below if z - below < above - z else above


def slow_quantise(x, q, u=None):
    """Values and mask of x [N, K] in float64, group by group as section 2 of the paper and the released kernel say."""
    values, mask = np.zeros(x.shape), np.ones(x.shape, bool)
    for row in range(x.shape[0]):
        for start in range(0, x.shape[1], 32):
            group = x[row, start : start + 32]
            if q.scale == "quest":
                std = np.sqrt(max(np.mean(group**2) - np.mean(group) ** 2, 0.0))
                log = np.log2(2.92247856 / 6 * std + 1e-8)
                e = np.floor(log) if q.exponent == "floor" else np.round(log)
            else:
                e = np.floor(np.log2(np.abs(group).max())) - 2
            for k, v in enumerate(group):
                z = abs(v) / 2**e * (0.75 if q.scale == "absmax" else 1.0)
                noise = None if u is None else u[row, start + k]
                size = slow_element(z, q.rounding, noise) * 2**e * (4 / 3 if q.scale == "absmax" else 1.0)
                values[row, start + k] = np.copysign(size, v)
                mask[row, start + k] = z < 6
    return values, mask


def transcription(x, w, dy, rule, signs, noise):
    """Forward and backward pass of the card's algorithm (section 2.5), w [out, in], in float64: y, dX, dW."""
    h = h32()
    turn = (lambda a: blocks(a, h)) if rule.rotate else (lambda a: a)
    random_turn = (lambda a: blocks(a, np.diag(signs) @ h)) if rule.rotate else (lambda a: a)
    mx, mw = np.ones(x.shape), np.ones(w.shape)
    xq, wq = x, w
    if rule.forward is not None:
        (xq, mx), (wq, mw) = slow_quantise(turn(x), rule.forward), slow_quantise(turn(w), rule.forward)
        if not rule.forward.masks:
            mx, mw = np.ones(x.shape), np.ones(w.shape)
    if rule.backward is None:
        dx, dw = dy @ wq, dy.T @ xq
    else:
        four = {"dy along out": dy, "w": wq.T, "dy along tokens": dy.T, "x": xq.T}
        g1, w1, g2, x2 = (
            slow_quantise(random_turn(a), rule.backward, noise(name, a.shape))[0] for name, a in four.items()
        )
        dx, dw = g1 @ w1.T, g2 @ x2.T
    if rule.forward is not None:
        dx, dw = turn(dx * mx), turn(dw * mw)
    return xq @ wq.T, dx, dw


def layer(x, w, dy, rule, key, salt=0):
    @jax.jit  # a new one each time: tests put other signs in
    def run(x, kernel, dy, key):
        y, vjp = jax.vjp(lambda x, kernel: quartet_project(x, kernel, key, rule, salt), x, kernel)
        return y, *vjp(dy)

    y, dx, dkernel = run(x, w.T, dy, key)
    return np.asarray(y), np.asarray(dx), np.asarray(dkernel).T


def val(n, k):
    """The card's reproducible numbers (section 9)."""
    return ((7919 * n**2 + 104729 * n + 1299709 * k) % 10007) / 5003.5 - 1


def test_the_layer_of_the_card(monkeypatch, request):
    """Section 9 c), from the official kernel in Triton's interpreter."""
    n = np.arange(1024, dtype=np.int64)
    x, w, dy = (scale * val(n, k).reshape(32, 32).astype(np.float32) for k, scale in ((1, 1), (2, 0.1), (3, 0.01)))
    signs = np.where(np.arange(32) % 3 == 0, -1.0, 1.0)
    monkeypatch.setattr(quartet, "random_signs", lambda key, size: jnp.asarray(signs, jnp.float32))
    request.addfinalizer(quartet._backward.clear_cache)  # or others would see these signs
    quartet._backward.clear_cache()
    y, dx, dw = layer(x, w, dy, QUARTET, jax.random.key(0))
    close = {"rtol": 1e-6, "atol": 6e-9}  # the card prints eight decimals
    np.testing.assert_allclose(y[0, :4], [0.53320312, 0.26367188, 0.00585938, 0.01269531], **close)
    np.testing.assert_allclose([y[5, 7], y.sum(dtype=np.float64)], [0.18847656, 14.16015625], **close)
    np.testing.assert_allclose(dx[0, :4], [-0.00110294, 0.00000959, -0.00006714, -0.00091112], **close)
    np.testing.assert_allclose(dx[31, 31], 0.00141943, **close)
    np.testing.assert_allclose(dw[0, :4], [0.00117007, -0.01705235, 0.00013427, 0.02495513], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(dw[5, 7], 0.01336951, rtol=1e-6, atol=1e-8)

    def error(a, b):
        return np.linalg.norm(a - b) / np.linalg.norm(b)

    def cosine(a, b):
        return np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)

    exact = (x @ w.T, dy @ w, dy.T @ x)
    assert [round(error(a, b), 3) for a, b in zip((y, dx, dw), exact, strict=True)] == [0.221, 0.295, 0.316]
    assert [round(cosine(a, b), 3) for a, b in zip((y, dx, dw), exact, strict=True)] == [0.980, 0.960, 0.949]
    h = h32()
    assert [int((~slow_quantise(blocks(a.astype(np.float64), h), QUEST)[1]).sum()) for a in (x, w)] == [14, 94]
    monkeypatch.setattr(quartet, "random_signs", lambda key, size: jnp.ones(32))
    quartet._backward.clear_cache()
    np.testing.assert_allclose(
        layer(x, w, dy, QUARTET, jax.random.key(0))[1][0, :2], [-0.00133791, 0.00050351], **close
    )


@pytest.mark.parametrize(
    "rule",
    [QUARTET, QUARTET_SR, FORWARD_ONLY, BACKWARD_ONLY, NAIVE, NEAREST],
    ids=["rtn", "sr", "forward", "backward", "naive", "nearest"],
)
@pytest.mark.parametrize(("tokens", "size_in", "size_out"), [(32, 64, 32), (96, 32, 64)])
def test_a_layer_equals_a_slow_float64_transcription(rule, tokens, size_in, size_out):
    rng = np.random.default_rng(tokens + size_in)
    x, w, dy = (
        rng.standard_normal(s).astype(np.float32) for s in ((tokens, size_in), (size_out, size_in), (tokens, size_out))
    )
    x[:, 3] *= 20  # an outlier column, which saturates without the rotation
    for seed in (0, 7):
        key = jax.random.key(seed)
        draw = quartet._Draw(key, 5, rule)
        signs = np.asarray(draw.signs, np.float64) if rule.rotate else None
        stochastic = rule.backward is not None and rule.backward.rounding == "stochastic"
        noise = lambda name, shape, draw=draw: np.asarray(draw.noise(name, shape)) if stochastic else None  # noqa: B023, E731
        wide = [a.astype(np.float64) for a in (x, w, dy)]
        want = transcription(*wide, rule, signs, noise)
        got = layer(x, w, dy, rule, key, salt=5)
        for a, b in zip(got, want, strict=True):
            # Codes are equal; float32 sums of at most 96 products of numbers up to about 50.
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_noise_is_uniform_and_neighbours_are_independent():
    u = np.asarray(quartet._Draw(jax.random.key(3), 1, QUARTET_SR).noise("w", (256, 256)), np.float64)
    assert u.min() > 0
    assert u.max() < 1
    even, odd = u[:, ::2].ravel(), u[:, 1::2].ravel()  # the halves of one random number
    expected = even.size / 16
    for half in (even, odd):
        counts = np.histogram(half, bins=16, range=(0, 1))[0]
        assert (
            np.sum((counts - expected) ** 2 / expected) < 40
        )  # chi-square, 15 degrees of freedom: exceeded once in 2,000 keys
    for a, b in ((even, odd), (odd[:-1], even[1:]), (u[:-1].ravel(), u[1:].ravel())):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(a.size)


def test_stochastic_rounding_is_unbiased():
    """The mean gradient over 10,000 keys against exact products of what the forward pass saw, in standard errors of the mean."""
    rng = np.random.default_rng(0)
    x, w, dy = (rng.standard_normal((32, 32)).astype(np.float32) for _ in range(3))
    exact = layer(x, w, dy, FORWARD_ONLY, jax.random.key(0))[1:]
    keys = jax.random.split(jax.random.key(1), 10_000)

    @jax.jit
    def gradients(key):
        _, vjp = jax.vjp(lambda x, k: quartet_project(x, k, key, QUARTET_SR, 0), jnp.asarray(x), jnp.asarray(w.T))
        dx, dkernel = vjp(jnp.asarray(dy))
        return dx, dkernel.T

    for got, want in zip(jax.lax.map(gradients, keys, batch_size=500), exact, strict=True):
        got = np.asarray(got, np.float64)
        error = (got.mean(0) - want) / (got.std(0, ddof=1) / np.sqrt(len(got)))
        assert np.abs(error).max() < 4.0
        assert 0.9 < np.sqrt(np.mean(error**2)) < 1.1  # as large as chance makes them: the test can tell
    biased = (np.asarray(layer(x, w, dy, QUARTET, jax.random.key(0))[1]) - exact[0]) / np.abs(exact[0]).mean()
    assert np.abs(biased).max() > 0.05


def test_what_is_kept_for_the_backward_pass_is_packed():
    """5.25 bits a number: 4 of codes, 8 / 32 of scales, 1 of masks, for x and the matrix, and a key."""
    x, kernel = jnp.ones((64, 128)), jnp.ones((128, 96))
    for rule, bits in ((QUARTET, 5.25), (NAIVE, 4.25), (FORWARD_ONLY, 5.25), (BACKWARD_ONLY, 32.0)):
        _, vjp = jax.vjp(lambda x, k, rule=rule: quartet_project(x, k, jax.random.key(0), rule, 0), x, kernel)
        kept = sum(
            a.size * (8 if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key) else a.dtype.itemsize)
            for a in jax.tree.leaves(vjp)
        )
        assert kept == (x.size + kernel.size) * bits / 8 + 8, rule


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_types_are_kept_and_shapes_may_have_any_leading_dimensions(dtype):
    x = jax.random.normal(jax.random.key(0), (2, 3, 32, 64), dtype)
    kernel = jax.random.normal(jax.random.key(1), (64, 96))
    project = lambda x, k: quartet_project(x, k, jax.random.key(2), QUARTET, 0)  # noqa: E731
    y, vjp = jax.vjp(project, x, kernel)
    dx, dk = vjp(y)
    chex.assert_shape([y, dx, dk], [(2, 3, 32, 96), x.shape, kernel.shape])
    assert (y.dtype, dx.dtype, dk.dtype) == (dtype, dtype, jnp.float32)
    flat = project(x.reshape(-1, 64), kernel).reshape(y.shape)
    np.testing.assert_array_equal(np.asarray(flat, np.float32), np.asarray(y, np.float32))


def test_other_keys_are_other_gradients_and_the_same_forward_pass():
    x, kernel, dy = (jax.random.normal(jax.random.key(i), (32, 32)) for i in range(3))
    results = [layer(x, kernel.T, dy, QUARTET, jax.random.key(i)) for i in (0, 0, 1)]
    for first, again, other in zip(*results, strict=True):
        np.testing.assert_array_equal(first, again)
        assert np.array_equal(first, other) == (first is results[0][0])


def test_tokens_that_make_no_whole_groups_are_refused_where_they_matter():
    x, kernel = jnp.ones((3, 20, 32)), jnp.ones((32, 32))
    project = lambda x, rule: quartet_project(x, kernel, jax.random.key(0), rule, 0)  # noqa: E731
    assert project(x, QUARTET).shape == (3, 20, 32)  # generation reads a token at a time
    jax.grad(lambda x: project(x, FORWARD_ONLY).sum())(x)
    with pytest.raises(UserError, match=r"3 x 20 = 60 tokens cannot be cut into groups of 32.*such as a length of 32"):
        jax.grad(lambda x: project(x, QUARTET).sum())(x)


def test_a_nan_stays_visible():
    x, kernel = jnp.ones((32, 64)).at[3, 40].set(jnp.nan), jnp.ones((64, 32))
    y = quartet_project(x, kernel, jax.random.key(0), QUARTET, 0)
    assert np.isnan(y[3]).all()
    assert np.isfinite(np.delete(np.asarray(y), 3, axis=0)).all()


def test_a_nan_stays_visible_in_the_gradient_of_its_own_group():
    """No element of such a group counts as saturated, which would put zeros in the place of NaN."""
    x, kernel = jnp.ones((32, 64)).at[3, 40].set(jnp.nan), jnp.ones((64, 32))
    dx, dkernel = jax.grad(
        lambda x, k: jnp.sum(quartet_project(x, k, jax.random.key(0), QUARTET, 0) ** 2), argnums=(0, 1)
    )(x, kernel)
    assert np.isnan(dx[3]).all()
    assert np.isnan(dkernel[32:]).all()


@pytest.mark.parametrize("rule", [QUARTET, QUARTET_SR, FORWARD_ONLY, BACKWARD_ONLY])
def test_a_batch_without_tokens_has_a_gradient_of_zeros(rule):
    x, kernel = jnp.zeros((0, 32, 64)), jnp.ones((64, 96))
    project = lambda x, k: quartet_project(x, k, jax.random.key(0), rule, 0)  # noqa: E731
    y, vjp = jax.vjp(project, x, kernel)
    dx, dkernel = vjp(y)
    chex.assert_shape([y, dx, dkernel], [(0, 32, 96), x.shape, kernel.shape])
    assert not dkernel.any()


def test_operands_that_are_not_quantised_are_not_rounded_to_bfloat16_on_an_accelerator(monkeypatch, request):
    def forget():
        quartet._forward.clear_cache()
        quartet._backward.clear_cache()

    request.addfinalizer(forget)
    forget()
    monkeypatch.setattr(quartet, "platform", lambda: "gpu")
    x, kernel, dy = (jax.random.normal(jax.random.key(i), (32, 32)) for i in range(3))
    y, *_ = layer(x, kernel.T, dy, BACKWARD_ONLY, jax.random.key(0))
    np.testing.assert_allclose(y, x @ kernel, atol=1e-5)  # sums of 32 terms of about 1; bfloat16 is off by 1e-2
    on_gpu = layer(x, kernel.T, dy, FORWARD_ONLY, jax.random.key(0))
    monkeypatch.undo()
    forget()
    for got, want in zip(on_gpu, layer(x, kernel.T, dy, FORWARD_ONLY, jax.random.key(0)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_single_token_is_named_in_the_refusal():
    kernel = jnp.ones((32, 32))
    with pytest.raises(UserError, match=r"A batch of 1 token\(s\) cannot be cut"):
        jax.grad(lambda x: quartet_project(x, kernel, jax.random.key(0), QUARTET, 0).sum())(jnp.ones(32))
