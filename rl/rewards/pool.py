"""Runs a reward function in worker processes, so that a bad answer costs its own reward and never the run. Imports no jax."""

import dataclasses
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, cast

import cloudpickle
import numpy as np
from pebble import ProcessExpired, ProcessPool

from framework.errors import UserError
from framework.interrupts import interrupts_held
from framework.sample import Sample
from rl.rewards import worker
from rl.rewards.shipping import SpawnWithoutMain, call_problem, pickle_function
from rl.rewards.worker import Reply

__all__ = ["RewardBatch", "RewardError", "RewardPool"]

_CHUNK = 8  # samples a task: at one a task, sending them costs more than most verifiers
_GRACE_S = 1.0  # how far past its deadline a sample that ignores the signal may run before its worker is killed
_MAX_RESTARTS = 3


class RewardError(UserError):
    """The reward function cannot work at all; training on would mean training on zeros."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardBatch:
    """Rewards in the order of the samples; a sample whose reward failed has 0 and is counted."""

    rewards: np.ndarray  # float32 [N]
    metrics: dict[str, float]  # reward/errors, reward/timeouts, reward/nonfinite: numbers of samples
    last_error: str = ""  # the first failure of this call, as text


class RewardPool:
    """Calls reward_fn(sample, response) for whole batches in `workers` processes.

        with RewardPool(reward_fn, workers=2, timeout_s=2.0) as pool:
            out = pool(samples, responses)

    A call that raises, returns no number or kills its worker is an error, one that needs more than timeout_s a timeout, NaN
    and infinity are nonfinite; each gives 0 and a count. If no sample of the first call gets a reward, that is a RewardError.
    """

    def __init__(self, reward_fn: Callable[[Sample, str], float], *, workers: int = 2, timeout_s: float = 2.0) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers} leaves nobody to run the reward function. Type workers=1 or more.")
        if not timeout_s > 0:
            raise ValueError(
                f"timeout_s={timeout_s} is no time at all. Type the seconds one sample may take, such as 2.0."
            )
        if not callable(reward_fn):
            raise TypeError(f"reward_fn={reward_fn!r} is not a function. Pass a function (sample, response) -> float.")
        if problem := call_problem(reward_fn):
            raise RewardError(f"A reward function is called as reward_fn(sample, response). {problem}.")
        try:
            self._payload = pickle_function(reward_fn)
        except Exception as error:
            raise RewardError(
                f"The reward function cannot be sent to a worker process: {type(error).__name__}: {error}\n"
                "It must not hold open files, locks, models or device arrays; make them inside the function instead."
            ) from error
        self.workers = workers
        self.timeout_s = timeout_s
        self.last_error = ""
        self._pool: ProcessPool | None = None
        self._closed = False
        self._trusted = False  # some sample has had a reward

    def __enter__(self) -> "RewardPool":
        self.warm()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm(self) -> None:
        """Starts the workers and returns at once; they load while the first answers are being sampled."""
        self._submit([])

    def close(self) -> None:
        """Ends the workers, busy or not. Safe to call twice."""
        self._closed = True
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def __call__(self, samples: Sequence[Sample], responses: Sequence[str]) -> RewardBatch:
        """Rewards of N samples and their N responses."""
        if len(samples) != len(responses):
            raise ValueError(
                f"{len(samples)} samples but {len(responses)} responses. Repeat each sample once per response of its group."
            )
        replies = self._replies(list(zip(samples, responses, strict=True)))
        with np.errstate(over="ignore"):  # 1e300 becomes infinite in float32, and is counted as such
            rewards = np.array([value for _, value, _ in replies], np.float32)
        finite = np.isfinite(rewards)
        kinds = [kind for kind, _, _ in replies]
        message = next((text for _, _, text in replies if text), "")
        if not message and not finite.all():
            message = f"the reward function returned {replies[int(np.argmin(finite))][1]}"
        batch = RewardBatch(
            rewards=np.where(finite, rewards, np.float32(0)),
            metrics={
                "reward/errors": float(kinds.count("error")),
                "reward/timeouts": float(kinds.count("timeout")),
                "reward/nonfinite": float((~finite).sum()),
            },
            last_error=message,
        )
        self.last_error = message or self.last_error
        self._raise_if_useless(batch)
        return batch

    def _raise_if_useless(self, batch: RewardBatch) -> None:
        failed = sum(batch.metrics.values())
        self._trusted = self._trusted or failed < len(batch.rewards)
        if self._trusted or not len(batch.rewards):
            return
        raise RewardError(
            f"The reward function gave no reward for any of the first {len(batch.rewards)} samples "
            f"({', '.join(f'{name} {count:.0f}' for name, count in batch.metrics.items())}). The first failure:\n\n"
            f"{batch.last_error}\n\n"
            "Call reward_fn(sample, response) once by hand to see it. If it only needs longer, raise "
            f"timeout_s={self.timeout_s}."
        )

    def _replies(self, pairs: list[tuple[Sample, str]]) -> list[Reply]:
        """One reply per pair. A chunk that loses its worker is run again sample by sample, so only the guilty one pays."""
        replies: dict[int, Reply] = {}
        size = max(1, min(_CHUNK, -(-len(pairs) // self.workers)))
        waiting = [range(i, min(i + size, len(pairs))) for i in range(0, len(pairs), size)]
        restarts = 0
        while waiting:
            running = [(places, self._submit([pairs[i] for i in places])) for places in waiting]
            waiting = []
            for places, future in running:
                lost: Reply
                try:
                    replies.update(zip(places, self._result(future), strict=True))
                    continue
                except TimeoutError:
                    lost = ("timeout", 0.0, f"no reward within {self.timeout_s} s, and the signal was ignored")
                except ProcessExpired as error:
                    lost = ("error", 0.0, f"the reward function ended its worker process (exit code {error.exitcode})")
                except BrokenProcessPool as error:
                    if (restarts := restarts + 1) > _MAX_RESTARTS * len(running):
                        raise RewardError(f"The reward workers do not stay alive: {error}") from error
                    waiting.append(places)
                    continue
                if len(places) == 1:
                    replies[places[0]] = lost
                else:
                    waiting.extend(range(i, i + 1) for i in places)
        return [replies[i] for i in range(len(pairs))]

    def _submit(self, pairs: list[tuple[Sample, str]]) -> Future[Any]:
        if self._closed:
            raise RuntimeError("This RewardPool is closed. Make a new one, and call it inside its `with` block.")
        if self._pool is not None and not self._pool.active:  # a worker died outside any task; pebble gives up then
            self._pool.stop()
            self._pool.join()
            self._pool = None
        if self._pool is None:
            self._pool = ProcessPool(
                max_workers=self.workers,
                initializer=worker.start,
                initargs=(self._payload,),
                context=cast(Any, SpawnWithoutMain()),  # pebble types its pipes as those of Windows
            )
        # A chunk has a watchdog in its worker that ends it at the first stuck sample. A single sample is killed from here,
        # which tells a timeout from a function that ends its own process.
        watchdog_s = self.timeout_s + _GRACE_S if len(pairs) > 1 else None
        limit_s = (self.timeout_s + _GRACE_S) * max(1, len(pairs))
        payload = cloudpickle.dumps(pairs, protocol=pickle.HIGHEST_PROTOCOL)
        with interrupts_held():  # the first one starts the workers
            return self._pool.schedule(worker.run_chunk, args=(payload, self.timeout_s, watchdog_s), timeout=limit_s)

    def _result(self, future: Future[Any]) -> list[Reply]:
        # When pebble gives up, tasks it had not yet sent are never answered: look in on it while waiting.
        while not wait([future], timeout=1.0).done:
            if self._pool is None or not self._pool.active:
                raise BrokenProcessPool("the pool stopped before it answered")
        replies = future.result()
        if isinstance(replies, str):
            raise RewardError(
                f"A worker process could not load the reward function:\n\n{replies}\n"
                "Everything it uses must be importable in a fresh Python, or be defined in the same file."
            )
        return replies
