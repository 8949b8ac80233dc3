"""What a run ran on: versions, hardware, commit. Kept beside every number, without the name of the machine."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["describe_env"]

PACKAGES = ("maypole", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers", "grain")


def describe_env(*, devices: bool = False, repo: Path | None = None) -> dict[str, Any]:
    """A JSON-ready description of this process. Devices are listed if jax is imported already, or when asked for."""
    return {
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": _cores(),
        "memory_gib": _memory_gib(),
        "devices": _devices() if devices or "jax" in sys.modules else None,
        "git": _git(repo or Path(__file__).resolve().parent),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],  # results are published, folders of a machine are not
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cores() -> int:
    """Cores this process may use, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _devices() -> list[str]:
    import jax  # here and not above: the command line describes itself before jax is imported

    return [f"{device.platform}: {device.device_kind}" for device in jax.devices()]


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout the framework runs from, and whether tracked files differ from it."""
    commit = _run_git(folder, "rev-parse", "HEAD")
    return (
        None if commit is None else {"commit": commit, "dirty": bool(_run_git(folder, "status", "--porcelain", "-uno"))}
    )


def _run_git(folder: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
