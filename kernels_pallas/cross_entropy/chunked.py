"""Cross-entropy some hundred tokens at a time, with its gradient made in the forward pass: no [N, V] tensor.

A loss that is a sum needs its logits once: a chunk's logits are turned into the gradient while they are at hand, and used at
once for that chunk's rows of the hidden gradient and for the sum that is the matrix gradient. The backward pass only scales.
That is three matrix products instead of the four of a pass that recomputes; without a gradient it is one.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from framework.products import einsum32

__all__ = ["cross_entropy", "pick_chunk"]

LOGITS = 2**23  # of one chunk, 32 MiB: large enough for quick products, small beside the activations
LEAST = 256  # tokens: with a very large vocabulary thinner products would be slow


def pick_chunk(tokens: int, vocabulary: int) -> int:
    """Tokens at a time: equal chunks of at most `LOGITS` logits."""
    most = max(LOGITS // vocabulary, LEAST)
    return -(-tokens // -(-tokens // most))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def cross_entropy(
    hidden: jax.Array, unembed: jax.Array, targets: jax.Array, weights: jax.Array, transposed: bool, chunk: int
) -> jax.Array:
    """See the package. hidden [N, D]; unembed [D, V] or, transposed, [V, D]; targets, weights [N]."""
    return _run(hidden, unembed, targets, weights, transposed, chunk, with_gradient=False)[0]


def _run(
    hidden: jax.Array,
    unembed: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    transposed: bool,
    chunk: int,
    *,
    with_gradient: bool,
) -> tuple[jax.Array, Any]:
    count, size = hidden.shape
    chunks = -(-count // chunk)
    pad = chunks * chunk - count  # tokens without weight
    hidden = jnp.pad(hidden, ((0, pad), (0, 0))).reshape(chunks, chunk, size)
    targets, weights = (jnp.pad(x, (0, pad)).reshape(chunks, chunk) for x in (targets, weights))
    matrix = unembed.astype(hidden.dtype)
    to_logits, to_hidden, to_matrix = (
        ("nd,vd->nv", "nv,vd->nd", "nv,nd->vd") if transposed else ("nd,dv->nv", "nv,dv->nd", "nd,nv->dv")
    )

    def one(matrix_grad: jax.Array, part: tuple[jax.Array, jax.Array, jax.Array]):
        h, target, weight = part
        logits = einsum32(to_logits, h, matrix)  # [n, V]
        top = jnp.max(logits, axis=1, keepdims=True)
        e = jnp.exp(logits - top)
        total = jnp.sum(e, axis=1, keepdims=True)
        is_target = target[:, None] == jnp.arange(logits.shape[1])[None, :]
        # A target outside of the vocabulary has no probability: nan, unless its weight is 0.
        known = (target >= 0) & (target < logits.shape[1])
        own = jnp.where(known, jnp.sum(jnp.where(is_target, logits, 0.0), axis=1), jnp.nan)
        lost = jnp.sum(jnp.where(weight != 0, weight * ((top + jnp.log(total))[:, 0] - own), 0.0))
        if not with_gradient:
            return matrix_grad, (lost, jnp.zeros(()))
        d = ((e / total - is_target) * weight[:, None]).astype(h.dtype)  # [n, V]
        hidden_grad = jnp.einsum(to_hidden, d, matrix)
        pair = (d, h) if transposed else (h, d)
        matrix_grad += einsum32(to_matrix, *pair)
        return matrix_grad, (lost, hidden_grad)

    start = jnp.zeros(unembed.shape if with_gradient else (), jnp.float32)
    matrix_grad, (lost, hidden_grad) = jax.lax.scan(one, start, (hidden, targets, weights))
    if not with_gradient:
        return jnp.sum(lost), None
    return jnp.sum(lost), (hidden_grad.reshape(-1, size)[:count], matrix_grad.astype(unembed.dtype))


def _forward(
    hidden: jax.Array, unembed: jax.Array, targets: jax.Array, weights: jax.Array, transposed: bool, chunk: int
) -> tuple[jax.Array, Any]:
    return _run(hidden, unembed, targets, weights, transposed, chunk, with_gradient=True)


def _backward(transposed: bool, chunk: int, saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[Any, ...]:
    del transposed, chunk
    return *((g * x).astype(x.dtype) for x in saved), None, None  # weights are constants


cross_entropy.defvjp(_forward, _backward)
