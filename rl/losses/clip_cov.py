"""Clip-Cov: a few random tokens of large covariance get no gradient (arXiv:2505.22617, section 4.2)."""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from rl.covariance import covariance_metrics, token_covariance
from rl.losses.clipped import clipped_terms
from rl.losses.picking import rank_threshold, share_of, top_n
from rl.losses.policy_loss import Metrics, PolicyLoss, Scope, log_ratio, ratio_metrics, require, require_share
from rl.masked import clean_tokens, masked_mean

__all__ = ["Band", "ClipCov", "clip_cov_loss", "clip_cov_pick"]

Band = Literal["absolute", "quantile"]


def clip_cov_pick(
    key: Array,
    logp: ArrayLike,
    old_logp: ArrayLike,
    adv: ArrayLike,
    mask: ArrayLike,
    *,
    frac: float = 2e-4,
    w_low: float = 1.0,
    w_high: float = 5.0,
    clip_lo: float = 1.0,
    clip_hi: float = 1.0,
    band: Band = "absolute",
) -> tuple[Array, Metrics]:
    """Draws max(int(frac * N), 1) of the eligible tokens, without replacement: (picked [B, T] bool, metrics).

    Eligible is a valid token that the PPO clip leaves alone and whose covariance c lies in the band:
    "absolute": w_low < c < w_high, as in the paper, made for batches of a million tokens;
    "quantile": c ranks above the int(w_low * N) smallest and within the int(w_high * N) smallest of the N valid tokens,
    so w_low=0.9, w_high=1.0 is the top tenth, the largest token included.
    The max(..., 1) is the official code's: frac=0 still draws one token. If nothing is eligible, nothing is picked.
    """
    valid, logp, old_logp, adv = (
        jax.lax.stop_gradient(x) for x in clean_tokens(mask, logp=logp, old_logp=old_logp, adv=adv)
    )
    cov = token_covariance(logp, adv, valid)
    _, clip_active = clipped_terms(log_ratio(logp, old_logp), adv, eps_lo=clip_lo, eps_hi=clip_hi)
    if band == "quantile":
        in_band = (cov > rank_threshold(cov, valid, w_low)) & (cov <= rank_threshold(cov, valid, w_high))
    elif band == "absolute":
        in_band = (w_low < cov) & (cov < w_high)
    else:
        raise ValueError(f"band={band!r} is unknown. Type band='absolute' or band='quantile'.")
    eligible = valid & ~clip_active & in_band
    n = jnp.maximum(share_of(jnp.sum(valid), frac, size=valid.size), 1)
    # One number per place of the whole batch: the same key picks the same tokens on any number of devices.
    noise = jax.random.uniform(key, valid.shape)
    picked = top_n(noise, eligible, n, n_max=max(int(valid.size * frac), 1))
    return picked, covariance_metrics(logp, adv, valid) | {
        "policy/eligible": jnp.sum(eligible).astype(jnp.float32),
        "policy/picked_frac": masked_mean(picked, valid),
    }


def clip_cov_loss(
    logp: ArrayLike,
    old_logp: ArrayLike,
    adv: ArrayLike,
    mask: ArrayLike,
    *,
    picked: ArrayLike | None = None,
    key: Array | None = None,
    frac: float = 2e-4,
    w_low: float = 1.0,
    w_high: float = 5.0,
    clip_lo: float = 1.0,
    clip_hi: float = 1.0,
    band: Band = "absolute",
    denom: ArrayLike | None = None,
) -> tuple[Array, Metrics]:
    """The clipped loss with the picked tokens set to 0; they still count in the denominator (eq. 11, official code).

    Without `picked` the tokens are drawn here, from these arrays, with `key`. `loss/clip_frac` counts the tokens
    clipped by the PPO rule; the picked ones are `policy/picked_frac` (the official code's "clipfrac").
    """
    metrics: Metrics = {}
    if picked is None:
        if key is None:
            raise ValueError("clip_cov_loss draws tokens at random: pass key=jax.random.key(seed), or picked= [B, T].")
        picked, metrics = clip_cov_pick(
            key, logp, old_logp, adv, mask,
            frac=frac, w_low=w_low, w_high=w_high, clip_lo=clip_lo, clip_hi=clip_hi, band=band,
        )  # fmt: skip
    valid, logp, old_logp, adv, keep = clean_tokens(
        mask, logp=logp, old_logp=old_logp, adv=adv, picked=~jnp.asarray(picked, bool)
    )
    delta = log_ratio(logp, old_logp)
    per_token, active = clipped_terms(delta, adv, eps_lo=clip_lo, eps_hi=clip_hi)
    # A product, not `where`: a NaN of the model must show in the loss even on a picked token.
    loss = masked_mean(per_token * keep, valid, denom=denom)
    return loss, metrics | ratio_metrics(delta, valid, denom) | {
        "loss/policy": loss,
        "loss/clip_frac": masked_mean(active, valid, denom=denom),
        "policy/picked_frac": masked_mean(1.0 - keep, valid, denom=denom),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipCov:
    """Clip-Cov with the paper's numbers. They fit batches of about a million tokens: on a small batch the absolute band
    is often empty, so use ClipCov(frac=0.05, band="quantile", w_low=0.9, w_high=1.0) and watch `policy/eligible`."""

    frac: float = 2e-4  # share of the tokens, a fraction; 0 still draws one, as the official code does
    w_low: float = 1.0
    w_high: float = 5.0
    band: Band = "absolute"  # "quantile": w_low and w_high are shares of the tokens ranked by covariance
    clip_lo: float = 1.0  # the PPO clip is [1 - clip_lo, 1 + clip_hi] = [0, 2]: the covariance rule does the work
    clip_hi: float = 1.0
    scope: Scope = "global"  # "micro": pick within each micro-batch, as the official code does
    entropy_coef: float = 0.0  # loss -= entropy_coef * mean entropy

    @classmethod
    def from_percent(cls, percent: float) -> "ClipCov":
        """ClipCov.from_percent(0.02) is ClipCov(frac=2e-4)."""
        return cls(frac=percent / 100)

    def build(self) -> PolicyLoss:
        require_share("ClipCov", self.frac)
        given = f"ClipCov(w_low={self.w_low}, w_high={self.w_high}, band={self.band!r})"
        require(
            self.band in ("absolute", "quantile"), f"{given}: unknown band", "Type band='absolute' or band='quantile'"
        )
        require(
            self.w_low < self.w_high,
            f"{given}: the band is empty",
            "Type w_low < w_high, such as w_low=1.0, w_high=5.0",
        )
        require(
            self.band == "absolute" or (self.w_low >= 0.0 and self.w_high <= 1.0),
            f"{given}: quantiles go from 0 to 1",
            "Type w_low=0.9, w_high=1.0 for the top tenth of the tokens, or band='absolute'",
        )
        require(
            self.clip_lo >= 0 and self.clip_hi >= 0,
            f"ClipCov(clip_lo={self.clip_lo}, clip_hi={self.clip_hi}) would clip the ratio 1 itself",
            "Both are distances from 1: type clip_lo=1.0, clip_hi=1.0 for the range [0, 2]",
        )
        require(
            self.scope in ("global", "micro"),
            f"scope={self.scope!r} is unknown",
            "Type scope='global' or scope='micro'",
        )
        numbers = {"frac": self.frac, "w_low": self.w_low, "w_high": self.w_high, "band": self.band}
        clip = {"clip_lo": self.clip_lo, "clip_hi": self.clip_hi}
        return PolicyLoss(
            name="ClipCov",
            loss_fn=functools.partial(clip_cov_loss, **clip),
            pick_fn=functools.partial(clip_cov_pick, **numbers, **clip),
            scope=self.scope,
            entropy_coef=self.entropy_coef,
        )
