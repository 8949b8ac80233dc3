"""Compiling every program of an engine before the first request."""

import itertools
from collections.abc import Callable

import numpy as np

from framework.inference.config import EngineConfig
from framework.inference.device import Device
from framework.inference.rows import as_rows, flat_arrays, row_table

__all__ = ["warm_up"]


def warm_up(device: Device, config: EngineConfig, progress: Callable[[int, int], None] | None) -> None:
    """Run every program once on nothing, for every size. The cache changes its length meanwhile: it must be empty."""
    nothing = as_rows(row_table(device.rows, config.max_stop_tokens))
    jobs: list[Callable[[], object]] = []

    def part(size: int) -> None:
        tokens, positions, _, _ = flat_arrays(device.shards, size, config.pad_token)
        device.extend(np.full(device.shards, -1, np.int32), tokens, np.full_like(positions, -1))

    was, flats = device.length, config.prefill_lengths
    for length in config.cache_lengths:
        jobs.append(lambda length=length: device.resize(length))
        jobs += [lambda n=n: device.prefill(*flat_arrays(device.shards, n, config.pad_token)) for n in flats]
        jobs += [lambda n=n: part(n) for n in dict.fromkeys((flats[0], flats[-1]))]
        jobs += [lambda n=n: device.copy([[(0, -1)] * n] * device.shards) for n in device.copy_sizes]
        jobs.append(lambda: device.decode(nothing, 1))
    for start, stop in itertools.permutations(config.cache_lengths, 2):
        jobs += [lambda n=n: device.resize(n) for n in (start, stop)]
    for number, job in enumerate(jobs, start=1):
        job()
        if progress is not None:
            progress(number, len(jobs))
    device.resize(was)
