"""Quantise to MXFP4 and back, one pass over a float32 matrix on the CPU: ours, torch.compile, torch, and numpy with ml_dtypes.

    python benchmarks/mxfp4.py --out benchmarks/results/mxfp4.json

All do OCP's rule (scale 2^(floor(log2 absmax) - 2), elements to nearest, saturating) and must agree. They take turns in one
process, which keeps freed memory, so that no one pays for fresh pages. Bytes are those read and written once, 8 a number. The
first row, a copy with an addition, is what the memory allows.
"""

from framework.allocator import keep_freed_memory

keep_freed_memory()

import argparse  # noqa: E402 - memory is asked for while jax and torch are imported
import os  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402
import ml_dtypes  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from _environment import describe, publish  # noqa: E402

from kernels_pallas.mxfp4 import ABSMAX_RTN, OCP, QUEST, fake_quantize, fused, quantize  # noqa: E402

MEASURED = ("kernels_pallas/mxfp4", "kernels_pallas/e2m1.py", "kernels_pallas/float_bits.py")


def torch_round_trip(x: torch.Tensor) -> torch.Tensor:
    """Ties to the even code, as OCP converts: by the midpoints, which inductor makes one loop of."""
    group = x.view(-1, 32)
    e = torch.floor(torch.log2(group.abs().amax(-1, keepdim=True))) - 2
    scale = torch.exp2(e)
    z = group.abs() / scale
    size = (z > 0.25) * 0.5 + (z >= 0.75) * 0.5 + (z > 1.25) * 0.5 + (z >= 1.75) * 0.5
    size = size + (z > 2.5) * 1.0 + (z >= 3.5) * 1.0 + (z > 5.0) * 2.0
    return torch.copysign(size * scale, group).view(x.shape)


def numpy_round_trip(x: np.ndarray) -> np.ndarray:
    group = x.reshape(-1, 32)
    scale = np.exp2(np.floor(np.log2(np.abs(group).max(-1, keepdims=True))) - 2)
    codes = np.clip(group / scale, -6, 6).astype(ml_dtypes.float4_e2m1fn)
    return (codes.astype(np.float32) * scale).reshape(x.shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="rows and columns (default: 4096)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each (default: 9)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch (default: all cores)")
    parser.add_argument("--out", type=Path, help="write JSON here as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    head = describe("mxfp4", MEASURED)
    x = np.random.default_rng(0).standard_normal((args.size, args.size), np.float32)
    device, tensor = jax.numpy.asarray(x), torch.from_numpy(x)
    compiled = torch.compile(torch_round_trip)

    def on_jax(function: Callable[[jax.Array], Any]) -> Callable[[], Any]:
        program = jax.jit(function)
        return lambda: jax.block_until_ready(program(device))

    runs: dict[str, Callable[[], Any]] = {
        "copy": on_jax(lambda x: x + 1),
        "maypole": on_jax(fake_quantize),
        "torch.compile": lambda: compiled(tensor),
        "torch": lambda: torch_round_trip(tensor),
        "numpy with ml_dtypes": lambda: numpy_round_trip(x),
        # Ours alone: what training uses, and packing.
        "maypole, values for training, absmax": on_jax(lambda x: fused.quantize(x, ABSMAX_RTN).values),
        "maypole, values for training, QuEST": on_jax(lambda x: fused.quantize(x, QUEST).values),
        "maypole, to packed codes": on_jax(lambda x: quantize(x, OCP)[0]),
    }
    want = numpy_round_trip(x)
    for name in ("maypole", "torch.compile", "torch"):
        np.testing.assert_array_equal(np.asarray(runs[name]()), want, err_msg=name)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds + 1):  # the first is for compilation
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    times = {name: values[1:] for name, values in seconds.items()}
    rows = {
        name: {
            "ms_median": round(1e3 * statistics.median(values), 2),
            "ms_best": round(1e3 * min(values), 2),
            "gb_per_s_median": round(2 * x.nbytes / statistics.median(values) / 1e9, 2),
            "gb_per_s_best": round(2 * x.nbytes / min(values) / 1e9, 2),
        }
        for name, values in times.items()
    }
    ours = statistics.median(times["maypole"])
    speed = {name: round(statistics.median(times[name]) / ours, 2) for name in list(runs)[2:5]}
    about = {"size": args.size, "rounds": args.rounds, "jax": jax.__version__, "torch": torch.__version__}
    publish(head | about | {"rows": rows, "speed_of_maypole_against": speed}, args.out)


if __name__ == "__main__":
    main()
