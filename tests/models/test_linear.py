"""The linear layer's own gradient rule against automatic differentiation."""

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from models.linear import Linear, project


@pytest.mark.parametrize("shape", [(12, 6), (6, 12), (64, 32), (5, 5)], ids=str)
@pytest.mark.parametrize("rows", [(7,), (2, 9), (2, 3, 4)], ids=str)
def test_gradients_equal_those_of_a_plain_product(shape, rows):
    size_in, size_out = shape
    keys = jax.random.split(jax.random.key(0), 3)
    x, w = jax.random.normal(keys[0], (*rows, size_in)), jax.random.normal(keys[1], shape)
    g = jax.random.normal(keys[2], (*rows, size_out))
    got, want = (jax.jit(lambda x, w, f=f: jax.vjp(f, x, w)[1](g))(x, w) for f in (project, jnp.matmul))
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-5)  # other order of summation


@pytest.mark.parametrize("shape", [(12, 6), (6, 12), (64, 32), (256, 96), (64, 4), (4, 64)], ids=str)
@pytest.mark.parametrize("rows", [(8,), (1, 8), (2, 16)], ids=str)
def test_a_float32_matrix_used_in_bfloat16_gets_a_float32_gradient(shape, rows):
    size_in, size_out = shape
    x = jax.random.normal(jax.random.key(0), (*rows, size_in), jnp.bfloat16)
    w = jax.random.normal(jax.random.key(1), shape)
    g = jax.random.normal(jax.random.key(2), (*rows, size_out), jnp.bfloat16)
    dx, dw = jax.jit(lambda x, w: jax.vjp(project, x, w)[1](g))(x, w)
    assert (dx.dtype, dw.dtype) == (jnp.bfloat16, jnp.float32)
    exact = jnp.einsum("ni,no->io", *(y.reshape(-1, y.shape[-1]).astype(jnp.float32) for y in (x, g)))
    chex.assert_trees_all_close(dw, exact, rtol=1e-5, atol=1e-5)  # not rounded to the 8 bits of bfloat16 on the way


def test_a_layer_starts_with_unit_variance_and_names_its_axes():
    layer = Linear(nnx.Rngs(params=jax.random.key(0)), 512, 256, logical=("embed", "mlp"), bias=True)
    y = layer(jax.random.normal(jax.random.key(1), (64, 512)))
    assert 0.9 < float(y.std()) < 1.1
    assert layer.bias is not None
    assert (layer.kernel.get_metadata()["logical"], layer.bias.get_metadata()["logical"]) == (
        ("embed", "mlp"),
        ("mlp",),
    )
