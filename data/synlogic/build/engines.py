"""Where shards are made: in this process, in local processes, or on a Ray cluster. All give the same bytes."""

import concurrent.futures
import contextlib
import multiprocessing
import os
from collections.abc import Callable, Generator, Iterable
from types import ModuleType
from typing import Any, Literal

import pebble

from data.synlogic.build.shard import ShardJob, make_shard
from framework.errors import UserError
from framework.interrupts import ignore_interrupts, interrupts_held

__all__ = ["Engine", "EngineName", "make_in_processes", "make_on_ray", "open_engine"]

EngineName = Literal["local", "ray"]
Made = Generator[tuple[ShardJob, bytes], None, None]
Engine = Callable[[Iterable[ShardJob]], Made]
"""Makes shards, in any order. Closing what it returns stops what is under way."""

_AHEAD = 3  # jobs for each worker that wait or run: results are written at once, so memory stays small


def open_engine(name: EngineName, workers: int) -> Engine:
    """Raises UserError for a number of workers that makes no sense, and where Ray is not installed."""
    if workers < 1:
        raise UserError(f"--workers {workers} makes nothing. Use at least 1; this machine has {os.cpu_count()} cores.")
    if name == "ray":
        _import_ray()
        return make_on_ray
    return _make_here if workers == 1 else lambda jobs: make_in_processes(jobs, workers)


def _make_here(jobs: Iterable[ShardJob]) -> Made:
    for job in jobs:
        yield job, make_shard(job)


def make_in_processes(jobs: Iterable[ShardJob], workers: int) -> Made:
    """Processes that import the generators and nothing else, jax in particular."""
    context: Any = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    pool = pebble.ProcessPool(max_workers=workers, context=context, initializer=ignore_interrupts)
    todo = iter(jobs)
    running: dict[concurrent.futures.Future[bytes], ShardJob] = {}
    try:
        while True:
            while len(running) < workers * _AHEAD and (job := next(todo, None)) is not None:
                with interrupts_held():  # the first one starts the workers
                    running[pool.schedule(make_shard, args=[job])] = job
            if not running:
                break
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                job = running.pop(future)
                yield job, _result(future, job)
        pool.close()
    finally:
        pool.stop()  # also what is under way when this is stopped by Ctrl-C
        pool.join()


def _result(future: "concurrent.futures.Future[bytes]", job: ShardJob) -> bytes:
    try:
        return future.result()
    except pebble.ProcessExpired as error:
        raise UserError(
            f"A worker process that made {job.task}/{job.level} ended with code {error.exitcode}; perhaps there was not enough "
            "memory. What is done is kept: run the same command again, with fewer --workers."
        ) from error


def make_on_ray(jobs: Iterable[ShardJob]) -> Made:
    """On the cluster of RAY_ADDRESS, or on a Ray of this machine. Its nodes need maypole installed and no shared folder."""
    ray = _import_ray()
    own = not ray.is_initialized()
    if own:
        _start(ray)
    remote = ray.remote(max_retries=3)(make_shard)
    limit = max(int(ray.cluster_resources().get("CPU", 1)), 1) * _AHEAD
    todo = iter(jobs)
    running: dict[object, ShardJob] = {}
    try:
        while True:
            while len(running) < limit and (job := next(todo, None)) is not None:
                running[remote.remote(job)] = job
            if not running:
                break
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                yield running.pop(reference), ray.get(reference)
    finally:
        for reference in running:
            with contextlib.suppress(Exception):  # the cluster may be gone, which is why we are here
                ray.cancel(reference, force=True)
        if own:
            ray.shutdown()


def _start(ray: ModuleType) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Its newer default sets up uv environments for workers when the driver was started by `uv run`; ours are installed.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    address = os.environ.get("RAY_ADDRESS")
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="error",
            **({} if address else {"include_dashboard": False}),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"Ray did not start (RAY_ADDRESS={address or ''}): {error} Start a cluster with `ray start --head`, unset RAY_ADDRESS "
            "to use this machine, or leave --engine ray out."
        ) from error


def _import_ray() -> ModuleType:
    try:
        import ray  # optional: extra `ray`
    except ImportError as error:
        raise UserError(
            "--engine ray needs Ray, which is not installed. Type: pip install 'maypole[ray]', or leave --engine ray out: "
            "--workers uses the cores of this machine."
        ) from error
    return ray
