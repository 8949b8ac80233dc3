"""The tiny model of `tiny_server`, a server over it, and an engine that knows the right answers."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from tiny_server import NAME, Running, make_engine, running, write_checkpoint

from framework.inference.engine import Engine
from framework.inference.source import Checkpoint, open_checkpoint
from framework.inference.types import Completion, Request


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / NAME)


@pytest.fixture(scope="session")
def checkpoint(folder) -> Checkpoint:
    return open_checkpoint(str(folder), template_values={})


@pytest.fixture(scope="session")
def served(checkpoint) -> Iterator[Running]:
    with running(checkpoint, make_engine(checkpoint)) as found:
        yield found


@pytest.fixture(scope="session")
def reference(checkpoint) -> Engine:
    """An engine of its own: what it says alone is what the server has to say."""
    return make_engine(checkpoint)


@pytest.fixture
def right(reference, checkpoint):
    """The right answers to a request: `right(prompt, seed=3, temperature=0.5)`."""

    def answers(prompt: str | list[int], *, seed: int = 0, max_tokens: int = 16, **settings) -> list[Completion]:
        ids = checkpoint.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        request = Request(id=0, prompt=ids, max_tokens=max_tokens, **settings)
        return reference.generate([request], jax.random.key(seed))

    return answers


@pytest.fixture
def held_up(monkeypatch):
    """`with held_up(engine) as go_on`: each round takes a while, so that answers are under way for long, until `go_on()`."""

    @contextlib.contextmanager
    def hold(engine: Engine, seconds: float = 0.2) -> Iterator[Callable[[], None]]:
        step, free = engine.step, threading.Event()

        def slow():
            free.wait(seconds)
            return step()

        with monkeypatch.context() as patch:
            patch.setattr(engine, "step", slow)
            yield free.set
            free.set()

    return hold
