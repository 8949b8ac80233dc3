"""Tokens per second when answers differ in length: our engine replaces finished rows, transformers waits for the last one.

    python benchmarks/generate_ragged.py --out benchmarks/results/generate_ragged.json
    python benchmarks/generate_ragged.py --tiny

128 requests in random order, prompts of 8 to 64 tokens, new tokens log-normal with mean 64 and cut at 256 (the quantiles of the
distribution, so that no luck is in them), float32, temperature 1, Qwen3-shaped random weights. Ours has 32 slots and gets all
requests at once (`Engine.generate`, which begins with those that ask for most), or one by one in order of arrival; transformers
takes batches of 32 in order of arrival, each of which runs to its longest row, and tokens past a row's own length do not count.
The two are processes of their own that have warmed up and take turns.

Slot occupancy is the share of the rows of all decode steps that gave a wanted token. With few requests a slot the last long answers
run almost alone: `kept_in_order` is what a scheduler reaches that fills every free slot at once, in order of arrival, and
`slot_occupancy_while_requests_wait` leaves the end out.
"""

import argparse
import tempfile
from typing import Any

from _environment import describe, publish
from _generation import compare
from _peer import add_peer_flags
from _workloads import SIZES, lognormal_lengths, random_prompts, simulated_steps

MEASURED = ("framework/inference", "models", "kernels_pallas")


def measure(sizes: dict[str, int], args: argparse.Namespace, cache: str) -> dict[str, Any]:
    new = lognormal_lengths(args.requests, args.mean, args.longest, args.sigma)
    job: dict[str, Any] = {
        "sizes": sizes,
        "threads": args.threads,
        "layout": args.layout,
        "slots": args.slots,
        "prompts": random_prompts(args.requests, 8, 64, sizes["vocab_size"]),
        "new": new,
    }
    tokens, in_order = sum(new), simulated_steps(new, args.slots)
    return {
        "sizes": sizes,
        "new_tokens": {"all": tokens, "mean": round(tokens / len(new), 2), "longest": max(new)},
        "kept_in_order": {"decode_steps": in_order, "slot_occupancy": round(tokens / (in_order * args.slots), 4)},
    } | compare(job, args.rounds, cache, arrival=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_peer_flags(parser, sizes=("small",), rounds=5)
    parser.add_argument("--requests", type=int, default=128, help="requests (default: 128)")
    parser.add_argument("--slots", type=int, default=32, help="rows decoded together (default: 32)")
    parser.add_argument("--mean", type=float, default=64, help="new tokens, mean before the cut (default: 64)")
    parser.add_argument("--longest", type=int, default=256, help="new tokens, at most (default: 256)")
    parser.add_argument("--sigma", type=float, default=0.8, help="of the logarithm of the new tokens (default: 0.8)")
    parser.add_argument("--layout", choices=("slots", "paged"), default="slots", help="our cache (default: slots)")
    args = parser.parse_args()
    if args.tiny:
        args.sizes, args.rounds, args.requests, args.slots, args.mean, args.longest = ["tiny"], 1, 12, 4, 6, 16
    head = describe("generate_ragged", MEASURED)
    with tempfile.TemporaryDirectory() as cache:
        results = {name: measure(SIZES[name], args, cache) for name in args.sizes}
    work = {name: getattr(args, name) for name in ("requests", "slots", "mean", "longest", "sigma", "layout")}
    publish(head | {"work": work | {"threads": args.threads}, "results": results}, args.out)


if __name__ == "__main__":
    main()
