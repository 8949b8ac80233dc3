"""Held-out accuracy: the same questions and the same randomness at every evaluation, so that only the weights differ."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from framework.distributed import on_main
from framework.inference import Engine
from framework.metrics import MetricLogger
from framework.sample import Sample
from models.tokenizer import LanguageTokenizer
from rl.config import Evaluation
from rl.rewards import RewardPool
from rl.rollout import Responses, respond
from rl.timing import Timer

__all__ = ["Evaluator"]


_FAILURES = ("errors", "timeouts", "nonfinite")  # each counted as 0 in the accuracy


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Call it with weights and the number of finished steps; it is a function of both alone."""

    config: Evaluation
    questions: Sequence[Sample]
    tokenizer: LanguageTokenizer
    pool: RewardPool  # of the scoring function
    key: jax.Array
    also: Mapping[str, RewardPool] = dataclasses.field(default_factory=dict)  # name -> pool of another judgement

    def __call__(self, engine: Engine, params: Any, step: int, logger: MetricLogger) -> dict[str, float]:
        """Accuracy (mean over samples), greedy accuracy, accuracy by task, entropy in nats per token, response length."""
        timer = Timer()
        engine.load(params, step)
        with timer("eval"):
            sampled = self._respond(engine, self.config.samples, self.config.temperature)
            greedy = self._respond(engine, 1, 0.0)
        tasks = np.array([sample.task for sample in sampled.samples])
        metrics = {
            "eval/accuracy": float(sampled.rewards.mean()),
            "eval/accuracy_greedy": float(greedy.rewards.mean()),
            "eval/entropy": sampled.metrics["policy/entropy"],
            "eval/count": float(len(self.questions)),
            "eval/length": sampled.metrics["length/mean"],
            "eval/failed": sum(r.metrics[f"reward/{kind}"] for r in (sampled, greedy) for kind in _FAILURES),
        }
        for task in sorted(set(tasks)):
            metrics[f"eval/accuracy/{task}"] = float(sampled.rewards[tasks == task].mean())
        for name, pool in self.also.items():
            judge = functools.partial(_mean, pool, sampled)
            metrics[f"eval/score/{name}"] = on_main(judge)
        rows = range(0, len(sampled.samples), self.config.samples)  # the first sample of each question
        logger.samples(step, sampled.rows("eval", list(rows)))
        return metrics | {"time/eval_s": timer.seconds["eval"]}

    def _respond(self, engine: Engine, samples: int, temperature: float) -> Responses:
        return respond(
            engine,
            self.tokenizer,
            self.pool,
            self.questions,
            samples=samples,
            temperature=temperature,
            key=self.key,
            timer=Timer(),
        )


def _mean(pool: RewardPool, judged: Responses) -> float:
    return float(pool(judged.samples, judged.texts).rewards.mean())
