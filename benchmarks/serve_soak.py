"""Many clients of `maypole serve` for a while, some of which go away in the middle of an answer:

    python benchmarks/serve_soak.py [--clients 64] [--seconds 60] [--slots 16] [--layout slots] [--out FILE]

Makes a small random checkpoint, has an engine in this process say the right answers one by one, then starts the real server in a
process of its own and asks it the same with the same seeds: prompts of several lengths, texts and chats, one and several samples,
streamed and whole, with stop strings. Every answer must be the right one to the letter, also what was streamed before a client
went. Refusals of a full queue (429) and of wrong requests (400) are counted and have to be just those.

Then every slot has to be free, the queue empty, the server's memory flat since the first quarter, and SIGTERM has to end it with
exit code 0. Prints and writes JSON; exit code 1 if anything was not so. Memory is read from /proc: Linux only.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the packages, wherever this is started

from _environment import describe, publish  # noqa: E402

LENGTH = 128  # tokens of a sequence
DROPS = 0.25  # of the requests, whose client goes away
WRONG = 0.03  # of the requests, that no server can answer
GROWTH = (8e6, 0.03)  # bytes, and part of the memory, that may be more at the end: whichever is larger


@dataclasses.dataclass(frozen=True)
class Question:
    """A request, and the texts of the right answer."""

    path: str
    body: dict[str, Any]
    texts: tuple[str, ...]


def make_checkpoint(folder: Path) -> None:
    """A random model that says something else after every prompt."""
    import jax

    from models.decoder import DecoderConfig, save_hf
    from models.tokenizer import CHAT_TAGS, ByteTokenizer

    tokenizer = ByteTokenizer(tags=CHAT_TAGS, merges=40)
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size, dim=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp_dim=128
    )
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
    save_hf(config.build(jax.random.key(0)), folder, tokenizer=tokenizer.build(texts), dtype="float32")


def make_questions(folder: Path, count: int) -> list[Question]:
    """Questions of every kind with what an engine answers to each of them alone."""
    import jax

    from framework.inference.source import open_checkpoint
    from framework.inference.types import Request

    checkpoint = open_checkpoint(str(folder), template_values={})
    tokenizer = checkpoint.tokenizer
    engine = checkpoint.engine(slots=4, max_length=LENGTH, max_queue=64)
    rng = random.Random(0)
    words = Path(__file__).read_text(encoding="utf-8").partition("\n\n")[0].split()
    questions = []
    for number in range(count):
        text = " ".join(rng.choices(words, k=rng.choice((1, 3, 8, 14))))
        chat = [{"role": "user", "content": text}]
        body: dict[str, Any] = {
            "seed": number,
            "n": rng.choice((1, 1, 1, 2)),
            "max_tokens": rng.choice((4, 16, 40, 64)),
            "temperature": rng.choice((0.0, 0.7, 1.0)),
            "top_p": rng.choice((1.0, 0.9)),
        }
        is_chat = number % 3 == 0
        prompt = tokenizer.chat.prompt(chat) if is_chat else tokenizer.encode(text)
        request = Request(
            id=0,
            prompt=prompt,
            samples=body["n"],
            max_tokens=body["max_tokens"],
            temperature=body["temperature"],
            top_p=body["top_p"],
        )
        texts = [found.text or "" for found in engine.generate([request], jax.random.key(number))]
        if number % 4 == 1 and len(texts[0]) > 8:  # ends in the middle of what it said
            stop = texts[0][5:7]
            request = dataclasses.replace(request, stop=(stop,))
            texts = [found.text or "" for found in engine.generate([request], jax.random.key(number))]
            body["stop"] = [stop]
        body["model"] = "soak"
        path = "/v1/chat/completions" if is_chat else "/v1/completions"
        questions.append(Question(path, body | ({"messages": chat} if is_chat else {"prompt": text}), tuple(texts)))
    return questions


class Client:
    """One client: asks, checks, and now and then goes away."""

    def __init__(self, http: httpx.AsyncClient, questions: list[Question], number: int):
        self.http, self.questions, self.rng = http, questions, random.Random(number)
        self.counts: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.mistakes: list[str] = []

    async def run(self, until: float) -> None:
        """Ask until the time is over."""
        while time.monotonic() < until:
            question, kind = self.rng.choice(self.questions), self.rng.random()
            try:
                if kind < WRONG:
                    await self._wrong(question)
                elif self.rng.random() < 0.5:
                    await self._stream(question, drop=kind < WRONG + DROPS)
                else:
                    await self._whole(question, drop=kind < WRONG + DROPS)
            except (httpx.HTTPError, LookupError, TypeError) as error:  # cut off, or no answer of the API
                self.mistakes.append(f"{type(error).__name__}: {error}")

    async def _wrong(self, question: Question) -> None:
        response = await self.http.post(question.path, json=question.body | {"temperature": -1})
        self._expect(response.status_code == 400, f"status {response.status_code} for a wrong request")
        self.counts["refused"] += 1

    async def _whole(self, question: Question, *, drop: bool) -> None:
        began = time.monotonic()
        asked = self.http.post(question.path, json=question.body)
        try:
            response = await asyncio.wait_for(asked, self.rng.uniform(0.0, 0.3) if drop else None)
        except TimeoutError:
            self.counts["dropped"] += 1
            return
        if response.status_code == 429:
            await self._busy(response)
            return
        self._expect(response.status_code == 200, f"status {response.status_code}: {response.text[:200]}")
        choices = response.json().get("choices", [])
        texts = [choice["text"] if "text" in choice else choice["message"]["content"] for choice in choices]
        self._check(question, texts, began)

    async def _stream(self, question: Question, *, drop: bool) -> None:
        began, texts, ended = time.monotonic(), ["" for _ in question.texts], False
        patience = self.rng.randrange(12) if drop else None
        async with self.http.stream("POST", question.path, json=question.body | {"stream": True}) as response:
            if response.status_code == 429:
                await response.aread()
                await self._busy(response)
                return
            self._expect(response.status_code == 200, f"status {response.status_code} for a stream")
            lines = 0
            async for line in response.aiter_lines():
                if lines == patience:  # leaving the block closes the connection
                    self.counts["dropped"] += 1
                    begun = all(right.startswith(text) for text, right in zip(texts, question.texts, strict=True))
                    self._expect(begun, f"{texts} is not the beginning of {question.texts}")
                    return
                lines += 1
                ended = ended or line == "data: [DONE]"
                if line.startswith("data: {"):
                    for choice in json.loads(line.removeprefix("data: ")).get("choices", ()):
                        said = choice["text"] if "text" in choice else choice["delta"].get("content")
                        texts[choice["index"]] += said or ""
        self._expect(ended, "a stream without an end")
        self._check(question, texts, began)

    async def _busy(self, response: httpx.Response) -> None:
        self._expect(response.headers.get("retry-after") == "1", "429 without Retry-After")
        self.counts["busy"] += 1
        await asyncio.sleep(self.rng.uniform(0.05, 0.3))

    def _check(self, question: Question, texts: list[str], began: float) -> None:
        self.seconds.append(time.monotonic() - began)
        self.counts["answered"] += 1
        self._expect(tuple(texts) == question.texts, f"{texts} instead of {question.texts}")

    def _expect(self, true: bool, mistake: str) -> None:
        if not true:
            self.mistakes.append(mistake)


def start(folder: Path, options: argparse.Namespace, log: Path) -> tuple[subprocess.Popen[str], str]:
    """The server's process and its address, once it answers."""
    words = ["serve", "--model", str(folder), "--served-name", "soak", "--port", "0", "--max-length", str(LENGTH)]
    words += ["--slots", str(options.slots), "--max-queue", str(options.max_queue), "--layout", options.layout]
    server = subprocess.Popen(
        [sys.executable, "-m", "framework.cli", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert server.stdout is not None
    found = re.search(r"http://\S+(?=/v1)", server.stdout.readline())
    if found is None:
        server.kill()
        raise RuntimeError(f"The server did not start:\n{log.read_text()}")
    return server, found[0]


def resident(process: int) -> int:
    """Bytes of memory that a process has."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{process}/status has no VmRSS")


async def metric(http: httpx.AsyncClient, name: str) -> float:
    """A number of the server's /metrics."""
    lines = (await http.get("/metrics")).text.splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"maypole_{name} ")))


async def soak(url: str, process: int, questions: list[Question], options: argparse.Namespace) -> dict[str, Any]:
    """All clients for the whole time, and the state of the server after them."""
    limits = httpx.Limits(max_connections=options.clients + 1)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        clients = [Client(http, questions, number) for number in range(options.clients)]
        began, memory = time.monotonic(), []

        async def watch() -> None:
            while True:
                memory.append(resident(process))
                await asyncio.sleep(options.seconds / 100)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(client.run(began + options.seconds) for client in clients))
        took = time.monotonic() - began
        watching.cancel()
        for _ in range(100):  # the last ones that went away are noticed within a round of the engine
            free, slots = await metric(http, "slots_free"), await metric(http, "slots")
            waiting, running = await metric(http, "requests_waiting"), await metric(http, "requests_running")
            if free == slots and waiting == running == 0:
                break
            await asyncio.sleep(0.05)
        tokens = await metric(http, "generated_tokens_total")
    counts = sum((client.counts for client in clients), Counter())
    seconds = sorted(second for client in clients for second in client.seconds)
    mistakes = [mistake for client in clients for mistake in client.mistakes]
    quarter = len(memory) // 4
    early, late = statistics.median(memory[quarter : 2 * quarter]), statistics.median(memory[-quarter:])
    return {
        "counts": dict(counts),
        "mistakes": len(mistakes),
        "first_mistakes": mistakes[:5],
        "requests_per_s": counts.total() / took,
        "tokens_per_s": tokens / took,
        "latency_s": {"p50": statistics.median(seconds), "p99": seconds[int(len(seconds) * 0.99)]},
        "after": {"slots": slots, "slots_free": free, "waiting": waiting, "running": running},
        "memory_bytes": {"first": memory[0], "second_quarter": early, "last_quarter": late, "growth": late - early},
        "memory_flat": late - early <= max(GROWTH[0], GROWTH[1] * early),
        "emptied": free == slots and waiting == running == 0,
    }


def main() -> int:
    """Everything; 0 if all was right."""
    parser = argparse.ArgumentParser(description="Soak `maypole serve`.")
    parser.add_argument("--clients", type=int, default=64, help="concurrent clients (default: 64)")
    parser.add_argument("--seconds", type=float, default=60, help="time they ask for, seconds (default: 60)")
    parser.add_argument("--slots", type=int, default=16, help="slots of the server (default: 16)")
    parser.add_argument(
        "--max-queue", type=int, default=24, help="its queue; with the slots fewer than the clients (default: 24)"
    )
    parser.add_argument("--layout", choices=("slots", "paged"), default="slots", help="of the cache (default: slots)")
    parser.add_argument("--questions", type=int, default=60, help="different requests (default: 60)")
    parser.add_argument("--out", type=Path, help="write the JSON to this file as well")
    options = parser.parse_args()
    head = describe("serve_soak", ("framework/serve", "framework/inference", "framework/cli_serve.py", "models"))
    folder = Path(tempfile.mkdtemp(prefix="maypole-soak-"))
    try:
        make_checkpoint(folder / "model")
        questions = make_questions(folder / "model", options.questions)
        server, url = start(folder / "model", options, folder / "log")
        try:
            result = asyncio.run(soak(url, server.pid, questions, options))
            server.send_signal(signal.SIGTERM)
            result["exit_code"] = server.wait(60)
        finally:
            server.kill()
        log = (folder / "log").read_text()
    finally:
        shutil.rmtree(folder)
    result["tracebacks"] = log.count("Traceback")
    sound = result["memory_flat"] and result["emptied"] and result["exit_code"] == 0
    ok = sound and not result["mistakes"] and not result["tracebacks"]
    asked = {
        name: getattr(options, name) for name in ("clients", "seconds", "slots", "max_queue", "layout", "questions")
    }
    publish(head | {"ok": ok, **asked, **result}, options.out)
    if not ok:
        print(log[-5000:], file=sys.stderr)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
