"""Where and on what a benchmark ran."""

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def hardware() -> dict[str, Any]:
    """Processor and cores."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return {"cpu": models[0] if models else platform.processor(), "cores": os.cpu_count()}


def git(*args: str) -> str:
    """Output of a git command in this repository; empty outside of one."""
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False).stdout.rstrip()


def describe(benchmark: str, measured: tuple[str, ...]) -> dict[str, Any]:
    """The head of a result: what was run, when, on which commit, and which of the measured files differ from it."""
    return {
        "benchmark": benchmark,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "HEAD"),
        "uncommitted": git("status", "--porcelain", "--", *measured).splitlines(),
        "hardware": hardware(),
        "load_average_before": os.getloadavg(),
    }


def publish(result: dict[str, Any], out: Path | None) -> None:
    """Print a result as JSON, and write it to `out`."""
    text = json.dumps(result, indent=2)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
