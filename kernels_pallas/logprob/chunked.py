"""Log-probability and entropy of given tokens, a slice of the vocabulary at a time: no [B, T, V] tensor.

Forward: an online softmax over vocabulary chunks (Milakov & Gimelshein, arXiv:1805.02867) that also carries the
first moment of the shifted logits, which is all the entropy needs. With x = logits / temperature, top = max x and
s = x - top:

    total = sum exp(s)          logp[target] = s[target] - log(total)
    mean  = sum exp(s) s / total     entropy = log(total) - mean            (total >= 1, mean <= 0: never negative)

Backward: the logits of a chunk are computed again, turned into dlogits, and used at once for that chunk's columns of
the matrix gradient and for the sum that is the hidden gradient. With p = exp(s) / total,

    d logp / d x_j = [j is the target] - p_j          d entropy / d x_j = -p_j (s_j - mean)

Both cotangents meet in one dlogits, so the entropy costs no matmul of its own.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp


class _Softmax(NamedTuple):
    """What is known of a distribution after some of its logits; every field [B, T] float32."""

    top: jax.Array  # largest tempered logit
    total: jax.Array  # sum of exp(x - top)
    moment: jax.Array  # sum of exp(x - top) * (x - top)

    @property
    def mean(self) -> jax.Array:
        return self.moment / self.total

    @property
    def entropy(self) -> jax.Array:
        return jnp.log(self.total) - self.mean


def _empty(shape: tuple[int, ...]) -> _Softmax:
    # The lowest finite float, not -inf: 0 * (top - new_top) must stay 0 when the first chunk arrives.
    low = jnp.full(shape, jnp.finfo(jnp.float32).min)
    return _Softmax(low, jnp.zeros(shape), jnp.zeros(shape))


def _absorb(old: _Softmax, x: jax.Array) -> _Softmax:
    """Adds the tempered logits of one chunk, x [B, T, C]."""
    top = jnp.maximum(old.top, jnp.max(x, axis=-1))  # [B, T]
    shift = old.top - top  # [B, T], <= 0
    keep = jnp.exp(shift)  # [B, T]
    s = x - top[..., None]  # [B, T, C]
    e = jnp.exp(s)  # [B, T, C]
    # One stacked sum: XLA's CPU backend merges two sums over the same array into a scalar loop, ten times slower.
    total, moment = jnp.sum(jnp.stack([e, e * s]), axis=-1)  # [B, T] each
    return _Softmax(top, old.total * keep + total, (old.moment + old.total * shift) * keep + moment)


def _slice(unembed: jax.Array, start: jax.Array | int, size: int, transposed: bool) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(unembed, start, size, axis=0 if transposed else 1)  # [D, C] or [C, D]


def _dot(a: jax.Array, b: jax.Array, axes: tuple[tuple[int, ...], tuple[int, ...]]) -> jax.Array:
    return jax.lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=jnp.float32)


def _logits(hidden: jax.Array, columns: jax.Array, transposed: bool) -> jax.Array:
    return _dot(hidden, columns, ((2,), (1 if transposed else 0,)))  # [B, T, C]


def _over_chunks(body, carry, vocab: int, chunk: int):
    """carry = body(start, size, carry) for every chunk; the last, shorter one has a size of its own.

    A loop, not an unrolled program: unrolled, the compiler is free to keep several chunks alive at once.
    """
    full, tail = divmod(vocab, chunk)
    carry = jax.lax.fori_loop(0, full, lambda i, c: body(i * chunk, chunk, c), carry)
    return body(full * chunk, tail, carry) if tail else carry


def _forward(static, hidden, unembed, targets, temperature, entropy_temperature):
    chunk, transposed = static
    vocab = unembed.shape[0 if transposed else 1]

    def absorb(start, size, carry, logits):
        sampled, other, picked = carry
        x = logits / temperature[..., None]  # [B, T, C]
        local = targets - start  # [B, T]
        here = (local >= 0) & (local < size)
        value = jnp.take_along_axis(x, jnp.clip(local, 0, size - 1)[..., None], axis=-1)[..., 0]
        picked = jnp.where(here, value, picked)
        if other is not None:
            other = _absorb(other, logits / entropy_temperature[..., None])
        return _absorb(sampled, x), other, picked

    def body(start, size, carry):
        logits = _logits(hidden, _slice(unembed, start, size, transposed), transposed)  # [B, T, C]
        return absorb(start, size, carry, logits)

    shape = targets.shape
    empty = (_empty(shape), None if entropy_temperature is None else _empty(shape), jnp.full(shape, jnp.nan))
    logits = None
    if vocab <= chunk:  # one chunk: keep its logits, so that the backward pass need not compute them again
        logits = _logits(hidden, unembed, transposed)
        sampled, other, picked = absorb(0, vocab, empty, logits)
    else:
        sampled, other, picked = _over_chunks(body, empty, vocab, chunk)
    logp = (picked - sampled.top) - jnp.log(sampled.total)  # nan where the target is out of range
    entropy = (sampled if other is None else other).entropy
    return (logp, entropy), (sampled, other, logits)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _token_logprobs(static, hidden, unembed, targets, temperature, entropy_temperature):
    return _forward(static, hidden, unembed, targets, temperature, entropy_temperature)[0]


def _fwd(static, *args):
    out, known = _forward(static, *args)
    return out, (args, known)


def _bwd(static, residuals, cotangents):
    chunk, transposed = static
    (hidden, unembed, targets, temperature, entropy_temperature), (sampled, other, logits) = residuals
    g_logp, g_entropy = cotangents  # [B, T] each
    vocab = unembed.shape[0 if transposed else 1]

    def dlogits(start, logits):
        s = logits / temperature[..., None] - sampled.top[..., None]  # [B, T, C]
        p = jnp.exp(s) / sampled.total[..., None]
        hit = jnp.arange(logits.shape[-1]) == (targets - start)[..., None]  # [B, T, C]
        weight = g_logp[..., None]
        if other is None:
            weight = weight + g_entropy[..., None] * (s - sampled.mean[..., None])
        d = (jnp.where(hit, g_logp[..., None], 0.0) - p * weight) / temperature[..., None]
        if other is not None:
            s = logits / entropy_temperature[..., None] - other.top[..., None]
            p = jnp.exp(s) / other.total[..., None]
            d = d - p * (s - other.mean[..., None]) * (g_entropy / entropy_temperature)[..., None]
        return d

    def grads(d, columns):
        d = d.astype(hidden.dtype)
        d_hidden = _dot(d, columns, ((2,), (0 if transposed else 1,)))  # [B, T, D]
        left, right = (d, hidden) if transposed else (hidden, d)
        return d_hidden, _dot(left, right, ((0, 1), (0, 1))).astype(unembed.dtype)  # [D, C] or [C, D]

    def body(start, size, carry):
        d_hidden, d_unembed = carry
        columns = _slice(unembed, start, size, transposed)
        dh, dw = grads(dlogits(start, _logits(hidden, columns, transposed)), columns)
        d_unembed = jax.lax.dynamic_update_slice_in_dim(d_unembed, dw, start, axis=0 if transposed else 1)
        return d_hidden + dh, d_unembed

    in_range = (targets >= 0) & (targets < vocab)
    g_logp = jnp.where(in_range, g_logp, 0.0)
    if logits is not None:
        d_hidden, d_unembed = grads(dlogits(0, logits), unembed)
    else:
        carry = jnp.zeros(hidden.shape, jnp.float32), jnp.zeros_like(unembed)
        d_hidden, d_unembed = _over_chunks(body, carry, vocab, chunk)
    return d_hidden.astype(hidden.dtype), d_unembed, None, None, None


_token_logprobs.defvjp(_fwd, _bwd)


def token_logprobs(
    hidden: jax.Array,  # [B, T, D]
    unembed: jax.Array,  # [D, V], or [V, D] if transposed
    targets: jax.Array,  # [B, T] int
    temperature: jax.Array,  # broadcasts to [B, T], float32, > 0
    entropy_temperature: jax.Array | None,  # the same, or None for `temperature`
    *,
    transposed: bool,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:  # logp [B, T], entropy [B, T] in nats, float32
    """Arguments as checked by `kernels_pallas.logprob`; `chunk` columns of the vocabulary at a time."""
    return _token_logprobs((chunk, transposed), hidden, unembed, targets, temperature, entropy_temperature)
