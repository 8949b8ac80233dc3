"""Seconds of a training step with linear layers in 4 bits, emulated on the CPU, against the same step in float32.

    python benchmarks/quartet_step.py --out benchmarks/results/quartet_step.json
    python benchmarks/quartet_step.py --sizes small --rules QUARTET

Qwen3-shaped random weights, rows of 256 tokens, AdamW with clipping: the whole step, embeddings, attention, loss and optimizer
included, as `benchmarks/train_step.py` has it. Each rule is a process of its own that has compiled; they take turns.
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

MEASURED = ("models", "kernels_pallas", "rl/supervised.py", "rl/model_setup.py")
RULES = ("QUARTET", "QUARTET_SR", "FORWARD_ONLY", "NAIVE")


def measure(sizes: dict[str, Any], args: argparse.Namespace, cache: str) -> dict[str, Any]:
    jobs = {"exact": sizes} | {rule: sizes | {"quant": rule} for rule in args.rules}
    peers = {name: Peer("_maypole_peer.py", sys.executable, job, cache) for name, job in jobs.items()}
    found = in_turns({name: lambda _, peer=peer: peer.ask(args.steps) for name, peer in peers.items()}, args.rounds)
    report: dict[str, Any] = {"sizes": sizes, "rules": {}}
    base = statistics.median(answer["wall_s"] for answer in found["exact"])
    base_cpu = statistics.median(answer["cpu_s"] for answer in found["exact"])
    for name, peer in peers.items():
        peer.close()
        wall, cpu = ([answer[key] / args.steps for answer in found[name]] for key in ("wall_s", "cpu_s"))
        report["rules"][name] = {
            "first_step_s": round(peer.about["first_step_s"], 1),
            "step_wall_s": [round(value, 4) for value in wall],
            "step_cpu_s_median": round(statistics.median(cpu), 4),
            "times_exact": round(statistics.median(wall) * args.steps / base, 3),
            "cpu_times_exact": round(statistics.median(cpu) * args.steps / base_cpu, 3),
            "loss": found[name][-1]["loss"],
        }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["medium"], help="models (default: medium)")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES), help="of models.quant (default: all)")
    parser.add_argument("--rows", type=int, default=16, help="rows of a batch (default: 16)")
    parser.add_argument("--length", type=int, default=256, help="tokens of a row (default: 256)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default: 5)")
    parser.add_argument("--steps", type=int, default=1, help="steps a turn (default: 1)")
    parser.add_argument("--microbatches", type=int, default=1, help="parts of a batch (default: 1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all cores)")
    parser.add_argument("--out", type=Path, help="write JSON here as well")
    args = parser.parse_args()
    more = {name: getattr(args, name) for name in ("rows", "length", "microbatches", "threads")}
    head = describe("quartet_step", MEASURED)
    with tempfile.TemporaryDirectory() as cache:
        publish(head | {"results": {name: measure(SIZES[name] | more, args, cache) for name in args.sizes}}, args.out)


if __name__ == "__main__":
    main()
