"""Policy losses: pure functions over [B, T] arrays, and one config for each.

loss = KLCov(frac=0.02, beta=1.0).build()
picked, pick_metrics = loss.pick(key, logp, old_logp, adv, mask)
value, metrics = loss.loss(logp, old_logp, adv, mask, picked=picked)
"""

from rl.losses.clip_cov import ClipCov, clip_cov_loss, clip_cov_pick
from rl.losses.clipped import Clipped, Unclipped, clipped_loss, pg_loss
from rl.losses.kl_cov import KLCov, kl_cov_loss, kl_cov_pick
from rl.losses.policy_loss import Metrics, PolicyLoss

__all__ = [
    "ClipCov",
    "Clipped",
    "KLCov",
    "Metrics",
    "PolicyLoss",
    "Unclipped",
    "clip_cov_loss",
    "clip_cov_pick",
    "clipped_loss",
    "kl_cov_loss",
    "kl_cov_pick",
    "pg_loss",
]
