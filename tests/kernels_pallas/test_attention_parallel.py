"""Attention split over eight fake devices: rows, heads and the length of a row; values and gradients of one device."""

import functools
import re

import chex
import jax
import numpy as np
import pytest

from framework.mesh import MeshConfig, sharding, split_mesh
from kernels_pallas.attention import attention, cudnn, parallel, reference

B, T, H, K, SIZE = 4, 48, 8, 4, 8
MESHES = {
    "context": MeshConfig(context=8),
    "data, tensor, context": MeshConfig(data=2, tensor=2, context=2),
    "fsdp, context": MeshConfig(fsdp=2, context=4),
}
SLOW = dict.fromkeys(("context", "fsdp, context"), pytest.mark.slow)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # as in test_attention.py: the same sums in another order


@functools.cache
def make(length=T):
    """q, k, v, the cotangent of the output, and segments: one sequence, packed, padded on the left, packed and padded."""
    rng = np.random.default_rng(0)
    q, g = (rng.standard_normal((B, length, H, SIZE)).astype(np.float32) for _ in range(2))
    k, v = (rng.standard_normal((B, length, K, SIZE)).astype(np.float32) for _ in range(2))
    segments = np.ones((B, length), np.int32)
    segments[1, 17:] = 2
    segments[2, :7] = 0
    segments[3, 5:30], segments[3, 30:40], segments[3, 40:] = 2, 3, 0
    return q, k, v, g, segments


@functools.partial(jax.jit, static_argnames=("run", "packed", "mesh"))
def value_and_grads(q, k, v, g, segments, *, run, packed, mesh=None):
    """`mesh` only keeps programs of different meshes apart."""
    real = (segments != 0)[..., None, None] if packed else 1
    out, pull = jax.vjp(lambda q, k, v: run(q, k, v, segments if packed else None), q, k, v)
    return out * real, pull(g * real)


@functools.cache
def expected(window, packed, length=T):
    return value_and_grads(*make(length), run=functools.partial(reference.attention, window=window), packed=packed)


def check(run, mesh, window, packed, length=T):
    mesh = mesh.build()
    with jax.set_mesh(mesh):
        got = value_and_grads(*make(length), run=run, packed=packed, mesh=mesh)
    chex.assert_trees_all_close(got, expected(window, packed, length), **CLOSE)


@pytest.mark.parametrize("mesh", [pytest.param(m, id=name, marks=SLOW.get(name, ())) for name, m in MESHES.items()])
@pytest.mark.parametrize("context_impl", ["gathered", "ring"])
@pytest.mark.parametrize(("window", "packed"), [(None, False), (None, True), (5, True), (20, True)], ids=str)
def test_context_parallel_attention_is_exact(mesh, context_impl, window, packed):
    # Windows: within a part of the row, and over several parts.
    check(functools.partial(attention, window=window, context_impl=context_impl), mesh, window, packed)


def in_parallel(q, k, v, segments, *, impl, window=None, **kwargs):
    return parallel.attention(
        q, k, v, segments, window=window, impl=impl, context_impl="gathered", mesh=split_mesh(), **kwargs
    )


@pytest.mark.parametrize(
    ("mesh", "length", "window", "packed"),
    [
        (MESHES["data, tensor, context"], T, None, True),  # parts of 24 tokens, padded to 128 each
        pytest.param(MeshConfig(context=2, tensor=4), T, None, False, marks=pytest.mark.slow),
        pytest.param(MeshConfig(context=2, tensor=4), 256, 150, True, marks=pytest.mark.slow),
        (MeshConfig(fsdp=4, tensor=2), T, 7, True),  # the length whole
    ],
    ids=["packed", "one sequence", "window", "no context"],
)
def test_splash_on_a_mesh_is_exact(mesh, length, window, packed):
    check(functools.partial(in_parallel, impl="splash", window=window, interpret=True), mesh, window, packed, length)


@pytest.mark.parametrize(
    "mesh", [MESHES["data, tensor, context"], MeshConfig(fsdp=4, tensor=2)], ids=["context", "no context"]
)
@pytest.mark.parametrize(("window", "packed"), [(None, False), (5, True)], ids=str)
def test_what_cudnn_is_given_on_a_mesh_is_exact(mesh, window, packed, monkeypatch):
    # The kernel is not here: the same call of jax in its XLA version.
    as_xla = functools.partial(cudnn.attention, implementation="xla")
    monkeypatch.setattr(cudnn, "attention", as_xla)
    check(functools.partial(in_parallel, impl="cudnn", window=window), mesh, window, packed)


def test_a_ring_holds_one_part_of_the_keys_and_a_window_stops_it_early():
    mesh = MeshConfig(context=8).build()
    q, k, v, _, segments = make()

    def program(context_impl, window):
        run = functools.partial(attention, context_impl=context_impl, window=window)
        with jax.set_mesh(mesh):
            args = [jax.device_put(x, sharding(mesh, "batch", "length", None, None)) for x in (q, k, v)]
            return jax.jit(run).lower(*args, segments).compile().as_text()

    whole_keys = rf"f32\[{B},{K},{T},{SIZE}\]"
    assert re.search(whole_keys, program("gathered", None))
    assert not re.search(whole_keys, program("ring", None))
    # A window of 6 tokens over parts of 6 reaches one part back: 2 parts, so no loop remains of the 8.
    trips = lambda window: re.findall(r'known_trip_count":\{"n":"(\d+)"', program("ring", window))  # noqa: E731
    assert "7" in trips(None)
    assert "7" not in trips(6)


@pytest.mark.parametrize(
    ("mesh", "length", "message"),
    [
        (
            MeshConfig(context=5),
            T,
            r"\[B, T, H, h\] \[4, 48, 8, 8\]: dimension 1 \('length'\) has size 48.*context=1.*50",
        ),
        (
            MeshConfig(tensor=8),
            T,
            r"keys \[B, T, K, h\].*dimension 2 \('kv_heads'\) has size 4.*mesh tensor=8.*mesh\.tensor=4",
        ),
        (MeshConfig(data=8), T, r"dimension 0 \('batch'\) has size 4.*mesh data=8, fsdp=1.*mesh\.data=4"),
    ],
    ids=["length", "heads", "rows"],
)
@pytest.mark.parametrize("impl", ["blocked", "reference"])
def test_what_the_mesh_does_not_divide_is_named_with_the_fix(mesh, length, message, impl):
    q, k, v, _, segments = make(length)
    with jax.set_mesh(mesh.build()), pytest.raises(ValueError, match=message):
        attention(q, k, v, segments, impl=impl)


def test_inside_of_shard_map_attention_takes_its_part_as_it_is():
    q, k, v, _, _ = make()
    mesh = MeshConfig(data=4).build()
    with jax.set_mesh(mesh):
        rows = sharding(mesh, "batch").spec
        got = jax.jit(jax.shard_map(attention, in_specs=(rows, rows, rows), out_specs=rows))(q, k, v)
    np.testing.assert_allclose(got, reference.attention(q, k, v, None, window=None), **CLOSE)
