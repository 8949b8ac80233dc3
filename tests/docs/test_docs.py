"""What README and docs show is what is there."""

import argparse
import contextlib
import dataclasses
import json
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README, GUIDE = ROOT / "README.md", ROOT / "docs/guide.md"
MODELS, SCALE = ROOT / "docs/models.md", ROOT / "docs/scale.md"
GENERATION, SERVE = ROOT / "docs/generation.md", ROOT / "docs/serve.md"
ARCHITECTURE = ROOT / "docs/architecture.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_readme_shows_the_example_file_as_it_is():
    assert (ROOT / "docs/examples/mine.py").read_text() in README.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_relative_link_leads_somewhere(page):
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", prose)
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
    for block in [*blocks(GUIDE, "python"), *blocks(MODELS, "python")]:
        if named := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / named[1]).write_text(block)
    rows = [json.loads(line) for line in blocks(GUIDE, "json")[0].splitlines()]
    many = [row | {"question": f"{row['question']} ({i})"} for i in range(100) for row in rows]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # loading a config appends its folder
    monkeypatch.setattr("framework.cli_run.prepare_jax", lambda: None)  # it changes settings of this process
    return tmp_path


class Understood(Exception):
    """A command was read to its end, and would now start to work."""


SHOWN = (README, GUIDE, MODELS, SCALE, GENERATION, SERVE, ROOT / "docs/synlogic.md")


@pytest.mark.parametrize("command", dict.fromkeys(c for page in SHOWN for c in commands(page)))
def test_every_command_shown_is_understood_and_every_config_it_makes_can_be_built(command, desk, monkeypatch):
    from framework.cli import main
    from framework.plan_topology import build_mesh

    def create(path, config, *_, **__):
        config.build()
        raise Understood

    def parsed(parser, *args):
        done = parse_args(parser, *args)
        if parser.prog != "maypole run":  # a run is read further, to the fields of its config
            raise Understood
        return done

    def plan(planner, config, *_, **__):  # the command, its topology and its fields have been read
        config.programs(build_mesh(config.mesh, planner.topology))
        raise Understood

    parse_args = argparse.ArgumentParser.parse_args
    monkeypatch.setattr("framework.plan.Planner.plan", plan)
    monkeypatch.setattr("framework.cli_run.joined", lambda *_, share, **__: contextlib.nullcontext(share()))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr("framework.cli_run.RunDir.create", create)
    words = shlex.split(command)[1:]
    if words[-1] in ("--help", "--version"):
        try:
            code = main(words)
        except SystemExit as end:  # argparse prints its help and leaves
            code = end.code
        assert code == 0
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


def test_the_code_of_the_generation_page_runs(capsys):
    scope = {}
    for block in blocks(GENERATION, "python"):
        exec(block, scope)
    assert capsys.readouterr().out.count("True") >= 4  # the ticket of every update is the one that was given
    assert scope["engine"].stats.free_slots == 8


def test_the_messages_the_guide_explains_are_those_of_the_source():
    rows = re.findall(r"^\| `([^`]+)` \| .+ \|$", GUIDE.read_text().partition("goes wrong")[2], re.MULTILINE)
    source = "".join(p.read_text() for folder in ("framework", "rl") for p in (ROOT / folder).rglob("*.py"))
    for row in rows:
        # What depends on the run is left out: names, numbers, paths.
        parts = re.split(r"runs/NAME|rollout\.\w+|loss/total|nan|'policy step'|\d+\w*", row)
        assert all(part in source for part in map(str.strip, parts) if part != "."), row
    assert len(rows) == 10


def test_every_metric_of_the_source_is_named_and_nothing_else():
    others = ("framework/state.py", "framework/loop.py", "data/packing.py")
    files = [*(ROOT / "rl").rglob("*.py"), *(ROOT / name for name in others)]
    source = "".join(p.read_text() for p in files)
    areas = "reward|policy|loss|grad|param|update|optimizer|sampler|length|eval|throughput|time|data"
    logged = set(re.findall(rf'"((?:{areas})/\w+)"', source)) | {
        f"time/{n}_s" for n in re.findall(r'timer\("(\w+)"\)', source)
    }
    names = ARCHITECTURE.read_text().partition("Metric names")[2]
    named = set(re.findall(rf"`((?:{areas})/\w+)`", names))
    assert {"loss/policy", "policy/cov_p90", "time/data_s"} < logged
    assert named == logged


def test_the_rule_of_several_devices_is_the_one_of_the_source():
    from experiments.entropy_mechanism import smoke
    from framework.mesh import MeshConfig
    from rl.config import Arm

    def built(updates, batch=8, own=None):
        rollout = dataclasses.replace(smoke.rollout, prompts=3, samples=8, updates=updates)  # 3 is no multiple of 8
        warm_start = dataclasses.replace(smoke.warm_start, batch=batch)
        arms = (Arm(name="own", loss=smoke.arms[0].loss, updates=own),)
        mesh = MeshConfig(data=4, fsdp=2)
        return dataclasses.replace(smoke, mesh=mesh, rollout=rollout, warm_start=warm_start, arms=arms).build()

    assert built(updates=3).mesh.size == 8
    for wrong in ({"updates": 2}, {"updates": 3, "batch": 12}, {"updates": 3, "own": 2}):
        with pytest.raises(ValueError, match="cannot be split over 8 devices"):
            built(**wrong)
    section = GUIDE.read_text().partition("## Several devices")[2].partition("## ")[0]
    said = " ".join(section.split())
    assert "must be multiples of `data` times `fsdp`: the responses of one update" in said
    assert "`rollout.prompts` times `rollout.samples` divided by `rollout.updates` (and by an arm's own" in said


def test_the_guide_lists_the_exit_codes_of_a_stopped_run():
    codes = GUIDE.read_text().partition("Exit codes:")[2]
    assert f"{128 + signal.SIGINT} stopped by Ctrl-C" in codes
    assert re.search(rf"{128 + signal.SIGTERM} stopped by\sSIGTERM", codes)


def test_the_guide_names_what_an_arm_may_have_of_its_own():
    from rl.config import Arm

    own = {field.name for field in dataclasses.fields(Arm) if field.default is None}
    (line,) = [line for line in GUIDE.read_text().splitlines() if line.startswith("An arm may also have its own")]
    assert set(re.findall(r"its own `(\w+)`", line)) == own
