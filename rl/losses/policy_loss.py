"""What every policy loss of this package builds to, and the pieces the losses share. All arrays are [B, T]."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from framework.errors import UserError
from rl.covariance import covariance_metrics
from rl.masked import clean_tokens, masked_mean

__all__ = ["Metrics", "PolicyLoss", "Scope", "log_ratio", "ratio_metrics", "require", "require_share"]

Metrics = dict[str, Array]
Scope = Literal["global", "micro"]


LossFn = Callable[..., tuple[Array, Metrics]]  # (logp, old_logp, adv, mask, *, denom), and picked= if there is a PickFn
PickFn = Callable[[Array, ArrayLike, ArrayLike, ArrayLike, ArrayLike], tuple[Array, Metrics]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyLoss:
    """A policy loss ready to run: made by `build()` of a config such as `KLCov`.

    With micro-batches, call `pick` once on the whole batch, then `loss` on each micro-batch with its rows of `picked`
    and `denom` = the token count of the whole batch; losses, gradients and metrics of `loss` then add up to the exact
    result. scope="micro" asks the caller to `pick` on each micro-batch instead, as the official code does per device.
    """

    name: str
    loss_fn: LossFn
    pick_fn: PickFn | None = None  # None: this loss treats all tokens alike
    scope: Scope = "global"
    entropy_coef: float = 0.0

    @property
    def needs_pick(self) -> bool:
        return self.pick_fn is not None

    def pick(
        self, key: Array, logp: ArrayLike, old_logp: ArrayLike, adv: ArrayLike, mask: ArrayLike
    ) -> tuple[Array, Metrics]:
        """Tokens that get special treatment: (picked [B, T] bool, metrics). logp is the current policy's."""
        if self.pick_fn is None:
            return jnp.zeros(jnp.shape(mask), bool), covariance_metrics(logp, adv, mask)  # so that arms can be compared
        return self.pick_fn(key, logp, old_logp, adv, mask)

    def loss(
        self,
        logp: ArrayLike,
        old_logp: ArrayLike,
        adv: ArrayLike,
        mask: ArrayLike,
        *,
        picked: ArrayLike | None = None,
        denom: ArrayLike | None = None,
        entropy: ArrayLike | None = None,
    ) -> tuple[Array, Metrics]:
        """(loss [], metrics that add up over micro-batches). entropy [B, T], nats: needed if entropy_coef is not 0."""
        if self.needs_pick and picked is None:
            raise ValueError(
                f"{self.name}.loss() needs picked=; call picked, metrics = {self.name}.pick(key, ...) first."
            )
        if self.needs_pick:
            loss, metrics = self.loss_fn(logp, old_logp, adv, mask, picked=picked, denom=denom)
        else:
            loss, metrics = self.loss_fn(logp, old_logp, adv, mask, denom=denom)
        if self.entropy_coef:
            if entropy is None:
                raise ValueError(
                    f"entropy_coef={self.entropy_coef} needs the entropy of every token. Pass entropy= [B, T], or set "
                    "entropy_coef=0.0."
                )
            valid, entropy = clean_tokens(mask, entropy=entropy)
            bonus = self.entropy_coef * masked_mean(entropy, valid, denom=denom)
            loss = loss - bonus
            metrics = metrics | {"loss/entropy_bonus": bonus}
        return loss, metrics | {"loss/total": loss}


def log_ratio(logp: Array, old_logp: Array) -> Array:
    """log(pi / pi_old), clamped to +-20 so that exp() stays finite; NaN stays NaN. [B, T] -> [B, T]."""
    return jnp.clip(logp - old_logp, -20.0, 20.0)


def ratio_metrics(delta: Array, valid: Array, denom: ArrayLike | None) -> Metrics:
    """How far the policy has moved from the sampler's, in nats per token. delta [B, T] = log(pi / pi_old)."""
    return {
        "policy/kl_old": masked_mean(-delta, valid, denom=denom),  # estimates KL(pi_old || pi); may be negative
        "policy/abs_log_ratio": masked_mean(jnp.abs(delta), valid, denom=denom),
    }


def require(ok: bool, problem: str, fix: str) -> None:
    """Raises UserError(problem + fix), which is a ValueError, unless ok: the checks of `build()`."""
    if not ok:
        raise UserError(f"{problem}. {fix}")


def require_share(owner: str, frac: float) -> None:
    """A share of tokens is a fraction; the commonest mistake is to type a percentage."""
    require(
        0.0 <= frac <= 1.0,
        f"{owner}(frac={frac}) is not a fraction of the tokens",
        f"Type a number from 0 to 1; {frac} percent is {owner}.from_percent({frac}), that is frac={frac / 100:g}",
    )
