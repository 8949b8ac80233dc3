"""Compiling beside the main thread, so that several programs compile at a time and Ctrl-C is heard meanwhile."""

import dataclasses
import json
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import jax

__all__ = ["REFUSAL", "InProcess", "InThread", "Job", "Outcome", "Refusal", "compile_into", "written"]

REFUSAL = "refusal.json"
_LAST_FILE = "after_optimizations_after_buffer_assignment.txt"


@dataclasses.dataclass(frozen=True)
class Refusal:
    """The compiler found that a program does not fit."""

    message: str
    total: int  # bytes it would need, arguments included
    usable: int


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the compiler says a program needs of one device, in bytes."""

    refused: Refusal | None = None
    arguments: int = 0
    temporaries: int = 0
    outputs: int = 0  # those that do not take over the memory of an argument
    code: int | None = None  # None: no machine code was made
    xla_flops: float | None = None


class Job(Protocol):
    """A compilation that goes on beside the main thread."""

    folder: str
    seconds: float

    def start(self, folder: str) -> None:
        """`folder`: where the compiler writes what it does."""
        ...

    @property
    def runs(self) -> bool: ...
    def stop(self) -> None:
        """Nobody waits any more."""
        ...

    def result(self) -> Outcome: ...


class InThread:
    """Compiles to the end, machine code included."""

    def __init__(self, lowered: Any):
        self.folder, self.seconds = "", 0.0
        self._lowered = lowered
        self._result: Outcome | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self, folder: str) -> None:
        self.folder = folder
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self._result = compile_into(self._lowered, self.folder)
        except BaseException as error:
            self._failure = error  # raised by `result`, in the main thread
        self.seconds = time.monotonic() - began

    @property
    def runs(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        pass  # a thread cannot be ended; it ends with the process

    def result(self) -> Outcome:
        if self._failure is not None:
            raise self._failure
        assert self._result is not None
        return self._result


class InProcess:
    """Compiles until memory is laid out, then ends the process: machine code takes most of the time and changes no figure."""

    def __init__(self, command: Sequence[str]):
        """`command`: compiles one program into the folder that is added as its last word, see `framework.plan_child`."""
        self.folder, self.seconds = "", 0.0
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0

    def start(self, folder: str) -> None:
        self.folder, self._began = folder, time.monotonic()
        with Path(folder, "log.txt").open("w") as log:
            self._process = subprocess.Popen([*self._command, folder], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    @property
    def runs(self) -> bool:
        assert self._process is not None
        if self._process.poll() is None and not self._laid_out():
            return True
        self.seconds = time.monotonic() - self._began
        self.stop()
        return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _laid_out(self) -> bool:
        return any(Path(self.folder).glob(f"*{_LAST_FILE}"))  # written when those that are read are complete

    def result(self) -> Outcome:
        refusal = Path(self.folder, REFUSAL)
        if refusal.exists():
            return Outcome(refused=Refusal(**json.loads(refusal.read_text())))
        if not self._laid_out():
            raise RuntimeError(f"A compilation failed:\n{Path(self.folder, 'log.txt').read_text()}")
        return _from_assignment(written(self.folder, "buffer-assignment.txt"))


def _from_assignment(text: str) -> Outcome:
    sizes = {"arguments": 0, "temporaries": 0, "outputs": 0}
    for size, color, rest in re.findall(r"^allocation \d+: size (\d+),(?: color (\d+),)? page \d+, (.*)$", text, re.M):
        kind = {"para": "arguments", "prea": "temporaries", "outp": "outputs"}.get(rest[:4])
        if kind and color in ("", "0"):
            sizes[kind] += int(size)
    return Outcome(arguments=sizes["arguments"], temporaries=sizes["temporaries"], outputs=sizes["outputs"])


def compile_into(lowered: Any, folder: str) -> Outcome:
    """Compile, with the compiler's own notes written into a folder."""
    try:
        compiled = lowered.compile(compiler_options={"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
        found = re.search(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)", text)
        if "RESOURCE_EXHAUSTED" not in text or found is None:
            raise
        total, usable = (_size(*found.groups()[i : i + 2]) for i in (0, 2))
        message = f"it needs {found[1]}{found[2]}iB, {found[3]}{found[4]}iB can be used"
        return Outcome(refused=Refusal(message, total, usable))
    stats = compiled.memory_analysis()
    return Outcome(
        arguments=stats.argument_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        outputs=max(stats.output_size_in_bytes - stats.alias_size_in_bytes, 0),
        code=stats.generated_code_size_in_bytes,
        xla_flops=float(compiled.cost_analysis().get("flops", 0.0)),
    )


def _size(number: str, unit: str) -> int:
    return int(float(number) * 1024 ** " KMGT".index(unit or " "))


def written(folder: str, ending: str) -> str:
    """What the compiler wrote about the program; "" if it wrote nothing. The largest file, should there be several modules."""
    files = sorted(Path(folder).glob(f"*{ending}"), key=lambda p: p.stat().st_size)
    return files[-1].read_text(errors="replace") if files else ""
