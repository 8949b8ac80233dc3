"""Time of a decode step of our engine against what the machine cannot be quicker than.

    python benchmarks/decode_bound.py --out benchmarks/results/decode_bound.json
    python benchmarks/decode_bound.py --sizes qwen3-0.6b --dtype bfloat16 --slots 64 256     # on an accelerator
    python benchmarks/decode_bound.py --tiny

Bytes: all weights and the filled part of the cache are read once, the new keys and values are written. FLOPs: every matrix meets
every row, and each query its earlier tokens. Memory bandwidth and matrix products are measured in this process, before and after,
on large arrays; the better figure counts. `max_bound` supposes that memory and arithmetic overlap fully, `sum_bound` that they do
not at all. What fits into the processor's caches is read quicker than memory, so a small model can be below the memory bound.

Timed are whole rounds of the engine, the host's part included, without the first, which reads the prompts.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from _environment import describe, publish
from _workloads import SIZES, random_prompts

from framework.allocator import keep_freed_memory

keep_freed_memory()

import jax  # noqa: E402 - memory is asked for while jax is imported
import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402

from framework.inference import Engine, EngineConfig, Request  # noqa: E402
from models.decoder import DecoderConfig  # noqa: E402

MEASURED = ("framework/inference", "models", "kernels_pallas")
QWEN = {"vocab_size": 151_936, "dim": 1024, "mlp_dim": 3072, "layers": 28, "heads": 16, "kv_heads": 8, "head_dim": 128}
MODELS: dict[str, dict[str, Any]] = {**SIZES, "qwen3-0.6b": QWEN}


def best_seconds(fn: Any, *inputs: jax.Array, repeats: int = 5) -> float:
    """Of a compiled call."""
    call = jax.jit(fn)
    jax.block_until_ready(call(*inputs))
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call(*inputs))
        found.append(time.perf_counter() - start)
    return min(found)


def machine(dtype: str, megabytes: int, side: int) -> dict[str, float]:
    """Bytes a second read from memory, and FLOPs a second of a square product, both the best of a few."""
    itemsize = jnp.dtype(dtype).itemsize
    matrix = jnp.ones((1024, megabytes * 2**20 // 1024 // itemsize), dtype)
    seconds = min(
        best_seconds(jnp.max, matrix),
        best_seconds(lambda m, v: m @ v, matrix, jnp.ones(matrix.shape[1], dtype)),
    )
    square = jnp.ones((side, side), dtype)
    return {
        "bytes_per_s": matrix.nbytes / seconds,
        "flops_per_s": 2 * side**3 / best_seconds(lambda a, b: a @ b, square, square),
    }


def work_of_a_step(model: nnx.Module, config: DecoderConfig, seen: float, rows: int) -> dict[str, float]:
    """Bytes and FLOPs of a step in which the rows look at `seen` tokens in all."""
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    weights, matrices = sum(x.nbytes for x in leaves), sum(x.size for x in leaves if x.ndim > 1)
    if not config.tied:  # of the embedding only the rows of the tokens are read
        table = config.vocab_size * config.dim
        weights, matrices = weights - table * jnp.dtype(config.param_dtype).itemsize, matrices - table
    token = 2 * config.layers * config.kv_heads * config.head_dim * jnp.dtype(config.dtype).itemsize
    return {
        "weight_bytes": weights,
        "cache_bytes": token * (seen + rows),  # the new ones are written
        "flops": 2.0 * matrices * rows + 4.0 * config.layers * config.heads * config.head_dim * seen,
    }


def run(engine: Engine, prompts: list[list[int]], new: int, seed: int) -> tuple[float, float, int, float]:
    """(seconds, CPU seconds, decode steps, tokens that the rows looked at) of all rounds but the first."""
    begun = engine.stats
    for number, prompt in enumerate(prompts):
        engine.submit(Request(id=number, prompt=prompt, max_tokens=new), seed)
    engine.step()
    first, seconds, cpu_seconds = engine.stats.steps, 0.0, 0.0
    while not engine.idle:
        start, cpu = time.perf_counter(), time.process_time()
        engine.step()
        seconds, cpu_seconds = seconds + time.perf_counter() - start, cpu_seconds + time.process_time() - cpu
    steps, live = engine.stats.steps - first, engine.stats.live_steps - begun.live_steps
    assert live == new * len(prompts) == (engine.stats.steps - begun.steps) * len(prompts), "all rows run to the end"
    # Step t of a request (0 first) feeds the token at place len(prompt) - 1 + t, which looks at itself and all earlier ones.
    seen = sum(len(prompt) + t for prompt in prompts for t in range(new - steps, new))
    return seconds, cpu_seconds, steps, seen


def measure(name: str, slots: int, args: argparse.Namespace) -> dict[str, Any]:
    config = DecoderConfig(**MODELS[name], dtype=args.dtype, param_dtype=args.dtype)
    model = config.build(jax.random.key(0))
    prompts = random_prompts(slots, args.prompt, args.prompt, config.vocab_size)
    engine = Engine(
        model,
        EngineConfig(
            slots=slots,
            max_length=args.prompt + args.new,
            max_new_tokens=args.new,
            decode_steps=args.decode_steps,
            layout=args.layout,
            stop_tokens=(),
        ),
    )
    engine.warmup()
    run(engine, prompts, args.new, 0)
    before = machine(args.dtype, args.megabytes, args.side)
    rounds = [run(engine, prompts, args.new, 1 + number) for number in range(args.rounds)]
    after = machine(args.dtype, args.megabytes, args.side)
    rates = {key: max(before[key], after[key]) for key in before}
    each = [seconds / steps for seconds, _, steps, _ in rounds]
    step_s, (*_, steps, seen) = statistics.median(each), rounds[0]
    cpu_s = statistics.median(cpu / steps for _, cpu, steps, _ in rounds)
    work = work_of_a_step(model, config, seen / steps, slots)
    memory_s = (work["weight_bytes"] + work["cache_bytes"]) / rates["bytes_per_s"]
    arithmetic_s = work["flops"] / rates["flops_per_s"]
    bounds = {"max_bound": max(memory_s, arithmetic_s), "sum_bound": memory_s + arithmetic_s}
    return {
        "sizes": MODELS[name],
        "slots": slots,
        "step_ms": round(1e3 * step_s, 3),
        "step_ms_each": [round(1e3 * value, 3) for value in each],
        "step_cpu_ms": round(1e3 * cpu_s, 3),
        "tokens_per_s": round(slots / step_s, 1),
        "memory_ms": round(1e3 * memory_s, 3),
        "arithmetic_ms": round(1e3 * arithmetic_s, 3),
        "step_over": {bound: round(step_s / value, 3) for bound, value in bounds.items()},
        "fraction_of_bandwidth": round(memory_s / step_s, 3),
        "fraction_of_arithmetic": round(arithmetic_s / step_s, 3),
        "work_of_a_step": {key: round(value) for key, value in work.items()},
        "machine": {key: float(f"{value:.4g}") for key, value in rates.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=MODELS, default=["small", "medium"], help="models")
    parser.add_argument("--slots", nargs="+", type=int, default=[32], help="rows decoded together (default: 32)")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt (default: 64)")
    parser.add_argument("--new", type=int, default=128, help="new tokens of each (default: 128)")
    parser.add_argument("--decode-steps", type=int, default=16, help="steps of a compiled call (default: 16)")
    parser.add_argument("--layout", choices=("slots", "paged"), default="slots", help="cache (default: slots)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of weights and cache")
    parser.add_argument("--rounds", type=int, default=5, help="generations that are timed (default: 5)")
    parser.add_argument("--megabytes", type=int, default=1024, help="array that bandwidth is measured on")
    parser.add_argument("--side", type=int, help="of the square product (default: 2048, on an accelerator 8192)")
    parser.add_argument("--tiny", action="store_true", help="a small model and one round, to see that everything runs")
    parser.add_argument("--out", type=Path, help="write JSON here as well")
    args = parser.parse_args()
    device = jax.devices()[0]
    args.side = args.side or (2048 if device.platform == "cpu" else 8192)
    if args.tiny:
        args.sizes, args.slots, args.prompt, args.new, args.decode_steps = ["tiny"], [4], 8, 12, 4
        args.rounds, args.megabytes, args.side = 1, 16, 256
    head = describe("decode_bound", MEASURED)
    results = {f"{name}, {slots} slots": measure(name, slots, args) for name in args.sizes for slots in args.slots}
    work = {name: getattr(args, name) for name in ("prompt", "new", "decode_steps", "layout", "dtype", "rounds")}
    chip = {"device": device.device_kind, "jax": jax.__version__}
    publish(head | chip | {"work": work, "results": results}, args.out)


if __name__ == "__main__":
    main()
