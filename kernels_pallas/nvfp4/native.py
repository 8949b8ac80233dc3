"""The product of two NVFP4 tensors in the tensor cores of NVIDIA's Blackwell, by `jax.nn.scaled_matmul`, which is cuDNN."""

import jax
import jax.numpy as jnp

from kernels_pallas import e2m1

__all__ = ["elements", "matmul", "unsupported"]


def unsupported() -> str | None:
    """Why this machine has no such product, or None."""
    device = jax.devices()[0]
    capability = getattr(device, "compute_capability", None) if device.platform == "gpu" else None
    try:
        blackwell = float(str(capability)) >= 10
    except ValueError:  # no GPU, or one of AMD's, whose names are no numbers
        blackwell = False
    return (
        None
        if blackwell
        else f"it needs an NVIDIA GPU of compute capability 10.0 or more, and this is {device.device_kind}"
    )


def elements(codes: jax.Array) -> jax.Array:
    """Packed codes uint8 [..., K / 2] -> float4_e2m1fn [..., K], the same bits."""
    return jax.lax.bitcast_convert_type(e2m1.unpack(codes).astype(jnp.uint4), jnp.float4_e2m1fn)


def matmul(
    a: jax.Array,  # packed codes [..., K / 2]
    a_scales: jax.Array,  # [..., K / 16], the bits of float8_e4m3fn
    b: jax.Array,  # [N, K / 2]
    b_scales: jax.Array,  # [N, K / 16]
) -> jax.Array:
    """float32 [..., N] without the scales of the tensors. The order of sums is the hardware's."""

    def flat(x: jax.Array) -> jax.Array:
        return x.reshape(1, -1, x.shape[-1])  # one batch of all rows

    operands = flat(elements(a)), flat(elements(b))
    scales = (jax.lax.bitcast_convert_type(flat(x), jnp.float8_e4m3fn) for x in (a_scales, b_scales))
    y = jax.nn.scaled_matmul(*operands, *scales, preferred_element_type=jnp.float32)
    return y.reshape(*a.shape[:-1], b.shape[0])
