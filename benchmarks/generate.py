"""Tokens per second of generation on the CPU: our engine, transformers' `generate`, and Tunix's sampler, in turns in the same run.

    python benchmarks/generate.py --tunix-python /path/to/venv/bin/python --out benchmarks/results/generate.json
    python benchmarks/generate.py --tiny

32 ragged prompts of 8 to 64 tokens, 128 new tokens each and no end token, sampled at temperature 1, float32, Qwen3-shaped random
weights. Every peer is a process of its own that has compiled and warmed up; they take turns (A B C A B C), so that another load
on the machine hits all of them. transformers pads on the left and runs with both of its caches. Ours also gives log-probabilities
and entropies, which the others are not asked for. Tunix wants other versions of the same libraries: give it an environment of its
own with --tunix-python, or it is not measured.
"""

import argparse
import tempfile
from typing import Any

from _environment import describe, publish
from _generation import compare
from _peer import add_peer_flags
from _workloads import SIZES, random_prompts

MEASURED = ("framework/inference", "models", "kernels_pallas")


def measure(sizes: dict[str, int], args: argparse.Namespace, cache: str) -> dict[str, Any]:
    job: dict[str, Any] = {
        "sizes": sizes,
        "threads": args.threads,
        "layout": args.layout,
        "slots": args.prompts,
        "prompts": random_prompts(args.prompts, 8, args.longest, sizes["vocab_size"]),
        "new": [args.new] * args.prompts,
    }
    return {"sizes": sizes} | compare(job, args.rounds, cache, tunix_python=args.tunix_python)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_peer_flags(parser, sizes=("small", "medium"), rounds=7)
    parser.add_argument("--prompts", type=int, default=32, help="prompts, all decoded together (default: 32)")
    parser.add_argument("--longest", type=int, default=64, help="tokens of the longest prompt (default: 64)")
    parser.add_argument("--new", type=int, default=128, help="new tokens of each (default: 128)")
    parser.add_argument("--layout", choices=("slots", "paged"), default="slots", help="our cache (default: slots)")
    parser.add_argument("--tunix-python", help="interpreter of an environment with google-tunix")
    args = parser.parse_args()
    if args.tiny:
        args.sizes, args.rounds, args.prompts, args.longest, args.new = ["tiny"], 1, 4, 12, 8
    head = describe("generate", MEASURED)
    with tempfile.TemporaryDirectory() as cache:
        results = {name: measure(SIZES[name], args, cache) for name in args.sizes}
    work = {name: getattr(args, name) for name in ("prompts", "longest", "new", "layout", "threads", "rounds")}
    publish(head | {"work": work, "results": results}, args.out)


if __name__ == "__main__":
    main()
