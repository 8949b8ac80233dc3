"""Kernels for TPUs that are not here: "auto" takes them, and they compile for two generations."""

import os

import jax
import jax.numpy as jnp
import pytest

from framework.mesh import MeshConfig, platform, sharding
from kernels_pallas.hadamard import hadamard
from kernels_pallas.mxfp4 import ABSMAX_RTN, ABSMAX_SR, MXFP4, OCP, QUEST, dequantize, matmul, quantize, rotate_quantize

pytest.importorskip("libtpu", reason="the compiler for TPUs comes with the extra `plan`")

F32, BF16, U8 = jnp.float32, jnp.bfloat16, jnp.uint8


@pytest.fixture(scope="module", params=["v5e:2x2", pytest.param("v5p:2x2x1", marks=pytest.mark.slow)])
def devices(request):
    # Not on a Cloud machine, so there is no metadata to ask; and other programs may be compiling too.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental.topologies import get_topology_desc

    return get_topology_desc(request.param, "tpu").devices


def packed(codes, scales, gain=4 / 3):
    return MXFP4(codes, scales, gain)


def shapes_of(rows, k):
    return ((rows, k // 2), U8), ((rows, k // 32), U8)


# The name of the kernel, the function, the shapes and types of its arguments.
SMALL = {
    "hadamard": ("hadamard", hadamard, [((5, 96), F32), ((32,), F32)]),
    "inverse": ("hadamard", lambda x: hadamard(x, inverse=True), [((3, 2, 64), BF16)]),
    "ocp": ("mxfp4_quantize", lambda x: quantize(x, OCP), [((1, 32), F32)]),
    "quest": ("mxfp4_quantize", lambda x: quantize(x, QUEST), [((5, 96), BF16)]),
    "stochastic": ("mxfp4_quantize", lambda x, u: quantize(x, ABSMAX_SR, u=u), [((7, 160), F32), ((7, 160), F32)]),
    "rotated": (
        "mxfp4_rotate_quantize",
        lambda x, signs: rotate_quantize(x, ABSMAX_RTN, signs=signs),
        [((5, 96), BF16), ((32,), F32)],
    ),
    "back": ("mxfp4_dequantize", lambda c, s: dequantize(packed(c, s)), [*shapes_of(5, 96)]),
    "product": (
        "mxfp4_matmul",
        lambda c, s, d, t: matmul(packed(c, s), packed(d, t)),
        [*shapes_of(5, 96), *shapes_of(7, 96)],
    ),
}
LARGE = {
    "hadamard": ("hadamard", hadamard, [((4096, 8192), F32), ((32,), F32)]),
    "wide blocks": ("hadamard", lambda x: hadamard(x, block=1024, inverse=True), [((2048, 5120), BF16)]),
    "blocks of one": ("hadamard", lambda x: hadamard(x, block=1), [((256, 100), BF16)]),
    "quest": ("mxfp4_quantize", lambda x: quantize(x, QUEST), [((4096, 8192), F32)]),
    "rotated": (
        "mxfp4_rotate_quantize",
        lambda x, u, signs: rotate_quantize(x, ABSMAX_SR, u=u, signs=signs),
        [((4096, 11008), F32), ((4096, 11008), F32), ((32,), F32)],
    ),
    "back": ("mxfp4_dequantize", lambda c, s: dequantize(packed(c, s)), [*shapes_of(4096, 11008)]),
    "product": (
        "mxfp4_matmul",
        lambda c, s, d, t: matmul(packed(c, s), packed(d, t)),
        [*shapes_of(4096, 8192), *shapes_of(11008, 8192)],
    ),
    "ragged product": (
        "mxfp4_matmul",
        lambda c, s, d, t: matmul(packed(c, s), packed(d, t)),
        [*shapes_of(1000, 4096 + 96), *shapes_of(1100, 4096 + 96)],
    ),
}


def lower(mesh, function, arguments):
    shapes = [jax.ShapeDtypeStruct(shape, dtype, sharding=sharding(mesh)) for shape, dtype in arguments]
    with jax.set_mesh(mesh):
        assert platform() == "tpu"
        return jax.jit(function).lower(*shapes)


def compiled(devices, function, arguments):
    return lower(MeshConfig().build(devices), function, arguments).compile().as_text()


@pytest.mark.parametrize("case", SMALL)
def test_auto_is_the_kernel_on_a_tpu_and_compiles(devices, case):
    name, function, arguments = SMALL[case]
    text = compiled(devices, function, arguments)
    assert "tpu_custom_call" in text
    assert name in text


@pytest.mark.slow
@pytest.mark.parametrize("case", LARGE)
def test_the_kernel_compiles_for_sizes_of_large_models(devices, case):
    name, function, arguments = LARGE[case]
    text = compiled(devices, function, arguments)
    assert "tpu_custom_call" in text
    assert name in text


def test_the_gradient_of_the_transform_is_the_kernel_too(devices):
    text = compiled(devices, jax.grad(lambda x: jnp.sum(hadamard(x) ** 2)), [((8, 64), F32)])
    assert text.count("tpu_custom_call") >= 2


def test_asked_for_another_implementation_there_is_no_kernel(devices):
    mesh = MeshConfig().build(devices)
    for impl in ("xla", "reference"):
        text = lower(mesh, lambda x, impl=impl: rotate_quantize(x, QUEST, impl=impl), [((8, 64), F32)]).as_text()
        assert "tpu_custom_call" not in text


def test_over_several_devices_auto_leaves_the_work_to_xla_unless_it_is_within_shard_map(devices):
    mesh, rows = MeshConfig(data=4).build(devices), jax.sharding.PartitionSpec("data")
    run = lambda x: rotate_quantize(x, QUEST)  # noqa: E731
    assert "tpu_custom_call" not in lower(mesh, run, [((8, 64), F32)]).as_text()
    with pytest.raises(ValueError, match="cannot split a kernel over the 4 devices"):
        lower(mesh, lambda x: rotate_quantize(x, QUEST, impl="pallas"), [((8, 64), F32)])
    split = jax.shard_map(run, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    assert "mxfp4_rotate_quantize" in lower(mesh, split, [((8, 64), F32)]).compile().as_text()
