"""The supervised step: packed rows equal separate ones, micro-batches one batch, meshes one device; frozen parts stay."""

import dataclasses
import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from data.packing import packed_stream
from framework import state as state_lib
from framework.batch import TokenBatch, TokenExample
from framework.mesh import MeshConfig, jit_on, put_batch
from models.decoder import DecoderConfig
from models.lora import LoRA
from models.trainable import Freeze, TrainOnly
from rl.model_setup import ModelSetup
from rl.supervised import token_loss, token_step

MODEL = DecoderConfig(vocab_size=48, dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=48)
TX = optax.sgd(0.1)  # no normalisation: a wrong gradient scale shows in the parameters


def examples(count: int = 20, seed: int = 0) -> list[TokenExample]:
    """Ragged, with prompts that are not learnt."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        size = int(rng.integers(3, 17))
        prompt = int(rng.integers(0, size - 1))
        made.append(TokenExample(rng.integers(1, 48, size).astype(np.int32), np.arange(size) >= prompt))
    return made


def batches(packing: bool) -> list[TokenBatch]:
    stream = packed_stream(examples(), rows=8, length=24, seed=0, packing=packing)
    return list(stream.one_pass())


def setup_on(mesh=None, model=MODEL, **options) -> ModelSetup:
    return ModelSetup((mesh or MeshConfig()).build(), model, jax.random.key(0), **options)


def run(setup: ModelSetup, batch: TokenBatch, steps: int = 1, **options):
    trained, frozen = setup.init()
    state = setup.new_state(trained, TX)
    update = jit_on(setup.mesh, functools.partial(token_step, setup.graphdef, tx=TX, **options))
    metrics = {}
    for _ in range(steps):
        state, metrics = update(state, frozen, put_batch(setup.mesh, batch))
    return state, frozen, metrics


@functools.cache
def plain():
    """(state, metrics) of one step on one device, in one part: what every other way must give."""
    state, _, metrics = run(setup_on(), batches(packing=True)[0])
    return jax.device_get((state, metrics))


def test_packed_loss_and_gradient_equal_those_of_one_example_a_row():
    setup = setup_on()
    trained, frozen = setup.init()

    @jax.jit
    def loss_and_grad(params, batch):
        return jax.value_and_grad(lambda p: token_loss(nnx.merge(setup.graphdef, p, frozen), batch, batch.mask))(params)

    def total(packing):
        parts = [loss_and_grad(trained, batch) for batch in batches(packing)]
        return functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), parts)

    packed, separate = total(packing=True), total(packing=False)
    assert len(batches(packing=True)) < len(batches(packing=False))
    chex.assert_trees_all_close(packed, separate, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("microbatches", [2, 4, 8])
def test_micro_batches_weigh_every_token_the_same(microbatches):
    batch = batches(packing=True)[0]
    counts = batch.mask.reshape(-1, microbatches, batch.mask.shape[1]).sum(axis=(0, 2))
    assert microbatches == 2 or len(set(counts.tolist())) > 1  # else a mean of means would pass
    state, _, metrics = run(setup_on(), batch, microbatches=microbatches)
    want_state, want = plain()
    chex.assert_trees_all_close(state.params, want_state.params, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["loss/total"], want["loss/total"], rtol=1e-6)
    assert metrics["batch/tokens"] == batch.mask.sum()


@pytest.mark.parametrize("mesh", [{"data": 8}, {"fsdp": 4, "tensor": 2}, {"data": 2, "context": 4}], ids=str)
def test_a_mesh_gives_the_update_of_one_device(mesh):
    state, _, metrics = run(setup_on(MeshConfig(**mesh)), batches(packing=True)[0])
    want_state, want = plain()
    # A learning rate of 0.1 times gradients that agree to 1e-5 of their size.
    chex.assert_trees_all_close(jax.device_get(state.params), want_state.params, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(metrics["loss/total"], want["loss/total"], rtol=1e-5)


@pytest.mark.slow
def test_scan_and_remat_and_an_untied_head_take_the_same_loss_down():
    for change in ({"scan": True, "remat": "full"}, {"remat": "dots"}, {"tied": False, "qkv_bias": True}):
        setup = setup_on(model=dataclasses.replace(MODEL, **change))
        batch = batches(packing=True)[0]
        _, _, first = run(setup, batch)
        _, _, later = run(setup, batch, steps=5)
        assert later["loss/total"] < first["loss/total"] - 0.05


@pytest.mark.parametrize(
    ("trainable", "trained_names"),
    [
        (LoRA(rank=2, alpha=4.0), "lora_[ab]$"),
        (TrainOnly(paths=("blocks/1/mlp/*",)), "^blocks/1/mlp/"),
        (Freeze(paths=("embedding", "*/attention/*")), "mlp|norm"),
    ],
    ids=["lora", "train only", "freeze"],
)
def test_only_what_is_trained_moves_and_has_optimizer_state(trainable, trained_names):
    setup = setup_on(trainable=trainable)
    trained, frozen = setup.init()
    before = jax.device_get((trained, frozen))
    state, after, metrics = run(setup, batches(packing=True)[0], steps=2)
    chex.assert_trees_all_equal(jax.device_get(after), before[1])
    names = [leaf.name for leaf in state_lib.leaves(state.params)]
    assert names
    assert all(re.search(trained_names, name) for name in names)
    moved = [
        not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(before[0]), strict=True)
    ]
    assert all(moved)
    moments = jax.tree.leaves(jax.eval_shape(optax.adam(1e-3).init, trained))
    assert len(moments) == 2 * len(names) + 1  # two a trained parameter and the count
    assert metrics["grad/norm"] > 0


def test_a_batch_without_a_learnt_token_changes_nothing():
    batch = batches(packing=True)[0]
    empty = TokenBatch(batch.tokens, batch.positions, batch.segment_ids, np.zeros_like(batch.mask))
    setup = setup_on()
    trained, _ = setup.init()
    state, _, metrics = run(setup, empty)
    chex.assert_trees_all_equal(jax.device_get(state.params), jax.device_get(trained))
    assert metrics["loss/total"] == 0


def test_micro_batches_of_bfloat16_parameters_are_summed_in_float32():
    batch = batches(packing=True)[0]
    setup = setup_on(model=dataclasses.replace(MODEL, layers=1, param_dtype="bfloat16"))
    trained, frozen = setup.init()
    sums: list[str] = []

    def step(state, frozen, batch):
        return token_step(setup.graphdef, state, frozen, batch, tx=TX, microbatches=8)

    with jax.set_mesh(setup.mesh):
        traced = jax.make_jaxpr(step)(setup.new_state(trained, TX), frozen, put_batch(setup.mesh, batch))
    for equation in traced.jaxpr.eqns:
        if equation.primitive.name == "scan":
            sums += [str(v.aval.dtype) for v in equation.outvars[: equation.params["num_carry"]]]
    assert len(sums) == 1 + len(jax.tree.leaves(trained))  # the loss and every gradient
    assert set(sums) == {"float32"}
