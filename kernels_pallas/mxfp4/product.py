"""The product of two MXFP4 tensors without a kernel: their exact values, multiplied in float32."""

import jax
import jax.numpy as jnp

from kernels_pallas import e2m1
from kernels_pallas.mxfp4 import reference

__all__ = ["matmul"]


def matmul(a, b) -> jax.Array:
    """a [..., K], b [N, K] (both MXFP4) -> float32 [..., N]; the gains are multiplied in once, at the end."""
    left = reference.dequantize(e2m1.unpack(a.codes), a.scales)
    right = reference.dequantize(e2m1.unpack(b.codes), b.scales)
    y = jnp.einsum("...k,nk->...n", left, right, precision=jax.lax.Precision.HIGHEST)
    gain = a.gain * b.gain
    return y if gain == 1.0 else y * gain
