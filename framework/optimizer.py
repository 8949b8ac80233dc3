"""Optimizer configs. `build()` gives the optax transformation and is where the numbers are checked."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, Protocol

import jax
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
    weight_decay: float = 0.0  # matrices and embeddings: norm scales and biases are left alone, see `decay_mask`
    grad_clip: float = 1.0  # largest global gradient norm; 0 turns clipping off
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "constant"  # after the warm-up; wsd: stable, then linear
    warmup_steps: int = 0  # at most a fifth of the run if its length is what ends the schedule
    total_steps: int | None = None  # where the schedule ends, warm-up included; None: at the end of the run
    min_lr_ratio: float = 0.0  # what linear, cosine and wsd end at, as a share of lr
    decay_steps: int | None = None  # of "wsd": the last updates, in which the rate falls; None: a tenth of total_steps
    moment_dtype: Literal["float32", "bfloat16"] = (
        "float32"  # of the first moment; bfloat16 saves memory, no time on a CPU
    )

    def learning_rate(self) -> optax.Schedule:
        """Learning rate as a function of the number of finished updates (0 for the first).

        lr * warm-up * (min_lr_ratio + (1 - min_lr_ratio) * curve), the curve falling from 1 to 0 at total_steps:
        linear and cosine from the end of the warm-up on, wsd (arXiv:2404.06395) over the last decay_steps.
        """
        self._check_schedule()
        total, floor = self.total_steps or 0, self.min_lr_ratio
        falls = total - self.warmup_steps if self.schedule != "wsd" else self._decay_steps(total)

        def rate(count):
            # The first update already moves (1/warmup of the peak): a rate of 0 would waste a whole batch.
            warm = jnp.minimum(1.0, (count + 1) / max(self.warmup_steps, 1))
            done = jnp.clip((count - (total - falls)) / max(falls, 1), 0.0, 1.0)
            if self.schedule == "constant":
                return self.lr * warm
            curve = 0.5 * (1.0 + jnp.cos(jnp.pi * done)) if self.schedule == "cosine" else 1.0 - done
            return self.lr * warm * (floor + (1.0 - floor) * curve)

        return rate

    def build(self, total_steps: int | None = None) -> optax.GradientTransformation:
        if self.total_steps is None and total_steps is not None and self.schedule != "constant":
            # A run of a few updates, tried out for a moment, must not end before its warm-up does.
            warmup = min(self.warmup_steps, total_steps // 5)
            decay = None if self.decay_steps is None else max(min(self.decay_steps, total_steps - warmup), 1)
            short = dataclasses.replace(self, total_steps=total_steps, warmup_steps=warmup, decay_steps=decay)
            return short.build()
        self._check_numbers()
        rate = self.learning_rate()
        adamw = optax.adamw(
            rate,
            b1=self.betas[0],
            b2=self.betas[1],
            eps=self.eps,
            weight_decay=self.weight_decay,
            mask=decay_mask,
            mu_dtype=jnp.bfloat16 if self.moment_dtype == "bfloat16" else None,
        )
        clipped = optax.chain(clip_by_global_norm(self.grad_clip), adamw) if self.grad_clip else adamw
        return state_lib.Transform.of(clipped, rate)

    def _decay_steps(self, total: int) -> int:
        return self.decay_steps if self.decay_steps is not None else max(total // 10, 1)

    def _check_schedule(self) -> None:
        if self.schedule not in ("constant", "linear", "cosine", "wsd"):
            raise UserError(
                f"schedule={self.schedule!r} is unknown. Use 'constant', 'linear' or 'cosine', or 'wsd' (warm-up, stable, "
                "decay)."
            )
        if not 0 <= self.min_lr_ratio <= 1:
            raise UserError(
                f"min_lr_ratio={self.min_lr_ratio} is a share of lr and must lie between 0 and 1, such as min_lr_ratio=0.1."
            )
        if self.decay_steps is not None and self.decay_steps < 1:
            raise UserError(
                f"decay_steps={self.decay_steps} must be at least 1. Use decay_steps=None for a tenth of the run, or "
                "schedule='constant' for no decay."
            )
        if self.schedule == "constant":
            return
        if self.total_steps is None or self.total_steps <= self.warmup_steps:
            raise UserError(
                f"schedule={self.schedule!r} needs to know when to end, but total_steps={self.total_steps} with "
                f"warmup_steps={self.warmup_steps}. Set total_steps to the number of updates, use fewer warmup_steps, or "
                "schedule='constant'."
            )
        free = self.total_steps - self.warmup_steps
        if self.schedule == "wsd" and self._decay_steps(self.total_steps) > free:
            raise UserError(
                f"decay_steps={self._decay_steps(self.total_steps)} and warmup_steps={self.warmup_steps} do not fit into "
                f"total_steps={self.total_steps}. Use decay_steps={free} or less."
            )

    def _check_numbers(self) -> None:
        if not 0 < self.lr < math.inf:
            raise UserError(f"lr={self.lr} trains nothing. Use a positive learning rate, such as lr=1e-3.")
        if self.warmup_steps < 0 or not self.grad_clip >= 0 or not self.weight_decay >= 0:
            raise UserError(
                f"warmup_steps={self.warmup_steps}, grad_clip={self.grad_clip} and weight_decay={self.weight_decay} "
                "cannot be negative. Use 0 to turn one off."
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(
                f"betas={self.betas} must be two numbers from 0 up to, not including, 1, such as (0.9, 0.95)."
            )
        if not self.eps > 0:
            raise UserError(f"eps={self.eps} must be positive: it keeps the update finite. Use eps=1e-8.")
        if self.moment_dtype not in ("float32", "bfloat16"):
            raise UserError(f"moment_dtype={self.moment_dtype!r} is not supported. Use 'float32' or 'bfloat16'.")


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
        clipped = optax.chain(clip_by_global_norm(self.grad_clip), sgd) if self.grad_clip else sgd
        return state_lib.Transform.of(clipped, optax.constant_schedule(self.lr))


def clip_by_global_norm(largest: float) -> optax.GradientTransformation:
    """Scale the gradient down to a global norm of `largest` where it is longer.

    As optax's, with the norm that `TrainState.apply` reports: XLA computes it once for both.
    """

    def update(updates, state, params=None):
        del params
        factor = jnp.minimum(1.0, largest / state_lib.global_norm(updates))  # norm 0: 1; NaN: NaN, which stops the run
        return jax.tree.map(lambda x: (x * factor).astype(x.dtype), updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def decay_mask(params):
    """True for parameters that weight decay applies to: those with two dimensions or more.

    That is every matrix, the embedding and the adapters of LoRA, as nanoGPT and PEFT's trainers do; not norm scales and
    biases. A stacked layer axis does not count: the norm scales of L scanned layers are [L, D] but still vectors.
    """

    def decays(leaf: state_lib.Leaf) -> bool:
        return jnp.ndim(leaf.value) - (leaf.logical or ()).count("layers") > 1  # pyright: ignore[reportArgumentType]

    return state_lib.rebuild(params, [decays(leaf) for leaf in state_lib.leaves(params)])
