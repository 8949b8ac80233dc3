"""Time and memory of loading a Hugging Face checkpoint, against reading its file and copying it:

    python benchmarks/load.py [--gigabytes 1.2] [--rounds 5] [--out FILE]

Makes a checkpoint of random bfloat16 numbers in the shape of Qwen2 (two attention sizes, embedding, SwiGLU), then measures in
processes of their own, in turn, so that another load on the machine hits all of them and no process finds memory that an
earlier one has touched. The file is in the page cache: what is measured is this program, not the disk.

plain_bfloat16   the whole file read into memory and copied once
load_bfloat16    `load_hf` with param_dtype="bfloat16": every matrix is transposed on the way
plain_float32    the whole file read into memory and converted to float32 once
load_float32     `load_hf` with param_dtype="float32": transposed and converted
scan_bfloat16    as load_bfloat16, into stacked layers

The plain ways hold the file and its copy, so they touch twice as much new memory as a load of the same type; on a virtual machine
that is a good part of their time.

`peak_over` is the highest resident memory beyond that before and the parameters kept, in units of the largest tensor.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

KINDS = ("plain_bfloat16", "load_bfloat16", "plain_float32", "load_float32", "scan_bfloat16")
LIMIT = 1.5  # load over plain
PEAK = 1.3  # of the largest tensor


def make(folder: Path, gigabytes: float) -> None:
    """Random weights of about this size."""
    import ml_dtypes
    from flax import nnx

    from models.decoder import DecoderConfig
    from models.decoder.hf_config import config_to_hf
    from models.decoder.hf_names import abstract_decoder, sources
    from models.safetensors_io import write_file

    layers = max(1, round((gigabytes * 5e8 - 32_000 * 2048) / 45.1e6))
    config = DecoderConfig(
        vocab_size=32_000,
        dim=2048,
        layers=layers,
        heads=16,
        kv_heads=2,
        head_dim=128,
        mlp_dim=5632,
        qk_norm=False,
        qkv_bias=True,
    )
    wanted = sources(config, nnx.split(abstract_decoder(config))[1])
    shapes = {name: source.shape for source in wanted for name in source.tensors}
    rng = np.random.default_rng(0)
    (folder / "config.json").write_text(json.dumps(config_to_hf(config)))
    dtype = np.dtype(ml_dtypes.bfloat16)
    write_file(folder / "model.safetensors", shapes, dtype, lambda name: rng.random(shapes[name], np.float32))


def resident(field: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (highest since reset) of this process. Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def measure(kind: str, folder: Path) -> dict[str, float]:
    """In a process of its own."""
    import jax
    import ml_dtypes

    from models.decoder import config_from_hf, load_hf
    from models.safetensors_io import read_header

    jax.block_until_ready(jax.numpy.zeros(()))
    file = folder / "model.safetensors"
    what, dtype = kind.split("_")
    Path("/proc/self/clear_refs").write_text("5")
    before, wall, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
    if what == "plain":
        raw = np.empty(file.stat().st_size, np.uint8)
        with file.open("rb", buffering=0) as stream:
            done = 0
            while done < raw.size:
                done += stream.readinto(raw[done:].data)
        copy = raw.copy() if dtype == "bfloat16" else raw[raw.size % 2 :].view(ml_dtypes.bfloat16).astype(np.float32)
        kept = copy.nbytes
    else:
        config = config_from_hf(folder, dtype=dtype, param_dtype=dtype, scan=what == "scan")
        state = jax.block_until_ready(load_hf(folder, config))
        kept = sum(x.nbytes for x in jax.tree.leaves(state))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    largest = max(stored.nbytes for stored in read_header(file).values())
    return {"wall_s": wall, "cpu_s": cpu, "peak_over": (resident("VmHWM") - before - kept) / largest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/load.json")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child[0], Path(args.child[1]))))
        return
    from framework.env import describe_env

    folder = Path(tempfile.mkdtemp(prefix="maypole-load-"))
    try:
        make(folder, args.gigabytes)
        size = (folder / "model.safetensors").stat().st_size
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        load_before = os.getloadavg()
        for _ in range(args.rounds):
            for kind, runs in found.items():
                command = [sys.executable, __file__, "--child", kind, str(folder)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                runs.append({key: round(value, 4) for key, value in json.loads(done.stdout).items()})
    finally:
        shutil.rmtree(folder)
    keys = ("wall_s", "cpu_s", "peak_over")
    median = {kind: {key: statistics.median(run[key] for run in runs) for key in keys} for kind, runs in found.items()}

    def ratio(load: str, plain: str) -> dict[str, float]:
        # Of runs that stood next to each other: what else the machine did is nearly the same for both.
        pairs = list(zip(found[load], found[plain], strict=True))
        return {key: round(statistics.median(a[key] / b[key] for a, b in pairs), 3) for key in ("wall_s", "cpu_s")}

    ratios = {
        "load_bfloat16": ratio("load_bfloat16", "plain_bfloat16"),
        "load_float32": ratio("load_float32", "plain_float32"),
        "scan_bfloat16": ratio("scan_bfloat16", "plain_bfloat16"),
    }
    result = {
        "environment": describe_env(),
        "checkpoint_bytes": size,
        "load_average_before": load_before,
        "load_average_after": os.getloadavg(),
        "limits": {"over_plain": LIMIT, "peak_over": PEAK},
        "over_plain": ratios,
        "median": median,
        "runs": found,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({"over_plain": ratios, "median": median}, indent=1))


if __name__ == "__main__":
    main()
