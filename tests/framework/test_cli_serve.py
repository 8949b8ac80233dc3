"""The command in real processes, and its mistakes, which are found before a model is read."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import openai
import pytest

from framework.cli import main
from framework.cli_serve import _folder, _parser
from framework.cli_values import parse_bytes, template_values
from framework.config import load_experiment
from framework.rundir import RunDir
from models.decoder import DecoderConfig, save_hf
from models.tokenizer import CHAT_TAGS, ByteTokenizer

ROOT = Path(__file__).resolve().parents[2]
TOY = Path(__file__).parent / "fixtures" / "toy_experiment.py"
MINE = f"""
import dataclasses, shutil, sys
sys.path.insert(0, {str(TOY.parent)!r})
from toy_experiment import Toy

@dataclasses.dataclass(frozen=True, kw_only=True)
class Exporting(Toy):
    def export(self, stage, folder, *, dtype, shard_size):
        folder.mkdir()
        (folder / "call").write_text(f"{{stage.name}} {{dtype}}")

config = Exporting()
plain = Toy()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    tokenizer = ByteTokenizer(tags=CHAT_TAGS)
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size, dim=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp_dim=16
    )
    folder = tmp_path_factory.mktemp("served") / "my-model"
    return save_hf(config.build(jax.random.key(0)), folder, tokenizer=tokenizer.build())


@pytest.fixture
def run(tmp_path) -> RunDir:
    (tmp_path / "mine.py").write_text(MINE)
    loaded = load_experiment(f"{tmp_path}/mine.py:config")
    run = RunDir.create(tmp_path / "run", loaded.config, loaded.source)
    loaded.config.run(run)
    return run


@contextlib.contextmanager
def process(*words, env=()):
    """`maypole serve` on a free port: the process and its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "framework.cli", "serve", "--port", "0", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            line = server.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+/v1$", line.strip())
            assert found, line + server.stderr.read()
            yield server, found[0], line
        finally:
            server.kill()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_answers_under_way_finish_and_the_exit_code_is_0(folder, sent):
    words = ["--model", folder, "--no-warmup", "--slots", 2, "--max-length", 400, "--decode-steps", 1]
    with process(*words, env={"MAYPOLE_API_KEY": "k3y"}) as (server, url, line):
        assert line.startswith("my-model: 2 slots of 400 tokens at http://127.0.0.1:")
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=url, api_key="other").models.list()
        client = openai.OpenAI(base_url=url, api_key="k3y", max_retries=0)
        assert [model.id for model in client.models.list()] == ["my-model"]
        extra = {"ignore_eos": True, "return_token_ids": True}
        stream = client.completions.create(
            model="my-model", prompt="a", max_tokens=350, stream=True, seed=1, extra_body=extra
        )
        ids = [*next(stream).choices[0].token_ids]
        server.send_signal(sent)
        chunks = [chunk.choices[0] for chunk in stream]
        ids += [i for choice in chunks for i in getattr(choice, "token_ids", [])]
        assert len(ids) == 350
        assert chunks[-1].finish_reason == "length"
        assert server.wait(30) == 0
        errors = server.stderr.read()
        assert "Traceback" not in errors
        assert "M parameters, float32, read in" in errors


@pytest.mark.slow
def test_a_second_signal_ends_the_grace_time_and_the_exit_code_is_0(folder):
    words = ["--model", folder, "--no-warmup", "--slots", 1, "--max-length", 4000, "--decode-steps", 1, "--grace", 600]
    with process(*words) as (server, url, _):
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        stream = client.completions.create(
            model="my-model", prompt="a", max_tokens=3900, stream=True, extra_body={"ignore_eos": True}
        )
        next(stream)
        server.send_signal(signal.SIGINT)
        next(stream)
        server.send_signal(signal.SIGINT)
        with pytest.raises(openai.APIError):
            list(stream)
        assert server.wait(30) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Give one model: maypole serve --model DIR, or a run"),
        (["runs/a", "--model", "b"], "Give one model"),
        (["--model", "b", "--stage", "c"], "--stage is for a run"),
        (["--model", "b", "--slots", "0"], "--slots 0 must be at least 1."),
        (["--model", "b", "--max-length", "1"], "--max-length 1 must be at least 2."),
        (["--model", "b", "--grace", "-1"], "--grace -1.0 must be at least 0."),
        (["--model", "b", "--grace", "nan"], "--grace nan must be at least 0."),
        (["--model", "b", "--grace", "inf"], "--grace inf must be a number of seconds. Type for example --grace 600."),
        (["--model", "b", "--cache-bytes", "9" * 400], "is no size. Type for example --cache-bytes 2GiB"),
        (["--model", "b", "--host", "a" * 64 + ".example"], "is no address of this machine"),
        (["--model", "b", "--port", "70000"], "--port 70000 must lie between 0 and 65535."),
        (["--model", "b", "--cache-bytes", "much"], "Type for example --cache-bytes 2GiB"),
        (["--model", "b", "--template-value", "thinking"], "--template-value enable_thinking=false"),
        (["--model", "b", "--api-key", ""], "--api-key must be letters"),
        (["--model", "/no/such/folder", "--port", "0"], "is not there. Give the folder of a checkpoint"),
        (["/no/such/run", "--port", "0"], "/no/such/run"),
        (["--model", "b", "--host", "no.such.host.invalid"], "is no address of this machine"),
    ],
    ids=lambda x: " ".join(x)[:40],
)
def test_mistakes_say_what_to_type(words, message, capsys, monkeypatch):
    monkeypatch.setattr("framework.cli_run.prepare_jax", lambda: None)  # it changes settings of this process
    assert main(["serve", *words]) == 2
    assert message in capsys.readouterr().err


def test_an_empty_key_in_the_environment_does_not_leave_the_door_open(capsys, monkeypatch):
    monkeypatch.setenv("MAYPOLE_API_KEY", "")
    assert main(["serve", "--model", "b"]) == 2
    assert "MAYPOLE_API_KEY must be letters" in capsys.readouterr().err


def test_without_the_extra_the_message_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["serve", "--model", "b"]) == 2
    assert (
        "needs starlette and uvicorn, which an extra installs: pip install 'maypole[serve]'" in capsys.readouterr().err
    )


def test_a_port_that_is_taken_is_known_before_the_model_is_read(folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--model", "/no/such/folder", "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot be had: Address already in use" in capsys.readouterr().err


def test_a_stage_of_a_run_is_exported_and_the_export_is_gone_afterwards(run, capsys):
    for words, call in (([], "kl-cov float32"), (["--stage", "clipped", "--dtype", "bfloat16"], "clipped bfloat16")):
        with _folder(_parser().parse_args([str(run.path), *words])) as found:
            assert (Path(found) / "call").read_text() == call
        assert not Path(found).exists()
    assert main(["serve", str(run.path), "--stage", "other", "--port", "0"]) == 2
    assert "has no stage 'other'. It has: warm_start, clipped" in capsys.readouterr().err
    file = run.path / "config.json"
    file.write_text(file.read_text().replace("mine.py:config", "mine.py:plain"))
    assert main(["serve", str(run.path), "--port", "0"]) == 2
    assert "a Toy, cannot export its model" in capsys.readouterr().err


def test_a_folder_without_a_tokenizer_says_what_is_missing(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("framework.cli_run.prepare_jax", lambda: None)
    shutil.copytree(folder, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    assert main(["serve", "--model", str(tmp_path / "bare"), "--port", "0"]) == 2
    assert "holds no tokenizer" in capsys.readouterr().err


def test_sizes_of_the_engine_are_refused_in_the_words_of_the_command_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("framework.cli_run.prepare_jax", lambda: None)
    words = ["serve", "--model", str(folder), "--port", "0", "--cache-bytes", "1KB"]
    assert main(words) == 2
    assert "(Here engine.cache_bytes is --cache-bytes, engine.max_length is --max-length.)" in capsys.readouterr().err
    config = DecoderConfig(
        vocab_size=ByteTokenizer().vocab_size,
        dim=16,
        layers=1,
        heads=2,
        kv_heads=1,
        head_dim=8,
        mlp_dim=16,
        max_position=64,
    )
    short = save_hf(config.build(jax.random.key(0)), tmp_path / "short", tokenizer=ByteTokenizer().build())
    assert main(["serve", "--model", str(short), "--port", "0", "--max-length", "65"]) == 2
    assert "--max-length 65 is more than the 64 tokens the model was made for. Use 64." in capsys.readouterr().err


def test_sizes_and_values_are_read_as_they_are_written():
    assert [parse_bytes(text, "--x") for text in ("2GiB", "1.5 MB", "1000")] == [2**31, 1_500_000, 1000]
    words = ["enable_thinking=false", "n=3", "x=0.5", "a=b=c"]
    assert template_values(words) == {"enable_thinking": False, "n": 3, "x": 0.5, "a": "b=c"}


def test_help_names_every_option_with_its_unit(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "--grace SECONDS",
        "--cache-bytes SIZE",
        "--max-length TOKENS",
        "longest sequence in tokens",
        "MAYPOLE_API_KEY",
    ):
        assert words in text
