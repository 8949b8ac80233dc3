"""Programs for a TPU that is not here: "auto" takes the splash kernel, and what comes out compiles."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from framework.mesh import MeshConfig, abstract_tree, platform, sharding
from kernels_pallas.logprob import token_logprobs
from models.decoder import DecoderConfig

pytest.importorskip("libtpu", reason="the compiler for TPUs comes with the extra `plan`")

TINY = DecoderConfig(
    vocab_size=256, dim=128, layers=1, heads=4, kv_heads=2, head_dim=64, mlp_dim=256, dtype="bfloat16", remat="dots"
)
KERNELS = ("splash_mha_fwd", "splash_mha_dq", "splash_mha_dkv")


@pytest.fixture(scope="module")
def devices():
    # Not on a Cloud machine, so there is no metadata to ask; and other programs may be compiling too.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental.topologies import get_topology_desc

    return get_topology_desc("v5e:2x2", "tpu").devices


def lower(config, mesh, length=256):
    """The gradient of a loss, on arrays that are only shapes."""
    graphdef, params = nnx.split(nnx.eval_shape(lambda: config.build(jax.random.key(0))))

    def loss(params, tokens, segments):
        model = nnx.merge(graphdef, params)
        hidden, _ = model(tokens, jnp.cumsum(segments, axis=1), segments)
        return jnp.mean(token_logprobs(hidden, model.unembed, tokens)[0])

    ids = jax.ShapeDtypeStruct((4, length), jnp.int32, sharding=sharding(mesh, "batch", "length"))
    with jax.set_mesh(mesh):
        assert platform() == "tpu"
        return jax.jit(jax.grad(loss)).lower(abstract_tree(mesh, params), ids, ids)


def test_auto_is_splash_on_a_tpu_and_blocked_when_asked_for(devices):
    mesh = MeshConfig(data=2, tensor=2).build(devices)
    text = lower(TINY, mesh).as_text()
    assert all(name in text for name in KERNELS)
    blocked = lower(dataclasses.replace(TINY, attention="blocked"), mesh).as_text()
    assert not any(name in blocked for name in KERNELS)


@pytest.mark.parametrize("mesh", [MeshConfig(data=2, tensor=2), MeshConfig(context=4)], ids=["rows", "length"])
@pytest.mark.parametrize(("remat", "times"), [("dots", 1), ("full", 2)])
def test_rematerialisation_that_keeps_products_keeps_attention(devices, mesh, remat, times):
    text = lower(dataclasses.replace(TINY, remat=remat), mesh.build(devices)).as_text()
    assert [text.count(f'kernel_name = "{name}') for name in KERNELS] == [times, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "mesh", "length"),
    [
        ({}, MeshConfig(data=2, tensor=2), 256),
        ({"head_dim": 32, "scan": True, "layers": 2}, MeshConfig(fsdp=2, context=2), 300),
        ({"sliding_window": 100, "dtype": "float32"}, MeshConfig(tensor=2, context=2), 1024),
        ({"attention": "blocked"}, MeshConfig(data=2, context=2), 256),
    ],
    ids=["rows and heads", "length, unaligned, scanned", "window over parts", "blocked"],
)
def test_a_decoder_and_its_gradient_compile_for_a_tpu(devices, changes, mesh, length):
    text = lower(dataclasses.replace(TINY, **changes), mesh.build(devices), length).compile().as_text()
    kernels = changes.get("attention") != "blocked"
    assert all((name in text) == kernels for name in KERNELS)


def test_splash_asked_for_by_name_says_which_length_a_window_over_parts_needs(devices):
    config = dataclasses.replace(TINY, sliding_window=100, attention="splash")
    with pytest.raises(
        ValueError, match=r"splash attention cannot run: with a window, the 150 tokens.*use sequences of 512"
    ):
        lower(config, MeshConfig(context=2).build(devices), 300)
