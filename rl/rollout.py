"""From questions to rewarded token arrays: engine, tokenizer and reward workers in one call."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from framework.distributed import on_main
from framework.errors import UserError
from framework.inference import Completion, Engine, Request
from framework.sample import Sample
from models.tokenizer import LanguageTokenizer
from rl.rewards import RewardBatch, RewardPool
from rl.timing import Timer

__all__ = ["Responses", "respond"]


@dataclasses.dataclass(frozen=True)
class Responses:
    """R = questions x samples responses, those of one question side by side."""

    samples: Sequence[Sample]  # R, each question repeated
    prompts: Sequence[Sequence[int]]  # R token lists
    completions: Sequence[Completion]  # R
    texts: Sequence[str]  # R
    rewards: np.ndarray  # [R] float32
    metrics: dict[str, float]

    def rows(self, split: str, chosen: Sequence[int]) -> list[dict[str, object]]:
        """Records for `samples.jsonl`."""
        return [
            {
                "split": split,
                "task": self.samples[i].task,
                "question": self.samples[i].question,
                "response": self.texts[i],
                "answer": self.samples[i].answer,
                "reward": float(self.rewards[i]),
            }
            for i in chosen
        ]


def respond(
    engine: Engine,
    tokenizer: LanguageTokenizer,
    pool: RewardPool,
    questions: Sequence[Sample],
    *,
    samples: int,
    temperature: float,
    key: jax.Array,
    timer: Timer,
) -> Responses:
    """Answer each question `samples` times and judge every answer. The request id is the place of the question in the batch.

    On many hosts process 0 judges for all: a reward that times out on one host and not on another would part them.

    Raises:
        UserError: a question longer than the engine's prompts.
    """
    prompts = [[*tokenizer.start_ids, *tokenizer.encode(question.question)] for question in questions]
    longest, room = max(map(len, prompts)), engine.config.max_length - engine.config.max_new_tokens
    if longest > room:
        raise UserError(
            f"A question of task {questions[list(map(len, prompts)).index(longest)].task!r} has {longest} tokens, but "
            f"rollout.max_prompt={room}. Use rollout.max_prompt={longest}, or shorter questions."
        )
    requests = [
        Request(id=i, prompt=prompt, samples=samples, temperature=temperature) for i, prompt in enumerate(prompts)
    ]
    with timer("rollout"):
        completions = engine.generate(requests, key)
    texts = [tokenizer.decode(completion.tokens.tolist()) for completion in completions]
    repeated = [question for question in questions for _ in range(samples)]
    with timer("reward"):
        judged = on_main(lambda: _plain(pool(repeated, texts)))
        rewards = np.asarray(judged["rewards"], np.float32)
    lengths = np.array([len(completion.tokens) for completion in completions], np.float64)
    cut = np.mean([completion.finish_reason == "length" for completion in completions])
    entropy = np.mean([completion.entropy.mean() for completion in completions])
    metrics = {
        "reward/mean": float(rewards.mean()),
        "length/mean": float(lengths.mean()),
        "length/truncated_frac": float(cut),
        "policy/entropy": float(entropy),
    }
    return Responses(
        repeated,
        [prompt for prompt in prompts for _ in range(samples)],
        completions,
        texts,
        rewards,
        metrics | judged["metrics"],
    )


def _plain(judged: RewardBatch) -> dict[str, Any]:
    """What travels to the other hosts; a float32 survives as a decimal number."""
    return {"rewards": judged.rewards.tolist(), "metrics": judged.metrics}
