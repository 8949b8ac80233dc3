"""Shares are exact and follow from the index alone; schedules follow from the step alone; every sample has its own reward."""

import collections
import dataclasses
import json

import pytest

from data.mixture_rewards import RewardByTask, exact_answer, format_reward
from data.mixture_schedule import PassRateSchedule, Stage, StepSchedule
from data.mixture_sources import Mixed, Part
from data.mixture_weights import check_weights, counts, turn
from data.questions import JsonLines, SynLogic
from data.synlogic import TASKS, has_format, official_reward, verifier_reward
from data.synlogic.calibrate import Calibration, Cell
from framework.config_text import to_json
from framework.config_types import check_types
from framework.errors import UserError
from framework.sample import Sample

PAIRS = (("dyck_language", "tiny"), ("kukurasu", "tiny"), ("math_path", "tiny"))
LOGIC = SynLogic(tasks=PAIRS[:2])


@pytest.mark.parametrize("weights", [(1.0,), (3.0, 1.0), (0.5, 0.3, 0.2), (1.0, 0.0, 2.5, 0.1), (1e-9, 1.0)], ids=str)
def test_every_prefix_of_the_stream_holds_the_shares(weights):
    before = [0] * len(weights)
    for index in range(500):
        kind, number = turn(index, weights)
        assert number == before[kind]
        before[kind] += 1
        assert before == counts(index + 1, weights)
        for count, weight in zip(before, weights, strict=True):
            assert abs(count - (index + 1) * weight / sum(weights)) < len(weights)
    assert all(count == 0 for count, weight in zip(before, weights, strict=True) if weight == 0)


def test_far_ahead_is_as_exact_as_at_the_start():
    far = 2**40
    assert counts(far, (3.0, 1.0)) == [far * 3 // 4, far // 4]
    assert [turn(far + i, (1.0, 1.0))[0] for i in range(4)] == [turn(i, (1.0, 1.0))[0] for i in range(4)]


def test_tasks_are_drawn_by_weight_and_each_batch_is_balanced():
    questions = SynLogic(tasks=PAIRS, weights=(2.0, 1.0, 1.0)).build()
    stream = questions.train(seed=0, batch=8)
    for step in (0, 1, 17):
        tasks = collections.Counter(sample.task for sample in stream[step])
        assert tasks == {"dyck_language": 4, "kukurasu": 2, "math_path": 2}
    assert stream[5] == SynLogic(tasks=PAIRS, weights=(2.0, 1.0, 1.0)).build().train(seed=0, batch=8)[5]
    assert stream[5] != questions.train(seed=1, batch=8)[5]


def test_held_out_questions_do_not_depend_on_weights_or_schedule():
    later = StepSchedule(stages=(Stage(tasks=PAIRS[:1]), Stage(step=3, tasks=PAIRS[1:])))
    plain, weighted, scheduled = (
        SynLogic(tasks=PAIRS, **more).build() for more in ({}, {"weights": (1.0, 5.0, 0.0)}, {"schedule": later})
    )
    heldout = plain.heldout(count=30, seed=0)
    assert heldout == weighted.heldout(count=30, seed=0) == scheduled.heldout(count=30, seed=0)
    asked = {sample.question for sample in heldout}
    for questions in (weighted, scheduled):
        train = questions.train(seed=0, batch=16)
        assert not asked & {sample.question for step in range(10) for sample in train[step]}


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((1.0,), r"weights has 1 numbers for 3 entries .*weights=\(1\.0, 1\.0, 1\.0\)"),
        ((1.0, -1.0, 1.0), "weight of .*kukurasu.* is -1.0. Use a number of at least 0"),
        ((1.0, float("nan"), 1.0), "is nan"),
        ((0.0, 0.0, 0.0), "leaves nothing to draw"),
    ],
)
def test_weights_that_are_no_shares_are_named(weights, said):
    with pytest.raises(ValueError, match=said):
        SynLogic(tasks=PAIRS, weights=weights).build()
    with pytest.raises(ValueError, match=said):
        check_weights("weights", weights, PAIRS)


def test_a_step_schedule_changes_levels_at_its_steps_and_a_batch_is_a_function_of_the_step():
    schedule = StepSchedule(
        stages=(
            Stage(tasks=(("kukurasu", "tiny"),)),
            Stage(step=10, tasks=(("kukurasu", "easy"), ("kukurasu", "tiny")), weights=(3.0, 1.0)),
        )
    )
    config = SynLogic(tasks=(("kukurasu", "tiny"),), schedule=schedule)
    stream = config.build().train(seed=0, batch=4)
    levels = [collections.Counter(sample.level for sample in stream[step]) for step in (0, 9, 10, 500)]
    assert levels == [{"tiny": 4}, {"tiny": 4}, {"easy": 3, "tiny": 1}, {"easy": 3, "tiny": 1}]
    assert config.build().train(seed=0, batch=4)[10] == stream[10]
    plain = SynLogic(tasks=(("kukurasu", "tiny"),)).build().train(seed=0, batch=4)
    assert plain[9] == stream[9]


def cell(task, level, weak, strong):
    return Cell(task=task, level=level, samples=10, weak=(weak,), strong=(strong,))


MEASURED = Calibration(
    cells=(
        cell("kukurasu", "tiny", 5, 9),
        cell("kukurasu", "easy", 1, 4),
        cell("kukurasu", "normal", 0, 0),
        cell("math_path", "tiny", 2, 3),
    )
)


def test_a_pass_rate_schedule_climbs_the_learnable_levels():
    schedule = PassRateSchedule(calibration=MEASURED, steps=100)
    config = SynLogic(tasks=(("kukurasu", "tiny"),), schedule=schedule)
    stream = config.build().train(seed=0, batch=2)
    seen = {step: {(s.task, s.level) for s in stream[step]} for step in (0, 49, 50, 100, 10_000)}
    math = ("math_path", "tiny")
    assert seen[0] == seen[49] == {("kukurasu", "tiny"), math}
    assert seen[50] == seen[100] == seen[10_000] == {("kukurasu", "easy"), math}


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (StepSchedule(stages=()), r"begin at the steps \[\]"),
        (StepSchedule(stages=(Stage(step=5, tasks=PAIRS),)), r"\[5\]\. The first must begin at 0"),
        (StepSchedule(stages=(Stage(tasks=()),)), "from step 0 on has no tasks"),
        (StepSchedule(stages=(Stage(tasks=(("kukurasu", "tinny"),)),)), "Did you mean 'tiny'"),
        (StepSchedule(stages=(Stage(tasks=PAIRS, weights=(1.0,)),)), "weights of the stage from step 0 on has 1"),
        (PassRateSchedule(calibration=MEASURED, steps=0), "steps=0 of the schedule"),
        (PassRateSchedule(calibration=Calibration(cells=MEASURED.cells[2:3]), steps=9), "no learnable level"),
    ],
)
def test_a_schedule_that_cannot_work_says_so_when_it_is_built(schedule, said):
    with pytest.raises(ValueError, match=said):
        SynLogic(tasks=PAIRS, schedule=schedule).build()


def test_official_answers_are_what_the_official_verifier_reads_on_the_same_compact_questions():
    pairs = tuple((name, "tiny") for name in ("mathador", "kukurasu", "math_path"))
    short, official = (SynLogic(tasks=pairs, official_answers=wanted).build() for wanted in (False, True))
    for (sample, _), (same, text) in zip(
        short.demonstrations(seed=0, batch=30, noise=0.0)[0],
        official.demonstrations(seed=0, batch=30, noise=0.0)[0],
        strict=True,
    ):
        assert same.question == sample.question
        assert verifier_reward(same, text) == official_reward(same, text) == 1.0
    assert "```python" in official.demonstrations(seed=0, batch=3, noise=0.0)[0][0][1]


def jsonl(folder, name, count, **more):
    lines = [{"question": f"{name} {i}", "answer": i, **more} for i in range(count)]
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(folder / name)


def mixed(folder, **part):
    data = JsonLines(path=jsonl(folder, "math", 12), heldout=2)
    return Mixed(
        parts=(
            Part(name="logic", data=LOGIC, weight=3.0),
            Part(name="math", data=data, task="math", demonstrations=False, **part),
        )
    )


def test_parts_are_mixed_exactly_and_every_record_comes_once_an_epoch(tmp_path):
    questions = mixed(tmp_path).build()
    stream = questions.train(seed=0, batch=8)
    batches = [stream[step] for step in range(10)]
    for batch in batches:
        assert [sample.task for sample in batch].count("math") == 2
    records = [sample.question for batch in batches for sample in batch if sample.task == "math"]
    assert len(set(records[:10])) == len(set(records[10:])) == 10  # two epochs of the ten training lines
    assert stream[7] == mixed(tmp_path).build().train(seed=0, batch=8)[7] == batches[7]
    assert stream[7] != questions.train(seed=1, batch=8)[7]


def test_held_out_questions_and_demonstrations_of_a_mix(tmp_path):
    questions = mixed(tmp_path).build()
    heldout = questions.heldout(count=6, seed=0)
    assert collections.Counter(s.task for s in heldout) == {"dyck_language": 2, "kukurasu": 2, "math": 2}
    with pytest.raises(ValueError, match="1 held-out questions are fewer than the 2 parts"):
        questions.heldout(count=1, seed=0)
    pairs = questions.demonstrations(seed=0, batch=20, noise=0.5)[3]
    assert {sample.task for sample, _ in pairs} == {"dyck_language", "kukurasu"}  # math has no worked responses
    with pytest.raises(UserError, match=r"rollout\.max_prompt=7"):
        questions.check_lengths(str.encode, max_prompt=6, max_new_tokens=1)
    questions.check_lengths(str.encode, max_prompt=7, max_new_tokens=1)


def test_two_parts_over_the_same_tasks_draw_different_questions():
    parts = tuple(Part(name=name, data=SynLogic(tasks=(("boolean_expressions", "easy"),))) for name in "ab")
    batch = Mixed(parts=parts).build().train(seed=0, batch=20)[0]
    assert len({sample.question for sample in batch}) == 20


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((), "Mixed.parts is empty"),
        ((Part(name="a", data=LOGIC), Part(name="a", data=LOGIC)), r"names \['a', 'a'\]"),
        ((Part(name="a", data=LOGIC, weight=0.0),), "leaves nothing to draw"),
        ((Part(name="a", data=SynLogic(tasks=())),), "tasks is empty"),
        (
            (Part(name="a", data=LOGIC), Part(name="b", data=dataclasses.replace(LOGIC, holdout_every=5))),
            r"holdout_every differs between the parts \(a: 8, b: 5\)",
        ),
    ],
)
def test_parts_that_cannot_be_mixed_are_named(parts, said):
    with pytest.raises(ValueError, match=said):
        Mixed(parts=parts).build()


def test_a_mix_without_worked_examples_says_what_to_change():
    questions = Mixed(parts=(Part(name="a", data=LOGIC, demonstrations=False),)).build()
    with pytest.raises(ValueError, match=r"warm_start\.steps=0"):
        questions.demonstrations(seed=0, batch=2, noise=0.0)


REWARD = RewardByTask(rewards=(("math", exact_answer),))


def test_each_sample_is_judged_by_the_reward_of_its_task():
    right, wrong = (f"<think>x</think><answer> {answer}\n</answer>" for answer in (42, 43))
    sample = Sample(task="math", question="6*7", answer="42")
    assert (REWARD(sample, right), REWARD(sample, wrong), REWARD(sample, "42")) == (1.0, 0.0, 0.0)
    logic = LOGIC.build().train(seed=0, batch=1)[0][0]
    assert REWARD(logic, f"<think></think><answer>{TASKS[logic.task].solve(logic)}</answer>") == 1.0
    assert REWARD(logic, right) == 0.0
    assert format_reward(logic, right) == 1.0 == float(has_format(right))
    assert format_reward(logic, "42") == 0.0
    unknown = dataclasses.replace(sample, task="code")
    with pytest.raises(ValueError, match=r"task 'code'.*'math'.*Add \('code', your_function\)"):
        REWARD(unknown, right)
    with pytest.raises(ValueError, match="given for: none"):
        RewardByTask(rewards=(), otherwise=None)(sample, right)


def test_what_only_judges_is_rewarded_by_its_verifier():
    sample = Sample(task="arc_agi_2", question="?", answer="[[1]]")
    assert REWARD(sample, "<think>x</think><answer>[[1]]</answer>") == 1.0
    assert REWARD(sample, "<think>x</think><answer>[[2]]</answer>") == 0.0


def test_parts_over_the_same_tasks_never_train_on_what_another_holds_out():
    mix = Mixed(parts=tuple(Part(name=name, data=LOGIC) for name in "ab")).build()
    held = {sample.question for sample in mix.heldout(count=40, seed=0)}
    assert not held & {sample.question for step in range(60) for sample in mix.train(seed=0, batch=16)[step]}


def test_a_schedule_reads_its_calibration_once(monkeypatch):
    schedule = PassRateSchedule(calibration=MEASURED, steps=100)
    first = schedule.shares(0)
    monkeypatch.setattr(Calibration, "cells_of", lambda *_: pytest.fail("read again"))
    assert schedule.shares(0) == first
    assert schedule == PassRateSchedule(calibration=MEASURED, steps=100)


def test_configs_can_be_written_and_checked(tmp_path):
    schedule = PassRateSchedule(calibration=MEASURED, steps=10)
    for config in (mixed(tmp_path), SynLogic(tasks=PAIRS, weights=(1.0, 2.0, 3.0), schedule=schedule), REWARD):
        check_types(config)
        json.dumps(to_json(config))
