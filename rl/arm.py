"""One reinforcement-learning run: sample, judge, compare within groups, update several times."""

import functools
from typing import TYPE_CHECKING

import jax
import numpy as np
from flax import nnx

from framework.checkpoint import Checkpoints
from framework.console import Console
from framework.distributed import agree, check_same, fetch, repr_digest
from framework.inference import Engine
from framework.loop import fit
from framework.mesh import jit_on, put_batch
from framework.metrics import MetricLogger
from framework.retrace import TraceBudget
from framework.rundir import StageDir
from framework.state import TrainState
from rl.advantage import group_advantage
from rl.batch import make_batch
from rl.config import Arm
from rl.covariance import group_covariance
from rl.evaluate import Evaluator
from rl.learner import entropy_on, policy_step
from rl.rewards import RewardPool
from rl.rollout import respond
from rl.setup import Setup
from rl.timing import Timer

if TYPE_CHECKING:
    from rl.grpo import GRPO

__all__ = ["run_arm"]

_LOGGED_SAMPLES = 4  # training responses kept a step


def run_arm(
    config: "GRPO",
    arm: Arm,
    setup: Setup,
    trained: nnx.State,
    frozen: nnx.State,
    stage: StageDir,
    *,
    engine: Engine,
    pool: RewardPool,
    evaluator: Evaluator,
    console: Console,
) -> None:
    """Train (or continue) one arm from the weights of the warm start; a finished one goes on if the config has more steps now."""
    if agree(stage.done and stage.summary["steps"] >= config.steps):
        return
    roll = config.rollout
    tx = config.optimizer_of(arm.name)
    updates_a_step = roll.updates if arm.updates is None else arm.updates
    state = setup.model.new_state(trained, tx)
    budget = TraceBudget()
    entropy_after = jit_on(setup.mesh, functools.partial(entropy_on, setup.graphdef))
    update = jit_on(
        setup.mesh,
        functools.partial(
            budget.counted(policy_step, "policy step"),
            setup.graphdef,
            loss=arm.loss.build(),
            tx=tx,
            temperature=roll.temperature,
            microbatches=roll.microbatches,
        ),
        donate_argnums=0,
    )
    stream = setup.questions_of(arm.name).train(seed=config.seed, batch=roll.prompts)
    check_same("questions", repr_digest([stream[0], setup.heldout]))
    rows = roll.prompts * roll.samples // updates_a_step

    def step_fn(state: TrainState, step: int) -> tuple[TrainState, dict[str, float]]:
        timer = Timer()
        engine.load(setup.model.whole(state.params, frozen), step)
        key = jax.random.fold_in(setup.purpose_key("rollout"), step)
        with timer("data"):
            questions = stream[step]
        out = respond(
            engine,
            setup.tokenizer,
            pool,
            questions,
            samples=roll.samples,
            temperature=roll.temperature,
            key=key,
            timer=timer,
        )
        with timer("train"):
            adv = np.asarray(group_advantage(out.rewards.reshape(roll.prompts, roll.samples))).reshape(-1)
            batch = make_batch(
                out.prompts,
                [completion.tokens for completion in out.completions],  # pyright: ignore[reportArgumentType]
                prompt_length=roll.max_prompt,
                response_length=roll.max_new_tokens,
                old_logp=[completion.logp for completion in out.completions],
                adv=adv,
            )
            metrics = {"policy/cov_group": group_covariance(batch.old_logp, batch.adv, batch.mask, roll.samples).mean()}
            first = put_batch(setup.mesh, batch.rows(0, rows))
            before = np.mean([completion.entropy.mean() for completion in out.completions[:rows]])
            gaps, updates = [], []
            for u in range(updates_a_step):
                part = first if u == 0 else put_batch(setup.mesh, batch.rows(u * rows, (u + 1) * rows))
                pick_key = jax.random.fold_in(jax.random.fold_in(setup.purpose_key("pick"), step), u)
                state, update_metrics = update(state, frozen, part, pick_key)
                gaps.append(update_metrics.pop("sampler/logp_gap_max"))
                updates.append(update_metrics)
            # On the same tokens before and after (those of the first update), so that a change of entropy is the policy's and
            # not the questions'.
            metrics["policy/entropy_change"] = entropy_after(state.params, frozen, first) - before
            metrics["sampler/logp_gap_max"] = gaps[0]  # later updates are off-policy by design
            metrics, updates = fetch((metrics, updates))
        averaged = {name: float(np.mean([m[name] for m in updates])) for name in updates[0]}
        metrics = averaged | {name: float(value) for name, value in metrics.items()} | out.metrics | timer.metrics()
        tokens = sum(len(completion.tokens) for completion in out.completions)
        metrics["throughput/tokens_per_s"] = tokens / sum(timer.seconds.values())
        metrics["sampler/stale_steps"] = 0.0
        shown = np.linspace(0, len(out.texts) - 1, min(_LOGGED_SAMPLES, len(out.texts))).astype(int).tolist()
        logger.samples(step + 1, out.rows("train", shown))
        return state, metrics

    with Checkpoints(stage.checkpoints_path) as checkpoints, MetricLogger(stage) as logger:
        fit(
            state=state,
            steps=config.steps,
            step_fn=step_fn,
            stage=stage.name,
            checkpoints=checkpoints,
            logger=logger,
            console=console,
            evaluate=lambda state, step: evaluator(engine, setup.model.whole(state.params, frozen), step, logger),
            evaluate_every=config.evaluation.every,
            checkpoint_every=config.checkpoint_every,
            more_follows=arm != config.arms[-1],
        )
    stage.mark_done({"steps": config.steps, "traces": budget.traces("policy step")})
