"""Quantised layers in whole decoders: put in from outside, over meshes, layers stacked or not, and through training steps."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.sft import smoke
from framework.batch import TokenBatch
from framework.errors import UserError
from framework.inference import Engine, EngineConfig, Request
from framework.mesh import MeshConfig, jit_on, put_batch
from framework.optimizer import SGD
from models.decoder import DecoderConfig
from models.linear import Linear
from models.lora import LoRA, add_lora
from models.quant import (
    FORWARD_ONLY,
    NAIVE,
    QUARTET,
    QUARTET_SR,
    QuantKey,
    QuartetLinear,
    at_step,
    quantise,
    unquantise,
)
from models.trainable import parameter_names
from rl.model_setup import ModelSetup
from rl.supervised import token_step

TINY = DecoderConfig(vocab_size=64, dim=64, layers=1, heads=4, kv_heads=2, head_dim=32, mlp_dim=128)
ONE = MeshConfig()
TX = SGD(lr=1.0).build()  # a step is the gradient


def batch_of(rows=8, length=32, seed=0):
    tokens = np.random.default_rng(seed).integers(0, 64, (rows, length)).astype(np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
    return TokenBatch(tokens, positions, np.ones_like(tokens), np.ones(tokens.shape, np.float32))


@functools.cache
def stepped(config=TINY, rule=QUARTET, mesh=ONE, microbatches=1, steps=1, length=32):
    """Parameters after some steps, by name, and the losses."""
    setup = ModelSetup(mesh.build(), config, jax.random.key(0), quant=rule)
    trained, frozen = setup.init()
    state = setup.new_state(trained, TX)
    update = jit_on(setup.mesh, functools.partial(token_step, setup.graphdef, tx=TX, microbatches=microbatches))
    losses = []
    for step in range(steps):
        state, metrics = update(state, frozen, put_batch(setup.mesh, batch_of(length=length, seed=step)))
        losses.append(float(metrics["loss/total"]))
    names = parameter_names(nnx.merge(setup.graphdef, state.params, frozen))
    return dict(zip(names, map(np.asarray, jax.tree.leaves(state.params)), strict=True)), losses


def test_every_projection_of_every_block_is_replaced_and_names_stay():
    model = TINY.build(jax.random.key(0))
    quantised = quantise(model, QUARTET, jax.random.key(1))
    replaced = [
        "/".join(map(str, path)) for path, part in nnx.iter_modules(quantised) if isinstance(part, QuartetLinear)
    ]
    assert len(replaced) == 7 * TINY.layers
    assert not any(isinstance(part, Linear) for _, part in nnx.iter_modules(quantised))
    assert parameter_names(quantised) == parameter_names(model)
    assert not any(isinstance(part, QuartetLinear) for _, part in nnx.iter_modules(model))  # the given one is as it was
    plain = unquantise(quantised)
    tokens = jnp.asarray(batch_of(1).tokens)
    hidden = [jax.jit(lambda m, t: m(t, jnp.arange(32)[None])[0])(m, tokens) for m in (model, plain, quantised)]
    np.testing.assert_array_equal(hidden[0], hidden[1])
    assert 0.05 < np.abs(hidden[2] - hidden[0]).mean() < 1.0


@pytest.mark.parametrize("scan", [False, True])
def test_a_model_with_biases_becomes_plain_again(scan):
    """Qwen2 has them: what is exported of a run is the plain model."""
    model = dataclasses.replace(TINY, qkv_bias=True, scan=scan).build(jax.random.key(0))
    plain = unquantise(quantise(model, QUARTET, jax.random.key(1)))
    assert jax.tree.structure(nnx.state(plain)) == jax.tree.structure(nnx.state(model))
    for got, want in zip(jax.tree.leaves(nnx.state(plain)), jax.tree.leaves(nnx.state(model)), strict=True):
        assert got is want


def test_only_the_targets_are_replaced():
    rule = dataclasses.replace(QUARTET, targets=("down_proj",))
    model = quantise(TINY.build(jax.random.key(0)), rule, jax.random.key(1))
    replaced = {path[-1] for path, part in nnx.iter_modules(model) if isinstance(part, QuartetLinear)}
    assert replaced == {"down_proj"}


def test_layers_that_read_the_same_input_share_its_signs_and_others_do_not():
    model = quantise(dataclasses.replace(TINY, layers=2).build(jax.random.key(0)), QUARTET, jax.random.key(1))
    key = lambda layer: tuple(np.asarray(layer.key[...]).tolist())  # noqa: E731
    first, second = model.blocks
    assert key(first.attention.q_proj) == key(first.attention.k_proj) == key(first.attention.v_proj)
    assert key(first.mlp.gate_proj) == key(first.mlp.up_proj)
    layers = (first.attention.q_proj, first.attention.o_proj, first.mlp.gate_proj, first.mlp.down_proj)
    assert len({key(layer) for layer in (*layers, second.attention.q_proj)}) == 5


def test_keys_follow_the_step_and_the_part_of_the_batch():
    for config in (TINY, dataclasses.replace(TINY, scan=True)):
        frozen = nnx.state(quantise(config.build(jax.random.key(0)), QUARTET, jax.random.key(1)), QuantKey)
        trees = [jax.tree.leaves(at_step(frozen, *where)) for where in ((0, 0), (0, 0), (1, 0), (0, 1))]
        chex.assert_trees_all_equal(trees[0], trees[1])
        for other in trees[2:]:
            assert not any(np.array_equal(a, b) for a, b in zip(trees[0], other, strict=True))
        assert [a.shape for a in trees[0]] == [a.shape for a in jax.tree.leaves(frozen)]


@pytest.mark.parametrize("rule", [QUARTET, QUARTET_SR], ids=["rtn", "sr"])
@pytest.mark.parametrize(
    "mesh", [MeshConfig(data=8), MeshConfig(fsdp=2, tensor=2), MeshConfig(data=2, fsdp=2, tensor=2)], ids=str
)
@pytest.mark.slow
def test_a_step_over_a_mesh_is_that_of_one_device(rule, mesh):
    want, (loss,) = stepped(rule=rule)
    got, (sharded,) = stepped(rule=rule, mesh=mesh)
    assert abs(loss - sharded) < 1e-5
    for name, value in got.items():
        # Sums in another order move numbers by 1e-7; one that lies at the boundary of two codes takes the other then.
        far = np.abs(value - want[name]) > 1e-5
        assert far.mean() < 0.02, name
        np.testing.assert_allclose(value, want[name], atol=5e-3, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"remat": "full"}, {"remat": "dots"}], ids=str)
def test_rematerialisation_changes_no_bit_of_the_codes(change):
    want, losses = stepped()
    got, again = stepped(config=dataclasses.replace(TINY, **change))
    assert losses == again
    for name, value in got.items():
        np.testing.assert_allclose(value, want[name], atol=2e-6, err_msg=name)


@pytest.mark.slow
def test_stacked_layers_train():
    _, losses = stepped(config=dataclasses.replace(TINY, layers=2, scan=True), steps=3)
    _, unrolled = stepped(config=dataclasses.replace(TINY, layers=2), steps=3)
    assert np.isfinite(losses).all()
    assert max(np.abs(np.subtract(losses, unrolled))) < 0.5


@pytest.mark.slow
def test_micro_batches_are_the_mean_of_their_parts():
    """Signs differ from part to part, as from batch to batch; each part's gradient is that of the part alone."""
    got, _ = stepped(microbatches=2)
    setup = ModelSetup(MeshConfig().build(), TINY, jax.random.key(0), quant=QUARTET)
    trained, frozen = setup.init()
    whole = batch_of()
    start = dict(zip(got, map(np.asarray, jax.tree.leaves(trained)), strict=True))

    def gradient(part):
        rows = jax.tree.map(lambda x: x[part::2], dataclasses.asdict(whole))
        state = setup.new_state(trained, TX)
        keyed = at_step(frozen, 0, part)
        unkeyed = lambda tree, step, number=0: tree  # noqa: E731 - the keys are those of the part already
        from rl import supervised

        original, supervised.at_step = supervised.at_step, unkeyed
        try:
            state, _ = jax.jit(functools.partial(token_step, setup.graphdef, tx=TX))(state, keyed, TokenBatch(**rows))
        finally:
            supervised.at_step = original
        return jax.tree.leaves(state.params)

    for (name, first), a, b in zip(start.items(), gradient(0), gradient(1), strict=True):
        np.testing.assert_allclose(got[name] - first, (a - first + b - first) / 2, atol=2e-5, err_msg=name)


def test_the_engine_generates_from_a_quantised_model():
    model = quantise(TINY.build(jax.random.key(0)), QUARTET, jax.random.key(1))
    engine = Engine(model, EngineConfig(slots=2, max_length=24, max_new_tokens=8, stop_tokens=(), pad_token=0))
    prompt = [5, 9, 3]
    (done,) = engine.generate([Request(id=0, prompt=prompt, temperature=0.0)], jax.random.key(0))
    tokens = list(prompt)
    run = jax.jit(lambda t: model(t, jnp.arange(t.shape[1])[None])[0] @ model.unembed)
    for _ in range(3):
        tokens.append(int(jnp.argmax(run(jnp.asarray([tokens]))[0, -1])))
    assert done.tokens.tolist()[:3] == tokens[3:]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            dataclasses.replace(QUARTET, targets=("embedding",)),
            "quant.targets names 'embedding', but the linear layers",
        ),
        (dataclasses.replace(QUARTET, targets=()), "quant.targets is empty"),
        (dataclasses.replace(QUARTET, forward=None, backward=None), "quantises neither pass"),
        (dataclasses.replace(QUARTET, forward=QUARTET_SR.backward), "quant.forward rounds stochastically"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(rule, message):
    with pytest.raises(UserError, match=message):
        quantise(TINY.build(jax.random.key(0)), rule, jax.random.key(1))


def test_sizes_that_cut_groups_are_refused_with_the_fix():
    with pytest.raises(UserError, match=r"down_proj has in=80, which is no multiple of 32.*Use 96"):
        quantise(dataclasses.replace(TINY, mlp_dim=80).build(jax.random.key(0)), QUARTET, jax.random.key(1))
    with pytest.raises(
        UserError, match=r"split over mesh.tensor=8 devices into 16 each.*256 divides.*or mesh.tensor=4"
    ):
        stepped(mesh=MeshConfig(tensor=8), config=dataclasses.replace(TINY, heads=8, kv_heads=8))
    with pytest.raises(UserError, match=r"cuts groups of 32"):
        stepped(mesh=MeshConfig(data=8), rule=NAIVE, length=16)


def test_adapters_and_quantised_layers_are_not_mixed():
    model = TINY.build(jax.random.key(0))
    adapted = add_lora(model, LoRA(rank=2, alpha=4.0), jax.random.key(1))
    with pytest.raises(UserError, match="adapters or quantised layers already"):
        quantise(adapted, QUARTET, jax.random.key(1))
    with pytest.raises(UserError, match="adapters or quantised layers already"):
        quantise(quantise(model, QUARTET, jax.random.key(1)), QUARTET, jax.random.key(1))


def test_a_run_says_before_it_starts_which_batches_cut_groups_of_tokens():
    run = dataclasses.replace(smoke, quant=QUARTET, rows=8, length=48, model=TINY)
    run.build()  # 384 tokens on one device
    over = dataclasses.replace(run, mesh=MeshConfig(data=8))
    with pytest.raises(UserError, match=r"8 x 48 tokens over 8 x 1 devices leaves 48 tokens.*Use a length that 32"):
        over.build()
    dataclasses.replace(over, quant=FORWARD_ONLY).build()  # groups along tokens are those of the backward pass
    cut = dataclasses.replace(run, rows=2, length=20)
    with pytest.raises(UserError, match=r"length=20 tokens cannot be cut into groups of 32.*Use length=32"):
        cut.validate()
    dataclasses.replace(cut, quant=FORWARD_ONLY).validate()
    with pytest.raises(UserError, match="quant and trainable=LoRA are set"):
        dataclasses.replace(run, trainable=LoRA(rank=2)).validate()
