"""Peers of a benchmark: processes of their own that warm up once, say so, and then work in turns. Standard library only.

A peer script reads its job (JSON) from its first argument, prints one line of JSON about itself when it is ready, and then
answers each line of its input with a line of JSON. Other prints of its libraries are skipped.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from _environment import ROOT
from _workloads import SIZES

__all__ = ["Peer", "add_peer_flags", "answer", "in_turns", "job", "questions", "serve"]

HERE = Path(__file__).resolve().parent
Answer = dict[str, Any]


# --- the side of the benchmark ---


class Peer:
    """A process that does what its script does, when it is asked."""

    def __init__(self, script: str, python: str, job: Mapping[str, Any], cache: str):
        """`script` is a file beside this one, `job["threads"]` the threads it may use, `cache` a folder for compiled programs."""
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "OMP_NUM_THREADS": str(job["threads"]),
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self._process = subprocess.Popen(
            [python, str(HERE / script), json.dumps(job)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._read()

    def ask(self, question: Any) -> Answer:
        """Put a question (anything that JSON can hold) and wait for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _read(self) -> Answer:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith('{"'):  # a Python dict that a library prints starts with {'
                return json.loads(line)
        raise RuntimeError(f"{self._process.args} ended with code {self._process.wait()}")


def in_turns(turns: Mapping[str, Callable[[int], Answer]], rounds: int) -> dict[str, list[Answer]]:
    """A B C A B C, so that another load on the machine hits all of them; each turn is given the number of its round."""
    answers: dict[str, list[Answer]] = {name: [] for name in turns}
    for number in range(rounds):
        for name, turn in turns.items():
            answers[name].append(turn(number))
    return answers


def add_peer_flags(parser: argparse.ArgumentParser, *, sizes: Sequence[str], rounds: int) -> None:
    """The flags that benchmarks with peers share."""
    what = f"models (default: {' '.join(sizes)})"
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(sizes), help=what)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"turns of every peer (default: {rounds})")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all cores)")
    parser.add_argument("--tiny", action="store_true", help="a small model and one round, to see that everything runs")
    parser.add_argument("--out", type=Path, help="write JSON here as well")


# --- the side of the peer ---


def job() -> dict[str, Any]:
    """What this process was started for."""
    return json.loads(sys.argv[1])


def answer(found: Mapping[str, Any]) -> None:
    """One line to the benchmark."""
    print(json.dumps(found), flush=True)


def questions() -> Iterator[Any]:
    """Questions as they come; ends when the benchmark closes the pipe."""
    for line in sys.stdin:
        yield json.loads(line)


def serve(about: Mapping[str, Any], work: Callable[[Any], Mapping[str, Any]]) -> None:
    """Say that this peer is ready, then answer every question with what `work` returns and the seconds it took."""
    answer({"ready": True} | dict(about))
    for question in questions():
        start, cpu = time.perf_counter(), time.process_time()
        found = work(question)
        answer({"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu} | dict(found))
