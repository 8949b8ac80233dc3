"""Where and on what a benchmark ran."""

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
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
