"""Drawing one token a row, with randomness that depends on (key, request, sample, position) alone."""

import jax
import jax.numpy as jnp

__all__ = ["row_keys", "sample_tokens"]


def row_keys(key: jax.Array, request_ids: jax.Array, samples: jax.Array) -> jax.Array:
    """One key a row: fold the request's id, then the sample's number. request_ids, samples [R] uint32 -> keys [R]."""
    return jax.vmap(lambda r, s: jax.random.fold_in(jax.random.fold_in(key, r), s))(request_ids, samples)


def sample_tokens(
    keys: jax.Array, position: jax.Array, logits: jax.Array, temperature: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draw a token a row.

    Args:
        keys: [R] keys from `row_keys`.
        position: [] int32, number of tokens this row has generated so far.
        logits: [R, V] float32.
        temperature: [R] float32; 0 takes the largest logit.

    Returns:
        tokens [R] int32; logp [R] of the distribution sampled from (untempered for temperature 0); entropy [R] in nats of
        the untempered distribution.
    """
    untempered = jax.nn.log_softmax(logits, axis=-1)
    entropy = -jnp.sum(jnp.exp(untempered) * untempered, axis=-1)
    greedy = temperature == 0
    scaled = logits / jnp.where(greedy, 1.0, temperature)[:, None]
    noise = jax.vmap(lambda k: jax.random.gumbel(jax.random.fold_in(k, position), logits.shape[1:], jnp.float32))(keys)
    tokens = jnp.argmax(scaled + jnp.where(greedy[:, None], 0.0, noise), axis=-1).astype(jnp.int32)
    chosen = jnp.take_along_axis(scaled, tokens[:, None], axis=-1)[:, 0]
    logp = chosen - jax.nn.logsumexp(scaled, axis=-1)
    return tokens, logp, entropy
