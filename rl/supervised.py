"""Supervised steps: next-token loss on packed token rows, and on the responses of demonstrations."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from framework.batch import TokenBatch
from framework.state import TrainState
from kernels_pallas.cross_entropy import cross_entropy
from models.quant import at_step
from rl.batch import PolicyBatch, response_logprobs
from rl.masked import masked_mean

__all__ = ["supervised_step", "token_loss", "token_step"]


def token_loss(model: Any, batch: TokenBatch, weights: jax.Array) -> jax.Array:
    """Sum over the batch of weights * -log p(token | the tokens before it in its segment), in nats; weights [B, T].

    Hidden state t predicts token t + 1: the targets are shifted to the left, so that rows keep their length when they are
    split over devices.
    """
    hidden, _ = model(batch.tokens, batch.positions, batch.segment_ids)
    shifted = lambda x: jnp.pad(x[:, 1:], ((0, 0), (0, 1)))  # noqa: E731 - [B, T], the last place has nothing to predict
    targets, weights = shifted(batch.tokens), shifted(weights)
    # A tied matrix as it is stored: turning it round would copy it.
    matrix, transposed = (model.embedding[...], True) if model.config.tied else (model.unembed, False)
    return cross_entropy(hidden, matrix, targets, weights, transposed=transposed)


def token_step(
    graphdef: Any,
    state: TrainState,
    frozen: Any,
    batch: TokenBatch,
    *,
    tx: optax.GradientTransformation,
    microbatches: int = 1,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer step on the mean loss of all learnt tokens of the batch, whatever part of it they are computed in.

    `frozen` are the parameters that are not in the state (see `models.trainable.split_params`). With M micro-batches the batch is
    computed in M parts of B / M rows; every token weighs the same, also when one part holds fewer of them.
    """
    count = jnp.sum(batch.mask)
    weights = batch.mask / jnp.maximum(count, 1.0)

    def loss(params: Any, part: tuple[TokenBatch, jax.Array], number: jax.Array | int) -> jax.Array:
        return token_loss(nnx.merge(graphdef, params, at_step(frozen, state.step, number)), *part)

    if microbatches == 1:
        total, grads = jax.value_and_grad(loss)(state.params, (batch, weights), 0)
    else:
        # Interleaved, [M, B / M, ...]: every part has rows of every device.
        split = lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1)  # noqa: E731 - a name for a shape
        add = lambda total, part: (jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(state.params, *part)), None)  # noqa: E731
        # In float32 whatever the parameters are kept in: a sum of bfloat16 would lose the last parts.
        zeros = (jnp.zeros(()), jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), state.params))
        (total, grads), _ = jax.lax.scan(add, zeros, (jax.tree.map(split, (batch, weights)), jnp.arange(microbatches)))
        grads = jax.tree.map(lambda grad, x: grad.astype(x.dtype), grads, state.params)
    state, norms = state.apply(grads, tx)
    return state, {"loss/total": total, "batch/tokens": count} | norms


def supervised_step(
    graphdef: Any, state: TrainState, frozen: Any, batch: PolicyBatch, *, tx: optax.GradientTransformation
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer step on the mean negative log-likelihood of the response tokens (nats per token); prompts are context."""

    def objective(params: Any) -> tuple[jax.Array, jax.Array]:
        logp, entropy = response_logprobs(nnx.merge(graphdef, params, frozen), batch)
        return -masked_mean(logp, batch.mask), masked_mean(jax.lax.stop_gradient(entropy), batch.mask)

    (loss, entropy), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    state, norms = state.apply(grads, tx)
    tokens = jnp.sum(batch.mask)
    return state, {"loss/total": loss, "policy/entropy": entropy, "batch/tokens": tokens} | norms
