"""Training never sees a held-out question, and what a run is going to read fits where it puts it."""

import json

import pytest

from data.questions import JsonLines, SynLogic
from data.synlogic import verifier_reward
from experiments.entropy_mechanism import tiny
from framework.errors import UserError

TINY = tiny.data.build()


@pytest.mark.parametrize("seed", [0, 1])
def test_no_training_question_is_held_out(seed):
    heldout = {sample.question for sample in TINY.heldout(count=tiny.evaluation.questions, seed=seed)}
    assert len(heldout) == tiny.evaluation.questions
    train, demonstrations = (
        TINY.train(seed=seed, batch=32),
        TINY.demonstrations(seed=seed, batch=32, noise=0.4),
    )
    for step in range(40):
        assert not heldout & {sample.question for sample in train[step]}
        assert not heldout & {sample.question for sample, _ in demonstrations[step]}


def test_held_out_questions_are_the_same_for_every_seed():
    assert TINY.heldout(count=24, seed=0) == TINY.heldout(count=24, seed=7)


def test_a_batch_is_a_function_of_seed_and_step():
    train = TINY.train(seed=3, batch=8)
    wanted = train[5]
    train[0]
    assert train[5] == wanted == TINY.train(seed=3, batch=8)[5]
    assert train[6] != wanted != TINY.train(seed=4, batch=8)[5]
    pairs = TINY.demonstrations(seed=3, batch=8, noise=0.5)
    assert pairs[5] == TINY.demonstrations(seed=3, batch=8, noise=0.5)[5] != pairs[6]


def test_every_demonstration_and_question_of_the_demo_fits_its_place():
    """2,000 of each: a longer one would end the run at the step that meets it."""
    tokenizer, roll = tiny.tokenizer.build(), tiny.rollout
    pairs = TINY.demonstrations(seed=0, batch=1000, noise=tiny.warm_start.noise)
    examples = [*pairs[0], *pairs[1]]
    asked = TINY.train(seed=0, batch=1000)
    questions = [*asked[0], *asked[1], *TINY.heldout(count=48, seed=0), *(sample for sample, _ in examples)]
    assert max(len(tokenizer.encode(sample.question)) for sample in questions) <= roll.max_prompt
    assert max(len(tokenizer.encode(text)) + 1 for _, text in examples) <= roll.max_new_tokens


def test_demonstrations_are_right_but_for_the_noise():
    clean = TINY.demonstrations(seed=0, batch=200, noise=0.0)[0]
    assert all(verifier_reward(sample, text) == 1.0 for sample, text in clean)
    noisy = TINY.demonstrations(seed=0, batch=400, noise=0.4)[0]
    right = sum(verifier_reward(sample, text) for sample, text in noisy) / len(noisy)
    assert 0.5 < right < 0.7  # four standard deviations of a mean of 400


@pytest.mark.parametrize(
    ("tasks", "said"),
    [((), "empty"), ((("dyck", "tiny"),), "Did you mean"), ((("kukurasu", "huge"),), "level of task 'kukurasu'")],
)
def test_tasks_that_do_not_exist_are_named(tasks, said):
    with pytest.raises(ValueError, match=said):
        SynLogic(tasks=tasks).build()


def write(folder, lines):
    file = folder / "mine.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(file)


def records(count):
    return [{"question": f"{i} + 1 =", "answer": i + 1, "worked": f"it is {i + 1}"} for i in range(count)]


def test_recorded_questions_are_split_and_their_columns_kept(tmp_path):
    questions = JsonLines(path=write(tmp_path, records(10)), heldout=3, response="worked").build()
    kept = questions.heldout(count=3, seed=0)
    assert [sample.question for sample in kept] == ["7 + 1 =", "8 + 1 =", "9 + 1 ="]
    seen = [sample for step in range(7) for sample in questions.train(seed=0, batch=4)[step]]
    assert {sample.question for sample in seen} == {f"{i} + 1 =" for i in range(7)}
    assert seen[0].answer == str(seen[0].meta["worked"]).removeprefix("it is ")
    for sample, text in questions.demonstrations(seed=0, batch=4, noise=0.0)[2]:
        assert text == f"it is {sample.answer}"


@pytest.mark.parametrize(
    ("count", "change", "said"),
    [
        (3, {"heldout": 5}, r"Use data\.heldout=1"),
        (10, {"heldout": 0}, r"data\.heldout=0 keeps no line"),
        (0, {}, "holds no records"),
        (10, {"question": "prompt"}, "no field 'prompt'"),
        (10, {"path": "nowhere.jsonl"}, "there is no such file"),
    ],
)
def test_a_file_that_cannot_work_says_what_to_change(tmp_path, count, change, said):
    with pytest.raises(ValueError, match=said):
        JsonLines(**({"path": write(tmp_path, records(count)), "heldout": 2} | change)).build()


@pytest.mark.parametrize(
    ("response", "noise", "said"),
    [(None, 0.0, r"set warm_start\.steps=0"), ("wrked", 0.0, "'wrked' is not a column"), ("worked", 0.5, "Use 0")],
)
def test_demonstrations_need_their_column_and_no_noise(tmp_path, response, noise, said):
    questions = JsonLines(path=write(tmp_path, records(10)), heldout=2, response=response).build()
    with pytest.raises(ValueError, match=said):
        questions.demonstrations(seed=0, batch=4, noise=noise)


@pytest.mark.parametrize(
    ("worked", "said"),
    [
        (None, r"mine\.jsonl:3: 'worked' is None, but the worked response must be"),
        (True, r"mine\.jsonl:3: 'worked' is True"),
        ("", r"mine\.jsonl:3: 'worked' is empty"),
    ],
)
def test_a_worked_response_that_is_no_text_is_not_imitated(tmp_path, worked, said):
    lines = records(10)
    lines[2]["worked"] = worked
    questions = JsonLines(path=write(tmp_path, lines), heldout=2, response="worked").build()
    questions.check_lengths(str.encode, max_prompt=20, max_new_tokens=20)
    with pytest.raises(UserError, match=said):
        questions.demonstrations(seed=0, batch=4, noise=0.0)


def long_records():
    """Line 3 has the longest training question, line 4 the longest worked response, line 9 the longest kept question."""
    lines = records(10)
    lines[2]["question"], lines[3]["worked"], lines[8]["question"] = "q" * 30, "w" * 40, "é" * 16
    return lines


def test_what_fits_to_the_token_is_accepted(tmp_path):
    questions = JsonLines(path=write(tmp_path, long_records()), heldout=2, response="worked").build()
    questions.check_lengths(str.encode, max_prompt=32, max_new_tokens=41)
    without = JsonLines(path=write(tmp_path, long_records()), heldout=2).build()
    without.check_lengths(str.encode, max_prompt=32, max_new_tokens=1)


@pytest.mark.parametrize(
    ("prompt", "new", "said"),
    [
        (
            31,
            41,
            r"mine\.jsonl:9: the question has 32 tokens, but rollout\.max_prompt=31 .* Use rollout\.max_prompt=32,",
        ),
        (29, 41, r"\(too long: 2 of 10\)\. Use rollout\.max_prompt=32,"),
        (32, 40, r"mine\.jsonl:4: the worked .* has 41 tokens, .*max_new_tokens=40 .* Use rollout\.max_new_tokens=41,"),
        (9, 9, r"jsonl:9: .*mine\.jsonl:4: .* Use rollout\.max_prompt=32 and rollout\.max_new_tokens=41,"),
    ],
)
def test_what_does_not_fit_is_named_by_line_before_a_run_starts(tmp_path, prompt, new, said):
    questions = JsonLines(path=write(tmp_path, long_records()), heldout=2, response="worked").build()
    with pytest.raises(UserError, match=said):
        questions.check_lengths(str.encode, max_prompt=prompt, max_new_tokens=new)


def test_more_evaluation_questions_than_kept_lines_are_refused(tmp_path):
    questions = JsonLines(path=write(tmp_path, records(10)), heldout=2).build()
    with pytest.raises(ValueError, match=r"only 2 lines are kept\. Use data\.heldout=4"):
        questions.heldout(count=4, seed=0)


def test_a_line_that_asks_what_a_kept_one_asks_is_not_trained_on(tmp_path):
    lines = [*records(6), records(5)[2]]  # the last line, the kept one, is there before
    questions = JsonLines(path=write(tmp_path, lines), heldout=1).build()
    assert [sample.question for sample in questions.heldout(count=1, seed=0)] == ["2 + 1 ="]
    seen = {sample.question for step in range(5) for sample in questions.train(seed=0, batch=4)[step]}
    assert seen == {f"{i} + 1 =" for i in (0, 1, 3, 4, 5)}
    with pytest.raises(ValueError, match="leaves nothing to train on"):
        JsonLines(path=write(tmp_path, records(1) * 3), heldout=1).build()
