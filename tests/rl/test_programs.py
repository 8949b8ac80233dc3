"""What `maypole plan` compiles is what a run calls: same shapes, same shardings, same number of calls."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh

import experiments.sft as sft
from experiments.entropy_mechanism import all_arms, paper, smoke, tiny
from framework.chips import Topology
from framework.inference import Engine, Request
from framework.mesh import MeshConfig, put_batch
from framework.optimizer import AdamW
from framework.overrides import apply_overrides
from framework.plan import Planner
from rl.batch import make_batch
from rl.grpo import GRPO
from rl.programs import grpo_programs, grpo_remedies
from rl.sft_plan import sft_programs


@pytest.fixture(scope="module")
def two() -> tuple[GRPO, Mesh]:
    config = dataclasses.replace(smoke, mesh=MeshConfig(fsdp=2))
    return config, config.mesh.build()


def described(config: GRPO, mesh: Mesh, name: str):
    return next(p for p in grpo_programs(config, mesh) if p.name.startswith(name))


def same(abstract, concrete) -> None:
    """Same tree, shapes, types and placement."""
    assert jax.tree.structure(abstract) == jax.tree.structure(concrete)
    for want, got in zip(jax.tree.leaves(abstract), jax.tree.leaves(concrete), strict=True):
        assert (want.shape, want.dtype) == (got.shape, got.dtype)
        if want.sharding is not None:
            assert want.sharding.is_equivalent_to(got.sharding, want.ndim)


def test_the_batch_of_a_policy_step_is_that_of_the_run(two):
    config, mesh = two
    program = described(config, mesh, "policy step")
    roll = config.rollout
    rows = roll.prompts * roll.samples // roll.updates
    batch = make_batch([[1]] * rows, [[1]] * rows, prompt_length=roll.max_prompt, response_length=roll.max_new_tokens)
    same(program.args[2], put_batch(mesh, batch))
    assert (program.calls, program.tokens) == (roll.updates, rows * (roll.max_prompt + roll.max_new_tokens))


@pytest.mark.parametrize("rows", [None, 8])
def test_what_is_planned_of_generation_is_what_the_engine_calls(two, rows, monkeypatch):
    config, mesh = two
    config = dataclasses.replace(config, rollout=dataclasses.replace(config.rollout, rows=rows))
    graphdef, params = nnx.split(config.model.build(jax.random.key(0)))
    engine = Engine(nnx.merge(graphdef, params), config.engine_config(), mesh=mesh)
    device, calls = engine._device, []

    def noted(name):
        compiled = getattr(device, name)

        def call(*args):
            shapes = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))  # noqa: E731
            calls.append((name, jax.tree.map(shapes, args[1:])))
            return compiled(*args)

        monkeypatch.setattr(device, name, call)

    noted("_decode")
    noted("_prefill")
    roll = config.rollout
    prompt = [2] * roll.max_prompt
    requests = [Request(id=i, prompt=prompt, samples=roll.samples, ignore_stop=True) for i in range(roll.prompts)]
    engine.generate(requests, jax.random.key(0))
    decode = described(config, mesh, "decode")
    own = [args for name, args in calls if name == "_decode"]
    same(decode.args[:4], own[0][:4])
    assert decode.calls == len(own)
    prefill = described(config, mesh, "prefill")
    assert {args[1].shape[0] for name, args in calls if name == "_prefill"} == {prefill.args[1].shape[0]}
    same(prefill.args[0], next(args[0] for name, args in calls if name == "_prefill"))


def test_the_state_of_a_policy_step_is_that_of_the_run(two):
    config, mesh = two
    setup = config.build()
    state = setup.model.new_state(setup.model.init()[0], config.optimizer_of("kl_cov"))
    same(described(config, mesh, "policy step").args[0], state)


def test_arms_with_the_same_program_are_planned_once(two):
    _, mesh = two
    arms = (*all_arms.arms, dataclasses.replace(all_arms.arms[0], name="again"))
    config = dataclasses.replace(all_arms, mesh=MeshConfig(fsdp=2), arms=arms)
    names = [p.name for p in grpo_programs(config, mesh)]
    assert sum(name.startswith("policy step") for name in names) == len(all_arms.arms)
    assert "policy step again" not in names
    assert names[-2:] == ["prefill", "decode"]


def test_flops_by_formula_are_six_a_parameter_and_trained_token():
    mesh = tiny.mesh.build(jax.devices()[:1])
    program = described(tiny, mesh, "policy step")
    roll, model = tiny.rollout, tiny.model
    rows = roll.prompts * roll.samples // roll.updates
    length = roll.max_prompt + roll.max_new_tokens
    embedding = model.vocab_size * model.dim
    blocks = model.parameter_count() - embedding
    matrices = 6 * rows * (blocks * length + embedding * roll.max_new_tokens)
    scores = 3 * rows * model.layers * 4 * model.heads * model.head_dim * length**2 / 2
    assert program.model_flops == pytest.approx(matrices + scores)


@pytest.mark.slow
def test_a_planned_step_is_found_where_the_formulas_say():
    """Compiled by libtpu: executed FLOPs are the formula's and what a TPU adds to them, and the cache is found."""
    config = apply_overrides(smoke, ["--mesh.fsdp", "4", "--mesh.tensor", "1", "--model.dtype", "bfloat16"])
    plan = Planner(Topology.parse("v5e:2x2")).plan(config, only=["decode", "policy step unclipped"])
    step, decode = plan.programs
    roll, model = config.rollout, config.model
    rows, slots = roll.prompts * roll.samples // 4, roll.max_prompt + roll.max_new_tokens
    cache = 2 * model.layers * rows * model.kv_heads * slots * model.head_dim * 2
    assert decode.memory.arguments["cache"] >= cache  # padded to the tiles of the chip
    assert step.fits
    assert decode.fits
    whole = 2 * model.head_dim * model.layers * 4  # scales of the query and key norms are on every device
    share = (model.parameter_count() * 4 - whole) // 4 + whole
    assert step.memory.arguments["parameters"] == share
    assert step.memory.resident["warm-start parameters"] == share
    assert step.cost.flops > step.model_flops / 4 / 2


@pytest.mark.parametrize(
    ("failing", "first"),
    [
        (["policy step clipped"], ["--model.remat", "full"]),
        (["decode"], ["--rollout.rows", "1024"]),
        (["policy step clipped", "decode"], ["--model.remat", "full", "--rollout.rows", "1024"]),
    ],
)
def test_remedies_change_what_the_failing_programs_read(failing, first):
    config = dataclasses.replace(paper, model=dataclasses.replace(paper.model, remat="none"))
    found = grpo_remedies(config, failing)
    assert first in found
    for remedy in found:  # each is a config that can run
        apply_overrides(config, remedy).validate()


def test_micro_batches_are_proposed_as_long_as_every_device_keeps_a_row():
    config = dataclasses.replace(
        paper, mesh=MeshConfig(fsdp=16, tensor=4), rollout=dataclasses.replace(paper.rollout, microbatches=2)
    )
    shards = 16
    proposed = [int(words[1]) for words in grpo_remedies(config, ["policy step clipped"])]
    rows = paper.rollout.prompts * paper.rollout.samples // paper.rollout.updates
    assert proposed == sorted(proposed)
    assert proposed
    assert all(rows // m % shards == 0 for m in proposed)


@pytest.mark.slow
def test_rows_limit_what_is_decoded_at_once_and_change_no_token():
    config = dataclasses.replace(smoke, rollout=dataclasses.replace(smoke.rollout, rows=4))
    model = config.model.build(jax.random.key(0))
    requests = [Request(id=i, prompt=[3, 5, 7], samples=4) for i in range(3)]
    whole, parts = (Engine(model, c.engine_config()).generate(requests, jax.random.key(1)) for c in (smoke, config))
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)


def test_a_schedule_without_warm_up_is_planned_also_where_only_the_data_know_its_length():
    config = dataclasses.replace(sft.smoke, steps=None, optimizer=AdamW(schedule="cosine"))
    (program,) = sft_programs(config, config.mesh.build())
    _, metrics = jax.eval_shape(program.fn, *program.args)
    assert metrics["optimizer/lr"].shape == ()
