"""Many clients at once: the benchmark that checks every answer, for a short time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["slots", "paged"])
def test_no_answer_is_wrong_and_nothing_is_left_when_64_clients_come_and_go(tmp_path, layout):
    words = ["--seconds", "15", "--clients", "64", "--layout", layout, "--out", str(tmp_path / "soak.json")]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/serve_soak.py", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["mistakes"] == 0
    assert found["emptied"]
    assert found["memory_flat"]
    assert min(found["counts"][name] for name in ("answered", "dropped", "busy", "refused")) > 0
