"""Ring attention (arXiv:2310.01889): keys and values travel from device to device, and no device ever holds all of them.

Each step attends to the part of the keys that is at hand and merges the result with what is known by the log of the softmax's
denominator; in the backward pass the gradients of keys and values travel with them, and arrive home after a full turn.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from kernels_pallas.attention import offset
from kernels_pallas.attention.offset import Keys, Queries

__all__ = ["attend"]


def _steps(q: Queries, window: int | None, size: int) -> int:
    """Parts of the row that a part can see: all of them, or as many as the window touches."""
    length = q.places.shape[0]
    return size if window is None else min(size, -(-(window - 1) // length) + 1)


def _rotate(x, axis: str, size: int, by: int = 1):
    """Every device gets what the one `by` places before it had."""
    return jax.tree.map(lambda y: jax.lax.ppermute(y, axis, [(i, (i + by) % size) for i in range(size)]), x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def attend(q: Queries, k: Keys, window: int | None, axis: str, size: int) -> jax.Array:
    """Attention over the keys of all `size` devices along `axis`, for use inside jax.shard_map: [B, K, R, t, h]."""
    return _forward(q, k, window, axis, size)[0]


def _forward(q, k, window, axis, size):
    def step(_, carry):
        k, out, log_total = carry
        k = _rotate(k, axis, size)
        new, log_new = offset.forward(q, k, window)
        log_sum = jnp.logaddexp(log_total, log_new)
        out = out * jnp.exp(log_total - log_sum) + new * jnp.exp(log_new - log_sum)
        return k, out, log_sum

    out, log_total = offset.forward(q, k, window)
    steps = _steps(q, window, size)
    _, out, log_total = jax.lax.fori_loop(1, steps, step, (k, out, log_total))
    out = checkpoint_name(out.astype(k.values.dtype), "attention")
    return out, (q, k, out, checkpoint_name(log_total, "attention"))


def _backward(window, axis, size, saved, g):
    q, k, out, log_total = saved
    mean = jnp.sum(g.astype(jnp.float32) * out.astype(jnp.float32), axis=-1, keepdims=True)

    def step(_, carry):
        travelling, dq = carry
        k, dk, dv = _rotate(travelling, axis, size)
        more_q, more_k, more_v = offset.backward(q, k, window, log_total, g, mean)
        return (k, dk + more_k, dv + more_v), dq + more_q

    dq, dk, dv = offset.backward(q, k, window, log_total, g, mean)
    steps = _steps(q, window, size)
    ((_, dk, dv), dq) = jax.lax.fori_loop(1, steps, step, ((k, dk, dv), dq))
    dk, dv = _rotate((dk, dv), axis, size, 1 - steps)  # home
    return (
        Queries(dq.astype(q.heads.dtype), None, None),  # pyright: ignore[reportArgumentType]
        Keys(dk.astype(k.keys.dtype), dv.astype(k.values.dtype), None, None),  # pyright: ignore[reportArgumentType]
    )


attend.defvjp(_forward, _backward)
