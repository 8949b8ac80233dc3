"""Time and memory of `token_logprobs`, forward and gradient: chunked against two naive forms, in the same run.

    python benchmarks/logprob.py --out benchmarks/results/logprob.json
    python benchmarks/logprob.py --tokens 16 256 --width 256 --vocab 8192 --repeats 9

Runs of the implementations alternate (A B C A B C), so that another load on the machine hits all of them. Two memory
figures: what XLA says it allocates beyond inputs and outputs, and the growth of the resident set measured in a
process of its own, minus the returned gradients. CPU seconds (all threads) are less noisy than wall seconds.

naive        `impl="reference"`: log_softmax over [B, T, V], then gather, then -sum p log p
naive_lean   logsumexp instead of log_softmax, the leanest form autodiff gets
chunked      `impl="auto"`
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _environment import git, hardware

from kernels_pallas.logprob import token_logprobs

IMPLS = ("naive", "naive_lean", "chunked")
LOSSES = ("logp_and_entropy", "logp")


def naive_lean(hidden: jax.Array, unembed: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = hidden @ unembed  # [B, T, V]
    lse = jax.nn.logsumexp(logits, axis=-1)  # [B, T]
    logp = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - lse
    return logp, lse - jnp.sum(jnp.exp(logits - lse[..., None]) * logits, axis=-1)


def compiled(impl: str, loss: str, chunk: int | None, inputs: tuple[jax.Array, ...]) -> Any:
    """value_and_grad of the mean loss with respect to hidden and unembed, compiled for these inputs."""

    def objective(hidden, unembed, targets):
        if impl == "naive_lean":
            logp, entropy = naive_lean(hidden, unembed, targets)
        elif impl == "naive":
            logp, entropy = token_logprobs(hidden, unembed, targets, impl="reference")
        else:
            logp, entropy = token_logprobs(hidden, unembed, targets, chunk=chunk)
        bonus = 0.01 * jnp.mean(entropy) if loss == "logp_and_entropy" else 0.0
        return -jnp.mean(logp) - bonus

    return jax.jit(jax.value_and_grad(objective, (0, 1))).lower(*inputs).compile()


def make_inputs(args: argparse.Namespace) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits of standard deviation about 1, which is what a fresh model has."""
    (batch, length), width, vocab = args.tokens, args.width, args.vocab
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((batch, length, width), np.float32)
    unembed = rng.standard_normal((width, vocab), np.float32)
    unembed *= width**-0.5
    targets = rng.integers(0, vocab, (batch, length), dtype=np.int32)
    return jnp.asarray(hidden), jnp.asarray(unembed), jnp.asarray(targets)


def resident(field: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (highest since reset) of this process. Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def measure_peak(args: argparse.Namespace) -> None:
    """In a process of its own: prints the peak resident bytes of one call, beyond inputs and returned gradients."""
    impl, loss = args.peak
    inputs = jax.block_until_ready(make_inputs(args))
    fn = compiled(impl, loss, args.chunk, inputs)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the inputs and compiling
    before = resident("VmRSS")
    out = jax.block_until_ready(fn(*inputs))
    grads = sum(leaf.nbytes for leaf in jax.tree.leaves(out))
    print(resident("VmHWM") - before - grads)


def peak_in_subprocess(args: argparse.Namespace, impl: str, loss: str) -> int | None:
    if not Path("/proc/self/clear_refs").exists():
        return None
    command = [sys.executable, __file__, "--peak", impl, loss, "--width", str(args.width), "--vocab", str(args.vocab)]
    command += ["--tokens", *map(str, args.tokens), *(["--chunk", str(args.chunk)] if args.chunk else [])]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])


def measure(args: argparse.Namespace, loss: str) -> dict[str, Any]:
    inputs = make_inputs(args)
    fns: dict[str, Callable[..., Any]] = {impl: compiled(impl, loss, args.chunk, inputs) for impl in IMPLS}
    wall: dict[str, list[float]] = {impl: [] for impl in IMPLS}
    cpu: dict[str, list[float]] = {impl: [] for impl in IMPLS}
    outputs = {impl: jax.block_until_ready(fn(*inputs)) for impl, fn in fns.items()}  # also the warm-up
    want = outputs["naive"]
    error = {
        impl: [float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))) for a, b in zip(out[1], want[1], strict=True)]
        for impl, out in outputs.items()
    }
    del outputs, want
    for _ in range(args.repeats):
        for impl, fn in fns.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            out = jax.block_until_ready(fn(*inputs))
            wall[impl].append(round(time.perf_counter() - start, 4))
            cpu[impl].append(round(time.process_time() - start_cpu, 4))
            del out
    rows = {
        impl: {
            "wall_s": wall[impl],
            "wall_s_median": statistics.median(wall[impl]),
            "cpu_s": cpu[impl],
            "cpu_s_median": statistics.median(cpu[impl]),
            "temp_bytes_compiled": fns[impl].memory_analysis().temp_size_in_bytes,
            "peak_rss_bytes_beyond_inputs_and_grads": peak_in_subprocess(args, impl, loss),
            "grad_max_difference_over_max": dict(zip(("hidden", "unembed"), error[impl], strict=True)),
        }
        for impl in IMPLS
    }
    keys = ("wall_s_median", "cpu_s_median", "temp_bytes_compiled", "peak_rss_bytes_beyond_inputs_and_grads")
    ratios = {
        naive: {key: round(rows["chunked"][key] / rows[naive][key], 4) for key in keys if rows[naive][key]}
        for naive in ("naive", "naive_lean")
    }
    return {"implementations": rows, "chunked_over": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs=2, default=(2, 256), metavar=("B", "T"), help="default 2 256")
    parser.add_argument("--width", type=int, default=1024, help="D, default 1024")
    parser.add_argument("--vocab", type=int, default=151_936, help="V, default 151936 (Qwen2.5)")
    parser.add_argument("--chunk", type=int, default=None, help="vocabulary columns at a time; default: picked")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each implementation, default 5")
    parser.add_argument("--out", type=Path, default=None, help="write the JSON here as well")
    parser.add_argument("--peak", nargs=2, metavar=("IMPL", "LOSS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        measure_peak(args)
        return
    changed = git("status", "--porcelain", "--", "kernels_pallas/logprob", "benchmarks/logprob.py")
    result = {
        "benchmark": "token_logprobs: value and gradient with respect to hidden and unembed, float32",
        "shape": {"B": args.tokens[0], "T": args.tokens[1], "D": args.width, "V": args.vocab},
        "chunk": args.chunk or "auto",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "HEAD"),
        "uncommitted": changed.splitlines(),  # the measured files that differ from that commit
        "hardware": hardware() | {"backend": jax.devices()[0].device_kind},
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "jaxlib": version("jaxlib")},
        "load_average_before": os.getloadavg(),
        "losses": {loss: measure(args, loss) for loss in LOSSES},
        "load_average_after": os.getloadavg(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
