"""Tokens per second of a training step on the CPU: ours, transformers on torch, and Tunix, in turns in the same run.

    python benchmarks/train_step.py --out benchmarks/results/train_step.json
    python benchmarks/train_step.py --sizes small --tunix-python /path/to/venv/bin/python

Float32, Qwen3-shaped random weights, rows of 256 tokens, AdamW with clipping, tied embeddings. Every peer is a process of its own
that has compiled and warmed up; they take turns (A B C A B C), so that another load on the machine hits all of them. Tunix wants
other versions of the same libraries: give it an environment of its own with --tunix-python, or it is not measured.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from _environment import describe, publish
from _peer import Peer, in_turns
from _workloads import SIZES

MEASURED = (
    "models",
    "kernels_pallas",
    "rl/supervised.py",
    "rl/model_setup.py",
    "framework/state.py",
    "framework/optimizer.py",
)


def measure(sizes: dict[str, int], args: argparse.Namespace, cache: str) -> dict[str, Any]:
    pythons = {"maypole": sys.executable, "torch": sys.executable}
    if args.tunix_python:
        pythons["tunix"] = args.tunix_python
    peers = {name: Peer(f"_{name}_peer.py", python, sizes, cache) for name, python in pythons.items()}
    found = in_turns({name: lambda _, peer=peer: peer.ask(args.steps) for name, peer in peers.items()}, args.rounds)
    wall, cpu = (
        {name: [round(answer[key] / args.steps, 4) for answer in answers] for name, answers in found.items()}
        for key in ("wall_s", "cpu_s")
    )
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
            peer = Peer("_maypole_peer.py", sys.executable, sizes, cache)
            found.append(round(peer.about["first_step_s"], 2))
            peer.close()
    return {"first_step_cold_s": found[0], "first_step_cached_s": found[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "medium"])
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
    head = describe("train_step", MEASURED)
    with tempfile.TemporaryDirectory() as cache:
        results = {name: measure(SIZES[name] | more, args, cache) for name in args.sizes}
    compiled = {name: compile_times(SIZES[name] | more) for name in args.sizes}
    publish(head | {"results": results, "compile": compiled}, args.out)


if __name__ == "__main__":
    main()
