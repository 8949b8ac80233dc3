"""One seed of `maypole reproduce synlogic`: reinforcement learning, calibration, the band, and reward hacking.

Every part leaves its files under `out/seed-N/` and is not done twice, so that seeds can run side by side in processes of their
own and an interrupted one goes on where it stopped.
"""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from data.mixture import TaskMix
from data.questions import SynLogic
from data.synlogic import TASKS
from data.synlogic.calibrate import Calibration, calibrate
from experiments._results import open_run, run_to_end
from framework.errors import UserError
from framework.rundata import RunData
from framework.rundir import RunDir, StageDir, write_atomic
from framework.sample import Sample
from models.tokenizer import LanguageTokenizer
from rl.config import Arm
from rl.grpo import GRPO
from rl.pass_rates import pass_counts
from rl.policy import StagePolicy
from rl.rewards import RewardPool
from rl.warm_start import WARM_START

__all__ = ["SeedRuns", "Study", "band_config", "count_verdicts", "run_seed"]

_MARGIN = 4  # tokens: training draws more questions than are looked at here, and a longer one would end the run
_LOOKED_AT = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """What is run for each seed."""

    main: GRPO
    """Its first arm is the strong model of the calibration, its warm start the weak one."""
    hacking: GRPO
    """Official against strict verifier."""
    grid: tuple[tuple[str, str], ...]
    """(task, level) settings to calibrate."""
    questions: int = 24
    """Of each setting."""
    samples: int = 16
    """Responses to each question."""
    verdicts: int = 50
    """Instances of every task and level whose oracle and wrong answer are judged."""


@dataclasses.dataclass(frozen=True)
class SeedRuns:
    """What a seed left."""

    main: RunData
    band: RunData
    hacking: RunData
    calibration: Calibration


def run_seed(study: Study, seed: int, out: Path) -> SeedRuns:
    """Do what is not done yet of one seed, and read all of it."""
    overrides = (f"--seed={seed}",)
    main = dataclasses.replace(study.main, seed=seed)
    run = open_run(out / "main", main, "synlogic:tiny", overrides)
    main_data = run_to_end(run, main)
    measured = _calibration(study, main, run, out / "calibration.json")
    band = band_config(main, measured)
    band_run = open_run(out / "band", band, "synlogic:band", overrides)
    _share_warm_start(run, band_run)
    band_data = run_to_end(band_run, band)
    hacking = dataclasses.replace(study.hacking, seed=seed)
    hacking_data = run_to_end(open_run(out / "hacking", hacking, "synlogic:hacking", overrides), hacking)
    return SeedRuns(main_data, band_data, hacking_data, measured)


def band_config(main: GRPO, measured: Calibration) -> GRPO:
    """Two arms from the warm start of `main`: one trained on the learnable settings, one on those out of reach."""
    inside, outside = measured.tasks("learnable"), measured.tasks("too hard")
    if not inside or not outside:
        raise UserError(
            f"The calibration found {len(inside)} learnable and {len(outside)} unreachable settings; one of each is needed to "
            f"compare.\n{measured.table()}Calibrate more levels, or change the warm start."
        )
    loss = main.arms[0].loss
    return dataclasses.replace(
        main,
        name="synlogic_band",
        arms=(
            Arm(name="in_band", loss=loss, data=SynLogic(tasks=inside)),
            Arm(name="out_of_band", loss=loss, data=SynLogic(tasks=outside)),
        ),
    )


def _share_warm_start(source: RunDir, target: RunDir) -> None:
    """The warm start of one run for another that would train the same: it is a function of the config."""
    there = target.path / WARM_START
    if (there / "done.json").is_file():
        return
    shutil.rmtree(there, ignore_errors=True)
    whole = target.path / f".{WARM_START}.copy"
    shutil.rmtree(whole, ignore_errors=True)
    shutil.copytree(source.path / WARM_START, whole)
    whole.rename(there)


def _calibration(study: Study, config: GRPO, run: RunDir, path: Path) -> Calibration:
    """Measure the grid, or read what was measured with the same settings."""
    asked = {"grid": [list(pair) for pair in study.grid], "questions": study.questions, "samples": study.samples}
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored.get("asked") == asked:
            return Calibration.from_json(stored["calibration"])
    setup = config.build()
    groups = _questions(study, setup.tokenizer, config.rollout.max_prompt)
    with RewardPool(config.reward, workers=config.reward_workers, timeout_s=config.reward_timeout_s) as pool:
        weak, strong = (
            _counts(study, config, run.stage(name), setup.tokenizer, groups, pool)
            for name in (WARM_START, config.arms[0].name)
        )
    pairs = {f"{task}/{level}": (task, level) for task, level in study.grid}
    measured = calibrate(
        {pairs[name]: counts for name, counts in weak.items()},
        {pairs[name]: counts for name, counts in strong.items()},
        samples=study.samples,
        k=min(10, study.samples),
    )
    write_atomic(path, json.dumps({"asked": asked, "calibration": measured.to_json()}, indent=1) + "\n")
    path.with_suffix(".md").write_text(measured.table(), encoding="utf-8")
    return measured


def _questions(study: Study, tokenizer: LanguageTokenizer, max_prompt: int) -> dict[str, list[Sample]]:
    """Held-out questions by setting; a setting whose questions may not fit the prompts of a run is left out."""
    groups = {}
    for task, level in study.grid:
        mixture = TaskMix(tasks=((task, level),)).build()
        looked_at = (mixture.train_sample(0, index).question for index in range(_LOOKED_AT))
        if all(len(tokenizer.encode(question)) + _MARGIN <= max_prompt for question in looked_at):
            groups[f"{task}/{level}"] = mixture.heldout(study.questions, 0)
    return groups


def _counts(
    study: Study,
    config: GRPO,
    stage: StageDir,
    tokenizer: LanguageTokenizer,
    groups: dict[str, list[Sample]],
    pool: RewardPool,
) -> dict[str, tuple[int, ...]]:
    policy = config.policy(stage)
    assert isinstance(policy, StagePolicy)
    roll = config.rollout
    engine = policy.engine(
        slots=roll.prompts * roll.samples, max_prompt=roll.max_prompt, max_new_tokens=roll.max_new_tokens
    )
    key = jax.random.key(config.seed)
    return pass_counts(engine, tokenizer, pool, groups, samples=study.samples, key=key)


def count_verdicts(instances: int, path: Path) -> dict[str, Any]:
    """For every task: how many oracles both verifiers accept, and how many wrong answers the strict one rejects.

    Kept in `path`, and counted again only for other tasks or another number of instances.
    """
    asked = {"instances": instances, "levels": {name: _levels(name) for name in TASKS}}
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored.get("asked") == asked:
            return stored["tasks"]
    counted = {name: _count(name, instances) for name in TASKS}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"asked": asked, "tasks": counted}, indent=1) + "\n")
    return counted


def _levels(name: str) -> Sequence[str]:
    """The two easiest: what they check is the same code, and harder ones take long to make."""
    return list(TASKS[name].levels)[:2]


def _count(name: str, instances: int) -> dict[str, int]:
    task = TASKS[name]
    counted = {
        "instances": 0,
        "oracle_strict": 0,
        "oracle_official": 0,
        "perturbed_rejected": 0,
        "perturbed_official": 0,
    }
    for level in _levels(name):
        for seed in range(instances):
            sample = task.generate(seed, task.levels[level], "english")
            right, wrong = task.solve(sample), task.perturb(sample, seed)
            counted["instances"] += 1
            counted["oracle_strict"] += task.verify(sample, right, "strict")
            counted["oracle_official"] += task.verify(sample, right, "official")
            counted["perturbed_rejected"] += not task.verify(sample, wrong, "strict")
            counted["perturbed_official"] += task.verify(sample, wrong, "official")
    return counted
