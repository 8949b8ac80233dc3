"""Log-probabilities on a mesh of eight fake devices: the values and gradients of one device, and little communication."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from framework.mesh import MeshConfig, sharding
from kernels_pallas.logprob import token_logprobs

MESHES = {
    "tensor": MeshConfig(tensor=8),
    "all axes": MeshConfig(data=2, fsdp=1, tensor=2, context=2),
    "fsdp and tensor": MeshConfig(fsdp=2, tensor=4),
    "fsdp and context": MeshConfig(fsdp=4, context=2),
    "data": MeshConfig(data=8),
}
SLOW = dict.fromkeys(("fsdp and tensor", "fsdp and context", "data"), pytest.mark.slow)
# Sums over devices in another order than on one: a few float32 steps, relative to the largest number of an array.
RELATIVE = 1e-5


def make(shape=(8, 8, 16, 96), dtype=np.float32, transposed=False):
    batch, time, width, vocab = shape
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((batch, time, width)).astype(dtype)
    unembed = rng.standard_normal((width, vocab)).astype(dtype)
    targets = rng.integers(0, vocab, (batch, time), dtype=np.int32)
    weights = rng.standard_normal((2, batch, time)).astype(np.float32)
    return hidden, unembed.T if transposed else unembed, targets, weights


@functools.partial(jax.jit, static_argnames=("impl", "chunk", "transposed", "mesh"))
def run(hidden, unembed, targets, weights, temperature, entropy_temperature=None, *, mesh=None, **kwargs):
    """(logp, entropy), gradients. `mesh` only keeps programs of different meshes apart."""

    def loss(hidden, unembed):
        out = token_logprobs(hidden, unembed, targets, temperature, entropy_temperature=entropy_temperature, **kwargs)
        return jnp.sum(jnp.where(weights[0] == 0, 0, weights[0] * out[0]) + weights[1] * out[1]), out

    grads, out = jax.grad(loss, (0, 1), has_aux=True)(hidden, unembed)
    return out, grads


def place(mesh, hidden, unembed, targets, weights, transposed=False):
    names = ("vocab", "embed") if transposed else ("embed", "vocab")
    return (
        jax.device_put(hidden, sharding(mesh, "batch", "length", None)),
        jax.device_put(unembed, sharding(mesh, *names)),
        jax.device_put(targets, sharding(mesh, "batch", "length")),
        jax.device_put(weights, sharding(mesh, None, "batch", "length")),
    )


def assert_close(got, want):
    def close(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        np.testing.assert_allclose(np.nan_to_num(a), np.nan_to_num(b), rtol=0, atol=RELATIVE * np.nanmax(np.abs(b)))

    jax.tree.map(close, got, want)


@pytest.mark.parametrize("transposed", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("mesh", [pytest.param(m, id=name, marks=SLOW.get(name, ())) for name, m in MESHES.items()])
@pytest.mark.parametrize("chunk", [5, None], ids=["chunks with a tail", "one chunk"])
def test_every_mesh_gives_the_values_and_gradients_of_one_device(mesh, transposed, chunk):
    args = make(transposed=transposed)
    args[2][0, 0], args[2][3, 5] = -100, 96  # no such tokens: nan, and no gradient
    args[3][0, 0, 0] = args[3][0, 3, 5] = 0.0
    temperatures = np.linspace(0.5, 1.5, 8), np.linspace(1.0, 2.0, 64).reshape(8, 8)
    want = run(*args, *temperatures, impl="reference", transposed=transposed)
    mesh = mesh.build()
    with jax.set_mesh(mesh):
        got = run(*place(mesh, *args, transposed), *temperatures, chunk=chunk, transposed=transposed, mesh=mesh)
    assert np.argwhere(np.isnan(got[0][0])).tolist() == [[0, 0], [3, 5]]
    assert_close(got, want)
    names = ("vocab", "embed") if transposed else ("embed", "vocab")
    assert got[1][1].sharding.is_equivalent_to(sharding(mesh, *names), 2)  # the matrix gradient stays split


def test_a_decode_step_of_one_token_needs_no_context_to_divide_it():
    args = make((4, 1, 16, 96))
    want = run(*args, 0.6, impl="reference")
    with jax.set_mesh(mesh := MeshConfig(data=2, context=2, tensor=2).build()):
        assert_close(run(*args, 0.6, mesh=mesh), want)


def test_the_gradient_of_the_log_probability_alone_is_the_same():
    hidden, unembed, targets, weights = make()

    def grads():
        loss = lambda h, w: jnp.sum(weights[0] * token_logprobs(h, w, targets, 0.7)[0])  # noqa: E731
        return jax.jit(jax.grad(jax.checkpoint(loss), (0, 1)))(hidden, unembed)

    want = grads()
    with jax.set_mesh(MeshConfig(fsdp=2, tensor=2, context=2).build()):
        assert_close(grads(), want)


def test_bfloat16_on_a_mesh_differs_from_one_device_by_its_own_rounding():
    args = make(dtype=jnp.bfloat16)
    want_out, want_grads = run(*args, 1.0)
    with jax.set_mesh(mesh := MeshConfig(fsdp=2, tensor=2, context=2).build()):
        out, grads = run(*args, 1.0, mesh=mesh)
    assert [g.dtype for g in grads] == [jnp.bfloat16, jnp.bfloat16]
    chex.assert_trees_all_close(out, want_out, atol=2e-5)  # accumulated in float32
    for got, want in zip(grads, want_grads, strict=True):
        got, want = np.asarray(got, np.float32), np.asarray(want, np.float32)
        # Each of up to 4 parts is rounded to bfloat16 (2^-9 of it) before the sum, and the sum once more.
        np.testing.assert_allclose(got, want, rtol=0, atol=5 * 2**-9 * np.abs(want).max())


def test_the_matrix_travels_once_a_pass_and_never_whole():
    # In a loop over chunks XLA would fetch the matrix for every chunk; and all devices along `tensor` would fetch all columns.
    batch, time, width, vocab = 8, 8, 16, 96
    mesh = MeshConfig(fsdp=2, tensor=4).build()
    with jax.set_mesh(mesh):
        args = place(mesh, *make((batch, time, width, vocab)))
        text = run.lower(*args, 0.6, chunk=8, mesh=mesh).compile().as_text()
    gathers = re.findall(r"= f32\[([\d,]+)\]\S* all-gather", text)
    assert gathers
    assert set(gathers) == {f"{width},{vocab // 4}"}
    assert len(gathers) <= 2  # the forward and the backward pass


@pytest.mark.parametrize(
    ("shape", "mesh", "message"),
    [
        (
            (8, 8, 16, 97),
            MeshConfig(tensor=2),
            r"output matrix \[D, V\] \[16, 97\]: dimension 1 \('vocab'\) has size 97.*Use mesh\.tensor=1, or a size.*98",
        ),
        (
            (8, 6, 16, 96),
            MeshConfig(context=4),
            r"dimension 1 \('length'\) has size 6.*mesh context=4.*mesh\.context=2",
        ),
        (
            (6, 8, 16, 96),
            MeshConfig(data=4, fsdp=2),
            r"dimension 0 \('batch'\) has size 6.*Use mesh\.data=2 and mesh\.fsdp=1",
        ),
        ((8, 8, 15, 96), MeshConfig(fsdp=2), r"dimension 0 \('embed'\) has size 15.*mesh\.fsdp=1"),
    ],
    ids=["vocabulary", "length", "batch", "width"],
)
def test_what_the_mesh_does_not_divide_is_named_with_the_fix(shape, mesh, message):
    hidden, unembed, targets, _ = make(shape)
    with jax.set_mesh(mesh.build()), pytest.raises(ValueError, match=message):
        token_logprobs(hidden, unembed, targets)
