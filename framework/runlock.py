"""One process at a time works on a run folder: a `lock` file with the process's id.

The lock of a process that is gone, as after a crash or a pre-empted machine, is taken over. The id is compared together with the
start time of the process, because containers give the same ids again and again.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from framework.errors import UserError

__all__ = ["hold_lock", "refuse_if_held"]

LOCK = "lock"


@contextlib.contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Hold the folder for the length of a `with` block; `UserError` if another living process holds it."""
    file = folder / LOCK
    mine = {"pid": os.getpid(), "start": _start_time(os.getpid())}
    for _ in range(5):
        try:
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            refuse_if_held(folder)
            _remove_stale(file)
            continue
        with os.fdopen(handle, "w") as opened:
            opened.write(json.dumps(mine))
        break
    else:
        raise UserError(f"{folder} is being taken by several processes at once. Start only one.")
    try:
        yield
    finally:
        if _read(file) == mine:
            file.unlink(missing_ok=True)


def refuse_if_held(folder: Path) -> None:
    """A `UserError` if a living process works on the folder."""
    file = folder / LOCK
    holder = _read(file)
    if holder is None and file.exists():
        time.sleep(0.2)  # the other process may be between making the file and writing it
        holder = _read(file)
    if holder is not None and _alive(holder):
        raise UserError(
            f"{folder} is in use by process {holder['pid']}. Wait for it, or stop it with: kill -INT {holder['pid']} "
            f"(it saves first). If that is no maypole run, delete {file}."
        )


def _remove_stale(file: Path) -> None:
    stale = file.with_name(f".lock.stale.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):  # another process took it over first
        os.replace(file, stale)
        stale.unlink()


def _read(file: Path) -> dict[str, int | None] | None:
    try:
        holder = json.loads(file.read_text())
        return holder if isinstance(holder, dict) and isinstance(holder.get("pid"), int) else None
    except (OSError, ValueError):
        return None


def _alive(holder: dict[str, int | None]) -> bool:
    pid, start = holder["pid"], holder.get("start")
    assert pid is not None  # _read checked it
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # somebody else's process
    return start is None or start == _start_time(pid)


def _start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of the process; None where there is no /proc."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
