"""The policy update: one pure, compiled step over a minibatch, exact whatever the micro-batching or sharding."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from framework.state import TrainState
from rl.batch import PolicyBatch, response_logprobs
from rl.covariance import response_entropy
from rl.losses import PolicyLoss

__all__ = ["entropy_on", "policy_step"]

Metrics = dict[str, jax.Array]


def policy_step(
    graphdef: Any,
    state: TrainState,
    frozen: Any,
    batch: PolicyBatch,
    key: jax.Array,
    *,
    loss: PolicyLoss,
    tx: optax.GradientTransformation,
    temperature: float,
    microbatches: int = 1,
) -> tuple[TrainState, Metrics]:
    """One optimizer step on a minibatch of B sequences. `frozen`: the parameters that are not in the state.

    Statistics (token count, covariance, which tokens are picked) are those of the whole minibatch. With several
    micro-batches that takes a first pass without gradients; with one, the pick is made from the same forward pass.
    """
    denom = jnp.sum(batch.mask)
    # Interleaved, [B / M, M, ...]: every micro-batch has rows of every device.
    parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]), batch)
    part_of = lambda i: jax.tree.map(lambda x: x[:, i], parts)  # noqa: E731 - a name for an index
    whole = lambda per_part: per_part.swapaxes(0, 1).reshape(batch.mask.shape)  # noqa: E731 - [M, B / M, N] -> [B, N]
    forward = functools.partial(response_logprobs, temperature=temperature)

    def pick(part: PolicyBatch, logp: jax.Array, key: jax.Array) -> tuple[jax.Array, Metrics]:
        return loss.pick(key, jax.lax.stop_gradient(logp), part.old_logp, part.adv, part.mask)

    picked, pick_metrics = None, {}
    if microbatches > 1 and loss.needs_pick and loss.scope == "global":
        model = nnx.merge(graphdef, state.params, frozen)
        logp = jax.lax.map(lambda i: forward(model, part_of(i))[0], jnp.arange(microbatches))
        picked, pick_metrics = pick(batch, whole(logp), key)
        picked = picked.reshape(-1, microbatches, picked.shape[1])

    def gradients(i: jax.Array | int) -> tuple[Any, Metrics, jax.Array, jax.Array]:
        part = part_of(i)

        def objective(params: Any) -> tuple[jax.Array, tuple[Metrics, jax.Array]]:
            logp, entropy = forward(nnx.merge(graphdef, params, frozen), part)
            if picked is None:  # one micro-batch, or each picks for itself as the official code does
                chosen, metrics = pick(part, logp, key if microbatches == 1 else jax.random.fold_in(key, i))
            else:
                chosen, metrics = picked[:, i], {}
            value, more = loss.loss(
                logp, part.old_logp, part.adv, part.mask, picked=chosen, denom=denom, entropy=entropy
            )
            return value, (({} if microbatches > 1 else metrics) | more, logp)

        (_, (metrics, logp)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        gap = jnp.max(jnp.where(part.mask > 0, jnp.abs(logp - part.old_logp), 0.0))
        return grads, metrics, gap, logp

    def add(total: tuple[Any, Metrics, jax.Array], i: jax.Array) -> tuple[tuple[Any, Metrics, jax.Array], jax.Array]:
        grads, metrics, gap, logp = gradients(i)
        grads, metrics = jax.tree.map(jnp.add, total[:2], (grads, metrics))
        return (grads, metrics, jnp.maximum(total[2], gap)), logp

    if microbatches == 1:
        grads, metrics, gap, _ = gradients(0)
    else:
        shapes = jax.eval_shape(gradients, 0)[:3]
        # In float32 whatever the parameters are kept in: a sum of bfloat16 would lose the last parts.
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), shapes)
        (grads, metrics, gap), logp = jax.lax.scan(add, zeros, jnp.arange(microbatches))
        grads = jax.tree.map(lambda grad, x: grad.astype(x.dtype), grads, state.params)
        pick_metrics = pick_metrics or pick(batch, whole(logp), key)[1]
    state, norms = state.apply(grads, tx)
    return state, metrics | pick_metrics | norms | {"sampler/logp_gap_max": gap}


def entropy_on(graphdef: Any, params: Any, frozen: Any, batch: PolicyBatch) -> jax.Array:
    """Policy entropy in nats per token on given responses: the states are fixed, so that before and after can be compared."""
    _, entropy = response_logprobs(nnx.merge(graphdef, params, frozen), batch)
    return response_entropy(entropy, batch.mask)
