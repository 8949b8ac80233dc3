"""Starts real processes that are one run on many hosts, all of them on this machine."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

TOY = "tests/framework/fixtures/many_hosts.py:config"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Hosts:
    """`with Hosts(tmp_path, 2, ["run", ...]) as hosts: hosts.finish()`; what is left over is killed at the end."""

    def __init__(self, folder, count, words, *, own=None, start=None):
        """own: words of single processes. start: numbers of those to start, all by default."""
        folder.mkdir(exist_ok=True)
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
        self.port, self.codes, self.folder = free_port(), {}, folder
        self.processes = {}
        for i in range(count) if start is None else start:
            cluster = ["--coordinator", f"127.0.0.1:{self.port}", "--processes", str(count), "--process-id", str(i)]
            command = [
                sys.executable,
                "-m",
                "framework.cli",
                *words,
                *(own or {}).get(i, ()),
                *(cluster if count > 1 else ()),
            ]
            with (folder / f"out.{i}").open("w") as out, (folder / f"err.{i}").open("w") as err:
                self.processes[i] = subprocess.Popen(command, env=env, stdout=out, stderr=err)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def out(self, i):
        return (self.folder / f"out.{i}").read_text()

    def err(self, i):
        return (self.folder / f"err.{i}").read_text()

    def codes_within(self, seconds):
        """Exit codes by process; a process that does not end in time is None."""
        deadline = time.monotonic() + seconds
        for i, process in self.processes.items():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0.01))
            self.codes[i] = process.returncode
        return self.codes

    def finish(self, seconds=240):
        codes = self.codes_within(seconds)
        assert set(codes.values()) == {0}, (codes, [self.err(i) for i in codes])
        return self

    def wait_for_steps(self, metrics, count, seconds=120):
        """Until so many lines of metrics are there."""
        deadline = time.monotonic() + seconds
        while not metrics.exists() or metrics.read_bytes().count(b"\n") < count:
            assert time.monotonic() < deadline, [self.err(i) for i in self.processes]
            assert all(p.poll() is None for p in self.processes.values()), [self.err(i) for i in self.processes]
            time.sleep(0.02)

    def kill(self, i, signum=signal.SIGKILL):
        self.processes[i].send_signal(signum)


def rows(path):
    parsed = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("time", "throughput"))} for row in parsed]
