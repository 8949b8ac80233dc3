"""What README and docs show is what is there."""

import argparse
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README, GUIDE = ROOT / "README.md", ROOT / "docs/guide.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_readme_shows_the_example_file_as_it_is():
    assert (ROOT / "docs/examples/mine.py").read_text() in README.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_relative_link_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def test_the_table_has_all_29_papers_once():
    rows = re.findall(r"^\| .+ \| (\d{4}\.\d{5}) \| .+ \|$", README.read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows)) == 29


@pytest.mark.parametrize("name", ["mine", "own_loss"])
def test_the_examples_are_valid_experiments(name):
    from framework.config import load_experiment

    config = load_experiment(str(ROOT / f"docs/examples/{name}.py") + ":config").config
    config.validate()


def blocks(page, language):
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page):
    """Every `maypole` command of a page: indented lines, and code in the text that is a whole command."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    (?:[A-Z_]+=\S+ )*(maypole .+?)(?:  +#.*)?$", text, re.MULTILINE)
    return [*indented, *re.findall(r"`(maypole \w[^`\n]*)`", text)]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The current folder of somebody who follows the guide: its files and its data."""
    for block in blocks(GUIDE, "python"):
        if named := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / named[1]).write_text(block)
    (tmp_path / "questions.jsonl").write_text(blocks(GUIDE, "json")[0] * 100)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # loading a config appends its folder
    monkeypatch.setattr("framework.cli_run.prepare_jax", lambda: None)  # it changes settings of this process
    return tmp_path


class Understood(Exception):
    """A command was read to its end, and would now start to work."""


@pytest.mark.parametrize("command", dict.fromkeys(c for page in (README, GUIDE) for c in commands(page)))
def test_every_command_shown_is_understood_and_every_config_it_makes_can_be_built(command, desk, monkeypatch):
    from framework.cli import main

    def create(path, config, *_, **__):
        config.build()
        raise Understood

    def parsed(parser, *args):
        done = parse_args(parser, *args)
        if parser.prog != "maypole run":  # a run is read further, to the fields of its config
            raise Understood
        return done

    parse_args = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr("framework.cli_run.RunDir.create", create)
    words = shlex.split(command)[1:]
    if words[-1] in ("--help", "--version"):
        assert main(words) == 0
        return
    with pytest.raises(Understood):
        main(words)


def test_the_pages_show_commands_and_blocks_that_the_tests_find():
    shown = [command.split()[1] for command in commands(GUIDE)]
    assert {"run", "resume", "report", "generate", "reproduce", "list"} <= set(shown)
    assert len(commands(README)) >= 7
    files = [block.splitlines()[0] for block in blocks(GUIDE, "python")]
    assert files == ["# my_config.py", "# my_data.py", "from framework.rundata import load_run"]


def test_the_rewards_of_the_guide_pay_for_right_answers(desk):
    from framework.config import load_experiment

    config = load_experiment("my_config.py:config").config
    sample, worked = config.data.build().demonstrations(seed=0, batch=1, noise=0.0)[0][0]
    assert config.reward(sample, worked) == pytest.approx(1 - 0.005 * len(worked))
    assert config.reward(sample, "no idea") == 0
    config = load_experiment("my_data.py:config").config
    sample, worked = config.data.build().demonstrations(seed=0, batch=1, noise=0.0)[0][0]
    assert config.reward(sample, worked) == 1
    assert config.reward(sample, "no idea") == 0


def test_the_guide_reads_a_run_as_it_says(desk, capsys):
    for stage in ("warm_start", "kl_cov"):
        (desk / "runs/my_config" / stage).mkdir(parents=True)
        line = json.dumps({"step": 1, "time_s": 1.0, "eval/accuracy": 0.25, "policy/entropy": 0.5})
        (desk / "runs/my_config" / stage / "metrics.jsonl").write_text(f"{line}\n")
    exec(blocks(GUIDE, "python")[-1], {})
    assert capsys.readouterr().out.splitlines() == ["warm_start 0.25 0.5", "kl_cov 0.25 0.5"]


def test_the_messages_the_guide_explains_are_those_of_the_source():
    rows = re.findall(r"^\| `([^`]+)` \| .+ \|$", GUIDE.read_text().partition("goes wrong")[2], re.MULTILINE)
    source = "".join(p.read_text() for folder in ("framework", "rl") for p in (ROOT / folder).rglob("*.py"))
    for row in rows:
        # What depends on the run is left out: names, numbers, paths.
        parts = re.split(r"runs/NAME|rollout\.\w+|loss/total|nan|'policy step'|\d+\w*", row)
        assert all(part in source for part in map(str.strip, parts) if part != "."), row
    assert len(rows) == 9
