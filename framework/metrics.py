"""Metrics and samples of one stage: JSON lines that survive a kill, and TensorBoard beside them.

The `step` of a line is the number of finished updates, the same number a checkpoint carries. A resumed
run therefore keeps the lines up to the restored step and writes the rest again.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

import numpy as np

from framework.distributed import is_main

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

Metrics = Mapping[str, object]  # name -> number, or array of numbers


class StagePaths(Protocol):
    """The files of a stage; a plain folder path will do as well."""

    @property
    def metrics_path(self) -> Path: ...
    @property
    def samples_path(self) -> Path: ...
    @property
    def tensorboard_path(self) -> Path: ...


class MetricLogger:
    """Writes `metrics.jsonl`, `samples.jsonl` and TensorBoard events.

    `resume_step` (or a later call of `resume`, which `framework.loop.fit` makes) cuts what lies behind
    the restored step. Without either, lines are appended to what is there. On many hosts only process 0 writes; the
    loggers of the others take everything and keep nothing.
    """

    def __init__(
        self, stage: StagePaths | Path | str, *, resume_step: int | None = None, tensorboard: bool = True
    ) -> None:
        if isinstance(stage, str | Path):
            folder = Path(stage)
            self._metrics_path, self._samples_path = folder / "metrics.jsonl", folder / "samples.jsonl"
            self._tensorboard_path = folder / "tensorboard"
        else:
            self._metrics_path, self._samples_path = Path(stage.metrics_path), Path(stage.samples_path)
            self._tensorboard_path = Path(stage.tensorboard_path)
        self.nonfinite = 0  # numbers written as null so far
        self._writes = is_main()
        self._use_tensorboard = tensorboard and self._writes
        self._files: dict[Path, TextIO] = {}
        self._tensorboard: SummaryWriter | None = None
        self._purge_step: int | None = None
        self._started_s = time.monotonic()
        self._earlier_s: float | None = None  # seconds of the kept lines of earlier attempts
        if resume_step is not None:
            self.resume(resume_step)

    def resume(self, step: int | None) -> None:
        """Continue behind `step` finished updates: later lines are cut from both files. None: start anew."""
        self._close_files()
        self._purge_step = 0 if step is None else step + 1
        if self._writes:
            for path in (self._metrics_path, self._samples_path):
                cut_lines(path, -1 if step is None else step)
        self._earlier_s = None

    def log(self, step: int, metrics: Metrics) -> None:
        """One line, on disk (as far as a killed process is concerned) when this returns.

        NaN and infinities have no place in JSON: they become null, counted in `metrics/nonfinite`.
        """
        values = {name: _plain(value) for name, value in metrics.items()}
        bad = sum(_count_nonfinite(value) for value in values.values())
        if bad:
            self.nonfinite += bad
            values["metrics/nonfinite"] = bad
        if self._earlier_s is None:
            self._earlier_s = _last_time_s(self._metrics_path)
        time_s = round(self._earlier_s + time.monotonic() - self._started_s, 3)
        line = {"step": int(step), "time_s": time_s} | {name: _or_null(value) for name, value in values.items()}
        self._write(self._metrics_path, [line])
        self._to_tensorboard(int(step), values)

    def samples(self, step: int, rows: Iterable[Mapping[str, object]]) -> None:
        """One line a row. `step` as in `log`: what update number 7 trained on (step index 6) belongs to step 7."""
        self._write(
            self._samples_path, [{"step": int(step)} | {k: _or_null(v) for k, v in row.items()} for row in rows]
        )

    def sync(self) -> None:
        """Force the lines to the disk, so that a checkpoint is never newer than its metrics after a power cut."""
        for file in self._files.values():
            os.fsync(file.fileno())

    def close(self) -> None:
        self._close_files()
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None

    def __enter__(self) -> MetricLogger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, path: Path, rows: list[dict[str, object]]) -> None:
        if not rows or not self._writes:
            return
        if path not in self._files:
            path.parent.mkdir(parents=True, exist_ok=True)
            cut_lines(path, None)  # a broken last line would swallow the first new one
            self._files[path] = path.open("a", encoding="utf-8")
        text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        self._files[path].write(text)
        self._files[path].flush()

    def _to_tensorboard(self, step: int, values: Mapping[str, object]) -> None:
        if not self._use_tensorboard:
            return
        if self._tensorboard is None:
            from tensorboardX import SummaryWriter  # takes a while to import, and runs without it need not wait

            self._tensorboard = SummaryWriter(str(self._tensorboard_path), purge_step=self._purge_step)
        for name, value in values.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self._tensorboard.add_scalar(name, value, step)

    def _close_files(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}


def cut_lines(path: Path, last_step: int | None) -> None:
    """Keep the whole lines with step <= last_step (None: every whole line). Atomic; no rewrite without need."""
    if not path.exists():
        return
    content = path.read_bytes()
    kept = b"".join(line for line in content.splitlines(keepends=True) if _keeps(line, last_step))
    if kept == content:
        return
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _keeps(line: bytes, last_step: int | None) -> bool:
    if not line.endswith(b"\n"):
        return False  # the process was killed while it wrote this
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return False
    return last_step is None or step <= last_step


def _last_time_s(path: Path) -> float:
    if not path.exists():
        return 0.0
    lines = path.read_bytes().splitlines()
    try:
        return float(json.loads(lines[-1])["time_s"])
    except (IndexError, ValueError, KeyError, TypeError):
        return 0.0


def _plain(value: object) -> object:
    """Arrays and numpy scalars as Python numbers (size one) or lists."""
    if isinstance(value, bool | int | float):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        array = array.astype(np.float32)  # bfloat16 and the like
    return array.item() if array.size == 1 else array.tolist()


def _count_nonfinite(value: object) -> int:
    if isinstance(value, list):
        return sum(_count_nonfinite(item) for item in value)
    return int(isinstance(value, float) and not math.isfinite(value))


def _or_null(value):
    if isinstance(value, dict):
        return {key: _or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_or_null(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
