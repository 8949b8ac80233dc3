"""Claims of word_sorting_mistake: form by form verdicts against a naive checker; labels; published records."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synlogic_perturbations import FORMS
from task_checks import LEVELS, check_all, examples

from data.synlogic.word_sorting_mistake import WordSortingMistake
from framework.sample import Sample

TASK = WordSortingMistake()


@pytest.mark.slow
def test_the_protocol_holds():
    check_all(TASK, seeds=15)


def naive_label(sample):
    """Each step is compared with what follows from the words and the steps before it."""
    state = [sample.meta["words"]]
    waiting, position = [0], 0  # indices into `state` of the groups to split, from left to right
    for number, step in enumerate(sample.meta["steps"], start=1):
        group = state[waiting[0]]
        if step[0] == "read":
            if step[1:] != [position, group, [(word + " " * 20)[position].strip() for word in group]]:
                return number
            continue
        beginnings = sorted({word[: position + 1] for word in group})
        found = [[word for word in group if word[: position + 1] == beginning] for beginning in beginnings]
        at = waiting.pop(0)
        state = [*state[:at], *found, *state[at + 1 :]]
        waiting = [i + len(found) - 1 for i in waiting]
        if step[1] != state:
            return number
        if not waiting:
            waiting, position = [i for i, part in enumerate(state) if len(part) > 1], position + 1
    return None


def naive(sample, text, mode):
    _, box, rest = text.rpartition("\\boxed{")
    if box and "}" in rest:
        text = rest.partition("}")[0]
    elif mode == "official" or "\\boxed" in text:
        return False
    truth = naive_label(sample)
    text = text.strip().lower()
    if text == "no":
        return truth is None
    return text.isascii() and text.isdecimal() and int(text) == truth


EDITS = {
    "right": lambda n, k: "No" if n is None else str(n),
    "no": lambda n, k: "No",
    "one more": lambda n, k: str((n or 0) + 1),
    "one less": lambda n, k: str((n or 1) - 1),
    "any": lambda n, k: str(k),
    "leading zero": lambda n, k: f"0{n}",
    "plus sign": lambda n, k: f"+{n}",
    "decimal": lambda n, k: f"{n}.0",
    "with the word": lambda n, k: f"Thought {n}",
    "None": lambda n, k: "None",
    "yes": lambda n, k: "Yes",
    "two numbers": lambda n, k: f"{n},{k}",
    "number word": lambda n, k: "seven",
    "no mistake": lambda n, k: "No mistake",
}


@settings(max_examples=examples(300), deadline=None)
@given(
    st.integers(0, 60),
    st.sampled_from(LEVELS),
    st.sampled_from([*EDITS]),
    st.sampled_from([*FORMS]),
    st.integers(0, 20),
)
def test_every_form_of_right_and_wrong_numbers_is_judged_as_by_a_naive_checker(seed, level, edit, form, k):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    answer = EDITS[edit](naive_label(sample), k)
    for given_answer in (answer, f"\\boxed{{{answer}}}"):
        text = FORMS[form](given_answer)
        for mode in ("strict", "official"):
            assert TASK.verify(sample, text, mode) is naive(sample, text, mode), (mode, text)


@pytest.mark.parametrize(
    ("stored", "text", "official", "strict"),
    [  # the V line of the card and runs of the official verifier
        ("7", "\\boxed{7}", True, True),
        ("7", "\\boxed{ 07 }", True, True),
        ("7", "\\boxed{Thought 7}", False, False),
        ("7", "\\boxed{7.0}", False, False),
        ("7", "\\boxed{+7}", False, False),
        ("7", "\\boxed{No}", False, False),
        ("7", "\\boxed{７}", True, False),  # int() reads every script's digits
        ("7", "\\boxed{⁷}", False, False),
        ("7", "7", False, True),  # the widening of strict
        ("7", "\\boxed{3} \\boxed{7}", True, True),
        ("7", "\\boxed{7} \\boxed{", False, False),
        ("null", "\\boxed{No}", True, True),
        ("null", "\\boxed{nO}", True, True),
        ("null", "\\boxed{0}", False, False),
        ("null", "\\boxed{None}", False, False),
        ("null", "\\boxed{}", False, False),
        ("null", "no", False, True),
        ("null", "There is no mistake", False, False),
    ],
)
def test_verdict_on_a_published_record(stored, text, official, strict):
    meta = {"is_mistake": stored != "null", "thoughts": "", "words": ["b", "a"], "answer": json.loads(stored)}
    sample = Sample(task=TASK.name, question="", answer=stored, meta=meta)
    assert TASK.verify(sample, text, "official") is official
    assert TASK.verify(sample, text, "strict") is strict
    assert TASK.solve(sample) == ("\\boxed{No}" if stored == "null" else "\\boxed{7}")


def test_labels_are_true_and_every_step_of_the_first_ones_can_be_wrong():
    for level in LEVELS:
        labels = []
        for seed in range(80):
            sample = TASK.generate(seed, TASK.levels[level])
            labels.append(naive_label(sample))
            assert json.loads(sample.answer) == labels[-1]
        clean = labels.count(None) / len(labels)
        rate = TASK.levels[level].mistake_rate
        assert abs(clean - (1 - rate)) < 0.14, (level, clean)  # 80 draws: three standard errors at the most
        assert {1, 2} <= set(labels)


def test_the_english_thoughts_say_what_the_steps_are():
    sample = TASK.generate(2, TASK.levels["tiny"], "english")
    assert sample.meta["words"] == ["poem", "dad", "cow"]
    assert (
        'Thought 1: Look at the first letter of each word. "poem": "c" (3), "dad": "d" (4), "cow": "c" (3).'
        in sample.question
    )
    assert 'Thought 2: We now have ["poem" ? "cow"] < "dad".' in sample.question
    assert sample.answer == "1"
