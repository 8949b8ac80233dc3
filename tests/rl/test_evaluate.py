"""An evaluation is a function of the weights: same questions, same randomness, whatever happened before."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.entropy_mechanism import smoke
from rl.config import Evaluation
from rl.evaluate import Evaluator
from rl.rewards import RewardBatch

CONFIG = dataclasses.replace(
    smoke,
    rollout=dataclasses.replace(smoke.rollout, prompts=4, samples=2, max_new_tokens=6),
    evaluation=Evaluation(questions=8, samples=2),
)


def parity(samples, responses):
    """1 for a response of even length. Stands in for the pool."""
    failed = {"reward/errors": 1.0, "reward/timeouts": 2.0, "reward/nonfinite": 0.0}
    return RewardBatch(rewards=np.array([len(r) % 2 == 0 for r in responses], np.float32), metrics=failed)


class Rows:
    """Stands in for the logger."""

    def __init__(self):
        self.rows = []

    def samples(self, step, rows):
        self.rows += [{"step": step} | row for row in rows]


@pytest.fixture(scope="module")
def parts():
    setup = CONFIG.build()
    evaluator = Evaluator(CONFIG.evaluation, setup.heldout, setup.tokenizer, parity, setup.purpose_key("evaluation"))
    return setup, evaluator, setup.engine(*setup.model.init())


def evaluate(parts, params, step=0):
    _, evaluator, engine = parts
    rows = Rows()
    metrics = evaluator(engine, params, step, rows)
    return {k: v for k, v in metrics.items() if k != "time/eval_s"}, rows.rows


def test_the_same_weights_give_the_same_numbers_and_other_weights_others(parts):
    setup, *_ = parts
    params = setup.model.init()[0]
    other = jax.tree.map(lambda x: 3 * x, params)
    first, rows = evaluate(parts, params)
    changed, _ = evaluate(parts, other, step=7)
    again, rows_again = evaluate(parts, params)
    assert first == again != changed
    assert rows == rows_again


def test_accuracy_is_the_mean_over_questions_and_over_each_task(parts):
    setup, *_ = parts
    metrics, rows = evaluate(parts, setup.model.init()[0], step=3)
    tasks = [sample.task for sample in setup.heldout]
    by_task = {task: metrics[f"eval/accuracy/{task}"] for task in set(tasks)}
    assert metrics["eval/accuracy"] == pytest.approx(np.mean([by_task[task] for task in tasks]))
    assert metrics["eval/count"] == 8
    assert metrics["eval/failed"] == 2 * 3.0  # of the samples and of the greedy answers
    assert [row["question"] for row in rows] == [sample.question for sample in setup.heldout]
    assert all(row["step"] == 3 and row["split"] == "eval" for row in rows)
    assert {"eval/accuracy_greedy", "eval/entropy", "eval/length"} < metrics.keys()


def test_evaluations_compile_one_program_for_samples_and_greedy_answers(parts):
    setup, _, engine = parts
    for step in range(3):
        evaluate(parts, setup.model.init()[0], step)
    assert engine.budget.traces("decode") == 1
