"""`maypole generate --model`: a checkpoint answers a file of prompts, and a stop at any time changes nothing in the end."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from framework.cli import main
from framework.cli_paths import as_text
from framework.inference import Engine, EngineConfig, Request
from framework.inference.source import Spoken, open_checkpoint
from models.decoder import DecoderConfig, save_hf
from models.tokenizer import CHAT_TAGS, ByteTokenizer

LENGTH = 96
STOP = ("e", "日本")
LINES = [
    '{"prompt": "the cat sat", "id": 7, "meta": {"a": [1, null]}}',
    '{"question": "das Mädchen"}',
    "",
    '{"messages": [{"role": "user", "content": "日本語?"}], "source": "x"}',
    '{"tokens": [70, 71, 72]}',
    '{"prompt": "the cat sat"}',
    '{"prompt": "a\\n"}',
]
ASKED = [1, 2, 4, 5, 6, 7]  # the lines with a prompt


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tokenizer = ByteTokenizer(tags=CHAT_TAGS)
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
    save_hf(config.build(jax.random.key(0)), folder, tokenizer=tokenizer.build(), dtype="float32")
    return folder


@pytest.fixture
def prompts(tmp_path) -> Path:
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return file


def generate(model, prompts, out, *words) -> int:
    return main(["generate", "--model", str(model), "--prompts", str(prompts), "--out", str(out), *map(str, words)])


def read(file) -> list[dict]:
    return [json.loads(line) for line in Path(file).open(encoding="utf-8")]


SAMPLING = ("--samples", 2, "--max-tokens", 20, "--temperature", 0.8, "--top-k", 50, "--seed", 3)


@pytest.fixture(scope="module")
def answers(model, tmp_path_factory) -> Path:
    """Answers to all the lines, made in one go."""
    folder = tmp_path_factory.mktemp("answers")
    (folder / "in.jsonl").write_text("\n".join(LINES), encoding="utf-8")
    words = [*SAMPLING, "--stop", STOP[0], "--stop", STOP[1], "--logprobs", 2]
    assert generate(model, folder / "in.jsonl", folder / "out.jsonl", *words) == 0
    return folder / "out.jsonl"


def test_answers_are_those_of_the_engine_with_the_line_as_id(model, answers):
    checkpoint = open_checkpoint(str(model), template_values={})
    tokenizer = checkpoint.tokenizer
    engine = Engine(
        checkpoint.model,
        EngineConfig(slots=3, max_length=LENGTH, stop_tokens=tokenizer.stop_ids, top_logprobs=2),
        tokenizer=Spoken(tokenizer),
    )
    asked = {
        1: tokenizer.encode("the cat sat"),
        2: tokenizer.encode("das Mädchen"),
        4: tokenizer.chat.prompt([{"role": "user", "content": "日本語?"}]),
        5: [70, 71, 72],
        6: tokenizer.encode("the cat sat"),
        7: tokenizer.encode("a\n"),
    }
    requests = [
        Request(
            id=line,
            prompt=prompt,
            samples=2,
            max_tokens=20,
            temperature=0.8,
            top_k=50,
            stop=STOP,
            top_logprobs=2,
        )
        for line, prompt in asked.items()
    ]
    right = iter(engine.generate(requests, 3))
    for line, found in zip(ASKED, read(answers), strict=True):
        made = found["generation"]
        assert {k: v for k, v in found.items() if k not in ("responses", "generation")} == json.loads(LINES[line - 1])
        assert (made["line"], made["prompt_tokens"]) == (line, len(asked[line]))
        for s in range(2):
            want = next(right)
            assert found["responses"][s] == want.text
            assert (made["finish_reasons"][s], made["stops"][s]) == (want.finish_reason, want.stop)
            logprobs = made["logprobs"][s]
            assert logprobs["ids"] == want.tokens.tolist()
            assert made["tokens"][s] == len(want.tokens)
            # Written with six digits; another number of slots may change the last bits of a sum.
            np.testing.assert_allclose(logprobs["logp"], want.logp, atol=2e-5)
            np.testing.assert_allclose(logprobs["logp_untempered"], want.logp_untempered, atol=2e-5)
            assert np.shape(logprobs["top_ids"]) == (len(want.tokens), 2)
            assert want.top_logp is not None
            np.testing.assert_allclose(logprobs["top_logp"], want.top_logp, atol=2e-5)
    texts = [text for found in read(answers) for text in found["responses"]]
    assert not any(stop in text for text in texts for stop in STOP)
    stops = [stop for found in read(answers) for stop in found["generation"]["stops"]]
    assert "e" in stops  # the seed is one where it happens
    assert texts[0] != texts[1]
    assert texts[0] != texts[8]  # the same prompt on another line


@pytest.mark.parametrize(
    "words",
    [("--slots", 1, "--layout", "paged"), ("--cache-bytes", "40KiB")],
    ids=lambda words: " ".join(map(str, words)),
)
def test_slots_layout_memory_and_the_other_lines_change_no_answer(model, answers, tmp_path, words):
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(line if i in (1, 4, 6) else "" for i, line in enumerate(LINES, start=1)))
    assert generate(model, few, tmp_path / "o.jsonl", *SAMPLING, "--stop", STOP[0], "--stop", STOP[1], *words) == 0
    want = {found["generation"]["line"]: found["responses"] for found in read(answers)}
    assert [(found["generation"]["line"], found["responses"]) for found in read(tmp_path / "o.jsonl")] == [
        (line, want[line]) for line in (1, 4, 6)
    ]


def assert_same(a: list[dict], b: list[dict]) -> None:
    """Equal but for the last digits of log-probabilities: prompts that are read together are other ones after a stop."""
    for x, y in zip(a, b, strict=True):
        for p, q in zip(x["generation"].pop("logprobs"), y["generation"].pop("logprobs"), strict=True):
            assert p["ids"] == q["ids"]
            for name in ("logp", "logp_untempered", "top_logp"):
                np.testing.assert_allclose(p[name], q[name], atol=2e-5)
        assert x == y


def test_what_is_there_is_kept_and_the_rest_is_made(model, answers, prompts, tmp_path, capsys):
    lines = answers.read_bytes().splitlines(keepends=True)
    out = tmp_path / "o.jsonl"
    out.write_bytes(lines[3] + lines[1] + lines[0][:100])  # finished out of order, the last one cut off by a kill
    words = [*SAMPLING, "--stop", STOP[0], "--stop", STOP[1], "--logprobs", 2]
    assert generate(model, prompts, out, *words) == 0
    said = capsys.readouterr()
    assert "the last line was cut off in the middle and is made again" in said.err
    assert "2 of 6 are there" in said.err
    assert "8 answers" in said.err  # two samples of the four others
    assert said.out.strip() == str(out)
    assert_same(read(out), read(answers))
    before = out.read_bytes()
    assert generate(model, prompts, out, *words) == 0
    said = capsys.readouterr().err
    assert "6 of 6 are there" in said
    assert "tokens/s" not in said  # the model was not even read
    assert generate(model, prompts, out, *words, "--temperature", 0.5) == 2
    assert "temperature: 0.8 -> 0.5" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_a_model_with_other_weights_does_not_continue_a_file(model, answers, prompts, tmp_path, capsys):
    out = tmp_path / "o.jsonl"
    out.write_bytes(answers.read_bytes())
    other = tmp_path / "tiny"
    config = DecoderConfig(
        vocab_size=272, dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=48, max_position=LENGTH
    )
    save_hf(config.build(jax.random.key(1)), other, tokenizer=ByteTokenizer(tags=CHAT_TAGS).build(), dtype="float32")
    words = [*SAMPLING, "--stop", STOP[0], "--stop", STOP[1], "--logprobs", 2]
    assert generate(other, prompts, out, *words) == 2
    assert 'model: "tiny@' in capsys.readouterr().err


def test_without_out_answers_are_printed_in_order(model, capsys):
    words = ["--prompt", "the cat sat", "das Mädchen", "--max-tokens", "8", "--temperature", "0", "--min-tokens", "4"]
    assert main(["generate", "--model", str(model), *words]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("> the cat sat\n")
    assert "\n\n> das Mädchen\n" in said.out
    assert "2 answers" in said.err


def test_a_native_folder_gives_the_same_answers(model, prompts, tmp_path):
    assert main(["import", str(model), str(tmp_path / "native")]) == 0
    words = ["--temperature", 0, "--max-tokens", 6]
    assert generate(model, prompts, tmp_path / "a.jsonl", *words) == 0
    assert generate(tmp_path / "native", prompts, tmp_path / "b.jsonl", *words) == 0
    a, b = ([found["responses"] for found in read(tmp_path / name)] for name in ("a.jsonl", "b.jsonl"))
    assert a == b


def test_answers_end_at_the_length_the_model_was_made_for(model, tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "a" * (LENGTH - 5)}) + '\n{"prompt": "b"}\n')
    words = ["--max-tokens", 12, "--min-tokens", 12, "--logprobs", 0]
    assert generate(model, tmp_path / "in.jsonl", tmp_path / "o.jsonl", *words) == 0
    a, b = (found["generation"] for found in read(tmp_path / "o.jsonl"))
    assert (a["tokens"], a["finish_reasons"]) == ([5], ["length"])
    assert b["tokens"] == [12]
    assert "top_ids" not in a["logprobs"][0]
    assert len(a["logprobs"][0]["logp"]) == 5


@pytest.mark.parametrize(
    ("lines", "words", "said"),
    [
        (
            [{"prompt": "a" * LENGTH}],
            [],
            "Line 1 of IN has a prompt of 96 tokens, and the model, made for 96 tokens, has to hold",
        ),
        (
            [{"prompt": "a"}, {"prompt": "a" * 9}],
            ["--max-length", 9],
            "Line 2 of IN has a prompt of 9 tokens, and --max-length 9",
        ),
        (
            [{"prompt": "a"}],
            ["--max-length", 97],
            "--max-length 97 is more than the 96 tokens the model was made for. Use 96.",
        ),
        ([{"prompt": "a"}, {"prompt": ""}], [], "Line 2 of IN: the prompt is empty."),
        ([{"tokens": [5, 300]}], [], "Line 1 of IN: request 1 has token 300 at place 1"),
        ([{"tokens": [5, "6"]}], [], "Line 1 of IN: \"tokens\" holds '6'"),
        ([{"messages": [{"role": "user"}]}], [], "Line 1 of IN: "),
        (
            [{"prompt": "a"}, {"messages": [{"role": "user", "content": "a"}], "tools": ["x"]}],
            [],
            'Line 2 of IN: beside "messages", "tools" must be a list of objects',
        ),
        ([{"tokens": [2**70]}], [], "Line 1 of IN: request 1 has a prompt that is not a list of whole numbers"),
        (
            [{"prompt": "a"}],
            ["--cache-bytes", "1KiB"],
            "(Here engine.cache_bytes is --cache-bytes, engine.max_length is --max-length.)",
        ),
    ],
    ids=lambda value: None if isinstance(value, list) else value[:40],
)
def test_prompts_that_cannot_be_answered_are_named_before_any_is(model, tmp_path, capsys, lines, words, said):
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert generate(model, tmp_path / "in.jsonl", tmp_path / "o.jsonl", "--max-tokens", 4, *words) == 2
    assert said.replace("IN", str(tmp_path / "in.jsonl")) in capsys.readouterr().err
    assert (tmp_path / "o.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--samples", 0], "--samples 0 must be at least 1"),
        (["--temperature", -1], "--temperature -1.0 must be at least 0"),
        (["--temperature", "nan"], "--temperature nan must be at least 0"),
        (["--top-p", 0], "--top-p 0.0 must lie above 0"),
        (["--min-p", 2], "--min-p 2.0 must lie between 0 and 1"),
        (["--min-tokens", 9, "--max-tokens", 8], "--min-tokens 9 is more than --max-tokens 8"),
        (["--stop", ""], "--stop has an empty text"),
        (["--cache-bytes", "much"], "--cache-bytes 'much' is no size. Type for example --cache-bytes 2GiB"),
        (["--template-value", "x"], "is not NAME=VALUE"),
        (["--prompt", "a"], "Give --prompts FILE or --prompt TEXT, not both"),
        (["--out", "IN"], "is the file of the prompts"),
        (["--out", "."], "is a folder, not a file. Type: --out answers.jsonl"),
        (["--out", "a" * 201], "has a name of 201 bytes; one may have 200"),
        (["--out", "/proc/out.jsonl"], "--out /proc/out.jsonl cannot be written: No such file or directory"),
        (["--prompts", "."], "cannot be read: Is a directory"),
        (["--chat-template", "a" * 300], "cannot be read as a file: File name too long"),
        (["--out", "/dev/null"], "is no regular file"),
        (["--model", "none/at/all"], "is not there. Give the folder of a checkpoint"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_message_and_exit_code_2(model, prompts, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    words = [str(prompts) if word == "IN" else word for word in words]
    assert generate(model, prompts, tmp_path / "o.jsonl", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_a_long_template_may_be_typed_and_a_pipe_may_bring_the_prompts(model, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(
        target=(tmp_path / "pipe").write_text, args=('{"messages": [{"role": "user", "content": "b"}]}\n',)
    )
    writer.start()
    template = "{# " + "x" * 300 + " #}{{ messages[0].content }}"
    words = ["--chat-template", template, "--max-tokens", 2]
    assert generate(model, tmp_path / "pipe", tmp_path / "o.jsonl", *words) == 0
    writer.join()
    made = read(tmp_path / "o.jsonl")[0]["generation"]
    assert (made["prompt_tokens"], made["settings"]["chat_template"]) == (1, template)


def test_a_file_whose_name_is_not_utf_8_is_named_with_escapes(model, prompts, tmp_path):
    out = os.fsdecode(os.fsencode(tmp_path) + b"/o\xff.jsonl")
    assert as_text(out).endswith("/o\\xff.jsonl")
    words = [
        sys.executable,
        "-m",
        "framework.cli",
        "generate",
        "--model",
        str(model),
        "--prompt",
        "a",
        "--max-tokens",
        "1",
    ]
    root = Path(__file__).resolve().parents[2]
    env = os.environ | {"PYTHONPATH": str(root), "PYTHONUTF8": "1"}
    done = subprocess.run([*words, "--out", out], cwd=root, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, as_text(out)), done.stderr


def test_help_names_units_and_defaults(capsys):
    for words in (["--model", "--help"], ["--help", "--model", "x"]):
        assert main(["generate", *words]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "longest answer in tokens (default: 256)" in said
        assert "such as 2GiB, 512MiB or 500MB" in said


class Command:
    """The command as a process of its own, on many prompts."""

    def __init__(self, model: Path, folder: Path):
        rng = random.Random(0)
        self.total = 60
        texts = ["".join(rng.choice("ab c") for _ in range(rng.randrange(1, 30))) for _ in range(self.total)]
        (folder / "in.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
        self._folder, self._model = folder, model

    def start(self, out: str) -> subprocess.Popen:
        words = ["generate", "--model", self._model, "--prompts", "in.jsonl", "--out", out]
        # Lengths differ, so that answers are not finished in the order of the prompts.
        words += ["--slots", "3", "--max-tokens", "60", "--samples", "2", "--seed", "5"]
        return subprocess.Popen(
            [sys.executable, "-m", "framework.cli", *map(str, words)],
            cwd=self._folder,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "XLA_FLAGS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def count(self, out: str) -> int:
        file = self._folder / out
        return file.read_bytes().count(b"\n") if file.exists() else 0

    def stop_after(self, out: str, lines: int, signum: int) -> tuple[int, str]:
        """Start or continue, send the signal once there are so many lines; the exit code and what was said."""
        process = self.start(out)
        until = time.monotonic() + 120
        while self.count(out) < lines:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.002)
        process.send_signal(signum)
        _, said = process.communicate(timeout=60)
        return process.returncode, said


@pytest.mark.slow
def test_killed_interrupted_and_terminated_it_ends_with_the_bytes_of_a_run_that_was_never_stopped(model, tmp_path):
    command = Command(model, tmp_path)
    whole = command.start("whole.jsonl")
    assert whole.communicate(timeout=120)[0].strip() == "whole.jsonl"
    code, _ = command.stop_after("o.jsonl", 5, signal.SIGKILL)
    assert code == -signal.SIGKILL
    first = command.count("o.jsonl")
    assert 5 <= first < command.total
    code, said = command.stop_after("o.jsonl", first + 5, signal.SIGINT)
    assert code == 130
    assert "Stopped. To continue: maypole generate --model" in said
    assert f"{first} of 60 are there" in said
    code, said = command.stop_after("o.jsonl", command.count("o.jsonl") + 5, signal.SIGTERM)
    assert code == 143
    assert "To continue: maypole generate --model" in said
    assert command.count("o.jsonl") < command.total
    with (tmp_path / "o.jsonl").open("r+b") as file:  # as if the kill had come in the middle of a line
        file.truncate(file.seek(0, os.SEEK_END) - 30)
    last = command.start("o.jsonl")
    said = last.communicate(timeout=120)[1]
    assert last.returncode == 0, said
    assert "is made again" in said
    assert (tmp_path / "o.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
