"""Claims of boolean_expressions: form by form verdicts against a naive checker, and what its generator repairs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synlogic_perturbations import FORMS
from task_checks import LEVELS, check_all, examples

from data.synlogic.boolean_expressions import BooleanExpressions
from framework.sample import Sample

TASK = BooleanExpressions()
LABELS = "ABCDEFGH"


@pytest.mark.slow
def test_the_protocol_holds():
    check_all(TASK, seeds=8)


def naive_value(tree):
    kind, *rest = tree
    if kind == "lit" or kind == "fact":
        return rest[-1]
    if kind == "cmp":  # digits and operators of our own generator
        return eval(rest[0])
    parts = [naive_value(child) for child in rest]
    return {"not": not parts[0], "and": False not in parts, "or": True in parts}[kind]


def true_labels(sample):
    return {label for label, tree in zip(LABELS, sample.meta["options"], strict=False) if naive_value(tree)}


def naive_box(text):
    """The content of the last box with its braces matched, or None."""
    start = text.rfind("\\boxed{")
    for end in range(start + 7, len(text)):
        inside = text[start + 7 : end]
        if start >= 0 and text[end] == "}" and inside.count("{") == inside.count("}"):
            return inside
    return None


def naive(sample, text, mode):
    inside = naive_box(text)
    if mode == "strict":
        if "\\boxed" not in text:
            inside = text
        inside = (inside or "").replace("\\text{", "")
        if not all(char.isalpha() or char in ",;.(){}$\\ \n" for char in inside):
            return False
    if inside is None:
        return False
    return {char.upper() for char in inside if char.isalpha()} == true_labels(sample)


EDITS = {
    "right": lambda labels, k: labels,
    "one missing": lambda labels, k: labels[:k] + labels[k + 1 :],
    "one more": lambda labels, k: [*labels, LABELS[k]],
    "another in its place": lambda labels, k: [*labels[:-1], LABELS[k]],
    "other order": lambda labels, k: labels[::-1],
    "one repeated": lambda labels, k: [*labels, labels[0]],
    "all": lambda labels, k: list(LABELS[:4]),
}


@settings(max_examples=examples(300), deadline=None)
@given(
    st.integers(0, 30), st.sampled_from(LEVELS), st.sampled_from([*EDITS]), st.sampled_from([*FORMS]), st.integers(0, 7)
)
def test_every_form_of_right_and_wrong_letters_is_judged_as_by_a_naive_checker(seed, level, edit, form, k):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    labels = EDITS[edit](sorted(true_labels(sample)), k)
    for separator in (",", ""):
        for answer in (separator.join(labels), f"\\boxed{{{separator.join(labels)}}}"):
            text = FORMS[form](answer)
            for mode in ("strict", "official"):
                assert TASK.verify(sample, text, mode) is naive(sample, text, mode), (mode, text)


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [  # the letters of any word in the box count; runs of the official verifier
        (r"\boxed{A and C}", False, False),
        (r"\boxed{A, C}} trailing", True, True),
        (r"\boxed{{A},{C}}", True, True),
        (r"\boxed{(A), (C)}", True, True),
        (r"\boxed{\{A,\, C\}}", True, True),
        (r"\boxed{A; C.}", True, True),
        (r"\boxed{A-C}", True, False),  # from A to C?
        (r"\boxed{A+C}", True, False),
        (r"\boxed{B}", False, False),
        (r"\boxed{()}", False, False),
        (r"\boxed{1. A 2. C}", True, False),
        (r"\boxed{A,C} \boxed{", False, False),
    ],
)
def test_verdict(text, official, strict):
    sample = Sample(task=TASK.name, question="", answer="A,C")  # published records have no metadata here
    assert TASK.verify(sample, text, "official") is official
    assert TASK.verify(sample, text, "strict") is strict


def test_every_leaf_is_a_truth_value_and_comparisons_use_comparison_signs():
    def leaves(tree):
        return [tree] if tree[0] in ("lit", "cmp", "fact") else [leaf for child in tree[1:] for leaf in leaves(child)]

    for seed in range(30):
        for tree in TASK.generate(seed, TASK.levels["hard"]).meta["options"]:
            for leaf in leaves(tree):
                assert isinstance(naive_value(leaf), bool)
                assert naive_value(leaf) is leaf[-1]


def test_the_prompt_itself_is_no_answer():
    for level in TASK.levels:
        for seed in range(100):
            sample = TASK.generate(seed, TASK.levels[level], "english")
            assert not TASK.verify(sample, sample.question, "strict"), sample.question
            assert not TASK.verify(sample, sample.question, "official"), sample.question
