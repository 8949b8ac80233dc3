"""Covariance of log-probability and advantage, and the policy entropy it explains (arXiv:2505.22617).

A softmax policy loses entropy, to first order, in step with Cov(log-probability, advantage): likely answers that are
good make the policy surer. `token_covariance` finds the tokens that drive this, `group_covariance` checks the theory in
a run.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from rl.masked import clean_tokens, masked_mean

__all__ = ["covariance_metrics", "group_covariance", "response_entropy", "token_covariance"]


def token_covariance(logp: ArrayLike, adv: ArrayLike, mask: ArrayLike) -> Array:
    """c = (logp - mean logp) * (adv - mean adv), means over all valid tokens (eq. 10): [B, T] -> [B, T], 0 at padding.

    Its mean over the valid tokens is the population covariance. No gradient flows through it: it only selects tokens.
    """
    valid, logp, adv = clean_tokens(mask, logp=logp, adv=adv)
    product = (logp - masked_mean(logp, valid)) * (adv - masked_mean(adv, valid))
    return jax.lax.stop_gradient(jnp.where(valid, product, 0.0))


def covariance_metrics(logp: ArrayLike, adv: ArrayLike, mask: ArrayLike) -> dict[str, Array]:
    """Mean, 90th and 99th percentile (nearest rank) and maximum of the token covariance, in nats times advantage.

    All 0 for an empty mask. The percentiles say where an absolute band of Clip-Cov would have to lie.
    """
    valid = jnp.asarray(mask) != 0
    cov = token_covariance(logp, adv, mask)
    count = jnp.sum(valid)
    ordered = jnp.sort(jnp.where(valid, cov, jnp.inf).ravel())  # padding last; a NaN goes behind it

    def percentile(q: float) -> Array:
        # The largest index inside the valid tokens is count - 1, so q = 1 is the maximum.
        index = jnp.clip(jnp.ceil(q * count).astype(jnp.int32) - 1, 0, jnp.maximum(count - 1, 0))
        return jnp.where(count > 0, ordered[index], 0.0)

    return {
        "policy/cov_mean": masked_mean(cov, valid),
        "policy/cov_p90": percentile(0.9),
        "policy/cov_p99": percentile(0.99),
        "policy/cov_max": percentile(1.0),
    }


def group_covariance(logp: ArrayLike, adv: ArrayLike, mask: ArrayLike, group_size: int) -> Array:
    """Cov over the answers y of one prompt of (logp(y), exp(logp(y)) * A(y)) (eq. 8): [B, T] -> [P = B / group_size].

    logp(y) is the mean over the tokens of y (eq. 9), A(y) the mean of `adv` over them (it is constant along an answer).
    Rows of one prompt are adjacent. Population covariance; an answer with no token is left out of its group.
    """
    valid, logp, adv = clean_tokens(mask, logp=logp, adv=adv)
    rows = logp.shape[0]
    if group_size < 1 or rows % group_size:
        raise ValueError(
            f"{rows} responses cannot be split into groups of group_size={group_size}. "
            "Pass the number of answers sampled per prompt, and whole groups only."
        )
    tokens = jnp.maximum(valid.sum(axis=1), 1)  # [B]
    answer_logp = (logp.sum(axis=1) / tokens).reshape(-1, group_size)  # [P, G]
    answer_adv = (adv.sum(axis=1) / tokens).reshape(-1, group_size)  # [P, G]
    present = valid.any(axis=1).reshape(-1, group_size).astype(logp.dtype)  # [P, G]
    weight = present / jnp.maximum(present.sum(axis=1, keepdims=True), 1.0)  # [P, G]
    gain = jnp.exp(answer_logp) * answer_adv  # [P, G]
    centred_logp = answer_logp - (weight * answer_logp).sum(axis=1, keepdims=True)
    centred_gain = gain - (weight * gain).sum(axis=1, keepdims=True)
    return jax.lax.stop_gradient((weight * centred_logp * centred_gain).sum(axis=1))


def response_entropy(entropy: ArrayLike, mask: ArrayLike) -> Array:
    """Policy entropy in nats per token (eq. 5): mean over the tokens of a response, then over responses: [B, T] -> [].

    Responses with no token do not count. Not the mean over all tokens: a long response weighs as much as a short one.
    """
    valid, entropy = clean_tokens(mask, entropy=entropy)
    tokens = valid.sum(axis=1)  # [B]
    per_response = entropy.sum(axis=1) / jnp.maximum(tokens, 1)  # [B]
    return masked_mean(per_response, tokens > 0)
