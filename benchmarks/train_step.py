"""Tokens per second of a training step on the CPU: ours, transformers on torch, and Tunix, in turns in the same run.

    python benchmarks/train_step.py --out benchmarks/results/train_step.json
    python benchmarks/train_step.py --sizes small --tunix-python /path/to/venv/bin/python

Float32, Qwen3-shaped random weights, rows of 256 tokens, AdamW with clipping, tied embeddings. Every peer is a process of its own
that has compiled and warmed up; they take turns (A B C A B C), so that another load on the machine hits all of them. Tunix wants
other versions of the same libraries: give it an environment of its own with --tunix-python, or it is not measured.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _environment import ROOT, git, hardware

HERE = Path(__file__).resolve().parent
MEASURED = (
    "models",
    "kernels_pallas",
    "rl/supervised.py",
    "rl/model_setup.py",
    "framework/state.py",
    "framework/optimizer.py",
)
SIZES: dict[str, dict[str, int]] = {
    "small": {"vocab_size": 4096, "dim": 256, "mlp_dim": 768, "layers": 6, "heads": 8, "kv_heads": 4, "head_dim": 32},
    "medium": {"vocab_size": 8192, "dim": 512, "mlp_dim": 1536, "layers": 8, "heads": 8, "kv_heads": 4, "head_dim": 64},
}


class Peer:
    """A process that trains the number of steps it is told."""

    def __init__(self, name: str, python: str, sizes: dict[str, int], cache: str):
        script = HERE / f"_{name}_peer.py"
        threads = str(sizes["threads"])
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "OMP_NUM_THREADS": threads,
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self._process = subprocess.Popen(
            [python, str(script), json.dumps(sizes)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._read()

    def steps(self, count: int) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self._process.args} ended with code {self._process.wait()}")


def measure(sizes: dict[str, int], args: argparse.Namespace, cache: str) -> dict[str, Any]:
    pythons = {"maypole": sys.executable, "torch": sys.executable}
    if args.tunix_python:
        pythons["tunix"] = args.tunix_python
    peers = {name: Peer(name, python, sizes, cache) for name, python in pythons.items()}
    wall: dict[str, list[float]] = {name: [] for name in peers}
    cpu: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(args.rounds):
        for name, peer in peers.items():
            found = peer.steps(args.steps)
            wall[name].append(round(found["wall_s"] / args.steps, 4))
            cpu[name].append(round(found["cpu_s"] / args.steps, 4))
    tokens = sizes["rows"] * sizes["length"]
    report: dict[str, Any] = {"sizes": sizes, "peers": {}}
    for name, peer in peers.items():
        peer.close()
        report["peers"][name] = peer.about | {
            "tokens_per_s": round(tokens / statistics.median(wall[name]), 1),
            "tokens_per_s_best": round(tokens / min(wall[name]), 1),
            "step_wall_s": wall[name],
            "step_cpu_s_median": statistics.median(cpu[name]),
        }
    ours = statistics.median(wall["maypole"])
    report["speed_of_maypole_against"] = {
        name: round(statistics.median(times) / ours, 3) for name, times in wall.items() if name != "maypole"
    }
    return report


def compile_times(sizes: dict[str, int]) -> dict[str, float]:
    """First step of a new process, compilation included: without a cache, then from it."""
    with tempfile.TemporaryDirectory() as cache:
        found = []
        for _ in range(2):
            peer = Peer("maypole", sys.executable, sizes, cache)
            found.append(round(peer.about["first_step_s"], 2))
            peer.close()
    return {"first_step_cold_s": found[0], "first_step_cached_s": found[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rows", type=int, default=16, help="rows of a batch (default: 16)")
    parser.add_argument("--length", type=int, default=256, help="tokens of a row (default: 256)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of every peer (default: 7)")
    parser.add_argument("--steps", type=int, default=3, help="steps a turn (default: 3)")
    parser.add_argument("--microbatches", type=int, default=1, help="parts of our batches (default: 1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all cores)")
    parser.add_argument("--tunix-python", help="interpreter of an environment with google-tunix")
    parser.add_argument("--out", type=Path, help="write JSON here as well")
    args = parser.parse_args()
    more = {name: getattr(args, name) for name in ("rows", "length", "microbatches", "threads")}
    with tempfile.TemporaryDirectory() as cache:
        result = {
            "benchmark": "train_step",
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": git("rev-parse", "HEAD"),
            "uncommitted": git("status", "--porcelain", "--", *MEASURED).splitlines(),
            "hardware": hardware(),
            "load_average_before": os.getloadavg(),
            "results": {name: measure(SIZES[name] | more, args, cache) for name in args.sizes},
            "compile": {name: compile_times(SIZES[name] | more) for name in args.sizes},
        }
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
