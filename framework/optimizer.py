"""Optimizer configs. `build()` gives the optax transformation and is where the numbers are checked."""

from __future__ import annotations

import dataclasses
from typing import Literal, Protocol

import jax.numpy as jnp
import optax

from framework import state as state_lib
from framework.errors import UserError


class Optimizer(Protocol):
    """A frozen dataclass of numbers that makes an optax transformation."""

    def build(self, total_steps: int | None = None) -> optax.GradientTransformation:
        """`total_steps`: length of the run in updates, for schedules. Raises UserError for numbers that cannot work."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW (arXiv:1711.05101) with a learning-rate schedule and clipping by the global norm."""

    lr: float = 1e-3  # peak learning rate
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0  # matrices only: norm scales and biases are left alone
    grad_clip: float = 1.0  # largest global gradient norm; 0 turns clipping off
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up; the last two end at 0
    warmup_steps: int = 0  # at most a fifth of the run if its length is what ends the schedule
    total_steps: int | None = None  # where "linear" and "cosine" reach 0, warm-up included; None: at the end of the run

    def learning_rate(self) -> optax.Schedule:
        """Learning rate as a function of the number of finished updates (0 for the first)."""
        if self.schedule not in ("constant", "linear", "cosine"):
            raise UserError(f"schedule={self.schedule!r} is unknown. Use 'constant', 'linear' or 'cosine'.")
        if self.schedule != "constant" and (self.total_steps is None or self.total_steps <= self.warmup_steps):
            raise UserError(
                f"schedule={self.schedule!r} needs to know when to reach 0, but total_steps={self.total_steps} with "
                f"warmup_steps={self.warmup_steps}. Set total_steps to the number of updates, use fewer warmup_steps, or "
                "schedule='constant'."
            )
        decay_steps = max((self.total_steps or 0) - self.warmup_steps, 1)

        def rate(count):
            # The first update already moves (1/warmup of the peak): a rate of 0 would waste a whole batch.
            warm = jnp.minimum(1.0, (count + 1) / max(self.warmup_steps, 1))
            done = jnp.clip((count - self.warmup_steps) / decay_steps, 0.0, 1.0)
            if self.schedule == "linear":
                return self.lr * warm * (1.0 - done)
            if self.schedule == "cosine":
                return self.lr * warm * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
            return self.lr * warm

        return rate

    def build(self, total_steps: int | None = None) -> optax.GradientTransformation:
        if self.total_steps is None and total_steps is not None and self.schedule != "constant":
            # A run of a few updates, tried out for a moment, must not end before its warm-up does.
            warmup = min(self.warmup_steps, total_steps // 5)
            return dataclasses.replace(self, total_steps=total_steps, warmup_steps=warmup).build()
        if not self.lr > 0:
            raise UserError(f"lr={self.lr} trains nothing. Use a positive learning rate, such as lr=1e-3.")
        if self.warmup_steps < 0 or self.grad_clip < 0 or self.weight_decay < 0:
            raise UserError(
                f"warmup_steps={self.warmup_steps}, grad_clip={self.grad_clip} and weight_decay={self.weight_decay} "
                "cannot be negative. Use 0 to turn one off."
            )
        adamw = optax.adamw(
            self.learning_rate(),
            b1=self.betas[0],
            b2=self.betas[1],
            eps=self.eps,
            weight_decay=self.weight_decay,
            mask=decay_mask,
        )
        return optax.chain(optax.clip_by_global_norm(self.grad_clip), adamw) if self.grad_clip else adamw


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD:
    """Plain gradient steps: parameters move in proportion to the gradient, which is what theory about a step assumes."""

    lr: float = 0.1  # constant
    grad_clip: float = 0.0  # largest global gradient norm; 0 turns clipping off

    def build(self, total_steps: int | None = None) -> optax.GradientTransformation:
        del total_steps  # the rate is constant
        if not self.lr > 0 or self.grad_clip < 0:
            raise UserError(
                f"lr={self.lr} must be positive, such as lr=0.1, and grad_clip={self.grad_clip} not negative (0: no clipping)."
            )
        sgd = optax.sgd(self.lr)
        return optax.chain(optax.clip_by_global_norm(self.grad_clip), sgd) if self.grad_clip else sgd


def decay_mask(params):
    """True for parameters that weight decay applies to: those with two dimensions or more.

    A stacked layer axis does not count: the norm scales of L scanned layers are [L, D] but still vectors.
    """

    def decays(leaf: state_lib.Leaf) -> bool:
        return jnp.ndim(leaf.value) - (leaf.logical or ()).count("layers") > 1  # pyright: ignore[reportArgumentType]

    return state_lib.rebuild(params, [decays(leaf) for leaf in state_lib.leaves(params)])
