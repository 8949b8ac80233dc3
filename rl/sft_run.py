"""The one stage of supervised fine-tuning: steps, held-out loss, and a few answers to look at."""

import functools
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from framework.batch import TokenBatch
from framework.checkpoint import Checkpoints
from framework.console import Console
from framework.distributed import agree, check_same, fetch
from framework.inference import Engine, Request
from framework.loop import fit
from framework.mesh import jit_on, put_batch
from framework.metrics import MetricLogger
from framework.retrace import TraceBudget
from framework.rundir import StageDir
from framework.state import TrainState
from models.tokenizer import LanguageTokenizer
from rl.model_setup import ModelSetup
from rl.sft_data import TokenData
from rl.supervised import token_loss, token_step
from rl.timing import Timer

if TYPE_CHECKING:
    from rl.sft import SFT

__all__ = ["run_stage"]


def run_stage(
    config: "SFT",
    setup: ModelSetup,
    data: TokenData,
    tokenizer: LanguageTokenizer,
    tx: optax.GradientTransformation,
    steps: int,
    stage: StageDir,
    console: Console,
) -> None:
    """Train (or continue); a finished stage goes on if the config has more steps now."""
    if agree(stage.done and stage.summary["steps"] >= steps):
        return
    check_same("training data", _digest([data.train[0], *data.heldout], steps))
    with console.status("reading or making the weights"):
        trained, frozen = setup.init()
        state = setup.new_state(trained, tx)
        del trained  # the state has its own copy
    sizes = [sum(x.size for x in jax.tree.leaves(tree)) for tree in (state.params, frozen)]
    console.print(
        f"{sum(sizes):,} parameters, {sizes[0]:,} of them trained; {setup.mesh.size} device(s), {steps:,} steps of "
        f"{config.rows} x {config.length} tokens, seed {config.seed}"
    )
    budget = TraceBudget()
    step = functools.partial(token_step, tx=tx, microbatches=config.microbatches)
    update = jit_on(
        setup.mesh, functools.partial(budget.counted(step, "training step"), setup.graphdef), donate_argnums=0
    )
    evaluator = _Evaluator(config, setup, data, tokenizer, frozen)
    if evaluator.answers < min(config.evaluation.answers, len(data.heldout)):
        console.print(
            f"{evaluator.answers} held-out questions fit in evaluation.max_prompt={config.evaluation.max_prompt} tokens and are "
            "answered."
        )
    described = dict(data.metrics())

    def step_fn(state: TrainState, index: int) -> tuple[TrainState, dict[str, float]]:
        timer = Timer()
        with timer("data"):
            batch = put_batch(setup.mesh, data.train[index])
        with timer("train"):
            state, metrics = update(state, frozen, batch)
            metrics = {name: float(value) for name, value in fetch(metrics).items()}
        seconds = sum(timer.seconds.values())
        metrics["throughput/tokens_per_s"] = config.rows * config.length / seconds  # places computed, padding included
        return state, metrics | described | timer.metrics()

    with Checkpoints(stage.checkpoints_path) as checkpoints, MetricLogger(stage) as logger:
        fit(
            state=state,
            steps=steps,
            step_fn=step_fn,
            stage=stage.name,
            checkpoints=checkpoints,
            logger=logger,
            console=console,
            evaluate=lambda state, done: evaluator(state, done, logger),
            evaluate_every=config.evaluation.every,
            checkpoint_every=config.checkpoint_every,
        )
    stage.mark_done({"steps": steps, "traces": budget.traces("training step")})


def _digest(batches: Sequence[TokenBatch], steps: int) -> str:
    """A few letters that tell whether two hosts read the same data."""
    content = hashlib.sha256(str(steps).encode())
    for batch in batches:
        content.update(np.ascontiguousarray(batch.tokens).tobytes() + np.ascontiguousarray(batch.mask).tobytes())
    return f"{steps} steps, digest {content.hexdigest()[:12]}"


class _Evaluator:
    """Loss on the held-out batches and greedy answers to the first held-out questions."""

    def __init__(
        self, config: "SFT", setup: ModelSetup, data: TokenData, tokenizer: LanguageTokenizer, frozen: nnx.State
    ):
        self._config, self._setup, self._tokenizer, self._frozen = config, setup, tokenizer, frozen
        self._batches = data.heldout
        wanted, room = config.evaluation.answers, config.evaluation.max_prompt
        # The first that are short enough, out of ten times as many.
        self._prompts = [(sample, tokens) for sample, tokens in data.prompts(10 * wanted) if len(tokens) <= room][
            :wanted
        ]
        self._loss = jit_on(setup.mesh, functools.partial(_summed_loss, setup.graphdef))
        self._engine: Engine | None = None

    @property
    def answers(self) -> int:
        """Held-out questions that are answered."""
        return len(self._prompts)

    def __call__(self, state: TrainState, step: int, logger: MetricLogger) -> dict[str, float]:
        params = state.averaged
        metrics: dict[str, float] = {}
        if self._batches:
            batches = (put_batch(self._setup.mesh, batch) for batch in self._batches)
            sums = [fetch(self._loss(params, self._frozen, batch)) for batch in batches]
            lost, count = (float(x) for x in np.sum(np.asarray(sums, np.float64), axis=0))
            metrics = {"eval/loss": lost / count, "eval/perplexity": float(np.exp(lost / count)), "eval/count": count}
        if self._prompts:
            metrics |= self._answer(params, step, logger)
        return metrics

    def _answer(self, params: Any, step: int, logger: MetricLogger) -> dict[str, float]:
        whole = self._setup.whole(params, self._frozen)
        if self._engine is None:  # one for all evaluations: each shape compiles once
            model = nnx.merge(self._setup.graphdef, whole)
            self._engine = Engine(model, self._config.engine_config(self._tokenizer), mesh=self._setup.mesh)
        self._engine.load(whole, step)
        requests = [Request(id=i, prompt=tokens, temperature=0.0) for i, (_, tokens) in enumerate(self._prompts)]
        completions = self._engine.generate(requests, jax.random.key(0))  # greedy: the key is not used
        texts = [self._tokenizer.decode(completion.tokens.tolist()) for completion in completions]
        right = [
            float(text.strip() == sample.answer.strip()) for text, (sample, _) in zip(texts, self._prompts, strict=True)
        ]
        logger.samples(
            step,
            [
                {
                    "split": "eval",
                    "task": sample.task,
                    "question": sample.question,
                    "response": text,
                    "answer": sample.answer,
                    "reward": reward,
                }
                for (sample, _), text, reward in zip(self._prompts, texts, right, strict=True)
            ],
        )
        return {"eval/length": float(np.mean([len(completion.tokens) for completion in completions]))}


def _summed_loss(graphdef: Any, params: Any, frozen: Any, batch: TokenBatch) -> tuple[jax.Array, jax.Array]:
    """Summed negative log-likelihood of the learnt tokens, in nats, and their number."""
    return token_loss(nnx.merge(graphdef, params, frozen), batch, batch.mask), jnp.sum(batch.mask)
