"""The policy gradient with importance ratios, unclipped and clipped (PPO, arXiv:1707.06347). All arrays are [B, T]."""

import dataclasses
import functools

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from rl.losses.policy_loss import Metrics, PolicyLoss, log_ratio, ratio_metrics, require
from rl.masked import clean_tokens, masked_mean

__all__ = ["Clipped", "Unclipped", "clipped_loss", "clipped_terms", "pg_loss"]


def pg_loss(
    logp: ArrayLike,
    old_logp: ArrayLike,
    adv: ArrayLike,
    mask: ArrayLike,
    *,
    denom: ArrayLike | None = None,
) -> tuple[Array, Metrics]:
    """-A * pi / pi_old, mean over tokens, no clip: on policy this is REINFORCE."""
    valid, logp, old_logp, adv = clean_tokens(mask, logp=logp, old_logp=old_logp, adv=adv)
    delta = log_ratio(logp, old_logp)
    loss = masked_mean(-adv * jnp.exp(delta), valid, denom=denom)
    return loss, {"loss/policy": loss} | ratio_metrics(delta, valid, denom)


def clipped_terms(delta: Array, adv: Array, *, eps_lo: float, eps_hi: float) -> tuple[Array, Array]:
    """PPO's pessimistic loss per token (eq. 7) and where the clip is active: [B, T] -> ([B, T], [B, T] bool)."""
    ratio = jnp.exp(delta)
    free = -adv * ratio
    bounded = -adv * jnp.clip(ratio, 1.0 - eps_lo, 1.0 + eps_hi)
    return jnp.maximum(free, bounded), bounded > free


def clipped_loss(
    logp: ArrayLike,
    old_logp: ArrayLike,
    adv: ArrayLike,
    mask: ArrayLike,
    *,
    eps_lo: float = 0.2,
    eps_hi: float = 0.2,
    denom: ArrayLike | None = None,
) -> tuple[Array, Metrics]:
    """max(-A r, -A clip(r, 1 - eps_lo, 1 + eps_hi)), r = pi / pi_old, mean over tokens (eq. 7)."""
    valid, logp, old_logp, adv = clean_tokens(mask, logp=logp, old_logp=old_logp, adv=adv)
    delta = log_ratio(logp, old_logp)
    per_token, active = clipped_terms(delta, adv, eps_lo=eps_lo, eps_hi=eps_hi)
    loss = masked_mean(per_token, valid, denom=denom)
    metrics = {"loss/policy": loss, "loss/clip_frac": masked_mean(active, valid, denom=denom)}
    return loss, metrics | ratio_metrics(delta, valid, denom)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unclipped:
    """Plain policy gradient: the reference when a method drops the PPO clip, and the loss of the covariance check."""

    entropy_coef: float = 0.0  # loss -= entropy_coef * mean entropy

    def build(self) -> PolicyLoss:
        return PolicyLoss(name="Unclipped", loss_fn=pg_loss, entropy_coef=self.entropy_coef)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clipped:
    """PPO's clip, the GRPO baseline; eps_hi=0.28 is DAPO's clip-higher (arXiv:2503.14476)."""

    eps_lo: float = 0.2
    eps_hi: float = 0.2
    entropy_coef: float = 0.0  # loss -= entropy_coef * mean entropy

    def build(self) -> PolicyLoss:
        require(
            self.eps_lo >= 0 and self.eps_hi >= 0,
            f"Clipped(eps_lo={self.eps_lo}, eps_hi={self.eps_hi}) would clip the ratio 1 itself",
            "Both are distances from 1: type eps_lo=0.2, eps_hi=0.28, or use Unclipped()",
        )
        loss = functools.partial(clipped_loss, eps_lo=self.eps_lo, eps_hi=self.eps_hi)
        return PolicyLoss(name="Clipped", loss_fn=loss, entropy_coef=self.entropy_coef)
