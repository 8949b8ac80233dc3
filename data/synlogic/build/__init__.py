"""Data sets of SynLogic tasks (arXiv:2505.19641) at any size, the same bytes for any number of workers.

    config = BuildConfig(tasks=("kukurasu", "math_path"), n=10_000, validation=100, levels=("easy", "hard"))
    manifest = build(config, Path("synlogic"), engine=open_engine("local", workers=8))

Shards of candidates are made by an engine and written to a hidden folder as they come; which candidates become records is
decided from them afterwards (`selection.py`). A build that was stopped, however, goes on with the shards that are there.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from data import synlogic
from data.mixture_weights import counts
from data.synlogic.base import Form
from data.synlogic.build import folder, write
from data.synlogic.build.engines import Engine
from data.synlogic.build.folder import Parts
from data.synlogic.build.selection import Group, Outcome, select, shards_missing
from data.synlogic.build.shard import ShardJob
from data.synlogic.build.versions import code_digest, package_version, parameters
from data.synlogic.published import INSTRUCTION
from framework.config import nearest
from framework.errors import UserError

__all__ = ["BuildConfig", "FileFormat", "Progress", "build"]

FileFormat = Literal["parquet", "jsonl"]
Progress = Callable[[int, int, str], None]  # (records done, of all, what is going on)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Everything the output depends on."""

    tasks: tuple[str, ...]
    levels: tuple[str, ...] = ("easy",)
    """Each task's records are split evenly over these."""
    n: int = 1000
    """Training records of all tasks together."""
    validation: int = 0
    """Validation records of each task, besides `n`."""
    weights: tuple[tuple[str, float], ...] = ()
    """(task, weight) pairs; a task without one has 1."""
    form: Form = "english"
    """"english" for language models; "compact", without instruction, for models of a few million parameters."""
    seed: int = 0
    max_prompt_chars: int = 8000
    """A longer prompt, instruction included, is dropped. 8,000 characters are about 2,048 tokens."""
    formats: tuple[FileFormat, ...] = ("parquet",)
    instruction: bool = True
    """Whether an english prompt begins with how to write the response."""
    rows_per_file: int = 50_000

    def build(self) -> list[Group]:
        """How many records of which task at which level. Raises UserError for settings that make no data set."""
        _check(self)
        weights = [dict(self.weights).get(task, 1.0) for task in self.tasks]
        even = [1.0] * len(self.levels)
        groups = []
        for task, weight, count in zip(self.tasks, weights, _split(self.n, weights), strict=True):
            validation = self.validation if weight else 0  # a task of weight 0 is left out altogether
            shares = zip(self.levels, _split(count, even), _split(validation, even), strict=True)
            groups += [Group(task=task, level=level, train=n, validation=kept) for level, n, kept in shares]
        return [group for group in groups if group.wanted]

    @property
    def prefix(self) -> str:
        """What comes before each question."""
        return INSTRUCTION if self.instruction and self.form == "english" else ""


def build(
    config: BuildConfig, out: Path, *, engine: Engine, force: bool = False, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Make the data set in the folder `out` and return its manifest; one that is finished is left as it is.

    Raises:
        UserError: settings that make no data set, or a folder with something else in it (`force` makes a build anew).
    """
    groups = config.build()
    settings = _settings(config, groups)
    with folder.opened(out, settings, force=force) as parts:
        manifest = folder.finished(out, settings)
        if manifest is None:
            outcomes = _make(config, groups, parts, engine, progress)
            manifest = write.write(config, groups, outcomes, parts, out, settings, progress)
        shutil.rmtree(parts.folder)
    return manifest


def _make(config: BuildConfig, groups: list[Group], parts: Parts, engine: Engine, progress: Progress) -> list[Outcome]:
    """Shards until each group has its records, or has no more."""
    made = [parts.candidates(group) for group in groups]
    max_chars = config.max_prompt_chars - (len(config.prefix) + 2 if config.prefix else 0)
    places = {(group.task, group.level): place for place, group in enumerate(groups)}
    total = sum(group.wanted for group in groups)
    while True:
        outcomes = select(groups, [list(_without_gap(shards)) for shards in made], max_chars)
        more = [shards_missing(group, outcome) for group, outcome in zip(groups, outcomes, strict=True)]
        if not any(more):
            return outcomes
        jobs = _jobs(config, groups, made, more)
        done = [len(outcome.picked) for outcome in outcomes]
        progress(sum(done), total, "making")
        with contextlib.closing(engine(jobs)) as results:
            for job, raw in results:
                place = places[job.task, job.level]
                group = groups[place]
                made[place][job.first // group.shard_size] = parts.add(group, job.first // group.shard_size, raw)
                done[place] = min(done[place] + job.count, group.wanted)  # until it is known which ones are distinct
                progress(sum(done), total, f"making {job.task}")


def _without_gap(shards: dict[int, Any]) -> Iterator[Any]:
    """Those before the first that is missing: a stopped build has shards in any order."""
    number = 0
    while number in shards:
        yield shards[number]
        number += 1


def _jobs(config: BuildConfig, groups: list[Group], made: list[dict[int, Any]], more: list[int]) -> Iterator[ShardJob]:
    """The missing shards, groups in turn, so that no slow one is left to the end."""
    missing = []
    for group, shards, count in zip(groups, made, more, strict=True):
        known = sum(1 for _ in _without_gap(shards))
        wanted = [number for number in range(known, known + count) if number not in shards]
        missing += [(turn, group, number) for turn, number in enumerate(wanted)]
    for _, group, number in sorted(missing, key=lambda job: job[0]):
        yield ShardJob(
            seed=config.seed,
            task=group.task,
            level=group.level,
            form=config.form,
            first=number * group.shard_size,
            count=group.shard_size,
        )


def _settings(config: BuildConfig, groups: list[Group]) -> dict[str, Any]:
    """What the output depends on, as it stands in the manifest."""
    return {
        "maypole": package_version(),
        "seed": config.seed,
        "form": config.form,
        "n": config.n,
        "validation": config.validation,
        "max_prompt_chars": config.max_prompt_chars,
        "instruction": config.prefix,
        "formats": list(config.formats),
        "rows_per_file": config.rows_per_file,
        "groups": [{**dataclasses.asdict(group), "params": parameters(group.task, group.level)} for group in groups],
        "code": {task: code_digest(task) for task in dict.fromkeys(group.task for group in groups)},
    }


def _check(config: BuildConfig) -> None:
    known = synlogic.TASKS
    for option, names in (("--tasks", config.tasks), ("--weights", [task for task, _ in config.weights])):
        for task in names:
            if task not in known:
                hint = nearest(task, known)
                raise UserError(
                    f"{option}: there is no task {task!r} that can be generated.{hint} See: maypole data tasks"
                )
    for what, given in (("--tasks", config.tasks), ("--level", config.levels), ("--format", config.formats)):
        if not given:
            raise UserError(f"{what} names nothing, so there is nothing to make. Name at least one.")
        twice = [name for name in given if given.count(name) > 1]
        if twice:
            raise UserError(f"{what} names {twice[0]!r} twice. Name it once; --weights makes more of a task.")
    for task in config.tasks:
        for level in config.levels:
            if level not in known[task].levels:
                raise UserError(f"--level {level!r} is not one of {task}. It has: {', '.join(known[task].levels)}.")
    unused = [task for task, _ in config.weights if task not in config.tasks]
    if unused:
        raise UserError(
            f"--weights names {unused[0]!r}, which is not in --tasks. Add it there, or take the weight out."
        )
    weighed = [task for task, _ in config.weights]
    twice = [task for task in weighed if weighed.count(task) > 1]
    if twice:
        raise UserError(f"--weights names {twice[0]!r} twice. Give it one weight.")
    for task, weight in config.weights:
        if not 0 <= weight < float("inf"):
            raise UserError(f"--weights {task}={weight} is no weight. Use a number from 0, such as {task}=2.")
    if not any(dict(config.weights).get(task, 1.0) for task in config.tasks):
        raise UserError(
            "--weights gives every task 0, so there is nothing to make. Give one of them a positive weight."
        )
    for option, value, least in (
        ("--n", config.n, 0),
        ("--validation", config.validation, 0),
        ("--max-prompt-chars", config.max_prompt_chars, 1),
        ("--rows-per-file", config.rows_per_file, 1),
    ):
        if value < least:
            raise UserError(f"{option} {value} is too small. Use {least} or more.")
    if config.n + config.validation == 0:
        raise UserError("--n 0 and --validation 0 make no record. Use --n 1000, for example.")
    if config.form not in ("english", "compact"):
        raise UserError(f"--form {config.form!r} is not a form. Use english or compact.")


def _split(total: int, weights: list[float]) -> list[int]:
    """`total` in whole parts by weight. No part shrinks when `total` grows, which rounding to the nearest does not promise."""
    return counts(total, weights[::-1])[::-1]  # what rounding leaves goes to the first of equal weights
