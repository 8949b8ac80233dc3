"""The command in real processes: exit codes, messages, no tracebacks."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from framework.cli import main
from framework.config import LoadedExperiment, load_experiment

TOY = Path(__file__).parent / "fixtures" / "toy_experiment.py"
ROOT = Path(__file__).resolve().parents[2]


def maypole(*words, cwd, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "framework.cli", *map(str, words)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with one finished run, and what the command printed."""
    folder = tmp_path_factory.mktemp("cli")
    return folder, maypole("run", TOY, "--name", "a", "--rollout.group_size", "16", cwd=folder)


def test_run_ends_with_the_table_and_the_report(finished):
    folder, done = finished
    lines = done.stdout.splitlines()
    assert lines[0] == f"maypole run {TOY} --rollout.group_size 16 -> runs/a"
    assert "rollout.group_size: 8 -> 16" in lines[1]
    assert any(line.startswith("kl-cov") and "30.0" in line for line in lines)
    assert lines[-1] == "runs/a/report.html"
    assert (folder / "runs/a/report.html").is_file()
    assert not (folder / "runs/a/lock").exists()
    assert done.stderr == ""


def test_resume_and_report_work_on_a_finished_run(finished):
    folder, _ = finished
    assert maypole("resume", "runs/a", cwd=folder).stdout.splitlines()[-1] == "runs/a/report.html"
    assert maypole("report", "runs/a", "--out", "x.html", cwd=folder).stdout.splitlines()[-1] == "x.html"


def test_generate_prints_text_or_writes_jsonl(finished):
    folder, _ = finished
    assert "HI\n" in maypole("generate", "runs/a", "--prompt", "hi", "--stage", "clipped", cwd=folder).stdout
    (folder / "p.jsonl").write_text('{"prompt": "a"}\n{"question": "b"}\n')
    maypole("generate", "runs/a", "--prompts", "p.jsonl", "--samples", 2, "--out", "o.jsonl", cwd=folder)
    lines = (folder / "o.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"prompt": "b", "responses": ["B", "B"]}


def test_reproduce_calls_the_modules_function(tmp_path):
    maypole("reproduce", TOY, "--seeds", 3, 4, "--results", "r.json", cwd=tmp_path)
    assert json.loads((tmp_path / "r.json").read_text()) == {"seeds": [3, 4]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "Did you mean run?"),
        (["run", "no_such_paper"], "no experiment called 'no_such_paper'"),
        (["run", "--seed", "3"], "The experiment comes first"),
        (["run", TOY, "--name", "a"], "--overwrite"),
        (["run", TOY, "--name", "../a"], "is not a folder name"),
        (["run", TOY, "--rollout.groupsize", "3"], "Did you mean rollout.group_size?"),
        (["run", TOY, "--steps", "many"], "--steps expects int, got 'many'"),
        (["run", TOY, "--reward", "f"], "is a function"),
        (["run", TOY, "--steps", "-1"], "steps=-1 is negative. Use steps=1."),
        (["resume", "runs/none"], "no run folder runs/none"),
        (["report", "runs/none"], "runs/none"),
        (["generate", "runs/a", "--stage", "x", "--prompt", "p"], "It has: warm_start, clipped, kl-cov"),
        (["generate", "runs/a"], "--prompt"),
        (["reproduce", "no_such_paper"], "no experiment called"),
    ],
    ids=lambda value: " ".join(map(str, value)).replace(str(TOY), "TOY") if isinstance(value, list) else "",
)
def test_a_mistake_is_one_message_and_exit_code_2(finished, words, message, monkeypatch, capsys):
    folder, _ = finished
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    before = sorted(p.name for p in (folder / "runs").iterdir())
    assert main(list(map(str, words))) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert sorted(p.name for p in (folder / "runs").iterdir()) == before


@pytest.mark.parametrize("words", [["run", "no_such_paper"], ["run", TOY, "--sed", "3"], ["run", TOY, "--steps", "-1"]])
def test_a_real_process_shows_no_traceback(tmp_path, words):
    done = maypole(*words, cwd=tmp_path, code=2)
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr + done.stdout


def test_a_signal_caught_by_the_loop_gives_its_exit_code(tmp_path, monkeypatch, capsys):
    class Interrupted(Exception):
        signum = 15

    def stop(self, run):
        raise Interrupted("SIGTERM stopped stage 'a' after step 3 of 9.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setitem(sys.modules, "framework.loop", SimpleNamespace(Interrupted=Interrupted))
    module = load_experiment(str(TOY)).module
    monkeypatch.setattr("framework.cli_run.load_experiment", lambda spec: load_with(module, stop))
    assert main(["run", str(TOY), "--name", "a"]) == 143
    said = capsys.readouterr().err.splitlines()
    assert said == ["SIGTERM stopped stage 'a' after step 3 of 9.", "To continue: maypole resume runs/a"]


def load_with(module, run):
    config = type("Stopping", (module.Toy,), {"run": run})()
    return LoadedExperiment(config=config, module=module, source=f"{TOY}:config", name="toy")


def test_traceback_flag_shows_where(tmp_path):
    done = maypole("run", TOY, "--steps", "-1", "--traceback", cwd=tmp_path, code=1)
    assert "in build" in done.stderr


@pytest.mark.parametrize(("fail", "code", "shown"), [("interrupt", 130, "Stopped."), ("bug", 1, "RuntimeError: a bug")])
def test_a_run_that_stops_says_how_to_resume_and_resumes(tmp_path, fail, code, shown):
    done = maypole("run", TOY, "--name", "a", "--fail", fail, cwd=tmp_path, code=code)
    assert shown in done.stderr
    assert "To continue: maypole resume runs/a" in done.stderr
    assert ("Traceback" in done.stderr) == (fail == "bug")
    (tmp_path / "runs/a/mended").touch()
    assert maypole("resume", "runs/a", cwd=tmp_path).stdout.splitlines()[-1] == "runs/a/report.html"
    assert len((tmp_path / "runs/a/clipped/metrics.jsonl").read_text().splitlines()) == 4  # not run twice


def test_help_lists_fields_with_docs_and_marks_fixed_ones(tmp_path):
    text = maypole("run", TOY, "--help", cwd=tmp_path).stdout
    for line in ("--rollout.group_size  [int]  now 8", "Answers for each question.", "--arms.1.loss.top_frac  [float]"):
        assert line in text
    assert "--reward  [fixed: change it in a config file]  now toy_experiment.py:reward" in text
    assert "--name  [str]" not in text  # the command's own --name


def test_list_and_version_do_not_wait_for_jax(tmp_path):
    code = "import sys; from framework.cli import main; main(sys.argv[1:]); print('jax' in sys.modules, 'tyro' in sys.modules)"
    for word in ("list", "--version"):
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, word], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.splitlines()[-1] == "False False"
        assert time.monotonic() - begin < 5  # 0.2 s on an idle machine


def test_the_first_line_appears_before_the_experiment_is_imported(tmp_path):
    slow = tmp_path / "slow.py"
    slow.write_text("import sys\nsys.stdin.read()\n" + TOY.read_text().split('"""', 2)[2])
    process = subprocess.Popen(
        [sys.executable, "-m", "framework.cli", "run", "slow.py", "--name", "s"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "maypole run slow.py -> runs/s\n"  # and its import still waits for us
    process.communicate(input="", timeout=60)
    assert process.returncode == 0
