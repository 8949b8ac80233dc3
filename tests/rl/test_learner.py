"""The update is the same whatever the micro-batching and the sharding, and starts exactly on-policy."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from framework.errors import UserError
from framework.inference import Engine, EngineConfig, Request
from framework.mesh import MeshConfig, put_batch, shard_tree
from framework.state import TrainState
from models.decoder import DecoderConfig
from rl.batch import PolicyBatch, make_batch
from rl.learner import entropy_on, policy_step
from rl.losses import ClipCov, Clipped, KLCov, Unclipped
from rl.supervised import supervised_step

MODEL = DecoderConfig(vocab_size=40, dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=48)
LOSSES = {
    "unclipped": Unclipped(),
    "clipped": Clipped(entropy_coef=0.01),
    "clip_cov": ClipCov(frac=0.1, band="quantile", w_low=0.5, w_high=1.0),
    "kl_cov": KLCov(frac=0.1, beta=1.0),
}
NOTHING = nnx.State({})  # no parameter is frozen
TX = optax.sgd(0.1)  # no normalisation: a wrong gradient scale shows in the parameters


@pytest.fixture(scope="module")
def model():
    graphdef, params = nnx.split(MODEL.build(jax.random.key(0)))
    return nnx.merge(
        graphdef, jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    )


def off_policy_batch(rows: int = 16, seed: int = 0) -> PolicyBatch:
    """Ragged responses whose old log-probabilities are somewhat off; one row has no response at all."""
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(2, 40, rng.integers(1, 9)).tolist() for _ in range(rows)]
    responses = [rng.integers(2, 40, rng.integers(1, 11)).tolist() for _ in range(rows - 1)] + [[]]
    old = [-3.7 + 0.3 * rng.standard_normal(len(r)) for r in responses]
    return make_batch(
        prompts, responses, prompt_length=8, response_length=10, old_logp=old, adv=rng.standard_normal(rows)
    )


def run(model, batch, loss, *, microbatches=1, mesh=None, key=0):
    graphdef, params = nnx.split(model)
    state = TrainState.create(params, TX)
    if mesh is not None:
        state = jax.device_put(state, shard_tree(mesh, state))
        batch = put_batch(mesh, batch)
    step = functools.partial(policy_step, loss=loss.build(), tx=TX, temperature=1.0, microbatches=microbatches)
    return jax.jit(step, static_argnums=0)(graphdef, state, NOTHING, batch, jax.random.key(key))


@pytest.mark.parametrize("microbatches", [2, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", LOSSES)
def test_micro_batches_give_the_update_of_one_batch(model, name, microbatches):
    batch = off_policy_batch()
    (whole, metrics), (split, split_metrics) = (
        run(model, batch, LOSSES[name], microbatches=m) for m in (1, microbatches)
    )
    chex.assert_trees_all_close(split.params, whole.params, atol=1e-5)
    chex.assert_trees_all_close(split_metrics, metrics, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mesh", [MeshConfig(data=8), MeshConfig(data=2, fsdp=2, tensor=2)], ids=["data8", "2x2x2"])
@pytest.mark.parametrize("name", LOSSES)
def test_eight_devices_give_the_update_of_one(model, name, mesh):
    batch = off_policy_batch()
    one, metrics = run(model, batch, LOSSES[name])
    eight, sharded_metrics = run(model, batch, LOSSES[name], mesh=mesh.build(), microbatches=2)
    chex.assert_trees_all_close(jax.device_get(eight.params), jax.device_get(one.params), atol=1e-5)
    chex.assert_trees_all_close(jax.device_get(sharded_metrics), jax.device_get(metrics), atol=1e-5, rtol=1e-4)


def test_the_same_key_gives_the_same_bits_and_another_key_other_picks(model):
    batch = off_policy_batch()
    first, again, other = (run(model, batch, LOSSES["clip_cov"], key=k)[0].params for k in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert any(bool(jnp.any(a != b)) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True))


def test_micro_scope_picks_in_each_micro_batch_and_so_differs_from_global(model):
    batch = off_policy_batch()
    wide, narrow = (
        run(model, batch, KLCov(frac=0.2, beta=5.0, scope=scope), microbatches=4)[0].params
        for scope in ("global", "micro")
    )
    assert any(bool(jnp.any(a != b)) for a, b in zip(jax.tree.leaves(wide), jax.tree.leaves(narrow), strict=True))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_first_update_of_a_rollout_is_on_policy(model, temperature):
    engine = Engine(model, EngineConfig(slots=32, max_length=20, max_new_tokens=12))
    rng = np.random.default_rng(0)
    prompts = [rng.integers(2, 40, rng.integers(1, 9)).tolist() for _ in range(8)]
    requests = [Request(id=i, prompt=p, samples=4, temperature=temperature) for i, p in enumerate(prompts)]
    out = engine.generate(requests, jax.random.key(0))
    batch = make_batch(
        [p for p in prompts for _ in range(4)],
        [c.tokens for c in out],
        prompt_length=8,
        response_length=12,
        old_logp=[c.logp for c in out],
        adv=rng.standard_normal(32),
    )
    graphdef, params = nnx.split(model)
    step = functools.partial(policy_step, loss=Unclipped().build(), tx=TX, temperature=temperature)
    _, metrics = jax.jit(step, static_argnums=0)(
        graphdef, TrainState.create(params, TX), NOTHING, batch, jax.random.key(0)
    )
    assert float(metrics["sampler/logp_gap_max"]) < 1e-5  # |log ratio| of every token


def test_a_positive_advantage_makes_the_response_likelier(model):
    batch = off_policy_batch()
    graphdef, _params = nnx.split(model)
    state, first = run(model, batch, Unclipped())
    later = policy_step(
        graphdef, state, NOTHING, batch, jax.random.key(0), loss=Unclipped().build(), tx=TX, temperature=1.0
    )[1]
    assert float(later["loss/total"]) < float(first["loss/total"])


def test_an_empty_mask_moves_nothing(model):
    batch = off_policy_batch()
    empty = PolicyBatch(batch.tokens, batch.segments, np.zeros_like(batch.mask), batch.old_logp, batch.adv)
    for loss in LOSSES.values():
        state, metrics = run(model, empty, loss)
        chex.assert_trees_all_equal(state.params, nnx.state(model))
        assert float(metrics["loss/total"]) == 0.0


def test_entropy_on_given_responses_is_bounded(model):
    graphdef, params = nnx.split(model)
    assert 0 < float(entropy_on(graphdef, params, NOTHING, off_policy_batch())) < np.log(40)


def test_supervised_steps_learn_a_fixed_batch(model):
    graphdef, params = nnx.split(model)
    tx = optax.adam(1e-2)
    step = jax.jit(functools.partial(supervised_step, graphdef, tx=tx))
    state, losses = TrainState.create(params, tx), []
    for _ in range(40):
        state, metrics = step(state, NOTHING, off_policy_batch(8))
        losses.append(float(metrics["loss/total"]))
    assert losses[-1] < 0.2 * losses[0]


def test_make_batch_refuses_what_does_not_fit():
    with pytest.raises(UserError, match="max_prompt=9"):
        make_batch([[2] * 9], [[3]], prompt_length=8, response_length=4)
    with pytest.raises(UserError, match="max_new_tokens=5"):
        make_batch([[2]], [[3] * 5], prompt_length=8, response_length=4)
