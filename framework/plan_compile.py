"""Compiling beside the main thread, so that several programs compile at a time and Ctrl-C is heard meanwhile."""

import dataclasses
import re
import threading
import time
from pathlib import Path
from typing import Any

import jax

__all__ = ["Job", "Refusal", "written"]


@dataclasses.dataclass(frozen=True)
class Refusal:
    """The compiler found that a program does not fit."""

    message: str
    total: int  # bytes it would need, arguments included
    usable: int


class Job:
    """A compilation in a thread of its own."""

    def __init__(self, lowered: Any):
        self.folder, self.seconds = "", 0.0
        self._lowered = lowered
        self._result: tuple[Any, Refusal | None] | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self, folder: str) -> None:
        """`folder`: where the compiler writes what it does."""
        self.folder = folder
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            options = {"xla_dump_to": self.folder, "xla_dump_hlo_as_text": True}
            self._result = _compile_or_refuse(self._lowered, options)
        except BaseException as error:
            self._failure = error  # raised by `result`, in the main thread
        self.seconds = time.monotonic() - began

    @property
    def runs(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> tuple[Any, Refusal | None]:
        if self._failure is not None:
            raise self._failure
        assert self._result is not None
        return self._result


def _compile_or_refuse(lowered: Any, options: dict[str, Any]) -> tuple[Any, Refusal | None]:
    try:
        return lowered.compile(compiler_options=options), None
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
        found = re.search(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)", text)
        if "RESOURCE_EXHAUSTED" not in text or found is None:
            raise
        total, usable = (_size(*found.groups()[i : i + 2]) for i in (0, 2))
        return None, Refusal(f"it needs {found[1]}{found[2]}iB, {found[3]}{found[4]}iB can be used", total, usable)


def _size(number: str, unit: str) -> int:
    return int(float(number) * 1024 ** " KMGT".index(unit or " "))


def written(folder: str, ending: str) -> str:
    """What the compiler wrote about the program; "" if it wrote nothing. The largest file, should there be several modules."""
    files = sorted(Path(folder).glob(f"*{ending}"), key=lambda p: p.stat().st_size)
    return files[-1].read_text(errors="replace") if files else ""
