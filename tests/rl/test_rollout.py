"""Responses, rewards and rows stay side by side, and a question that has no room is refused by its field."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.entropy_mechanism import smoke
from framework.errors import UserError
from framework.sample import Sample
from rl.config import Evaluation
from rl.rewards import RewardBatch
from rl.rollout import respond
from rl.timing import Timer
from rl.warm_start import demonstration_batch

CONFIG = dataclasses.replace(
    smoke,
    rollout=dataclasses.replace(smoke.rollout, prompts=4, samples=2, max_prompt=12, max_new_tokens=6),
    evaluation=Evaluation(questions=5, samples=2),
)
QUESTIONS = [Sample(task=f"t{i % 2}", question=f"{i} plus {i}", answer=str(2 * i)) for i in range(5)]


def by_length(samples, responses):
    """Stands in for the pool: a number that tells which question and which response it was called with."""
    rewards = [int(sample.answer) + len(text) / 100 for sample, text in zip(samples, responses, strict=True)]
    return RewardBatch(rewards=np.array(rewards, np.float32), metrics={"reward/errors": 0.0})


@pytest.fixture(scope="module")
def setup():
    return CONFIG.build()


@pytest.fixture(scope="module")
def engine(setup):
    return setup.engine(*setup.model.init())


def ask(setup, engine, questions=QUESTIONS, key=0, temperature=1.0):
    timer = Timer()
    out = respond(
        engine,
        setup.tokenizer,
        by_length,
        questions,
        samples=2,
        temperature=temperature,
        key=jax.random.key(key),
        timer=timer,
    )
    assert timer.metrics().keys() == {"time/rollout_s", "time/reward_s"}
    return out


def test_samples_of_a_question_stand_side_by_side_with_their_rewards(setup, engine):
    out = ask(setup, engine)  # five questions, four in a call
    assert [s.question for s in out.samples] == [q.question for q in QUESTIONS for _ in range(2)]
    assert [setup.tokenizer.decode(p) for p in out.prompts] == [s.question for s in out.samples]
    assert [c.sample for c in out.completions] == [0, 1] * 5
    assert out.texts == [setup.tokenizer.decode(c.tokens.tolist()) for c in out.completions]
    np.testing.assert_array_equal(out.rewards, by_length(out.samples, out.texts).rewards)


def test_metrics_are_means_over_responses(setup, engine):
    out = ask(setup, engine)
    assert out.metrics["reward/mean"] == pytest.approx(out.rewards.mean())
    assert out.metrics["length/mean"] == np.mean([len(c.tokens) for c in out.completions])
    assert out.metrics["policy/entropy"] == pytest.approx(np.mean([c.entropy.mean() for c in out.completions]))
    cut = [c.finish_reason == "length" for c in out.completions]
    assert out.metrics["length/truncated_frac"] == np.mean(cut)
    assert out.metrics["reward/errors"] == 0.0


def test_rows_have_the_documented_keys_and_are_plain_numbers_and_texts(setup, engine):
    out = ask(setup, engine)
    (row,) = out.rows("train", [3])
    assert row.keys() == {"split", "task", "question", "response", "answer", "reward"}
    assert row["question"] == "1 plus 1"
    assert row["response"] == out.texts[3]
    assert type(row["reward"]) is float


def test_the_key_decides_and_nothing_else(setup, engine):
    assert ask(setup, engine).texts == ask(setup, engine).texts != ask(setup, engine, key=1).texts
    assert ask(setup, engine, temperature=0.0).texts == ask(setup, engine, key=1, temperature=0.0).texts


def test_a_question_without_room_names_its_task_the_field_and_the_length(setup, engine):
    questions = [*QUESTIONS, Sample(task="riddle", question="x" * 20)]
    with pytest.raises(
        UserError, match=r"'riddle' has 20 tokens, but rollout\.max_prompt=12\. Use rollout\.max_prompt=20"
    ):
        ask(setup, engine, questions)


def test_prompts_begin_with_the_start_tokens_of_the_tokenizer_in_rollouts_and_worked_examples(setup, engine):
    class Begins:
        """A tokenizer as Llama's, which puts a token before every text."""

        start_ids = (1,)

        def __getattr__(self, name):
            return getattr(setup.tokenizer, name)

    begins = dataclasses.replace(setup, tokenizer=Begins())
    out = ask(begins, engine)
    assert [p[0] for p in out.prompts] == [1] * len(out.prompts)
    assert [p[1:] for p in out.prompts] == [setup.tokenizer.encode(s.question) for s in out.samples]
    batch = demonstration_batch(CONFIG, begins.tokenizer, [(QUESTIONS[0], "0")])
    asked = batch.tokens[0, : CONFIG.rollout.max_prompt][batch.segments[0, : CONFIG.rollout.max_prompt] == 1]
    assert asked.tolist() == [1, *setup.tokenizer.encode(QUESTIONS[0].question)]
