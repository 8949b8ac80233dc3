"""Rotary positions (arXiv:2104.09864) and the ways to stretch them over more tokens than a model was trained on."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from framework.errors import UserError

__all__ = ["LinearRope", "Llama3Rope", "RopeScaling", "YarnRope", "apply_rope", "rope_tables"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearRope:
    """Every position is divided by `factor` (arXiv:2306.15595)."""

    factor: float = 2.0
    """How many times longer than trained."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3Rope:
    """Llama 3.1: slow frequencies are divided by `factor`, fast ones kept, those between mixed."""

    factor: float = 8.0
    """How many times slower the slow frequencies turn."""
    low_freq_factor: float = 1.0
    """Waves longer than original_max_position / low_freq_factor are slow."""
    high_freq_factor: float = 4.0
    """Waves shorter than original_max_position / high_freq_factor are fast."""
    original_max_position: int = 8192
    """Tokens of the sequences trained on before stretching."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class YarnRope:
    """YaRN (arXiv:2309.00071), as Qwen2.5 and Qwen3 use it for long inputs."""

    factor: float = 4.0
    """How many times longer than trained."""
    beta_fast: float = 32.0
    """Dimensions that turn more often than this over the original length are kept."""
    beta_slow: float = 1.0
    """Dimensions that turn less often than this are divided by `factor`."""
    original_max_position: int = 32_768
    """Tokens of the sequences trained on before stretching."""
    attention_factor: float | None = None
    """Multiplies cosine and sine; None: 0.1 ln(factor) + 1."""


RopeScaling = LinearRope | Llama3Rope | YarnRope


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> tuple[np.ndarray, float]:
    """Angle per position of each pair [h/2], float64, and the factor on cosine and sine."""
    exponent = np.arange(0, head_dim, 2) / head_dim
    inverse = theta**-exponent
    match scaling:
        case None:
            return inverse, 1.0
        case LinearRope():
            return inverse / scaling.factor, 1.0
        case Llama3Rope():
            waves = scaling.original_max_position * inverse / (2 * math.pi)  # over the length trained on
            low, high = scaling.low_freq_factor, scaling.high_freq_factor
            keep = np.clip((waves - low) / (high - low), 0.0, 1.0)
            return keep * inverse + (1 - keep) * inverse / scaling.factor, 1.0
        case YarnRope():
            keep = _yarn_keep(head_dim, theta, scaling)
            factor = scaling.attention_factor
            factor = (0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0) if factor is None else factor
            return keep * inverse + (1 - keep) * inverse / scaling.factor, factor


def _yarn_keep(head_dim: int, theta: float, scaling: YarnRope) -> np.ndarray:
    """How much of each frequency is kept: 1 for the fast ones, a ramp, 0 for the slow ones."""

    def dimension(turns: float) -> float:
        return head_dim * math.log(scaling.original_max_position / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), head_dim - 1)
    ramp = (np.arange(head_dim // 2) - low) / max(high - low, 0.001)
    return 1.0 - np.clip(ramp, 0.0, 1.0)


def check_scaling(scaling: RopeScaling | None) -> None:
    """Refuse numbers that cannot work; raises UserError with the fix."""
    if scaling is None:
        return
    if not scaling.factor >= 1:
        raise UserError(f"model.rope_scaling.factor={scaling.factor} would shorten positions. Use 1.0 or more.")
    if not isinstance(scaling, LinearRope) and scaling.original_max_position < 1:
        raise UserError(
            f"model.rope_scaling.original_max_position={scaling.original_max_position} must be the number of tokens the "
            "model was first trained on, such as 8192."
        )
    if isinstance(scaling, Llama3Rope) and not 0 < scaling.low_freq_factor < scaling.high_freq_factor:
        raise UserError(
            f"model.rope_scaling.low_freq_factor={scaling.low_freq_factor} must be positive and below "
            f"high_freq_factor={scaling.high_freq_factor}. Llama 3.1 uses 1.0 and 4.0."
        )


def rope_tables(
    positions: jax.Array, head_dim: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of the rotary angles: positions [B, T] -> two arrays [B, T, h/2], float32."""
    inverse, factor = frequencies(head_dim, theta, scaling)
    angles = positions[..., None].astype(jnp.float32) * jnp.asarray(inverse, jnp.float32)
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor


def apply_rope(x: jax.Array, rope: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turn the two halves of each head, as Hugging Face's Llama and Qwen do. x [B, T, H, h]."""
    cos, sin = (t[:, :, None, :].astype(x.dtype) for t in rope)
    left, right = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)
