"""On a GPU the four-bit operations are XLA's: each lowers for CUDA, on a machine that has none."""

import jax
import jax.numpy as jnp
import pytest

from kernels_pallas import mxfp4, nvfp4
from kernels_pallas.hadamard import hadamard, random_signs
from kernels_pallas.mxfp4 import ABSMAX_RTN, QUEST
from models.quant import QUARTET, QUARTET_SR
from models.quartet import quartet_project


def gradients(rule):
    def both(x):
        layer = lambda x, kernel: quartet_project(x, kernel, jax.random.key(0), rule, 0)  # noqa: E731
        y, vjp = jax.vjp(layer, x, x.T)
        return vjp(y)

    return both


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: mxfp4.dequantize(mxfp4.quantize(x, QUEST)[0]),
        lambda x: mxfp4.dequantize(mxfp4.quantize(x, ABSMAX_RTN)[0]),
        lambda x: mxfp4.matmul(mxfp4.quantize(x, QUEST)[0], mxfp4.quantize(x, QUEST)[0]),
        lambda x: nvfp4.matmul(nvfp4.quantize(x), nvfp4.quantize(x)),
        lambda x: hadamard(x, random_signs(jax.random.key(0), 32)),
        gradients(QUARTET),
        gradients(QUARTET_SR),
    ],
    ids=["quest", "backward", "mxfp4 product", "nvfp4 product", "hadamard", "layer", "layer with noise"],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_operation_lowers_for_a_gpu(operation, dtype):
    lowered = jax.jit(operation).trace(jax.ShapeDtypeStruct((64, 128), dtype)).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    assert "tpu_custom_call" not in text
    assert "func.func public @main(%arg0: tensor<64x128x" in text
