"""The supervised stage: worked examples until the model knows the form of an answer and some of the content."""

import functools
from typing import TYPE_CHECKING

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
from models.tokenizer import LanguageTokenizer
from rl.batch import PolicyBatch, make_batch
from rl.evaluate import Evaluator
from rl.setup import Setup
from rl.supervised import supervised_step
from rl.timing import Timer

if TYPE_CHECKING:
    from rl.grpo import GRPO

__all__ = ["WARM_START", "run_warm_start"]

WARM_START = "warm_start"


def run_warm_start(
    config: "GRPO",
    setup: Setup,
    trained: nnx.State,
    frozen: nnx.State,
    stage: StageDir,
    *,
    engine: Engine,
    evaluator: Evaluator,
    console: Console,
) -> nnx.State:
    """Train (or continue, or just load) the warm start; returns the trained weights after it."""
    tx = config.optimizer_of(WARM_START)
    checkpoints = Checkpoints(stage.checkpoints_path)
    if agree(stage.done):
        restored = checkpoints.restore_latest(setup.model.abstract_state(tx))
        assert restored is not None, f"{stage.path} is marked done but has no checkpoint"
        return restored[1].params  # pyright: ignore[reportReturnType]

    state = setup.model.new_state(trained, tx)
    budget = TraceBudget()
    update = jit_on(
        setup.mesh,
        functools.partial(budget.counted(supervised_step, "supervised step"), setup.graphdef, tx=tx),
        donate_argnums=0,
    )
    source = config.warm_start
    stream = None
    if source.steps:  # without any, the questions need no worked examples
        stream = setup.questions.demonstrations(seed=config.seed, batch=source.batch, noise=source.noise)
        check_same("demonstrations", repr_digest(stream[0]))

    def step_fn(state: TrainState, step: int) -> tuple[TrainState, dict[str, float]]:
        assert stream is not None
        timer = Timer()
        with timer("data"):
            batch = demonstration_batch(config, setup.tokenizer, stream[step])
        with timer("train"):
            state, metrics = update(state, frozen, put_batch(setup.mesh, batch))
            metrics = {name: float(value) for name, value in fetch(metrics).items()}
        metrics["throughput/tokens_per_s"] = metrics.pop("batch/tokens") / sum(timer.seconds.values())
        return state, metrics | timer.metrics()

    with checkpoints, MetricLogger(stage) as logger:
        state = fit(
            state=state,
            steps=config.warm_start.steps,
            step_fn=step_fn,
            stage=stage.name,
            checkpoints=checkpoints,
            logger=logger,
            console=console,
            evaluate=lambda state, step: evaluator(engine, setup.model.whole(state.params, frozen), step, logger),
            evaluate_every=config.warm_start.steps,
            checkpoint_every=config.checkpoint_every * 5,
            more_follows=True,
        )
        if not agree(checkpoints.steps()):
            checkpoints.save(0, state)  # steps=0: the arms and `generate` start from the random weights
    stage.mark_done({"steps": config.warm_start.steps})
    return state.params  # pyright: ignore[reportReturnType]


def demonstration_batch(config: "GRPO", tokenizer: LanguageTokenizer, pairs: object) -> PolicyBatch:
    """Worked examples as token arrays; the end token is learnt with the rest."""
    prompts = [[*tokenizer.start_ids, *tokenizer.encode(sample.question)] for sample, _ in pairs]  # pyright: ignore[reportGeneralTypeIssues]
    answers = [[*tokenizer.encode(text), tokenizer.eos_id] for _, text in pairs]  # pyright: ignore[reportGeneralTypeIssues]
    roll = config.rollout
    return make_batch(prompts, answers, prompt_length=roll.max_prompt, response_length=roll.max_new_tokens)
