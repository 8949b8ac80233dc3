"""A decoder on eight fake devices gives the loss and the gradients of one device, for every way to split it."""

import dataclasses
import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from framework.mesh import MeshConfig, put_batch, shard_tree
from kernels_pallas.logprob import token_logprobs
from models.decoder import DecoderConfig

TINY = DecoderConfig(
    vocab_size=64, dim=16, layers=1, heads=8, kv_heads=4, head_dim=4, mlp_dim=32, tied=True, sliding_window=9
)
B, T = 8, 24

# Every way to take some of eight devices: 35 meshes.
SIZES = [s for s in itertools.product((1, 2, 4, 8), repeat=4) if math.prod(s) <= 8]
# Each axis, and each pair of axes, at least once; the others run with the slow tests.
FAST = {(1, 1, 1, 1), (2, 2, 2, 1), (2, 1, 2, 2), (1, 2, 2, 2)}


def ids(sizes):
    axes = zip(("data", "fsdp", "tensor", "context"), sizes, strict=True)
    return "-".join(f"{axis}{n}" for axis, n in axes if n > 1) or "one"


def batch():
    """Ragged and packed: padding on the left and on the right, two and three sequences a row, a row of padding."""
    rng = np.random.default_rng(0)
    segments = np.zeros((B, T), np.int32)
    for row, cuts in enumerate([(0, 24), (5, 24), (0, 17), (0, 7, 24), (3, 9, 14, 20), (0, 1, 2), (23, 24)]):
        for i, (start, stop) in enumerate(itertools.pairwise(cuts)):
            segments[row, start:stop] = i + 1
    index = np.arange(T)
    starts = np.maximum.accumulate(np.where(np.diff(segments, axis=1, prepend=-1) != 0, index, 0), axis=1)
    following = np.roll(segments, -1, axis=1)
    following[:, -1] = 0
    return {
        "tokens": rng.integers(0, TINY.vocab_size, (B, T), dtype=np.int32),
        "targets": rng.integers(0, TINY.vocab_size, (B, T), dtype=np.int32),
        "positions": (index - starts).astype(np.int32),
        "segments": segments,
        "mask": ((segments != 0) & (segments == following)).astype(np.float32),
    }


@functools.cache
def made(config):
    """The model's structure, and its parameters as numpy: made once, without compiling anything for a mesh."""
    graphdef, params = nnx.split(config.build(jax.random.key(0)))
    return graphdef, jax.tree.map(np.asarray, params)


def loss(graphdef, params, batch):
    """Mean over the tokens that count of -log-probability and a little entropy."""
    model = nnx.merge(graphdef, params)
    hidden, _ = model(batch["tokens"], batch["positions"], batch["segments"])
    logp, entropy = token_logprobs(hidden, model.unembed, batch["targets"])
    return jnp.sum(jnp.where(batch["mask"] > 0, -logp + 0.1 * entropy, 0.0)) / jnp.sum(batch["mask"])


def prepare(config, mesh):
    """The jitted (loss, gradients), and its arguments where they belong."""
    graphdef, params = made(config)
    run = jax.jit(jax.value_and_grad(functools.partial(loss, graphdef)))
    if mesh is None:
        return run, (params, batch())
    return run, (jax.device_put(params, shard_tree(mesh, params)), put_batch(mesh, batch()))


def lower(config, mesh):
    """The program for a mesh, not yet compiled."""
    run, args = prepare(config, mesh)
    with jax.set_mesh(mesh):
        return run.lower(*args)


def value_and_grad(config, mesh=None):
    run, args = prepare(config, mesh)
    if mesh is None:
        return run(*args)
    with jax.set_mesh(mesh):
        return run(*args)


@functools.cache
def one_device(config):
    return jax.tree.map(np.asarray, value_and_grad(config))


def assert_same(got, want):
    """1e-5 of the value of the loss, and of the largest gradient of each parameter.

    Sums run over devices in another order than on one: a few float32 steps (1.2e-7) of the largest term, where single numbers
    of a gradient may be the small difference of large ones.
    """
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)

    def close(path, a, b):
        scale = np.abs(b).max()
        assert scale > 0, path
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * scale, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(close, got[1], want[1])


@pytest.mark.parametrize(
    "sizes", [pytest.param(s, id=ids(s), marks=[] if s in FAST else pytest.mark.slow) for s in SIZES]
)
def test_every_mesh_gives_the_loss_and_the_gradients_of_one_device(sizes):
    data, fsdp, tensor, context = sizes
    config = dataclasses.replace(TINY, kv_heads=max(TINY.kv_heads, tensor))
    mesh = MeshConfig(data=data, fsdp=fsdp, tensor=tensor, context=context).build()
    assert_same(value_and_grad(config, mesh), one_device(config))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"scan": True, "layers": 2}, marks=pytest.mark.slow),
        {"scan": True, "layers": 2, "remat": "dots"},
        {"remat": "full", "tied": False, "qkv_bias": True},
        pytest.param({"attention": "reference", "layers": 2, "full_layers": 1}, marks=pytest.mark.slow),
    ],
    ids=["scan", "scan and dots", "remat, untied, biases", "reference attention"],
)
def test_the_other_ways_to_build_a_decoder_are_as_exact(changes):
    config = dataclasses.replace(TINY, **changes)
    mesh = MeshConfig(fsdp=2, tensor=2, context=2).build()
    assert_same(value_and_grad(config, mesh), one_device(config))


@pytest.mark.parametrize(
    "mesh", [MeshConfig(fsdp=2, tensor=2, context=2), MeshConfig(data=2, fsdp=4)], ids=["three axes", "data and fsdp"]
)
def test_nothing_is_silently_whole_on_a_device(mesh, capfd):
    mesh = mesh.build()
    text = lower(TINY, mesh).compile().as_text()
    assert "Involuntary full rematerialization" not in capfd.readouterr().err  # XLA's words for making an array whole
    # Not one array of all rows and all tokens: every activation is split at least over the rows.
    assert not re.findall(rf"f32\[{B},{T}\b[\d,]*\]", text)
    # The embedding's gradient is summed and split at once: no device ever gets the sum of all of it.
    vocab, width = TINY.vocab_size, TINY.dim
    reduced = re.findall(r"f32\[[\d,]+\]", " ".join(re.findall(r"= (.*) all-reduce\(", text)))
    assert not {f"f32[{vocab},{width}]", f"f32[{width},{vocab}]"} & set(reduced)
    assert re.search(r" reduce-scatter\(", text)


@pytest.mark.parametrize(
    ("changes", "mesh", "message"),
    [
        ({"dim": 18}, MeshConfig(fsdp=4), r"/kernel \[18, 16\]: dimension 0 \('embed'\) has size 18.*mesh\.fsdp=2"),
        (
            {"vocab_size": 66},
            MeshConfig(tensor=4),
            r"embedding \[66, 16\]: dimension 0 \('vocab'\).*mesh\.tensor=2.*68",
        ),
        ({"mlp_dim": 36}, MeshConfig(tensor=8), r"mlp.*dimension \d \('mlp'\) has size 36.*mesh\.tensor=4.*such as 40"),
        ({"heads": 6, "kv_heads": 2, "head_dim": 8}, MeshConfig(tensor=4), r"\('heads'\) has size 6.*mesh\.tensor=2"),
        (
            {"kv_heads": 2},
            MeshConfig(tensor=4),
            r"\('kv_heads'\) has size 2.*4 devices \(mesh tensor=4\).*mesh\.tensor=2",
        ),
        (
            {},
            MeshConfig(context=5),
            r"tokens \[B, T\] \[8, 24\]: dimension 1 \('length'\) has size 24.*mesh\.context=1.*25",
        ),
        ({}, MeshConfig(data=3, fsdp=2), r"8.*cannot be split over 6 devices \(mesh data=3, fsdp=2\)"),
    ],
    ids=["width", "vocabulary", "mlp", "query heads", "key heads", "length", "rows"],
)
def test_a_mesh_that_does_not_divide_says_which_dimension_and_what_to_change(changes, mesh, message):
    mesh = mesh.build()
    with pytest.raises(ValueError, match=message):
        lower(dataclasses.replace(TINY, **changes), mesh)
