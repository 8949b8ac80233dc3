"""The NVFP4 kernels compile for TPUs that are not here, and "auto" takes them there."""

import functools
import os

import jax
import jax.numpy as jnp
import pytest

from framework.mesh import MeshConfig, sharding
from kernels_pallas.nvfp4 import NVFP4, dequantize, quantize, tensor_scale

pytest.importorskip("libtpu", reason="the compiler for TPUs comes with the extra `plan`")

SHAPES = [((256, 4096), "float32"), ((5, 7, 272), "bfloat16"), ((3, 16), "float32")]


@pytest.fixture(scope="module", params=["v5e:2x2", "v5p:2x2x1"])
def mesh(request):
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental.topologies import get_topology_desc

    return MeshConfig().build(get_topology_desc(request.param, "tpu").devices[:1])


def compiled(mesh, function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, dtype, sharding=sharding(mesh)) for shape, dtype in shapes]
    with jax.set_mesh(mesh):
        return jax.jit(function).lower(*arrays).compile().as_text()


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_quantising_compiles_and_auto_is_the_kernel(mesh, shape):
    assert "nvfp4_quantize" in compiled(mesh, quantize, shape)


@pytest.mark.slow
def test_all_roundings_compile_and_so_does_a_scale_a_row(mesh):
    x, u = SHAPES[0], (SHAPES[0][0], "float32")
    for rounding in ("even", "down"):
        assert "nvfp4_quantize" in compiled(mesh, functools.partial(quantize, rounding=rounding), x)
    assert "nvfp4_quantize" in compiled(mesh, lambda x, u: quantize(x, rounding="stochastic", u=u), x, u)
    assert "nvfp4_quantize" in compiled(mesh, lambda x: quantize(x, scale=tensor_scale(x, rows=True)), x)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dequantising_compiles_and_auto_is_the_kernel(mesh, shape):
    *leading, columns = shape[0]
    codes, scales = ((*leading, columns // 2), jnp.uint8), ((*leading, columns // 16), jnp.uint8)
    text = compiled(mesh, lambda c, s, g: dequantize(NVFP4(c, s, g)), codes, scales, ((), jnp.float32))
    assert "nvfp4_dequantize" in text
