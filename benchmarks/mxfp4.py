"""Quantise to MXFP4 and back, one pass over a float32 matrix on the CPU: ours, torch.compile, torch, and numpy with ml_dtypes.

    python benchmarks/mxfp4.py --out benchmarks/results/mxfp4.json

All do OCP's rule (scale 2^(floor(log2 absmax) - 2), elements to nearest, saturating) and must agree. They take turns in one
process, and there are two of these: "plain", and "memory kept", where freed memory stays with the process, as `maypole` commands
have it (framework/allocator.py), so that no one pays for fresh pages, the peers neither. "As used" compares ours with memory kept
and the others plain. Bytes are those read and written once, 8 a number. The row "copy", x + 1, is what the memory allows.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _environment import ROOT, describe, publish

MEASURED = ("kernels_pallas/mxfp4", "kernels_pallas/e2m1.py", "kernels_pallas/float_bits.py")
WAYS = ("plain", "memory kept")
PEERS = ("torch.compile", "torch", "numpy with ml_dtypes")


def measure(size: int, rounds: int, threads: int) -> dict[str, Any]:
    """All rows, in this process."""
    import jax
    import ml_dtypes
    import numpy as np
    import torch

    from kernels_pallas.mxfp4 import ABSMAX_RTN, OCP, QUEST, dequantize, fake_quantize, quantize

    torch.set_num_threads(threads)
    x = np.random.default_rng(0).standard_normal((size, size), np.float32)
    device, tensor = jax.numpy.asarray(x), torch.from_numpy(x)

    def torch_round_trip(x: torch.Tensor) -> torch.Tensor:
        # Ties to the even code, by the midpoints, which inductor makes one loop of.
        group = x.view(-1, 32)
        scale = torch.exp2(torch.floor(torch.log2(group.abs().amax(-1, keepdim=True))) - 2)
        z = group.abs() / scale
        value = (z > 0.25) * 0.5 + (z >= 0.75) * 0.5 + (z > 1.25) * 0.5 + (z >= 1.75) * 0.5
        value = value + (z > 2.5) * 1.0 + (z >= 3.5) * 1.0 + (z > 5.0) * 2.0
        return torch.copysign(value * scale, group).view(x.shape)

    def numpy_round_trip(x: np.ndarray) -> np.ndarray:
        group = x.reshape(-1, 32)
        scale = np.exp2(np.floor(np.log2(np.abs(group).max(-1, keepdims=True))) - 2)
        codes = np.clip(group / scale, -6, 6).astype(ml_dtypes.float4_e2m1fn)
        return (codes.astype(np.float32) * scale).reshape(x.shape)

    compiled = torch.compile(torch_round_trip)

    def on_jax(function: Callable[..., Any], *inputs: Any) -> Callable[[], Any]:
        program = jax.jit(function)
        return lambda: jax.block_until_ready(program(*inputs))

    packed = jax.jit(lambda x: quantize(x, OCP)[0])(device)
    peers: dict[str, Callable[[], Any]] = {
        "maypole": on_jax(fake_quantize, device),
        "torch.compile": lambda: compiled(tensor),
        "torch": lambda: torch_round_trip(tensor),
        "numpy with ml_dtypes": lambda: numpy_round_trip(x),
    }
    ours = {
        "copy": on_jax(lambda x: x + 1, device),
        "maypole, absmax 3/4": on_jax(lambda x: fake_quantize(x, ABSMAX_RTN), device),
        "maypole, QuEST": on_jax(lambda x: fake_quantize(x, QUEST), device),
        "maypole, to packed codes": on_jax(lambda x: quantize(x, OCP)[0], device),
        "maypole, from packed codes": on_jax(dequantize, packed),
    }
    want = numpy_round_trip(x)
    for name, run in peers.items():
        np.testing.assert_array_equal(np.asarray(run()), want, err_msg=name)
    seconds: dict[str, list[float]] = {name: [] for name in peers | ours}
    for _ in range(rounds + 1):  # the first is for compilation
        for name, run in (peers | ours).items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    times = {name: values[1:] for name, values in seconds.items()}
    middle = {name: statistics.median(values) for name, values in times.items()}
    return {
        "versions": {"jax": jax.__version__, "torch": torch.__version__, "ml_dtypes": ml_dtypes.__version__},
        "rows": {
            name: {
                "ms_median": round(1e3 * middle[name], 2),
                "ms_best": round(1e3 * min(values), 2),
                "gb_per_s_median": round(2 * x.nbytes / middle[name] / 1e9, 2),
            }
            for name, values in times.items()
        },
        "speed_of_maypole_against": {name: round(middle[name] / middle["maypole"], 2) for name in PEERS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="rows and columns (default: 4096)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each (default: 9)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch (default: all cores)")
    parser.add_argument("--out", type=Path, help="write JSON here as well")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # the process that measures
    args = parser.parse_args()
    if args.way:
        if args.way == "memory kept":
            from framework.allocator import keep_freed_memory

            keep_freed_memory()
        print(json.dumps(measure(args.size, args.rounds, args.threads)))
        return
    head = describe("mxfp4", MEASURED) | {"size": args.size, "rounds": args.rounds}
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    numbers = ["--size", str(args.size), "--rounds", str(args.rounds), "--threads", str(args.threads)]
    found = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, *numbers]
        lines = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
        found[way] = json.loads(lines[-1])
    ours = found["memory kept"]["rows"]["maypole"]["ms_median"]
    as_used = {name: round(found["plain"]["rows"][name]["ms_median"] / ours, 2) for name in PEERS}
    publish(head | {"ways": found, "speed_of_maypole_as_used_against": as_used}, args.out)


if __name__ == "__main__":
    main()
