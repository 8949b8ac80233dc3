"""One process at a time works on a run folder: a `lock` file with the process's id.

The lock of a process that is gone, as after a crash or a pre-empted machine, is taken over. The id is compared together with the
start time of the process, because containers give the same ids again and again. On a file system that several machines share,
another machine's process cannot be asked for; it touches its lock every few seconds, and one that is not touched is stale.
A run on many hosts has one lock, that of its process 0.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from framework.errors import UserError

__all__ = ["hold_lock", "refuse_if_held", "release_all"]

LOCK = "lock"
TOUCH_S = 5.0
STALE_S = 30.0  # without a touch, for a lock of another machine

Holder = dict[str, int | str | None]

_held: dict[Path, Holder] = {}


@contextlib.contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Hold the folder for the length of a `with` block; `UserError` if another living process holds it."""
    file = folder / LOCK
    mine: Holder = {"pid": os.getpid(), "start": _start_time(os.getpid()), "host": socket.gethostname()}
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
    _held[file] = mine
    done = threading.Event()
    threading.Thread(target=_keep_touching, args=(file, done), name="run lock", daemon=True).start()
    try:
        yield
    finally:
        done.set()
        _release(file)


def release_all() -> None:
    """Give up every lock of this process, which is about to end without unwinding."""
    for file in list(_held):
        _release(file)


def _release(file: Path) -> None:
    if _read(file) == _held.pop(file, None):
        file.unlink(missing_ok=True)


def _keep_touching(file: Path, done: threading.Event) -> None:
    while not done.wait(TOUCH_S):
        with contextlib.suppress(OSError):  # a full or absent disk is found out by who writes the run
            os.utime(file)


def refuse_if_held(folder: Path) -> None:
    """A `UserError` if a living process works on the folder."""
    file = folder / LOCK
    holder = _read(file)
    if holder is None and file.exists():
        time.sleep(0.2)  # the other process may be between making the file and writing it
        holder = _read(file)
    if holder is not None and _elsewhere(holder):
        _wait_until_stale(folder, file, holder)
    elif holder is not None and _alive(holder):
        raise UserError(
            f"{folder} is in use by process {holder['pid']}. Wait for it, or stop it with: kill -INT {holder['pid']} "
            f"(it saves first). If that is no maypole run, delete {file}."
        )


def _elsewhere(holder: Holder) -> bool:
    return holder.get("host") not in (None, socket.gethostname())


def _wait_until_stale(folder: Path, file: Path, holder: Holder) -> None:
    """The lock of another machine: alive while it is touched. Clocks of machines differ, so changes are watched for."""
    began_s = time.monotonic()
    touched = _touched(file)
    if touched is not None and time.time() - touched > 10 * STALE_S:
        return  # no clock is that wrong
    print(
        f"{folder} has a lock of {holder['host']}; looking whether that still works, up to {STALE_S:.0f} s",
        file=sys.stderr,
    )
    while time.monotonic() - began_s < STALE_S:
        if _touched(file) is None:
            return  # given up in good order
        if _touched(file) != touched:
            raise UserError(
                f"{folder} is in use by process {holder['pid']} on {holder['host']}, which works on it now. Wait for it, or "
                f"stop it there with: kill -INT {holder['pid']} (it saves first)."
            )
        time.sleep(0.5)


def _touched(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:
        return None


def _remove_stale(file: Path) -> None:
    stale = file.with_name(f".lock.stale.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):  # another process took it over first
        os.replace(file, stale)
        stale.unlink()


def _read(file: Path) -> Holder | None:
    try:
        holder = json.loads(file.read_text())
        return holder if isinstance(holder, dict) and isinstance(holder.get("pid"), int) else None
    except (OSError, ValueError):
        return None


def _alive(holder: Holder) -> bool:
    pid, start = holder["pid"], holder.get("start")
    assert isinstance(pid, int)  # _read checked it
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
