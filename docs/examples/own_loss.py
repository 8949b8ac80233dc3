"""A policy loss of your own:  maypole run docs/examples/own_loss.py:config"""

import dataclasses
import functools

import jax.numpy as jnp

from experiments.entropy_mechanism import tiny
from rl.config import Arm
from rl.losses import PolicyLoss
from rl.masked import clean_tokens, masked_mean


def gspo_loss(logp, old_logp, adv, mask, *, eps, denom=None):
    """One ratio a response instead of one a token (GSPO, arXiv:2507.18071). All arrays are [B, T]."""
    valid, logp, old_logp, adv = clean_tokens(mask, logp=logp, old_logp=old_logp, adv=adv)
    length = jnp.maximum(valid.sum(axis=1, keepdims=True), 1)
    ratio = jnp.exp((logp - old_logp).sum(axis=1, keepdims=True) / length)  # [B, 1]
    per_token = -jnp.minimum(ratio * adv, jnp.clip(ratio, 1 - eps, 1 + eps) * adv)  # [B, T]
    clipped = jnp.broadcast_to(jnp.abs(ratio - 1) > eps, valid.shape)
    metrics = {"loss/clip_frac": masked_mean(clipped, valid, denom=denom)}
    return masked_mean(per_token, valid, denom=denom), metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class GSPO:
    eps: float = 0.01  # largest change of a response's ratio that still has a gradient

    def build(self) -> PolicyLoss:
        return PolicyLoss(name="GSPO", loss_fn=functools.partial(gspo_loss, eps=self.eps))


config = dataclasses.replace(tiny, name="gspo", arms=(Arm(name="gspo", loss=GSPO(eps=0.01)),))
