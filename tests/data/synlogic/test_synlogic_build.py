"""Data sets: the same bytes however they are made, no question twice, and counts that are true."""

import collections
import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import MappingProxyType

import pytest

from data import synlogic
from data.synlogic import base
from data.synlogic.build import BuildConfig, build, selection, versions
from data.synlogic.build.engines import make_in_processes, make_on_ray, open_engine
from data.synlogic.build.selection import Candidate, Group, select, shards_missing
from data.synlogic.build.shard import ShardError, ShardJob, make_shard, read_shard
from data.synlogic.published import sample_of_row
from framework.errors import UserError
from framework.sample import Sample

ROOT = Path(__file__).resolve().parents[3]
TASKS = ("dyck_language", "kukurasu", "word_sorting")
CONFIG = BuildConfig(tasks=TASKS, levels=("easy", "normal"), n=300, validation=5, seed=3, formats=("parquet", "jsonl"))
STOPPED = BuildConfig(tasks=("math_path", "kukurasu"), levels=("normal",), n=1600, seed=1)


def here():
    return open_engine("local", 1)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows_of(folder, split):
    files = sorted(folder.rglob(f"{split}-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    out = tmp_path_factory.mktemp("build") / "reference"
    build(CONFIG, out, engine=here())
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("build") / "whole"
    build(STOPPED, out, engine=here())
    return out


@dataclasses.dataclass(frozen=True)
class Params(base.Params):
    distinct: int = 10


class Few:
    """A task with few instances, some of them long, and some seeds without any."""

    name, json_answer, measure = "few", False, "nothing"
    levels = MappingProxyType({"easy": Params(distinct=10), "hard": Params(distinct=14)})

    def generate(self, seed, params, form="compact"):
        number = random.Random(seed).randrange(params.distinct)
        if number == 0:
            raise ValueError("no instance")
        return Sample(task="few", question="a" * 500 if number == 1 else f"question {number}", level="easy", seed=seed)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setitem(synlogic.TASKS, "few", Few())
    monkeypatch.setattr(selection, "IDLE", 500)


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_processes_makes_the_same_bytes(reference, tmp_path, workers):
    build(CONFIG, tmp_path / "out", engine=open_engine("local", workers))
    assert contents(tmp_path / "out") == contents(reference)


def test_the_order_in_which_shards_come_changes_nothing(reference, tmp_path):
    def backwards(jobs):
        yield from ((job, make_shard(job)) for job in reversed(list(jobs)))

    build(CONFIG, tmp_path / "out", engine=backwards)
    assert contents(tmp_path / "out") == contents(reference)


@pytest.mark.slow
def test_ray_makes_the_same_bytes(reference, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert open_engine("ray", 1) is make_on_ray
    build(CONFIG, tmp_path / "out", engine=make_on_ray)
    assert contents(tmp_path / "out") == contents(reference)


def test_workers_do_not_import_jax(tmp_path):
    code = (
        "import pebble\n"
        "from data.synlogic.build import engines as e\n"
        "from tests_probe import modules\n"
        "if __name__ == '__main__':\n"
        "    e.make_shard = modules\n"
        "    print(next(e.make_in_processes(iter([0]), 1))[1])\n"
    )
    probe = "import sys\n\ndef modules(_):\n    return [m for m in ('jax', 'grain', 'numpy') if m in sys.modules]\n"
    (tmp_path / "tests_probe.py").write_text(probe)
    (tmp_path / "main.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    run = subprocess.run([sys.executable, tmp_path / "main.py"], env=environment, capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_build_that_was_stopped_ends_with_the_bytes_of_one_that_was_not(whole, tmp_path, how):
    words = ["--tasks", "math_path,kukurasu", "--level", "normal", "--n", "1600", "--seed", "1", "--workers"]
    command = [sys.executable, "-m", "framework.cli", "data", "synlogic", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*command, "2", "--out", out], env=environment, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(list(out.glob(".parts/*.shard"))) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert not (out / "manifest.json").exists()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "To go on, type the same command again." in said.decode()
        assert "Traceback" not in said.decode()
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob(".parts/*.shard")}
    assert len(kept) >= 4

    made = []

    def watched(jobs):
        for job in jobs:
            made.append(f"{job.task}.{job.level}.{job.first // job.count:06}.shard")
            yield job, make_shard(job)

    build(STOPPED, out, engine=watched)
    assert made
    assert not kept.keys() & set(made)
    assert contents(out) == contents(whole)


def test_a_shard_that_was_cut_is_made_again(reference, tmp_path):
    def stops(jobs):
        for number, job in enumerate(jobs):
            if number == 6:
                raise KeyboardInterrupt
            yield job, make_shard(job)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build(CONFIG, out, engine=stops)
    shards = sorted(out.glob(".parts/*.shard"))
    assert len(shards) == 6
    shards[0].write_bytes(shards[0].read_bytes()[:50])
    shards[1].write_bytes(b"")
    build(CONFIG, out, engine=here())
    assert contents(out) == contents(reference)


def test_what_is_finished_is_not_made_again_unless_it_was_damaged(reference, tmp_path):
    def never(jobs):
        raise AssertionError

    out = tmp_path / "out"
    made = build(CONFIG, out, engine=here())
    assert build(CONFIG, out, engine=never) == made
    assert contents(out) == contents(reference)
    next(out.rglob("train-*.parquet")).unlink()
    build(CONFIG, out, engine=here())
    assert contents(out) == contents(reference)


def test_no_question_comes_twice_and_every_row_is_judged_right(reference):
    rows = rows_of(reference, "train") + rows_of(reference, "validation")
    samples = [sample_of_row(row) for row in rows]
    assert len({sample.question for sample in samples}) == len(rows) == 315
    for sample in samples:
        task = synlogic.TASKS[sample.task]
        assert task.generate(sample.seed, task.levels[sample.level], "english") == sample
        assert task.verify(sample, task.solve(sample), "official")


def test_counts_follow_n_levels_and_validation(reference):
    manifest = json.loads((reference / "manifest.json").read_text())
    counted = {(group["task"], group["level"]): (group["train"], group["validation"]) for group in manifest["groups"]}
    # The 5 validation records of a task are 3 easy and 2 normal ones.
    assert counted == {
        (task, level): (50, 3 if level == "easy" else 2) for task in TASKS for level in ("easy", "normal")
    }
    for split, count in (("train", 300), ("validation", 15)):
        rows = rows_of(reference, split)
        assert [row["extra_info"]["index"] for row in rows] == list(range(count))
        assert {row["extra_info"]["split"] for row in rows} == {split}
    # Tasks are mixed: the first tenth of the rows has all of them.
    assert {row["extra_info"]["task"] for row in rows_of(reference, "train")[:30]} == set(TASKS)


def test_the_manifest_says_what_was_made_from_what(reference):
    manifest = json.loads((reference / "manifest.json").read_text())
    for name, file in manifest["files"].items():
        content = (reference / name).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert {name.split("/")[0] for name in manifest["files"]} == {"parquet", "jsonl"}
    lines = b"".join(
        (reference / f"jsonl/{split}-00000-of-00001.jsonl").read_bytes() for split in ("validation", "train")
    )
    assert manifest["digest"] == hashlib.sha256(lines).hexdigest()
    assert manifest["settings"]["seed"] == 3
    assert manifest["settings"]["groups"][0]["params"]
    assert manifest["settings"]["code"].keys() == set(TASKS)
    assert manifest["warnings"] == []


def test_datasets_reads_the_folder_and_the_parquet_files(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    out = tmp_path / "out"
    build(dataclasses.replace(CONFIG, formats=("parquet",), rows_per_file=120), out, engine=here())
    files = {"train": str(out / "train-*.parquet"), "validation": str(out / "validation-*.parquet")}
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 300, "validation": 15}
    assert sample_of_row(loaded["train"][0]).task in TASKS
    folder = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in folder.items()} == {"train": 300, "validation": 15}


def test_files_of_few_rows_hold_the_same_rows_with_their_share_of_each_task(reference, tmp_path):
    config = dataclasses.replace(CONFIG, formats=("jsonl",), rows_per_file=70)
    build(config, tmp_path / "out", engine=here())
    files = sorted((tmp_path / "out").glob("train-*.jsonl"))
    assert [file.name for file in files] == [f"train-{i:05}-of-00005.jsonl" for i in range(5)]
    for file in files:
        tasks = [json.loads(line)["extra_info"]["task"] for line in file.read_text().splitlines()]
        assert all(tasks.count(task) == 20 for task in TASKS)
    rows, whole = rows_of(tmp_path / "out", "train"), rows_of(reference, "train")
    assert [row["extra_info"]["index"] for row in rows] == list(range(300))
    assert {row["extra_info"]["seed"] for row in rows} == {row["extra_info"]["seed"] for row in whole}


def test_more_records_keep_those_of_fewer(reference, tmp_path):
    build(dataclasses.replace(CONFIG, n=420), tmp_path / "out", engine=here())
    assert [sample_of_row(row) for row in rows_of(tmp_path / "out", "validation")] == [
        sample_of_row(row) for row in rows_of(reference, "validation")
    ]
    seeds = {row["extra_info"]["seed"] for row in rows_of(tmp_path / "out", "train")}
    assert {row["extra_info"]["seed"] for row in rows_of(reference, "train")} < seeds


def test_weights_share_the_records_and_compact_prompts_are_the_question_alone(tmp_path):
    config = BuildConfig(
        tasks=TASKS,
        n=100,
        validation=2,
        weights=(("kukurasu", 2.5), ("word_sorting", 0.0)),
        form="compact",
        levels=("tiny",),
        formats=("jsonl",),
    )
    build(config, tmp_path / "out", engine=here())
    rows = rows_of(tmp_path / "out", "train")
    tasks = [row["extra_info"]["task"] for row in rows]
    assert {task: tasks.count(task) for task in TASKS} == {"dyck_language": 29, "kukurasu": 71, "word_sorting": 0}
    assert all(row["prompt"][0]["content"] == sample_of_row(row).question for row in rows)
    assert len(rows_of(tmp_path / "out", "validation")) == 4


def test_a_task_with_few_instances_ends_with_what_there_is_and_says_so(few, tmp_path):
    config = BuildConfig(tasks=("few", "kukurasu"), n=60, validation=3, max_prompt_chars=499, instruction=False)
    manifest = build(config, tmp_path / "out", engine=here())
    group = next(group for group in manifest["groups"] if group["task"] == "few")
    assert (group["train"], group["validation"]) == (5, 3)
    assert group["drawn"] == 8 + group["duplicates"] + group["too_long"] + group["failed"]
    assert min(group["duplicates"], group["too_long"], group["failed"]) > 0
    assert "few/easy has only 8 of 33 records" in manifest["warnings"][0]
    assert "no instance" in manifest["warnings"][1]
    assert (manifest["train"], manifest["validation"]) == (35, 6)


def test_a_question_of_an_earlier_level_is_a_duplicate(few, tmp_path):
    config = BuildConfig(tasks=("few",), levels=("easy", "hard"), n=10, max_prompt_chars=400, formats=("jsonl",))
    manifest = build(config, tmp_path / "out", engine=here())
    questions = [sample_of_row(row).question for row in rows_of(tmp_path / "out", "train")]
    assert len(questions) == len(set(questions)) == 10
    assert manifest["groups"][1]["duplicates"] > 0


def test_rejections_of_the_oracle_are_counted_up_to_the_last_record(few, tmp_path, monkeypatch):
    rejected = collections.Counter()
    monkeypatch.setattr(base, "REJECTED", rejected, raising=False)

    class Picky(Few):
        levels = MappingProxyType({"easy": Params(distinct=10**6)})

        def generate(self, seed, params, form="compact"):
            rejected["oracle"] += 3
            return super().generate(seed, params, form)

    monkeypatch.setitem(synlogic.TASKS, "few", Picky())
    manifest = build(BuildConfig(tasks=("few",), n=20), tmp_path / "out", engine=here())
    assert manifest["oracle_rejected"] == 3 * manifest["drawn"] == 60


def test_an_error_in_a_generator_names_the_seed(few, tmp_path, monkeypatch):
    class Broken(Few):
        def generate(self, seed, params, form="compact"):
            raise ZeroDivisionError("by zero")

    monkeypatch.setitem(synlogic.TASKS, "few", Broken())
    with pytest.raises(RuntimeError, match=r"few/easy: generate\(seed=\d+\) failed: ZeroDivisionError\('by zero'\)"):
        build(BuildConfig(tasks=("few",), n=1), tmp_path / "out", engine=here())


def test_a_worker_that_dies_is_an_error_that_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr("data.synlogic.build.engines.make_shard", _die)
    job = ShardJob(seed=0, task="kukurasu", level="easy", form="english", first=0, count=1)
    with pytest.raises(UserError, match=r"kukurasu/easy ended with code .* fewer --workers"):
        list(make_in_processes([job], 1))


def _die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_folder_of_other_settings_is_refused_and_force_makes_it_anew(tmp_path):
    out = tmp_path / "out"
    small = dataclasses.replace(CONFIG, n=12, validation=0, formats=("jsonl",), levels=("easy",))
    build(small, out, engine=here())
    with pytest.raises(UserError, match=r"other settings \(seed 3 there, 4 now\).*--force"):
        build(dataclasses.replace(small, seed=4), out, engine=here())
    other = dataclasses.replace(small, n=9, tasks=("kukurasu",), formats=("parquet",))
    with pytest.raises(UserError, match=r"n 12 there, 9 now; .*other tasks, levels, weights or parameters"):
        build(other, out, engine=here())
    (out / "notes.txt").write_text("mine")
    build(other, out, engine=here(), force=True)
    assert {path.name for path in out.iterdir()} == {"manifest.json", "notes.txt", "train-00000-of-00001.parquet"}


def test_a_folder_with_something_else_in_it_is_refused_even_with_force(tmp_path):
    (tmp_path / "train-1.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(UserError, match="is not empty and holds no data set of this command"):
            build(CONFIG, tmp_path, engine=here(), force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["train-1.txt"]


def test_other_code_of_a_task_does_not_continue_a_build(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, n=12, validation=0)
    build(config, tmp_path / "out", engine=here())
    monkeypatch.setattr("data.synlogic.build.code_digest", lambda task: f"new {task}")
    with pytest.raises(UserError, match="the code has changed for dyck_language, kukurasu, word_sorting"):
        build(config, tmp_path / "out", engine=here())


def test_two_processes_do_not_make_the_same_folder(tmp_path):
    pytest.importorskip("fcntl")

    def second(jobs):
        with pytest.raises(UserError, match="another process is making this data set"):
            build(CONFIG, tmp_path / "out", engine=here())
        yield from here()(jobs)

    build(CONFIG, tmp_path / "out", engine=second)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": ("kukurazu",)}, "no task 'kukurazu' that can be generated. Did you mean"),
        ({"tasks": ()}, "--tasks names nothing"),
        ({"tasks": ("kukurasu", "kukurasu")}, "names 'kukurasu' twice"),
        ({"levels": ("esay",)}, "--level 'esay' is not one of dyck_language. It has: tiny, easy"),
        ({"weights": (("mathador", 2.0),)}, "'mathador', which is not in --tasks"),
        ({"weights": (("kukurasu", -1.0),)}, "kukurasu=-1.0 is no weight"),
        ({"weights": (("kukurasu", float("nan")),)}, "kukurasu=nan is no weight"),
        ({"weights": tuple((task, 0.0) for task in TASKS)}, "nothing to make"),
        ({"weights": (("kukurasu", 1.0), ("kukurasu", 2.0))}, "--weights names 'kukurasu' twice"),
        ({"n": -1}, "--n -1 is too small"),
        ({"n": 0, "validation": 0}, "make no record"),
        ({"rows_per_file": 0}, "--rows-per-file 0 is too small"),
    ],
)
def test_settings_that_make_no_data_set_are_errors(changes, said):
    with pytest.raises(UserError) as caught:
        dataclasses.replace(CONFIG, **changes).build()
    assert said in str(caught.value)


def test_no_workers_and_no_ray_are_errors(monkeypatch):
    with pytest.raises(UserError, match="Use at least 1"):
        open_engine("local", 0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'maypole\[ray\]'"):
        open_engine("ray", 1)


def test_bytes_that_are_no_shard_are_an_error():
    for raw in (
        b"",
        b"x",
        make_shard(ShardJob(seed=0, task="kukurasu", level="easy", form="english", first=0, count=2))[:-9],
    ):
        with pytest.raises(ShardError):
            read_shard(raw)


def test_the_selection_counts_only_up_to_the_last_record():
    group = Group(task="kukurasu", level="easy", train=2, validation=0)
    shard = [
        Candidate("a", 1, 5),
        Candidate("a", 1, 0),
        Candidate("b", 1, 1),
        Candidate("c", 1, 7),
        Candidate("", 0, 0),
    ]
    (outcome,) = select([group], [[shard]], 10)
    assert (outcome.picked, outcome.drawn, outcome.duplicates, outcome.oracle_rejected) == ([0, 2], 3, 1, 6)
    assert shards_missing(group, outcome) == 0
    (short,) = select([dataclasses.replace(group, train=4)], [[shard]], 10)
    assert (short.picked, short.failed) == ([0, 2, 3], 1)
    assert shards_missing(dataclasses.replace(group, train=4), short) == 1


def test_validation_records_do_not_depend_on_how_many_training_records_other_levels_want():
    easy, hard = (Group(task="few", level=level, train=1, validation=1) for level in ("easy", "hard"))
    streams = [[[Candidate(digest, 1) for digest in digests]] for digests in ("abc", "cde")]
    small = select([easy, hard], streams, 10)
    large = select([dataclasses.replace(easy, train=2), hard], streams, 10)
    assert [outcome.picked[0] for outcome in small] == [outcome.picked[0] for outcome in large] == [0, 0]
    assert (large[0].picked, large[0].duplicates) == ([0, 1], 1)  # its third question is held out at the other level


@pytest.mark.parametrize(
    "weights", [(1.0, 3.0, 3.0), (1e308, 1e308, 1e308), (1e-9, 1.0, 0.3), (2.0, 0.0, 1.0)], ids=str
)
def test_a_larger_n_takes_records_from_no_task(weights):
    before = dict.fromkeys(TASKS, 0)
    for n in range(1, 60):
        groups = BuildConfig(tasks=TASKS, n=n, weights=tuple(zip(TASKS, weights, strict=True))).build()
        now = before | {group.task: group.train for group in groups}
        assert sum(now.values()) == n
        assert all(now[task] >= before[task] for task in TASKS)
        before = now


def test_rejection_rates_of_the_manifest_are_those_of_the_draws(few, tmp_path, monkeypatch):
    rejected = collections.Counter()
    monkeypatch.setattr(base, "REJECTED", rejected)

    class Picky(Few):
        levels = MappingProxyType({"easy": Params(distinct=10**6)})

        def generate(self, seed, params, form="compact"):
            rejected.update(draw=2, oracle=1)
            return super().generate(seed, params, form)

    monkeypatch.setitem(synlogic.TASKS, "few", Picky())
    manifest = build(BuildConfig(tasks=("few",), n=20), tmp_path / "out", engine=here())
    (group,) = manifest["groups"]
    assert (group["redrawn"], group["oracle_rejected"], group["rejected_frac"]) == (40, 20, 0.75)


def test_the_digest_of_the_code_covers_word_lists():
    used = {module.__name__ for module in versions._used_by(sys.modules["data.synlogic.word_sorting"])}
    assert {"data.synlogic.words", "data.synlogic.parse", "data.synlogic.base"} <= used


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="cannot be made: Permission denied"):
        build(CONFIG, tmp_path / "out", engine=here())
