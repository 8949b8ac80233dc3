"""The folder of a run: its config, its environment, one folder a stage. Nothing in it is ever silently replaced.

`config.json` keeps where the config came from and what was changed on the command line, so that `resume` builds the same
config again and can tell when the source has changed meanwhile.
"""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from framework.config import load_experiment
from framework.config_text import Json, diff_json, to_json, to_text
from framework.distributed import host_name, is_main, process_id
from framework.env import describe_env
from framework.errors import UserError
from framework.experiment import Experiment
from framework.overrides import apply_overrides
from framework.runlock import hold_lock, refuse_if_held

__all__ = ["RUN_FILES", "ConfigChanged", "RunDir", "StageDir", "check_free", "wait_for_run", "write_atomic"]

CONFIG_JSON, CONFIG_TXT, ENV_JSON, DONE_JSON = "config.json", "config.txt", "env.json", "done.json"
RUN_FILES = (CONFIG_JSON, CONFIG_TXT, ENV_JSON)  # what `create` writes


class ConfigChanged(UserError):
    """The source of a run's config gives another config now; `changes` lists `field: before -> now`."""

    def __init__(self, run: Path, source: str, changes: Sequence[str]) -> None:
        self.changes = list(changes)
        listed = "\n".join(f"  {line}" for line in self.changes)
        super().__init__(
            f"The config of {run} has changed since the run was started (then -> now):\n{listed}\n"
            f"Restore {source} to continue the same run, or accept the new config for the rest of it with:\n"
            f"  maypole resume {run} --accept-config-change"
        )


@dataclasses.dataclass(frozen=True)
class StageDir:
    """One stage of a run, for example `warm_start/` or `clip_cov/`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples_path(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def checkpoints_path(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard_path(self) -> Path:
        return self.path / "tensorboard"

    @property
    def done(self) -> bool:
        return (self.path / DONE_JSON).is_file()

    @property
    def summary(self) -> dict[str, Any]:
        """What `mark_done` was given; empty while the stage is not done."""
        return json.loads((self.path / DONE_JSON).read_text(encoding="utf-8")) if self.done else {}

    def mark_done(self, summary: Mapping[str, Any]) -> None:
        """Record that the stage is finished, in process 0. Written last and atomically: a killed run never looks finished."""
        if is_main():
            write_atomic(self.path / DONE_JSON, json.dumps(dict(summary), indent=2) + "\n")


@dataclasses.dataclass(frozen=True)
class RunDir:
    """A run folder that exists. Make one with `create`, come back to it with `open`."""

    path: Path
    source: str
    overrides: tuple[str, ...]

    @classmethod
    def create(
        cls,
        path: Path | str,
        config: Experiment,
        source: str,
        overrides: Sequence[str] = (),
        *,
        overwrite: bool = False,
    ) -> "RunDir":
        """Make the folder and write the config into it. A folder with content is refused, or moved aside."""
        path = Path(path)
        stored = {
            "source": source,
            "overrides": list(overrides),
            "config": to_json(config),
        }  # fails before anything is made
        check_free(path, overwrite=overwrite)
        if _occupied(path):
            refuse_if_held(path)
            path.rename(_aside(path))
        path.mkdir(parents=True, exist_ok=True)
        write_atomic(path / CONFIG_TXT, to_text(config))
        write_atomic(path / ENV_JSON, json.dumps(describe_env(), indent=2) + "\n")
        write_atomic(
            path / CONFIG_JSON, json.dumps(stored, indent=2, allow_nan=False) + "\n"
        )  # last: a run exists once it has this
        return cls(path, source, tuple(overrides))

    @classmethod
    def open(cls, path: Path | str) -> "RunDir":
        """An existing run folder; what is not one is a `UserError` that says what is there."""
        path = Path(path)
        stored = _read_config(path)
        return cls(path, stored["source"], tuple(stored["overrides"]))

    def stamp(self) -> str:
        """Tells this run from any other that was ever made under its name (see `wait_for_run`)."""
        return _stamp(self.path) or ""

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def stored_config(self) -> dict[str, Json]:
        """The config the run was started with, as JSON (see `config_text.to_json`)."""
        return _read_config(self.path)["config"]

    def stage(self, name: str) -> StageDir:
        """The folder of a stage, made if it is not there."""
        if not name or Path(name).name != name or name.startswith("."):
            raise UserError(f"A stage is named like a folder, without slashes or a leading dot; got {name!r}.")
        (self.path / name).mkdir(exist_ok=True)
        return StageDir(self.path / name)

    def stages(self) -> list[StageDir]:
        """The stages that have started, in the order they are worked on: warm start, the arms of the config, others by time."""
        found = [StageDir(p) for p in self.path.iterdir() if p.is_dir() and not p.name.startswith(".")]
        started = [s for s in found if s.metrics_path.exists() or s.checkpoints_path.exists() or s.done]
        rank = {name: i for i, name in enumerate(self._arm_names())}

        def place(stage: StageDir) -> tuple[int, int, float, str]:
            group = 1 if stage.name in rank else 0 if stage.name.startswith("warm") else 2
            return group, rank.get(stage.name, 0), _last_written(stage) if group != 1 else 0.0, stage.name

        return sorted(started, key=place)

    def _arm_names(self) -> list[str]:
        """The arms in the order of the stored config; nothing for a config without arms, or a folder without a config."""
        try:
            arms = self.stored_config.get("arms")
        except UserError:
            return []
        named = [arm.get("name") for arm in arms if isinstance(arm, dict)] if isinstance(arms, list) else []
        return [name for name in named if isinstance(name, str)]

    def lock(self) -> AbstractContextManager[None]:
        """`with run.lock():` keeps a second process away; it gets a `UserError` that names this one."""
        return hold_lock(self.path)

    def rebuild(self) -> Experiment:
        """The config as its source and overrides give it now, which may differ from the stored one."""
        return apply_overrides(load_experiment(self.source).config, self.overrides)

    def reload(self, *, accept_change: bool = False) -> Experiment:
        """Build the config again from its source and overrides, and refuse one that differs from the stored one."""
        config = self.rebuild()
        changes = diff_json(self.stored_config, json.loads(json.dumps(to_json(config))))
        if changes and not accept_change:
            raise ConfigChanged(self.path, self.source, changes)
        if changes and is_main():
            stored = {"source": self.source, "overrides": list(self.overrides), "config": to_json(config)}
            write_atomic(self.path / CONFIG_TXT, to_text(config))
            write_atomic(self.path / CONFIG_JSON, json.dumps(stored, indent=2, allow_nan=False) + "\n")
        return config


def check_free(path: Path, *, overwrite: bool = False) -> None:
    """A `UserError` when a new run at `path` would need `overwrite`."""
    if _occupied(path) and not overwrite:
        raise UserError(
            f"{path} already exists and is not empty. To continue it: maypole resume {path}. To start another run: "
            f"--name OTHER. To start again here: --overwrite, which first moves the old one to {_aside(path)}."
        )


def wait_for_run(path: Path, stamp: str, *, timeout_s: float = 60.0) -> None:
    """Return once this host sees the run folder that process 0 sees. Raises UserError when it does not come to see it."""
    deadline = time.monotonic() + timeout_s  # network file systems show new files late, some after half a minute
    while _stamp(path) != stamp:
        if time.monotonic() > deadline:
            raise UserError(
                f"Process {process_id()} ({host_name()}) does not see the run folder of process 0 in {path.absolute()}. All hosts "
                "need one shared file system for it: give a folder on it with --dir DIR."
            )
        time.sleep(0.2)


def _stamp(path: Path) -> str | None:
    try:
        return hashlib.sha256((path / ENV_JSON).read_bytes()).hexdigest()
    except OSError:
        return None


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _read_config(path: Path) -> dict[str, Any]:
    file = path / CONFIG_JSON
    if not path.is_dir():
        beside = sorted(p.parent.name for p in path.parent.glob(f"*/{CONFIG_JSON}")) if path.parent.is_dir() else []
        known = f" Runs in {path.parent}: {', '.join(beside[-8:])}." if beside else ""
        raise UserError(f"There is no run folder {path}.{known} Start one with: maypole run EXPERIMENT")
    if not file.is_file():
        raise UserError(
            f"{path} is not a run folder: it has no {CONFIG_JSON}. Start a run with: maypole run EXPERIMENT"
        )
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{file} is not JSON ({error}). Restore it, or start a new run: maypole run EXPERIMENT"
        ) from error
    if not isinstance(stored, dict) or {"source", "overrides", "config"} - set(stored):
        raise UserError(
            f'{file} has not the keys "source", "overrides" and "config". It was not written by maypole run.'
        )
    _check_types(file, stored)
    return stored


def _check_types(file: Path, stored: Mapping[str, Any]) -> None:
    overrides = stored["overrides"]
    sound = {
        "source": ("text", isinstance(stored["source"], str)),
        "overrides": (
            "a list of text",
            isinstance(overrides, list) and all(isinstance(word, str) for word in overrides),
        ),
        "config": ("an object", isinstance(stored["config"], dict)),
    }
    for key, (kind, good) in sound.items():
        if not good:
            raise UserError(
                f'{file}: "{key}" must be {kind}, and is {json.dumps(stored[key])[:60]}. The file is damaged: restore it, or start '
                "a new run: maypole run EXPERIMENT"
            )


def _occupied(path: Path) -> bool:
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _aside(path: Path) -> Path:
    taken = 1
    while (aside := path.with_name(f"{path.name}.old-{taken}")).exists():
        taken += 1
    return aside


def _last_written(stage: StageDir) -> float:
    """Stages work one after the other, so that the order of their last writes is the order they started in."""
    return max((p.stat().st_mtime for p in (stage.checkpoints_path, stage.metrics_path) if p.exists()), default=0.0)
