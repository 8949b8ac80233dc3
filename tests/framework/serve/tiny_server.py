"""A small random model with a tokenizer in Hugging Face format, and a server over it in a thread."""

import contextlib
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jax
import openai

from framework.inference.engine import Engine
from framework.inference.source import Checkpoint
from framework.serve.metrics import Metrics
from framework.serve.sampling import Limits
from framework.serve.server import Server, bind
from framework.serve.service import Service
from framework.serve.worker import Worker
from models.decoder import DecoderConfig, save_hf
from models.tokenizer import CHAT_TAGS, ByteTokenizer

TEXTS = ["the cat sat on the mat and the dog sat on the cat", "das Mädchen aß Äpfel", "日本語のテキスト"] * 4
NAME = "tiny"
LENGTH = 96


def write_checkpoint(folder: Path) -> Path:
    """Weights large enough that a token depends on those before it, and that the end token is drawn now and then."""
    tokenizer = ByteTokenizer(tags=CHAT_TAGS, merges=40)
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        dim=32,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=8,
        mlp_dim=48,
        max_position=LENGTH,
    )
    save_hf(config.build(jax.random.key(0)), folder, tokenizer=tokenizer.build(TEXTS), dtype="float32")
    return folder


def make_engine(checkpoint: Checkpoint, *, slots: int = 4, max_queue: int = 64) -> Engine:
    return checkpoint.engine(slots=slots, max_length=LENGTH, decode_steps=4, max_queue=max_queue, top_logprobs=5)


@dataclasses.dataclass
class Running:
    """A server in a thread of this process."""

    url: str
    engine: Engine
    service: Service
    server: Server
    thread: threading.Thread

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def openai(self, **options) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", **{"api_key": "none", "max_retries": 0, "timeout": 60} | options
        )

    def metric(self, name: str) -> float:
        """One line of /metrics."""
        with self.http as http:
            lines = http.get("/metrics").text.splitlines()
        return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"maypole_{name} ")))

    def wait_until_empty(self, seconds: float = 10) -> None:
        """All slots free, nothing waiting."""
        until = time.monotonic() + seconds
        while not (self.metric("slots_free") == self.metric("slots") and self.metric("requests_waiting") == 0):
            assert time.monotonic() < until, "slots or queue are not empty"
            time.sleep(0.02)


@contextlib.contextmanager
def running(
    checkpoint: Checkpoint, engine: Engine, *, api_key: str | None = None, grace: float = 5, max_queue: int = 64
) -> Iterator[Running]:
    metrics = Metrics()
    limits = Limits(max_length=LENGTH, vocab_size=engine.vocab_size, top_logprobs=5, max_queue=max_queue)
    service = Service(
        worker=Worker(engine, metrics),
        tokenizer=checkpoint.tokenizer,
        limits=limits,
        metrics=metrics,
        names=[NAME, "alias/tiny"],
        created=int(time.time()),
        api_key=api_key,
    )
    ready = threading.Event()
    listener = bind("127.0.0.1", 0)
    server = Server(service, grace=grace, ready=ready.set)
    thread = threading.Thread(target=server.answer, args=(listener,), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", engine, service, server, thread)
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive(), "the server did not end"


def half_a_request(served: Running) -> socket.socket:
    """A connection that has sent the head of a request and the beginning of its body."""
    host, port = served.url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), timeout=20)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    client.sendall(head.encode() + b'{"model": ')
    return client


def events(response: httpx.Response) -> list[dict]:
    """The objects of a stream, which has to end with [DONE]."""
    lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
