"""The unit of work of a SynLogic data set (arXiv:2505.19641): a range of candidates of one task and level, made anywhere.

Candidate i of (task, level) is a pure function of (seed, task, level, i), so any process of any machine makes the same bytes.
A shard is one compressed text: a line that describes the candidates, then one line a candidate. Imports no jax.
"""

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data import synlogic
from data.synlogic import base
from data.synlogic.base import Form
from framework.sample import Sample

__all__ = ["Candidate", "Shard", "ShardError", "ShardJob", "make_shard", "read_shard"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardJob:
    seed: int
    task: str
    level: str
    form: Form
    first: int  # number of the first candidate
    count: int


class Candidate(NamedTuple):
    digest: str  # of the question; "" where the generator found no instance
    chars: int  # of the question
    rejected: int = 0  # draws whose own oracle failed, before this one
    redrawn: int = 0  # draws that the generator itself threw away, before this one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    candidates: tuple[Candidate, ...]
    problem: str  # what the generator said where it found no instance, the first time
    lines: Sequence[str]  # a candidate as JSON, "null" where there is none

    def sample(self, number: int) -> Sample:
        return Sample(**json.loads(self.lines[number]))


class ShardError(ValueError):
    """Bytes that are no shard, for example of a file that was cut."""


def make_shard(job: ShardJob) -> bytes:
    """The candidates `job.first` to `job.first + job.count - 1`. An error in a generator names the candidate."""
    task = synlogic.TASKS[job.task]
    params = task.levels[job.level]
    candidates: list[Candidate] = []
    lines: list[str] = []
    problem = ""
    for number in range(job.first, job.first + job.count):
        seed = base.stable_int("synlogic", job.seed, job.task, job.level, number)
        before = base.REJECTED.copy()
        try:
            sample = task.generate(seed, params, job.form)
        except ValueError as error:  # these parameters seldom have an instance: counted, and said in the manifest
            problem = problem or f"seed {seed}: {error}"
            candidates.append(Candidate("", 0, *_rejected_since(before)))
            lines.append("null")
            continue
        except Exception as error:
            raise RuntimeError(f"{job.task}/{job.level}: generate(seed={seed}) failed: {error!r}") from error
        digest = hashlib.sha256(sample.question.encode()).hexdigest()[:32]
        candidates.append(Candidate(digest, len(sample.question), *_rejected_since(before)))
        lines.append(json.dumps(_fields(sample), ensure_ascii=False))
    head = json.dumps({"candidates": candidates, "problem": problem}, ensure_ascii=False)
    return zlib.compress("\n".join([head, *lines]).encode(), 3)


def read_shard(raw: bytes) -> Shard:
    """Raises `ShardError` for anything but the bytes of `make_shard`."""
    try:
        head, *lines = zlib.decompress(raw).decode().split("\n")
        described = json.loads(head)
        candidates = tuple(Candidate(*candidate) for candidate in described["candidates"])
    except (zlib.error, ValueError, KeyError, TypeError) as error:
        raise ShardError(str(error)) from error
    if len(candidates) != len(lines):
        raise ShardError(f"{len(candidates)} candidates, {len(lines)} lines")
    return Shard(candidates=candidates, problem=described["problem"], lines=lines)


def _fields(sample: Sample) -> dict[str, Any]:
    # Not dataclasses.asdict: it copies what is inside of meta, which takes longer than many generators.
    return {field.name: getattr(sample, field.name) for field in dataclasses.fields(sample)}


def _rejected_since(before: Mapping[str, int]) -> tuple[int, int]:
    return base.REJECTED["oracle"] - before.get("oracle", 0), base.REJECTED["draw"] - before.get("draw", 0)
