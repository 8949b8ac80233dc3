"""The commands a newcomer types first, on the smoke variant of the entropy experiment, in real processes."""

import json
import time
from types import SimpleNamespace

import pytest

ARMS = ("unclipped", "clip_cov", "kl_cov")
EVALUATED = {
    "eval/accuracy",
    "eval/accuracy_greedy",
    "eval/entropy",
    "eval/count",
    "eval/length",
    "eval/failed",
    "time/eval_s",
    *(f"eval/accuracy/{task}" for task in ("dyck_language", "dyck_language_errors", "boolean_expressions")),
    *(f"eval/accuracy/{task}" for task in ("math_path", "kukurasu")),
}
TRAINED = {
    *("reward/mean", "reward/errors", "reward/timeouts", "reward/nonfinite"),
    *("policy/entropy", "policy/entropy_change", "policy/cov_group", "policy/cov_mean", "policy/picked_frac"),
    *("loss/total", "loss/clip_frac", "grad/norm", "param/norm", "update/norm"),
    *("sampler/logp_gap_max", "sampler/stale_steps", "length/mean", "length/truncated_frac"),
    *("time/rollout_s", "time/reward_s", "time/train_s", "throughput/tokens_per_s"),
}


@pytest.fixture(scope="module")
def smoke(lab, tmp_path_factory):
    """A folder with a finished smoke run, what it printed and after how many seconds the first line came."""
    folder = tmp_path_factory.mktemp("smoke")
    began = time.monotonic()
    process = lab.start("run", "entropy_mechanism:smoke", "--name", "s", cwd=folder)
    first = process.stdout.readline()
    first_s = time.monotonic() - began
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    return SimpleNamespace(folder=folder, run=folder / "runs/s", first_s=first_s, stdout=first + out, stderr=err)


def metrics(stage):
    return [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]


def test_a_run_shows_a_sign_of_life_at_once_and_ends_with_the_reports_path(smoke):
    lines = smoke.stdout.splitlines()
    assert smoke.first_s < 10
    assert lines[0] == "maypole run entropy_mechanism:smoke -> runs/s"
    assert lines[-1] == "runs/s/report.html"
    assert smoke.stderr == ""


def test_every_stage_is_done_and_the_folder_is_complete(smoke):
    files = {"config.txt", "config.json", "env.json", "tokenizer.json", "report.html", "warm_start", *ARMS}
    assert {p.name for p in smoke.run.iterdir()} == files
    for stage in ("warm_start", *ARMS):
        inside = {p.name for p in (smoke.run / stage).iterdir()}
        assert inside == {"metrics.jsonl", "samples.jsonl", "checkpoints", "tensorboard", "done.json"}
        steps = 4 if stage == "warm_start" else 2
        assert json.loads((smoke.run / stage / "done.json").read_text())["steps"] == steps
        assert (smoke.run / stage / "checkpoints" / str(steps)).is_dir()
        assert [line["step"] for line in metrics(smoke.run / stage)] == list(range(steps + 1))


def test_every_line_has_the_documented_metrics(smoke):
    for arm in ARMS:
        before, *steps = metrics(smoke.run / arm)
        assert set(before) == {"step", "time_s"} | EVALUATED
        for line in steps:
            absent = {"unclipped": {"loss/clip_frac", "policy/picked_frac"}, "kl_cov": {"loss/clip_frac"}}.get(
                arm, set()
            )
            assert (TRAINED | EVALUATED) - set(line) == absent  # a loss reports what it has
            assert None not in line.values()
            assert "metrics/nonfinite" not in line
    assert EVALUATED | {"loss/total", "grad/norm", "time/train_s"} <= set(metrics(smoke.run / "warm_start")[-1])


def test_all_arms_start_from_the_weights_of_the_warm_start(smoke):
    want = {k: v for k, v in metrics(smoke.run / "warm_start")[-1].items() if k.startswith("eval/")}
    for arm in ARMS:
        got = metrics(smoke.run / arm)[0]
        assert {k: got[k] for k in want} == want


def _lines(path):
    """By line feeds alone: a response may hold other characters that str.splitlines takes for the end of a line."""
    return path.read_text().rstrip("\n").split("\n")


def test_samples_have_the_documented_keys(smoke):
    keys = {"step", "split", "task", "question", "response", "answer", "reward"}
    for arm in ARMS:
        lines = [json.loads(line) for line in _lines(smoke.run / arm / "samples.jsonl")]
        assert all(set(line) == keys for line in lines)
        assert {(line["step"], line["split"]) for line in lines} == {
            *((step, "eval") for step in (0, 1, 2)),
            *((step, "train") for step in (1, 2)),
        }


def test_report_can_be_written_again(lab, smoke):
    done = lab.maypole("report", "runs/s", "--out", "again.html", cwd=smoke.folder)
    assert done.stdout.splitlines()[-1] == "again.html"
    page = (smoke.folder / "again.html").read_text()
    assert all(arm in page for arm in ARMS)


def test_generate_answers_from_an_arm(lab, smoke):
    done = lab.maypole("generate", "runs/s", "--stage", "kl_cov", "--prompt", "dyck ([", cwd=smoke.folder)
    assert done.stdout.startswith("> dyck ([\n")
    assert len(done.stdout.splitlines()) > 1


def test_list_shows_the_experiment_and_its_variants(lab, tmp_path):
    line = next(x for x in lab.maypole("list", cwd=tmp_path).stdout.splitlines() if x.startswith("entropy_mechanism"))
    assert "tiny" in line
    assert "smoke" in line
