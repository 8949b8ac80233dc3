"""Full fine-tuning at long sequences on one accelerator: tokens per second, MFU and peak memory of the Qwen3-0.6B shape.

    python benchmarks/long_context.py --out benchmarks/results/long_context.json
    python benchmarks/long_context.py --lengths 8192 16384 --remat full dots

Random weights, bfloat16 compute with float32 master weights, AdamW, one row a step, the step of `experiments/sft.py`. MFU counts
6 FLOPs a parameter and token (output matrix included, embedding look-up not) and causal attention once forward and twice
backward, without what is recomputed. To beat on one H100: 26,005 tokens/s at 8,192 and 25,486 at 16,384, published by prime-rl
(full recomputation, FlashAttention-3).

Needs a GPU or TPU; `--tiny` runs the same code on anything, to see that it works.
"""

import argparse
import dataclasses
import datetime
import functools
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _environment import git, hardware

from framework.batch import TokenBatch
from framework.chips import CHIPS
from framework.mesh import MeshConfig, jit_on
from framework.optimizer import AdamW
from models.decoder import DecoderConfig
from rl.model_setup import ModelSetup
from rl.supervised import token_step

QWEN3_0P6B = DecoderConfig(
    vocab_size=151_936,
    dim=1024,
    layers=28,
    heads=16,
    kv_heads=8,
    head_dim=128,
    mlp_dim=3072,
    rope_theta=1e6,
    dtype="bfloat16",
)
TINY = dataclasses.replace(QWEN3_0P6B, vocab_size=512, dim=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp_dim=128)


def peak_flops(device: Any) -> float | None:
    """bfloat16 FLOP/s of this chip, if it is one we know."""
    kind = device.device_kind.lower().replace(" ", "")
    return next((chip.flops for name, chip in CHIPS.items() if name.lower() in kind), None)


def measure(config: DecoderConfig, length: int, steps: int) -> dict[str, Any]:
    setup = ModelSetup(MeshConfig().build(), config, jax.random.key(0))
    tx = AdamW(lr=1e-5).build()
    trained, frozen = setup.init()
    state = setup.new_state(trained, tx)
    del trained
    shape = (1, length)
    batch = TokenBatch(
        tokens=jnp.asarray(np.random.default_rng(0).integers(0, config.vocab_size, shape), jnp.int32),
        positions=jnp.arange(length, dtype=jnp.int32)[None],
        segment_ids=jnp.ones(shape, jnp.int32),
        mask=jnp.ones(shape, jnp.float32).at[:, 0].set(0),
    )
    update = jit_on(setup.mesh, functools.partial(token_step, setup.graphdef, tx=tx), donate_argnums=0)
    start = time.perf_counter()
    state, metrics = jax.block_until_ready(update(state, frozen, batch))
    first_s = time.perf_counter() - start
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(update(state, frozen, batch))
        seconds.append(round(time.perf_counter() - start, 5))
    products = config.parameter_count() - (0 if config.tied else config.vocab_size * config.dim)
    attention = 4.0 * config.layers * config.heads * config.head_dim * length / 2
    flops = length * (6.0 * products + 3.0 * attention)
    typical, device = statistics.median(seconds), jax.devices()[0]
    peak = peak_flops(device)
    memory = device.memory_stats() or {}
    return {
        "length": length,
        "remat": config.remat,
        "scan": config.scan,
        "first_step_s": round(first_s, 2),
        "step_s": seconds,
        "tokens_per_s": round(length / typical, 1),
        "mfu": round(flops / typical / peak, 4) if peak else None,
        "peak_memory_bytes": memory.get("peak_bytes_in_use"),
        "loss": float(metrics["loss/total"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[8192, 16_384], help="tokens a row (default: 8192 16384)"
    )
    parser.add_argument("--remat", nargs="+", default=["full", "dots"], help="policies to try (default: full dots)")
    parser.add_argument("--steps", type=int, default=10, help="timed steps (default: 10)")
    parser.add_argument("--scan", action="store_true", help="scan over stacked layers (quicker to compile)")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and short rows, to try the script")
    parser.add_argument("--out", type=Path, help="write JSON here as well")
    args = parser.parse_args()
    device = jax.devices()[0]
    if device.platform == "cpu" and not args.tiny:
        raise SystemExit("There is no accelerator here. Use --tiny to try the script, or run it on a GPU or TPU.")
    base = TINY if args.tiny else QWEN3_0P6B
    lengths = [256] if args.tiny else args.lengths
    runs = [
        measure(dataclasses.replace(base, remat=remat, scan=args.scan), length, args.steps)
        for length in lengths
        for remat in args.remat
    ]
    result = {
        "benchmark": "long_context",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "HEAD"),
        "hardware": hardware() | {"device": device.device_kind, "load_average": os.getloadavg()},
        "versions": {"jax": jax.__version__},
        "published": {"prime-rl, one H100": {"8192": 26_005, "16384": 25_486}},
        "runs": runs,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
