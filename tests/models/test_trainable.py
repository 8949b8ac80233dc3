"""What is frozen keeps its bits and costs nothing: no gradient, no optimizer state."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from framework.errors import UserError
from framework.optimizer import AdamW
from framework.state import TrainState, leaves
from models.decoder import DecoderConfig
from models.lora import LoRA
from models.trainable import Freeze, TrainOnly, parameter_names, split_params

TINY = DecoderConfig(vocab_size=48, dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=48)
SCANNED = dataclasses.replace(TINY, scan=True)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 48, (4, 12)))


def objective(graphdef, frozen, trained):
    model = nnx.merge(graphdef, trained, frozen)
    hidden, _ = model(TOKENS, jnp.broadcast_to(jnp.arange(12), (4, 12)))
    logits = hidden @ model.unembed
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), TOKENS[:, 1:, None], -1))


@functools.cache
def model_of(config):
    return nnx.jit(lambda: config.build(jax.random.key(0)))()


def test_a_split_model_is_whole_again_after_the_merge():
    model = model_of(TINY)
    graphdef, trained, frozen = split_params(model, Freeze(paths=("embedding", "blocks/0/*")))
    assert graphdef == nnx.graphdef(model), "a structure of its own would be compiled again"
    names = {leaf.name for leaf in leaves(trained)}, {leaf.name for leaf in leaves(frozen)}
    assert names[0].isdisjoint(names[1])
    assert names[0] | names[1] == set(parameter_names(model))
    assert "blocks/1/mlp/up_proj/kernel" in names[0]
    assert {"embedding", "blocks/0/attention/q_proj/kernel"} <= names[1]
    again = nnx.state(nnx.merge(graphdef, trained, frozen))
    jax.tree.map(np.testing.assert_array_equal, again, nnx.state(model))


def test_without_names_all_is_trained():
    _, trained, frozen = split_params(model_of(TINY), Freeze())
    assert len(jax.tree.leaves(trained)) == len(parameter_names(model_of(TINY)))
    assert not jax.tree.leaves(frozen)


@pytest.mark.parametrize("config", [TINY, SCANNED], ids=["unrolled", "scanned"])
def test_train_only_trains_what_a_pattern_names_in_both_layouts(config):
    _, trained, _ = split_params(model_of(config), TrainOnly(paths=("*/mlp/*", "norm/scale")))
    names = [leaf.name for leaf in leaves(trained)]
    assert len(names) == (1 if config.scan else 2) * 3 + 1
    assert all("mlp/" in name or name == "norm/scale" for name in names)


def test_the_split_is_the_same_for_a_model_of_shapes():
    abstract = nnx.eval_shape(lambda: TINY.build(jax.random.key(0)))
    _, trained, frozen = split_params(abstract, Freeze(paths=("blocks/0/*",)))
    _, real_trained, real_frozen = split_params(model_of(TINY), Freeze(paths=("blocks/0/*",)))
    assert jax.tree.structure(trained) == jax.tree.structure(real_trained)
    assert jax.tree.structure(frozen) == jax.tree.structure(real_frozen)


@pytest.mark.parametrize("config", [TINY, SCANNED], ids=["unrolled", "scanned"])
def test_frozen_bits_survive_donated_steps_and_the_optimizer_has_no_entry_for_them(config):
    tx = AdamW(lr=1e-2, weight_decay=0.1).build()
    graphdef, trained, frozen = split_params(model_of(config), Freeze(paths=("embedding", "*/mlp/*")))

    def step(state, frozen):
        loss, grads = jax.value_and_grad(functools.partial(objective, graphdef, frozen))(state.params)
        state, norms = state.apply(grads, tx)
        return state, norms | {"loss": loss}

    step = jax.jit(step, donate_argnums=0)
    before = [np.asarray(x).tobytes() for x in jax.tree.leaves(frozen)]
    state = TrainState.create(jax.tree.map(jnp.copy, trained), tx)
    names = [leaf.name for leaf in leaves(state)]
    assert not [name for name in names if "mlp/" in name or "embedding" in name]
    assert any(name.startswith("opt_state/") and name.endswith("q_proj/kernel") for name in names)
    losses = []
    for _ in range(5):
        state, metrics = step(state, frozen)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    assert [np.asarray(x).tobytes() for x in jax.tree.leaves(frozen)] == before
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.params, trained)
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize("config", [TINY, SCANNED], ids=["unrolled", "scanned"])
@pytest.mark.parametrize(
    ("trainable", "largest"),
    [
        # Of the three matrix products a layer costs (forward, gradient of x, gradient of W) the third is left out.
        pytest.param(LoRA(rank=1, alpha=1.0), 0.8, id="lora"),
        pytest.param(TrainOnly(paths=("*norm/scale",)), 0.75, id="norms"),
        # Nothing below the last norm needs a backward pass at all.
        pytest.param(TrainOnly(paths=("norm/scale",)), 0.45, id="last norm"),
    ],
)
def test_no_gradient_is_computed_for_frozen_parameters(config, trainable, largest):
    config = dataclasses.replace(config, layers=1, dim=128, mlp_dim=512, head_dim=32)  # matrices dominate
    assert gradient_flops(config, trainable) < largest * gradient_flops(config, Freeze())


@functools.cache
def gradient_flops(config, trainable):
    model = nnx.eval_shape(lambda: trainable.prepare(config.build(jax.random.key(0)), jax.random.key(1)))
    graphdef, trained, frozen = split_params(model, trainable)
    grad = jax.jit(lambda trained, frozen: jax.grad(functools.partial(objective, graphdef, frozen))(trained))
    return grad.lower(trained, frozen).compile().cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("config", "trainable", "message"),
    [
        (TINY, Freeze(paths=("blocks/0/attention/q_prj/kernel",)), "Did you mean 'blocks/\\*/attention/q_proj/kernel'"),
        (TINY, Freeze(paths=("blocks/0/attention",)), "Use 'blocks/0/attention/\\*'"),
        (TINY, Freeze(paths=("zzz",)), "matches no parameter. The parameters are: .*blocks/\\*/mlp/up_proj/kernel"),
        (SCANNED, Freeze(paths=("blocks/0/mlp",)), "scan=False, or .* such as 'blocks/mlp/\\*'"),
        (TINY, Freeze(paths=("*",)), "freezes every parameter"),
        (TINY, TrainOnly(paths=()), "Use '\\*' for all"),
        (TINY, LoRA(), "add_lora"),
    ],
    ids=["typing error", "no star", "unknown", "layer of a stack", "all frozen", "none trained", "no adapters"],
)
def test_a_choice_that_cannot_be_meant_is_refused_with_names_that_exist(config, trainable, message):
    with pytest.raises(UserError, match=message):
        split_params(model_of(config), trainable)
