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
from framework.errors import UserError

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
        (["run", TOY, "--name", "a\nb"], "invisible character"),
        (["run", TOY, "--name", "b", "--dir", TOY], f"cannot be a folder: {TOY} is a file"),
        (["run", TOY, "--name", "b", "--dir", "x" * 300], "File name too long"),
        (["report", "runs/a", "--out", "runs"], "is a folder, not a file. Type: --out runs/report.html"),
        (["report", "runs/a", "--out", TOY / "x.html"], f"{TOY} is a file"),
        (["generate", "runs/a", "--prompt", "p", "--out", "runs"], "Type: --out runs/answers.jsonl"),
        (["reproduce", TOY, "--dir", TOY], f"{TOY} is a file"),
        (["reproduce", TOY, "--results", "runs"], "Type: --results runs/toy_experiment.json"),
        (["resume", "runs/a", "--seed", "1"], "maypole resume runs/a --accept-config-change --seed 1"),
        (["resume", "runs/a", "--accept-config-change", "--sed", "1"], "Did you mean seed?"),
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


@pytest.mark.parametrize(
    ("words", "folder"),
    [([], ""), (["--seeds", "1"], "runs/reproduce-toy_experiment/"), (["--seeds", "0", "1", "2"], "")],
)
def test_other_seeds_do_not_overwrite_the_published_results(toy_loop, words, folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy_loop.reproduce_ends_with(KeyboardInterrupt())
    main(["reproduce", str(TOY), *words])
    results = capsys.readouterr().out.splitlines()[0].rpartition(" and ")[2]
    assert (tmp_path / results) == tmp_path / folder / "toy_experiment.json"


@pytest.mark.parametrize(("signum", "code"), [(2, 130), (15, 143)])
def test_reproduce_stopped_by_a_signal_names_the_command_that_goes_on(toy_loop, signum, code, capsys):
    toy_loop.reproduce_ends_with(toy_loop.Interrupted("stopped after step 3 of 9.", signum))
    assert main(["reproduce", str(TOY), "--seeds", "1"]) == code
    again = f"To continue: maypole reproduce {TOY} --seeds 1"
    assert capsys.readouterr().err.splitlines() == ["stopped after step 3 of 9.", again]
    toy_loop.reproduce_ends_with(KeyboardInterrupt())
    assert main(["reproduce", str(TOY), "--seeds", "1"]) == 130
    assert capsys.readouterr().err.splitlines() == ["", "Stopped.", again]


def test_a_loss_that_is_not_finite_is_answered_with_other_values_not_with_the_same_again(toy_loop, capsys):
    toy_loop.reproduce_ends_with(toy_loop.NonFiniteLoss("loss/total is nan."))
    assert main(["reproduce", str(TOY)]) == 1
    assert capsys.readouterr().err.splitlines()[0] == "error: loss/total is nan."

    def broken(self, run):
        run.stage("a").metrics_path.write_text('{"step": 0}\n')
        raise toy_loop.NonFiniteLoss("loss/total is nan.")

    toy_loop.run_is(broken)
    assert main(["run", str(TOY), "--name", "a"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: loss/total is nan.",
        "To continue with other values: maypole resume runs/a --accept-config-change --optimizer.lr LOWER",
    ]


def test_a_bug_before_anything_was_written_leaves_the_name_free(toy_loop, tmp_path, capsys):
    def bug(self, run):
        (run.stage("warm_start").path / "checkpoints").mkdir()
        (run.path / "tokenizer.json").write_text("{}")
        (run.path / "tokenizer").mkdir()
        (run.path / "tokenizer/tokenizer.json").write_text("{}")
        raise RuntimeError("a bug")

    toy_loop.run_is(bug)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a bug"):
            main(["run", str(TOY), "--name", "a"])
        assert capsys.readouterr().err == "Nothing was trained: runs/a is removed again.\n"
        assert not (tmp_path / "runs/a").exists()


@pytest.mark.parametrize("file", ["precious.txt", "warm_start/metrics.jsonl"])
def test_a_bug_after_something_was_written_keeps_the_run(toy_loop, tmp_path, capsys, file):
    def bug(self, run):
        run.stage("warm_start")
        (run.path / file).write_text('{"step": 0}\n')
        raise RuntimeError("a bug")

    toy_loop.run_is(bug)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["run", str(TOY), "--name", "a"])
    assert capsys.readouterr().err == "To continue: maypole resume runs/a\n"
    assert (tmp_path / "runs/a" / file).is_file()


@pytest.fixture
def toy_loop(tmp_path, monkeypatch):
    """The errors of `framework.loop` without jax, and ways to make the toy experiment end with them."""

    class Interrupted(Exception):
        def __init__(self, message, signum=2):
            super().__init__(message)
            self.signum = signum

    class NonFiniteLoss(UserError):
        pass

    module = load_experiment(str(TOY)).module

    def reproduce_ends_with(error):
        def reproduce(out, results, seeds):
            raise error

        monkeypatch.setattr("framework.cli_report.load_module", lambda spec: SimpleNamespace(reproduce=reproduce))

    def run_is(run):
        monkeypatch.setattr("framework.cli_run.load_experiment", lambda spec: load_with(module, run))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    errors = SimpleNamespace(Interrupted=Interrupted, NonFiniteLoss=NonFiniteLoss)
    monkeypatch.setitem(sys.modules, "framework.loop", errors)
    return SimpleNamespace(**vars(errors), reproduce_ends_with=reproduce_ends_with, run_is=run_is)


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


def test_resume_takes_other_values_and_keeps_them(tmp_path):
    maypole("run", TOY, "--name", "a", "--fail", "bug", cwd=tmp_path, code=1)
    (tmp_path / "runs/a/mended").touch()
    done = maypole("resume", "runs/a", "--accept-config-change", "--steps", "5", cwd=tmp_path)
    assert done.stdout.splitlines()[:2] == [
        f"maypole resume runs/a: {TOY}:config --fail bug --steps 5",
        "  steps: 3 -> 5",
    ]
    stored = json.loads((tmp_path / "runs/a/config.json").read_text())
    assert (stored["overrides"], stored["config"]["steps"]) == (["--fail", "bug", "--steps", "5"], 5)
    assert len((tmp_path / "runs/a/kl-cov/metrics.jsonl").read_text().splitlines()) == 6
    maypole("resume", "runs/a", cwd=tmp_path)


def test_a_crash_at_interpreter_exit_does_not_spoil_the_exit_code_of_ctrl_c(tmp_path):
    crashing = "import atexit, os\natexit.register(os.abort)\n"  # as a compilation that was cut short does
    (tmp_path / "crash.py").write_text(crashing + TOY.read_text().split('"""', 2)[2])
    done = maypole("run", "crash.py", "--name", "a", "--fail", "interrupt", cwd=tmp_path, code=130)
    assert done.stderr.splitlines()[-1] == "To continue: maypole resume runs/a"
    assert done.stdout.startswith("maypole run crash.py")


def test_a_mistake_in_the_experiments_own_sections_does_not_cost_the_page(tmp_path):
    (tmp_path / "mine.py").write_text(TOY.read_text().replace("return ()", "raise KeyError('policy/cov')"))
    done = maypole("run", "mine.py", "--name", "a", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "runs/a/report.html"
    assert "sections() raised KeyError: 'policy/cov'" in done.stderr
    assert "mine.py:" in done.stderr
    (tmp_path / "runs/a/report.html").unlink()
    maypole("report", "runs/a", cwd=tmp_path)
    assert (tmp_path / "runs/a/report.html").is_file()


def test_a_name_too_long_for_a_folder_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(TOY), "--name", "n" * 300]) == 2
    assert "has 300 bytes" in capsys.readouterr().err


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
