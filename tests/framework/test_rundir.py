import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from framework.config import load_experiment
from framework.config_text import to_text
from framework.env import describe_env
from framework.errors import UserError
from framework.overrides import apply_overrides
from framework.rundir import ConfigChanged, RunDir

TOY = Path(__file__).parent / "fixtures" / "toy_experiment.py"


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(TOY.read_text())
    return file


def create(path, source, overrides=(), **kwargs):
    loaded = load_experiment(str(source))
    return RunDir.create(path, apply_overrides(loaded.config, overrides), loaded.source, overrides, **kwargs)


def test_a_new_run_holds_config_and_environment(tmp_path, source):
    run = create(tmp_path / "runs" / "a", source, ["--seed", "5"])
    assert sorted(p.name for p in run.path.iterdir()) == ["config.json", "config.txt", "env.json"]
    stored = json.loads((run.path / "config.json").read_text())
    assert (stored["source"], stored["overrides"]) == (f"{source}:config", ["--seed", "5"])
    assert (stored["config"]["name"], stored["config"]["seed"]) == ("toy", 5)
    assert (run.path / "config.txt").read_text() == to_text(run.reload())
    assert RunDir.open(run.path) == run


def test_an_existing_run_is_refused_and_nothing_is_lost(tmp_path, source):
    run = create(tmp_path / "a", source)
    (run.path / "precious").write_text("x")
    before = {p.name: p.read_bytes() for p in run.path.iterdir()}
    with pytest.raises(UserError) as caught:
        create(run.path, source, ["--seed", "1"])
    for word in (f"maypole resume {run.path}", "--name OTHER", "--overwrite", "a.old-1"):
        assert word in str(caught.value)
    assert {p.name: p.read_bytes() for p in run.path.iterdir()} == before


def test_overwrite_moves_the_old_run_aside(tmp_path, source):
    for seed in ("1", "2", "3"):
        create(tmp_path / "a", source, ["--seed", seed], overwrite=True)
    seeds = {p.name: RunDir.open(p).reload().seed for p in tmp_path.iterdir() if p.is_dir() and p.name.startswith("a")}
    assert seeds == {"a": 3, "a.old-1": 1, "a.old-2": 2}


def test_an_empty_folder_is_taken(tmp_path, source):
    (tmp_path / "a").mkdir()
    assert create(tmp_path / "a", source).name == "a"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no run folder", "Runs in", "other", "maypole run"]),
        ({}, ["has no config.json"]),
        ({"config.json": "{"}, ["is not JSON"]),
        ({"config.json": "[]"}, ["has not the keys"]),
        (
            {"config.json": '{"source": "s", "overrides": null, "config": {}}'},
            ['"overrides"', "is null", "maypole run"],
        ),
        ({"config.json": '{"source": "s", "overrides": [1], "config": {}}'}, ['"overrides"', "is [1]"]),
        ({"config.json": '{"source": 3, "overrides": [], "config": {}}'}, ['"source"', "is 3"]),
        ({"config.json": '{"source": "s", "overrides": [], "config": 4}'}, ['"config"', "is 4"]),
    ],
)
def test_opening_what_is_no_run_says_so(tmp_path, source, content, words):
    create(tmp_path / "other", source)
    if content is not None:
        (tmp_path / "a").mkdir()
        for name, text in content.items():
            (tmp_path / "a" / name).write_text(text)
    with pytest.raises(UserError) as caught:
        RunDir.open(tmp_path / "a")
    for word in words:
        assert word in str(caught.value)


def test_stages_are_done_when_marked(tmp_path, source):
    run = create(tmp_path / "a", source)
    stage = run.stage("warm_start")
    assert (stage.path.is_dir(), stage.done, stage.summary, run.stages()) == (True, False, {}, [])
    stage.mark_done({"accuracy": 0.5})
    assert (stage.done, stage.summary, run.stages()) == (True, {"accuracy": 0.5}, [stage])
    assert stage.metrics_path == run.path / "warm_start" / "metrics.jsonl"
    for name in ("", "../b", "a/b", ".hidden"):
        with pytest.raises(UserError, match="named like a folder"):
            run.stage(name)


def test_stages_come_in_the_order_of_the_config_whatever_was_written_last(tmp_path, source):
    run = create(tmp_path / "a", source)
    for name in ("zz_extra", "kl-cov", "aa_extra", "clipped", "warm_start"):
        stage = run.stage(name)
        stage.metrics_path.write_text("{}\n")
        os.utime(stage.metrics_path, (1000, len(list(run.path.iterdir()))))
    assert [s.name for s in run.stages()] == ["warm_start", "clipped", "kl-cov", "zz_extra", "aa_extra"]
    (run.path / "config.json").unlink()  # a copy of the stages alone: their times are all there is
    assert [s.name for s in run.stages()] == ["warm_start", "zz_extra", "kl-cov", "aa_extra", "clipped"]


def test_a_changed_source_is_noticed_and_can_be_accepted(tmp_path, source):
    run = create(tmp_path / "a", source, ["--seed", "5"])
    source.write_text(source.read_text().replace("group_size: int = 8", "group_size: int = 4"))
    with pytest.raises(ConfigChanged) as caught:
        RunDir.open(run.path).reload()
    assert caught.value.changes == ["rollout.group_size: 8 -> 4"]
    for word in (str(source), "rollout.group_size: 8 -> 4", f"maypole resume {run.path} --accept-config-change"):
        assert word in str(caught.value)
    assert run.rebuild().rollout.group_size == 4
    assert run.reload(accept_change=True).rollout.group_size == 4
    assert run.reload().seed == 5
    assert "group_size = 4" in (run.path / "config.txt").read_text()


def test_two_processes_cannot_share_a_run(tmp_path, source):
    run = create(tmp_path / "a", source)
    code = (
        "import sys; from framework.rundir import RunDir; r = RunDir.open(sys.argv[1])\n"
        "with r.lock():\n    print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"in use by process {other.pid}"), run.lock():
            pass
        with pytest.raises(UserError, match="in use by process"):
            create(run.path, source, overwrite=True)
    finally:
        other.kill()
        other.communicate()
    assert (run.path / "lock").exists()
    with run.lock():  # the holder is dead: its lock is taken over
        assert json.loads((run.path / "lock").read_text())["pid"] == os.getpid()
    assert not (run.path / "lock").exists()


@pytest.mark.parametrize("content", ["", "not json", '{"pid": 1, "start": -1}', '{"pid": OURS, "start": 1}'])
def test_a_stale_or_broken_lock_is_taken_over(tmp_path, source, content):
    run = create(tmp_path / "a", source)
    if '"start"' in content and not Path("/proc/self/stat").exists():
        pytest.skip("start times need /proc")
    (run.path / "lock").write_text(content.replace("OURS", str(os.getpid())))
    with run.lock():
        pass
    assert not (run.path / "lock").exists()


def test_the_environment_names_no_machine():
    env = describe_env()
    assert re.fullmatch(r"3\.\d+\.\d+\w*", env["python"])
    assert {"jax", "flax", "optax", "numpy"} <= set(env["packages"])
    assert env["cores"] >= 1
    assert set(env) == {
        "python", "packages", "platform", "cpu", "cores", "memory_gib", "devices", "git", "command", "date",
    }  # fmt: skip
    assert os.uname().nodename not in json.dumps({k: v for k, v in env.items() if k not in ("command", "cpu")})
    assert describe_env(repo=Path("/"))["git"] is None
