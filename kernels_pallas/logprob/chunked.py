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
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from framework.products import dot32

WHOLE = 2**23  # logits (tokens x vocabulary) up to which they are all kept, 32 MiB
TILE = 2**20  # logits of one chunk beyond that, 4 MiB


class Softmax(NamedTuple):
    """What is known of a distribution after some of its logits; every field [B, T] float32."""

    top: jax.Array  # largest tempered logit
    total: jax.Array  # sum of exp(x - top)
    moment: jax.Array  # sum of exp(x - top) * (x - top)

    @property
    def mean(self) -> jax.Array:
        return self.moment / self.total

    @property
    def entropy(self) -> jax.Array:
        return jnp.maximum(jnp.log(self.total) - self.mean, 0.0)


def _empty(shape: tuple[int, ...]) -> Softmax:
    # The lowest finite float, not -inf: 0 * (top - new_top) must stay 0 when the first chunk arrives.
    low = jnp.full(shape, jnp.finfo(jnp.float32).min)
    return Softmax(low, jnp.zeros(shape), jnp.zeros(shape))


def _absorb(old: Softmax, x: jax.Array) -> Softmax:
    """Adds the tempered logits of one chunk, x [B, T, C]."""
    top = jnp.maximum(old.top, jnp.max(x, axis=-1))  # [B, T]
    shift = old.top - top  # [B, T], <= 0
    keep = jnp.exp(shift)  # [B, T]
    s = x - top[..., None]  # [B, T, C]
    e = jnp.exp(s)  # [B, T, C]
    return Softmax(
        top,
        old.total * keep + jnp.sum(e, axis=-1),
        (old.moment + old.total * shift) * keep + jnp.sum(e * s, axis=-1),
    )


def _slice(unembed: jax.Array, start: jax.Array | int, size: int, transposed: bool) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(unembed, start, size, axis=0 if transposed else 1)  # [D, C] or [C, D]


def _logits(hidden: jax.Array, columns: jax.Array, transposed: bool) -> jax.Array:
    return dot32(hidden, columns, ((2,), (1 if transposed else 0,)))  # [B, T, C]


def _over_chunks(body: Callable[[Any, int, Any], Any], carry: Any, vocab: int, chunk: int) -> Any:
    """carry = body(start, size, carry) for every chunk; the last, shorter one has a size of its own.

    So nothing is padded, masked or computed twice when the chunk does not divide the vocabulary. A loop, not an
    unrolled program: unrolled, the compiler is free to keep several chunks alive at once.
    """
    full, tail = divmod(vocab, chunk)
    carry = jax.lax.fori_loop(0, full, lambda i, c: body(i * chunk, chunk, c), carry)
    return body(full * chunk, tail, carry) if tail else carry


def statistics(
    static, hidden, unembed, targets, temperature, entropy_temperature
) -> tuple[Softmax, Softmax | None, jax.Array, jax.Array | None]:
    """(sampled, other, picked, logits): of the columns in `unembed`, what outputs and gradients are made from.

    `picked` [B, T] is the tempered logit of the target, nan if it is not among the columns; `logits` are None unless one chunk.
    """
    chunk, transposed = static
    vocab = unembed.shape[0 if transposed else 1]

    def absorb(start, logits, carry):
        sampled, other, picked = carry
        x = logits / temperature[..., None]  # [B, T, C]
        local = targets - start  # [B, T], the target's column in this chunk, if it is in this chunk
        size = x.shape[-1]
        value = jnp.take_along_axis(x, jnp.clip(local, 0, size - 1)[..., None], axis=-1)[..., 0]
        picked = jnp.where((local >= 0) & (local < size), value, picked)
        if other is not None:
            other = _absorb(other, logits / entropy_temperature[..., None])
        return _absorb(sampled, x), other, picked

    def body(start, size, carry):
        return absorb(start, _logits(hidden, _slice(unembed, start, size, transposed), transposed), carry)

    empty = _empty(targets.shape)
    carry = (empty, None if entropy_temperature is None else empty, jnp.full(targets.shape, jnp.nan))
    logits = None
    if vocab <= chunk:
        logits = _logits(hidden, unembed, transposed)
        carry = absorb(0, logits, carry)
    else:
        carry = _over_chunks(body, carry, vocab, chunk)
    sampled, other, picked = carry
    return sampled, other, picked, logits


def outputs(sampled: Softmax, other: Softmax | None, picked: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(logp, entropy), both [B, T], from the statistics of the whole vocabulary."""
    # A probability is at most 1: `top` and `picked` may come from differently fused, differently rounded divisions.
    logp = jnp.minimum((picked - sampled.top) - jnp.log(sampled.total), 0.0)  # nan where no chunk held the target
    return logp, (sampled if other is None else other).entropy


def _forward(static, *arrays):
    sampled, other, picked, logits = statistics(static, *arrays)
    return outputs(sampled, other, picked), (sampled, other, logits)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _token_logprobs(static, hidden, unembed, targets, temperature, entropy_temperature):
    return _forward(static, hidden, unembed, targets, temperature, entropy_temperature)[0]


def _fwd(static, *args):
    # symbolic_zeros wraps each array; the wrapper's news, which inputs need a gradient, is not used: XLA drops the
    # matmul and the buffer of a gradient that nobody reads, loop or not.
    arrays = tuple(None if a is None else a.value for a in args)
    out, known = _forward(static, *arrays)
    return out, (arrays, known)


def cotangent_arrays(cotangents, targets: jax.Array, vocab: int) -> tuple[jax.Array, jax.Array | None]:
    """Cotangents of logp and entropy [B, T]; a target outside [0, vocab) sends nothing."""
    # A cotangent that is zero by construction (a loss that only uses logp) costs not even elementwise work.
    g_logp, g_entropy = (None if isinstance(g, SymbolicZero) else g for g in cotangents)  # [B, T] or None
    if g_logp is None:
        g_logp = jnp.zeros(targets.shape)
    return jnp.where((targets >= 0) & (targets < vocab), g_logp, 0.0), g_entropy


def _bwd(static, residuals, cotangents):
    (arrays, known) = residuals
    vocab = arrays[1].shape[0 if static[1] else 1]
    d_hidden, d_unembed = gradients(static, arrays, known, *cotangent_arrays(cotangents, arrays[2], vocab))
    return d_hidden.astype(arrays[0].dtype), d_unembed, None, None, None


def gradients(static, arrays, known, g_logp: jax.Array, g_entropy: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Gradients of hidden [B, T, D], in float32, and of the columns in `unembed`, in its type.

    `known` are the statistics of the whole vocabulary (and the logits of these columns, if they were kept); a target that is
    not among the columns belongs to others.
    """
    chunk, transposed = static
    (hidden, unembed, targets, temperature, entropy_temperature), (sampled, other, logits) = arrays, known
    vocab = unembed.shape[0 if transposed else 1]
    operand = jnp.promote_types(hidden.dtype, unembed.dtype)

    def dlogits(start: jax.Array | int, logits: jax.Array) -> jax.Array:  # [B, T, C] -> [B, T, C]
        s = logits / temperature[..., None] - sampled.top[..., None]
        p = jnp.exp(s) / sampled.total[..., None]
        weight = g_logp[..., None]
        if g_entropy is not None and other is None:
            weight = weight + g_entropy[..., None] * (s - sampled.mean[..., None])
        hit = jnp.arange(logits.shape[-1]) == (targets - start)[..., None]
        d = (jnp.where(hit, g_logp[..., None], 0.0) - p * weight) / temperature[..., None]
        if g_entropy is not None and other is not None:
            s = logits / entropy_temperature[..., None] - other.top[..., None]
            p = jnp.exp(s) / other.total[..., None]
            d = d - p * (s - other.mean[..., None]) * (g_entropy / entropy_temperature)[..., None]
        return d

    def grads(d: jax.Array, columns: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Rounding dlogits to the input type keeps 16-bit matmuls on the matrix units; the sums stay float32.
        d = d.astype(operand)
        d_hidden = dot32(d, columns, ((2,), (0 if transposed else 1,)))  # [B, T, D] float32
        left, right = (d, hidden) if transposed else (hidden, d)
        return d_hidden, dot32(left, right, ((0, 1), (0, 1))).astype(unembed.dtype)  # [D, C] or [C, D]

    def body(start, size, carry):
        d_hidden, d_unembed = carry
        columns = _slice(unembed, start, size, transposed)
        dh, dw = grads(dlogits(start, _logits(hidden, columns, transposed)), columns)
        # Written into the carried buffer in place. Stacking the chunks as scan outputs would copy the whole matrix.
        d_unembed = jax.lax.dynamic_update_slice_in_dim(d_unembed, dw, start, axis=0 if transposed else 1)
        return d_hidden + dh, d_unembed

    if logits is not None:
        d_hidden, d_unembed = grads(dlogits(0, logits), unembed)
    else:
        empty = jnp.zeros(hidden.shape, jnp.float32), jnp.zeros_like(unembed)
        d_hidden, d_unembed = _over_chunks(body, empty, vocab, chunk)
    return d_hidden, d_unembed


_token_logprobs.defvjp(_fwd, _bwd, symbolic_zeros=True)


def pick_chunk(tokens: int, vocab: int) -> int:
    """Vocabulary columns at a time: all of them while the logits are small, else about 4 MiB of logits.

    Measured on two CPU cores. Keeping the logits saves a quarter of the multiplications and wins while they fit near
    the caches (4,096 tokens x 512 columns: 1.4 times faster than in chunks of 128); beyond, chunks are as fast. Under
    512 columns the matmuls lose efficiency, so many tokens use more than 4 MiB; from there to 8192 the time is flat.
    The chunk is an odd number of 128 columns: the transpose of dlogits that a [V, D] matrix needs is slow at a stride
    that is a power of two (the whole pass by 15 %). Counts are of the whole batch, also when it is sharded.
    """
    if tokens * vocab <= WHOLE:
        return vocab
    most = min(max(TILE // tokens, 512), 8192)
    chunks = -(-vocab // most)  # even chunks, not a sliver at the end
    return min(vocab, (-(-vocab // chunks // 128) | 1) * 128)


def token_logprobs(
    hidden: jax.Array,  # [B, T, D]
    unembed: jax.Array,  # [D, V], or [V, D] if transposed
    targets: jax.Array,  # [B, T] int
    temperature: jax.Array,  # broadcasts to [B, T], float32, > 0
    entropy_temperature: jax.Array | None,  # the same, or None for `temperature`
    *,
    transposed: bool,
    chunk: int | None,  # vocabulary columns at a time; None picks
) -> tuple[jax.Array, jax.Array]:  # logp [B, T], entropy [B, T] in nats, float32
    """Arguments as checked by `kernels_pallas.logprob`. With one chunk the logits are kept for the backward pass."""
    chunk = chunk or pick_chunk(targets.size, unembed.shape[0 if transposed else 1])
    return _token_logprobs((chunk, transposed), hidden, unembed, targets, temperature, entropy_temperature)
