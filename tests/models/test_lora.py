"""Adapters start as nothing, train alone, merge into what they computed, on one device or eight."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from framework.checkpoint import Checkpoints
from framework.errors import UserError
from framework.mesh import MeshConfig, abstract_tree, put_batch, shard_tree
from framework.optimizer import AdamW
from framework.state import EMA, TrainState, leaves
from models.decoder import DecoderConfig
from models.lora import LoRA, add_lora, merge_lora
from models.trainable import parameter_names, split_params

TINY = DecoderConfig(
    vocab_size=48, dim=32, layers=2, heads=4, kv_heads=4, head_dim=8, mlp_dim=64, qkv_bias=True, qk_norm=False
)
LORA = LoRA(rank=4, alpha=8.0)
TX = AdamW(lr=1e-2).build()
TOKENS = np.random.default_rng(0).integers(0, 48, (4, 16)).astype(np.int32)
LAYOUTS = pytest.mark.parametrize("config", [TINY, dataclasses.replace(TINY, scan=True)], ids=["unrolled", "scanned"])


def build(config):
    return LORA.prepare(config.build(jax.random.key(0)), jax.random.key(1))


@functools.cache
def parts(config):
    """Structure, adapters and frozen base of a LoRA model."""
    graphdef = split_params(nnx.eval_shape(lambda: build(config)), LORA)[0]
    return graphdef, *jax.jit(lambda: split_params(build(config), LORA)[1:])()


def forward(model, tokens):
    hidden, _ = model(tokens, jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape))
    return hidden @ model.unembed.astype(hidden.dtype)


def loss_of(model, tokens):
    logp = jax.nn.log_softmax(forward(model, tokens)[:, :-1].astype(jnp.float32))
    return -jnp.mean(jnp.take_along_axis(logp, tokens[:, 1:, None], -1))


@functools.partial(jax.jit, static_argnums=0)
def loss_at(graphdef, tokens, *states):
    return loss_of(nnx.merge(graphdef, *states), tokens)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_step(graphdef, state, frozen, tokens):
    loss, grads = jax.value_and_grad(lambda params: loss_of(nnx.merge(graphdef, params, frozen), tokens))(state.params)
    state, metrics = state.apply(grads, TX)
    return state, metrics | {"loss/total": loss}


def trained(config, steps=5, ema=None):
    graphdef, adapters, frozen = parts(config)
    state = TrainState.create(jax.tree.map(jnp.copy, adapters), TX, ema=ema)
    losses = []
    for _ in range(steps):
        state, metrics = train_step(graphdef, state, frozen, TOKENS)
        losses.append(float(metrics["loss/total"]))
    return state, losses


def bits(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


@LAYOUTS
def test_new_adapters_change_nothing_and_are_drawn_as_peft_draws_them(config):
    graphdef, adapters, frozen = parts(config)
    plain = jax.jit(lambda: nnx.state(config.build(jax.random.key(0))))()
    plain_graphdef = nnx.graphdef(nnx.eval_shape(lambda: config.build(jax.random.key(0))))
    assert loss_at(graphdef, TOKENS, adapters, frozen) == loss_at(plain_graphdef, TOKENS, plain)
    for leaf in leaves(adapters):
        if leaf.name.endswith("lora_b"):
            assert not np.any(leaf.value)
            continue
        bound = leaf.value.shape[-2] ** -0.5  # kaiming_uniform_(a=sqrt(5)) of a [rank, in] matrix
        assert 0.8 * bound < np.max(np.abs(leaf.value)) <= bound
        assert abs(float(np.mean(leaf.value))) < 0.2 * bound


@LAYOUTS
def test_training_moves_all_adapters_lowers_the_loss_and_leaves_the_bits_of_the_base(config):
    _, adapters, frozen = parts(config)
    before = bits(frozen)
    state, losses = trained(config)
    assert losses[-1] < losses[0] - 0.05
    assert bits(frozen) == before
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.params, adapters)))
    names = [leaf.name for leaf in leaves(state) if not leaf.name.endswith(("count", "step"))]
    assert all(name.endswith(("lora_a", "lora_b")) for name in names), "something frozen is in the state"


@LAYOUTS
def test_the_loss_after_the_merge_equals_the_loss_before(config):
    graphdef, _, frozen = parts(config)
    state, _ = trained(config)
    model = nnx.merge(graphdef, state.params, frozen)
    original = bits(nnx.state(model))
    merged = merge_lora(model)
    assert parameter_names(merged) == parameter_names(nnx.eval_shape(lambda: config.build(jax.random.key(0))))
    merged_graphdef, merged_state = nnx.split(merged)
    before = loss_at(graphdef, TOKENS, state.params, frozen)
    np.testing.assert_allclose(loss_at(merged_graphdef, TOKENS, merged_state), before, atol=1e-5)  # float32 rounding
    assert bits(nnx.state(model)) == original, "merging changed the model itself"


def test_scanned_and_unrolled_models_with_the_same_adapters_compute_the_same():
    graphdef, _, frozen = parts(dataclasses.replace(TINY, scan=True))
    state, _ = trained(dataclasses.replace(TINY, scan=True))
    stacked = nnx.to_pure_dict(nnx.merge_state(state.params, frozen))
    layer = lambda i: jax.tree.map(lambda x: x[i], stacked["blocks"])  # noqa: E731 - a name for an index
    unrolled_graphdef, adapters, base = parts(TINY)
    unrolled = nnx.merge_state(adapters, base)
    nnx.replace_by_pure_dict(unrolled, stacked | {"blocks": {i: layer(i) for i in range(TINY.layers)}})
    np.testing.assert_allclose(
        loss_at(unrolled_graphdef, TOKENS, unrolled), loss_at(graphdef, TOKENS, state.params, frozen), atol=1e-5
    )


@LAYOUTS
def test_a_sharded_step_equals_the_step_on_one_device(config):
    graphdef, adapters, _ = parts(config)
    want, losses = trained(config, steps=2)
    mesh = MeshConfig(fsdp=2, tensor=4).build()
    abstract = nnx.eval_shape(lambda: split_params(build(config), LORA)[1:])
    with jax.set_mesh(mesh):
        make = jax.jit(lambda: split_params(build(config), LORA)[1:], out_shardings=shard_tree(mesh, abstract))
        sharded, base = make()
        chex.assert_trees_all_close(sharded, adapters, atol=1e-7)  # the same random numbers on any mesh
        path = ["blocks", "mlp", "down_proj"] if config.scan else ["blocks", 0, "mlp", "down_proj"]
        layer = functools.reduce(lambda tree, key: tree[key], path, sharded)
        a, b = (layer[name].get_value() for name in ("lora_a", "lora_b"))
        assert a.addressable_shards[0].data.shape[-2:] == (64 // 4, 4)  # [mlp over tensor, rank]
        assert b.addressable_shards[0].data.shape[-2:] == (4, 32 // 2)  # [rank, embed over fsdp]
        create = functools.partial(TrainState.create, tx=TX)
        state = jax.jit(create, out_shardings=shard_tree(mesh, jax.eval_shape(create, sharded)))(sharded)
        for loss in losses:
            state, metrics = train_step(graphdef, state, base, put_batch(mesh, TOKENS))
            np.testing.assert_allclose(metrics["loss/total"], loss, atol=1e-5)
    # Sums over devices are taken in another order; Adam divides by the root of small numbers, 1e-2 a step.
    chex.assert_trees_all_close(jax.device_get(state.params), jax.device_get(want.params), atol=2e-4)


def test_adapters_beside_matrices_on_a_mesh_are_placed_on_it():
    mesh = MeshConfig(fsdp=2, tensor=4).build()
    graphdef, state = nnx.split(nnx.jit(lambda: TINY.build(jax.random.key(0)))())
    model = add_lora(nnx.merge(graphdef, jax.device_put(state, shard_tree(mesh, state))), LORA, jax.random.key(1))
    adapter = model.blocks[0].attention.q_proj
    assert adapter.lora_a.get_value().sharding.spec == jax.P("fsdp", None)
    assert adapter.lora_b.get_value().sharding.spec == jax.P(None, "tensor")


def test_a_resumed_lora_run_ends_with_the_bits_of_one_that_was_not_stopped(tmp_path):
    graphdef, adapters, frozen = parts(TINY)
    ema = EMA(decay=0.9)
    whole, _ = trained(TINY, steps=4, ema=ema)
    half, _ = trained(TINY, steps=2, ema=ema)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, half)
    abstract = jax.eval_shape(functools.partial(TrainState.create, tx=TX, ema=ema), adapters)
    found = Checkpoints(tmp_path).restore_latest(abstract_tree(MeshConfig().build(jax.devices()[:1]), abstract))
    assert found is not None
    state = found[1]
    for _ in range(2):
        state, _ = train_step(graphdef, state, frozen, TOKENS)
    assert bits(state) == bits(whole)
    assert jax.tree.structure(state) == jax.tree.structure(whole)
    assert not [leaf.name for leaf in leaves(half) if "base" in leaf.name]


@LAYOUTS
def test_cached_generation_uses_the_adapters(config):
    graphdef, _, frozen = parts(config)
    model = nnx.merge(graphdef, trained(config)[0].params, frozen)

    @jax.jit
    def both(state):
        model = nnx.merge(graphdef, state)
        positions = jnp.broadcast_to(jnp.arange(16), TOKENS.shape)
        full, _ = model(TOKENS, positions)
        cache, pieces = model.init_cache(4, 16), []
        for start, stop in ((0, 15), (15, 16)):
            part, cache = model(TOKENS[:, start:stop], positions[:, start:stop], None, cache)
            pieces.append(part)
        return full, jnp.concatenate(pieces, 1)

    full, pieces = both(nnx.state(model))
    chex.assert_trees_all_close(full, pieces, atol=1e-5)  # other summation order


def test_adapters_of_a_bfloat16_model_are_float32_and_get_float32_gradients():
    config = dataclasses.replace(TINY, dtype="bfloat16", param_dtype="bfloat16")
    graphdef, adapters, frozen = parts(config)
    assert {leaf.value.dtype for leaf in leaves(adapters)} == {jnp.dtype(jnp.float32)}
    assert {leaf.value.dtype for leaf in leaves(frozen)} == {jnp.dtype(jnp.bfloat16)}
    grads = jax.jit(jax.grad(lambda p: loss_of(nnx.merge(graphdef, p, frozen), jnp.asarray(TOKENS))))(adapters)
    grad = grads["blocks"][0]["mlp"]["up_proj"]["lora_b"].get_value()
    assert grad.dtype == jnp.float32
    assert bool(jnp.any(grad != grad.astype(jnp.bfloat16).astype(jnp.float32))), "rounded to bfloat16 on the way"
    state, losses = trained(config, steps=4)
    assert losses[-1] < losses[0]
    merged = merge_lora(nnx.merge(graphdef, state.params, frozen))
    assert {leaf.value.dtype for leaf in leaves(nnx.state(merged))} == {jnp.dtype(jnp.bfloat16)}
    merged_graphdef, merged_state = nnx.split(merged)
    # One rounding of every matrix to 8 bits.
    np.testing.assert_allclose(loss_at(merged_graphdef, TOKENS, merged_state), losses[-1], atol=0.1)


def test_an_adapter_depends_on_the_key_and_its_path_and_not_on_the_other_targets():
    base = nnx.jit(lambda: TINY.build(jax.random.key(0)))()
    one, all_seven = (add_lora(base, LoRA(rank=4, targets=t), jax.random.key(1)) for t in (("q_proj",), LORA.targets))
    pick = lambda model: np.asarray(model.blocks[1].attention.q_proj.lora_a[...])  # noqa: E731
    np.testing.assert_array_equal(pick(one), pick(all_seven))
    other = add_lora(base, LoRA(rank=4, targets=("q_proj",)), jax.random.key(2))
    assert np.any(pick(one) != pick(other))
    assert np.any(pick(one) != np.asarray(one.blocks[0].attention.q_proj.lora_a[...]))
    assert parameter_names(base) == parameter_names(nnx.eval_shape(lambda: TINY.build(jax.random.key(0))))


def test_the_scale_is_alpha_over_the_rank_or_its_root():
    assert LoRA(rank=16, alpha=32.0).scale == 2.0
    assert LoRA(rank=16, alpha=32.0, rslora=True).scale == 8.0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LoRA(rank=0), "lora.rank=0 leaves nothing"),
        (LoRA(alpha=0.0), "Use 32"),
        (LoRA(targets=()), "lora.targets is empty"),
        (LoRA(rank=2, targets=("q_proj", "c_attn")), "'c_attn', but .*: down_proj, gate_proj, k_proj, o_proj"),
        (LoRA(rank=33), "lora.rank=33 is larger than blocks/0/attention/.*32 x 32.*Use a rank of 32"),
    ],
    ids=["no rank", "no alpha", "no targets", "unknown target", "high rank"],
)
def test_an_adapter_that_cannot_work_says_what_to_type(config, message):
    with pytest.raises(UserError, match=message):
        add_lora(nnx.eval_shape(lambda: TINY.build(jax.random.key(0))), config, jax.random.key(0))


def test_a_second_adapter_and_a_merge_of_none_are_refused():
    plain = nnx.eval_shape(lambda: TINY.build(jax.random.key(0)))
    with pytest.raises(UserError, match="no adapters to merge"):
        merge_lora(plain)
    with pytest.raises(UserError, match="Use merge_lora"):
        add_lora(nnx.eval_shape(lambda: build(TINY)), LORA, jax.random.key(0))
