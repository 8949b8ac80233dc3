"""KL-Cov: the tokens of largest covariance pay for moving away from the old policy (arXiv:2505.22617, section 4.2)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from rl.covariance import covariance_metrics, token_covariance
from rl.losses.picking import share_of, top_n
from rl.losses.policy_loss import Metrics, PolicyLoss, Scope, log_ratio, ratio_metrics, require, require_share
from rl.masked import clean_tokens, masked_mean

__all__ = ["KLCov", "kl_cov_loss", "kl_cov_pick"]


def kl_cov_pick(logp: ArrayLike, adv: ArrayLike, mask: ArrayLike, *, frac: float = 2e-3) -> tuple[Array, Metrics]:
    """The max(1, int(frac * N)) valid tokens of largest covariance, none if frac is 0: (picked [B, T], metrics)."""
    valid, logp, adv = (jax.lax.stop_gradient(x) for x in clean_tokens(mask, logp=logp, adv=adv))
    cov = token_covariance(logp, adv, valid)
    n = jnp.maximum(share_of(jnp.sum(valid), frac, size=valid.size), 1)
    picked = top_n(cov, valid, n, n_max=max(int(valid.size * frac), 1) if frac > 0 else 0)
    return picked, covariance_metrics(logp, adv, valid) | {
        "policy/eligible": jnp.sum(valid).astype(jnp.float32),
        "policy/picked_frac": masked_mean(picked, valid),
    }


def kl_cov_loss(
    logp: ArrayLike,
    old_logp: ArrayLike,
    adv: ArrayLike,
    mask: ArrayLike,
    *,
    picked: ArrayLike | None = None,
    frac: float = 2e-3,
    beta: float = 1.0,
    denom: ArrayLike | None = None,
) -> tuple[Array, Metrics]:
    """-A * pi / pi_old for every token, plus beta * |log pi - log pi_old| for the picked ones (eq. 12-13 and code).

    There is no PPO clip: adding one changes the method. The penalty's gradient is 0 while pi = pi_old, so it acts from
    the second update on the same rollout on. Without `picked` the tokens are chosen here, from these arrays.
    """
    metrics: Metrics = {}
    if picked is None:
        picked, metrics = kl_cov_pick(logp, adv, mask, frac=frac)
    valid, logp, old_logp, adv, chosen = clean_tokens(mask, logp=logp, old_logp=old_logp, adv=adv, picked=picked)
    delta = log_ratio(logp, old_logp)
    policy = masked_mean(-adv * jnp.exp(delta), valid, denom=denom)
    # |delta| written so that its gradient at 0 is 0; that of jnp.abs is 1, and on policy every log-ratio is 0.
    penalty = masked_mean(beta * chosen * delta * jnp.sign(delta), valid, denom=denom)
    return policy + penalty, metrics | ratio_metrics(delta, valid, denom) | {
        "loss/policy": policy,
        "loss/kl_penalty": penalty,
        "policy/picked_frac": masked_mean(chosen, valid, denom=denom),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class KLCov:
    """KL-Cov with the paper's numbers for a 7B model (frac=2e-4 for 32B); 1e-2 to 5e-2 for a few thousand tokens."""

    frac: float = 2e-3  # share of the tokens, a fraction (the official code types percent); 0 turns the penalty off
    beta: float = 1.0
    scope: Scope = "global"  # "micro": pick within each micro-batch, as the official code does
    entropy_coef: float = 0.0  # loss -= entropy_coef * mean entropy

    @classmethod
    def from_percent(cls, percent: float) -> "KLCov":
        """KLCov.from_percent(0.2) is KLCov(frac=2e-3), the official code's k_percent=0.2."""
        return cls(frac=percent / 100)

    def build(self) -> PolicyLoss:
        require_share("KLCov", self.frac)
        require(
            self.beta >= 0,
            f"KLCov(beta={self.beta}) would pay tokens for moving away from the old policy",
            "Type beta=1.0, or beta=0.0 to turn the penalty off",
        )
        require(
            self.scope in ("global", "micro"),
            f"scope={self.scope!r} is unknown",
            "Type scope='global' or scope='micro'",
        )

        def pick(
            key: Array, logp: ArrayLike, old_logp: ArrayLike, adv: ArrayLike, mask: ArrayLike
        ) -> tuple[Array, Metrics]:
            del key, old_logp  # the largest covariance needs neither chance nor the sampler's log-probabilities
            return kl_cov_pick(logp, adv, mask, frac=self.frac)

        return PolicyLoss(
            name="KLCov",
            loss_fn=functools.partial(kl_cov_loss, beta=self.beta),
            pick_fn=pick,
            scope=self.scope,
            entropy_coef=self.entropy_coef,
        )
