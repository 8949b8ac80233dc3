"""Meshes and the sharding table, on eight fake CPU devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from framework.mesh import AXES, RULES, MeshConfig, abstract_tree, check_batch, put_batch, shard_tree, sharding, spec
from framework.optimizer import AdamW
from framework.state import TrainState


class Block(nnx.Module):
    def __init__(self, rngs, hidden=8):
        self.up = nnx.Linear(4, hidden, rngs=rngs, kernel_metadata={"logical": ("embed", "mlp")})
        self.scale = nnx.Param(jnp.ones(4))


def params(hidden=8):
    return nnx.split(Block(nnx.Rngs(0), hidden))[1]


def test_a_mesh_always_has_all_five_axes_and_they_are_auto():
    mesh = MeshConfig(data=2, fsdp=2, tensor=2).build()
    assert mesh.axis_names == AXES
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2, "context": 1, "expert": 1}
    assert all("Auto" in str(kind) for kind in mesh.axis_types)


def test_minus_one_takes_the_devices_that_are_left():
    assert MeshConfig(data=-1, tensor=2).build().shape["data"] == 4
    assert MeshConfig(data=-1).build(jax.devices()[:3]).shape["data"] == 3
    assert MeshConfig().build().size == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(data=16), r"needs 16 devices, but there are 8.*mesh\.data=-1.*device_count=16"),
        (MeshConfig(data=-1, tensor=3), r"other axes take 3, which does not divide 8"),
        (MeshConfig(data=-1, fsdp=-1), r"at most one axis"),
        (MeshConfig(tensor=0), r"sizes of 1 or more"),
    ],
    ids=["too many", "does not divide", "two wildcards", "zero"],
)
def test_a_mesh_that_does_not_fit_says_what_to_type(config, message):
    with pytest.raises(ValueError, match=message):
        config.build()


def test_specs_come_from_the_table():
    assert spec("batch", "length", None) == P(("data", "fsdp"), "context", None)
    assert spec("layers", "embed", "mlp") == P(None, "fsdp", "tensor")
    with pytest.raises(KeyError, match=r"'embedd' is not in framework\.mesh\.RULES"):
        spec("embedd")
    for rule in RULES.values():
        assert set(rule if isinstance(rule, tuple) else [rule] if rule else []) <= set(AXES)


def test_parameters_are_sharded_by_their_own_metadata_and_optimizer_moments_follow():
    mesh = MeshConfig(fsdp=2, tensor=4).build()
    tx = AdamW(weight_decay=0.1).build()

    def create():
        return TrainState.create(params(), tx)

    shardings = shard_tree(mesh, jax.eval_shape(create))
    state = jax.jit(create, out_shardings=shardings)()
    assert state.params["up"]["kernel"].get_value().sharding.spec == P("fsdp", "tensor")
    assert state.params["scale"].get_value().sharding.is_fully_replicated
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.shape == (4, 8)]
    assert len(moments) == 2
    assert all(moment.sharding.spec == P("fsdp", "tensor") for moment in moments)
    assert state.step.sharding.is_fully_replicated


def test_the_abstract_tree_carries_shapes_and_shardings():
    mesh = MeshConfig(tensor=2).build()
    leaf = abstract_tree(mesh, params())["up"]["kernel"].get_value()
    assert (leaf.shape, leaf.dtype, leaf.sharding.spec) == ((4, 8), jnp.float32, P("fsdp", "tensor"))


def test_a_dimension_that_does_not_divide_names_parameter_dimension_sizes_and_fix():
    mesh = MeshConfig(tensor=4).build()
    message = r"up/kernel.*dimension 1 \('mlp'\) has size 6.*4 devices \(mesh tensor=4\).*mesh\.tensor=2.*such as 8"
    with pytest.raises(ValueError, match=message):
        shard_tree(mesh, params(hidden=6))


def test_metadata_with_the_wrong_number_of_axes_is_refused():
    tree = {"w": nnx.Param(jnp.ones((2, 2)), logical=("embed",))}
    with pytest.raises(ValueError, match=r"w has 2 dimensions, \[2, 2\], but logical=\('embed',\) names 1"):
        shard_tree(MeshConfig().build(), tree)


def test_an_uneven_batch_says_which_batch_size_would_do():
    mesh = MeshConfig(data=4, fsdp=2).build()
    check_batch(16, mesh)
    message = r"rl.batch_size=12 cannot be split over 8 devices \(mesh data=4, fsdp=2\). Use rl.batch_size=16, or set"
    with pytest.raises(ValueError, match=message):
        check_batch(12, mesh, "rl.batch_size")


def test_put_batch_splits_rows_and_keeps_the_values():
    mesh = MeshConfig(data=4, fsdp=2).build()
    tokens = np.arange(48, dtype=np.int32).reshape(16, 3)
    placed = put_batch(mesh, {"tokens": tokens, "temperature": np.float32(0.5)})
    assert placed["tokens"].sharding == sharding(mesh, "batch")
    assert placed["tokens"].addressable_shards[0].data.shape == (2, 3)
    np.testing.assert_array_equal(placed["tokens"], tokens)
    assert placed["temperature"].sharding.is_fully_replicated
