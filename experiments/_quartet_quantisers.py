"""The quantisers of Quartet measured as the paper's table 2 does, and what they do to the gradient of one layer (arXiv:2505.14669).

All numbers come from the functions that training uses: `kernels_pallas.mxfp4` and `models.quartet`.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from kernels_pallas.mxfp4 import ABSMAX_RTN, ABSMAX_SR, GROUP, OCP, QUEST, Quantizer, fake_quantize
from models.quant import Quantised
from models.quartet import quartet_project

__all__ = ["GRADIENTS", "QUANTISERS", "GradientBias", "QuantiserError", "measure_gradients", "measure_quantisers"]

QUANTISERS: Mapping[str, Quantizer] = {
    "quest_floor": QUEST,
    "quest_nearest": dataclasses.replace(QUEST, exponent="nearest"),
    "absmax_rtn": ABSMAX_RTN,
    "absmax_sr": ABSMAX_SR,
    "ocp": OCP,
}
"""By the names of the table's rows; absmax has the factor 3/4, ocp has not and lets the largest elements saturate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantiserError:
    """What a quantiser does to normally distributed numbers."""

    mse: float
    """Mean of (x - Q(x))^2 at unit variance."""
    mse_octave: float
    """The same relative to the variance, its mean over an octave of standard deviations: a power of two fits some better."""
    misalignment: float
    """1 - <x, Q(x)> / <x, x>: how much shorter Q(x) is along x; 0 for an unbiased quantiser. At unit variance."""


@functools.lru_cache(maxsize=8)
def measure_quantisers(seed: int = 0, groups: int = 32_768, octave: int = 16) -> dict[str, QuantiserError]:
    """Every quantiser on the same `groups` x 32 numbers; the octave is looked at in so many places."""
    key, noise = jax.random.split(jax.random.key(seed))
    x = jax.random.normal(key, (groups, GROUP))
    u = jax.random.uniform(noise, x.shape)
    # Unit variance first, then the middles of equal parts of the octave above it.
    sigmas = jnp.asarray(np.concatenate([[1.0], 2.0 ** ((np.arange(octave) + 0.5) / octave)]), jnp.float32)
    result = {}
    for name, q in QUANTISERS.items():
        mse, misalignment = (np.asarray(value, np.float64) for value in _moments(x, u, sigmas, q))
        result[name] = QuantiserError(
            mse=float(mse[0]), mse_octave=float(mse[1:].mean()), misalignment=float(misalignment[0])
        )
    return result


@functools.partial(jax.jit, static_argnums=3)
def _moments(x: jax.Array, u: jax.Array, sigmas: jax.Array, q: Quantizer) -> tuple[jax.Array, jax.Array]:
    """x, u [groups, 32], sigmas [S] -> relative squared error and misalignment of sigma x, [S] each."""

    def one(sigma: jax.Array) -> tuple[jax.Array, jax.Array]:
        scaled = sigma * x
        value = fake_quantize(scaled, q, u=u if q.rounding == "stochastic" else None)
        return jnp.mean((scaled - value) ** 2) / sigma**2, 1.0 - jnp.sum(scaled * value) / jnp.sum(scaled**2)

    return jax.lax.map(one, sigmas)


GRADIENTS: Mapping[str, tuple[Quantised, bool]] = {
    "rtn_no_rotation": (Quantised(forward=None, rotate=False), False),
    "rtn_fixed_signs": (Quantised(forward=None), False),
    "rtn_random_signs": (Quantised(forward=None), True),
    "sr_random_signs": (Quantised(forward=None, backward=ABSMAX_SR), True),
}
"""How the backward pass is quantised, and whether every draw has new signs and noise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientBias:
    """What is left of the gradient of one weight matrix."""

    bias: float
    """|mean over draws - exact| / |exact|: what no number of steps averages out, and the noise of the mean."""
    cosine: float
    """Of one draw with the exact gradient, mean over draws."""


@functools.lru_cache(maxsize=8)
def measure_gradients(
    seed: int = 0, draws: int = 200, tokens: int = 256, size: int = 128, outlier: float = 8.0
) -> dict[str, GradientBias]:
    """The weight gradient of a `size` x `size` layer over `tokens`, an input feature and a token being `outlier` times as large."""
    keys = jax.random.split(jax.random.key(seed), 3)
    x = jax.random.normal(keys[0], (tokens, size)).at[:, 5].multiply(outlier)
    dy = jax.random.normal(keys[1], (tokens, size)).at[7].multiply(outlier)
    result = {}
    for name, (rule, fresh) in GRADIENTS.items():
        own_keys = jax.random.split(keys[2], draws) if fresh else keys[2][None]
        bias, cosine = _gradient_moments(x, dy, own_keys, rule)
        result[name] = GradientBias(bias=float(bias), cosine=float(cosine))
    return result


@functools.partial(jax.jit, static_argnums=3)
def _gradient_moments(x: jax.Array, dy: jax.Array, keys: jax.Array, rule: Quantised) -> tuple[jax.Array, jax.Array]:
    """x [T, I], dy [T, O], a key a draw: relative error of the mean gradient, mean cosine of one draw."""
    kernel = jnp.zeros((x.shape[1], dy.shape[1]))  # the gradient of a linear layer does not depend on it
    exact = x.T @ dy

    def add(total: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        _, pull = jax.vjp(lambda kernel: quartet_project(x, kernel, key, rule, 0), kernel)
        own = pull(dy)[0]
        return total + own, jnp.vdot(own, exact) / (jnp.linalg.norm(own) * jnp.linalg.norm(exact))

    total, cosines = jax.lax.scan(add, jnp.zeros_like(exact), keys)
    return jnp.linalg.norm(total / len(keys) - exact) / jnp.linalg.norm(exact), jnp.mean(cosines)
