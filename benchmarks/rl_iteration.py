"""Seconds of a reinforcement-learning iteration on the CPU: ours, TRL's GRPOTrainer, Tunix's GRPOLearner, in turns in the same run.

    python benchmarks/rl_iteration.py --trl-python ... --tunix-python ... --out benchmarks/results/rl_iteration.json
    python benchmarks/rl_iteration.py --tiny

8 prompts of 32 tokens, 8 answers of 64 tokens to each (no end token), a trivial reward, group advantages, the clipped loss with
no reference model, one AdamW update on all 64 answers; float32, Qwen3-shaped random weights, no recomputation of activations. Every
peer is a process of its own that has done two iterations before it counts; they take turns (A B C A B C). `generation_s` includes
rewards and advantages, except for Tunix, whose generation alone is timed; the update is the rest of the iteration. TRL and Tunix
run in environments of their own: --trl-python, --tunix-python; without, they are not measured.
"""

import argparse
import statistics
import sys
import tempfile
from typing import Any

from _environment import describe, publish
from _peer import Peer, add_peer_flags, in_turns
from _workloads import SIZES, random_prompts

MEASURED = ("framework", "models", "kernels_pallas", "rl")


def measure(sizes: dict[str, int], args: argparse.Namespace, cache: str) -> dict[str, Any]:
    job = {
        "sizes": sizes,
        "threads": args.threads,
        "layout": args.layout,
        "prompts": random_prompts(args.prompts, args.length, args.length, sizes["vocab_size"]),
        "samples": args.samples,
        "new": args.new,
        "warm_up": 2,
    }
    pythons = {"maypole": sys.executable, "trl": args.trl_python, "tunix": args.tunix_python}
    peers = {name: Peer(f"_{name}_rl_peer.py", python, job, cache) for name, python in pythons.items() if python}
    turns = {name: lambda _, peer=peer: peer.ask(args.iterations) for name, peer in peers.items()}
    found = in_turns(turns, args.rounds)
    report: dict[str, Any] = {"sizes": sizes, "peers": {}}
    seconds: dict[str, float] = {}
    for name, answers in found.items():
        peers[name].close()
        wall, generation, cpu = (
            [answer[key] / args.iterations for answer in answers] for key in ("wall_s", "generation_s", "cpu_s")
        )
        update = [whole - part for whole, part in zip(wall, generation, strict=True)]
        seconds[name] = statistics.median(wall)
        report["peers"][name] = peers[name].about | {
            "iteration_s": round(seconds[name], 4),
            "generation_s": round(statistics.median(generation), 4),
            "update_s": round(statistics.median(update), 4),
            "cpu_s_median": round(statistics.median(cpu), 4),
            "iteration_s_each": [round(value, 4) for value in wall],
        }
    ours = seconds.pop("maypole")
    report["time_of_maypole_over"] = {name: round(ours / value, 3) for name, value in seconds.items()}
    if seconds:
        report["time_of_maypole_over_the_best"] = round(ours / min(seconds.values()), 3)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_peer_flags(parser, sizes=("small",), rounds=5)
    parser.add_argument("--prompts", type=int, default=8, help="prompts of an iteration (default: 8)")
    parser.add_argument("--samples", type=int, default=8, help="answers to each (default: 8)")
    parser.add_argument("--length", type=int, default=32, help="tokens of a prompt (default: 32)")
    parser.add_argument("--new", type=int, default=64, help="tokens of an answer (default: 64)")
    parser.add_argument("--iterations", type=int, default=2, help="iterations a turn (default: 2)")
    parser.add_argument("--layout", choices=("slots", "paged"), default="slots", help="our cache (default: slots)")
    parser.add_argument("--trl-python", help="interpreter of an environment with trl")
    parser.add_argument("--tunix-python", help="interpreter of an environment with google-tunix")
    args = parser.parse_args()
    if args.tiny:
        args.sizes, args.rounds, args.prompts, args.samples, args.length, args.new = ["tiny"], 1, 2, 4, 8, 8
    head = describe("rl_iteration", MEASURED)
    with tempfile.TemporaryDirectory() as cache:
        results = {name: measure(SIZES[name], args, cache) for name in args.sizes}
    work = {name: getattr(args, name) for name in ("prompts", "samples", "length", "new", "iterations", "layout")}
    publish(head | {"work": work | {"threads": args.threads}, "results": results}, args.out)


if __name__ == "__main__":
    main()
