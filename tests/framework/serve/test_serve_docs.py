"""What docs/serve.md shows is what is there."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
from tiny_server import NAME

from framework.cli import main
from framework.cli_serve import _parser
from framework.serve.metrics import Metrics

PAGE = Path(__file__).resolve().parents[3] / "docs" / "serve.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (maypole .+)$", TEXT, re.MULTILINE)
GAUGES = {"requests_running": 0, "requests_waiting": 0, "slots": 0, "slots_free": 0, "weights_version": 0}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command, monkeypatch):
    class Understood(Exception):
        pass

    def check(options: argparse.Namespace) -> None:
        original(options)
        raise Understood

    original = __import__("framework.cli_serve", fromlist=["_check"])._check
    monkeypatch.setattr("framework.cli_serve._check", check)
    with pytest.raises(SystemExit if command.endswith("--help") else Understood):
        main(shlex.split(command)[1:])


def test_the_example_prints_an_answer(served, capsys):
    (block,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    exec(block.replace("http://127.0.0.1:8000", served.url).replace("Qwen3-0.6B", NAME), {})
    assert len(capsys.readouterr().out) > 10


def test_the_commands_are_found():
    assert len(COMMANDS) == 7


def test_every_option_is_explained_and_no_other():
    there = {option for action in _parser()._actions for option in action.option_strings if option.startswith("--")}
    named = set(re.findall(r"--[a-z][a-z-]+", TEXT))
    assert named == there


def test_every_metric_is_explained_and_no_other():
    there = set(re.findall(r"^# TYPE (\w+)", Metrics().text(GAUGES), re.MULTILINE))
    assert set(re.findall(r"`(maypole_\w+)", TEXT)) == there


def test_every_status_is_explained():
    source = "".join(path.read_text() for path in (PAGE.parents[1] / "framework/serve").glob("*.py"))
    raised = set(re.findall(r"ApiError\((\d{3})", source)) | {"404", "405"}
    rows = TEXT.partition("## Errors")[2].partition("## ")[0]
    assert set(re.findall(r"\b[45]\d\d\b", rows)) == raised
