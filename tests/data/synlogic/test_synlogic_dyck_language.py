"""Claims of dyck_language: form by form verdicts against a naive checker; published records."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synlogic_perturbations import FORMS
from task_checks import LEVELS, check_all, examples

from data.synlogic.dyck_language import DyckLanguage
from framework.sample import Sample

TASK = DyckLanguage()
MODES = ("strict", "official")


@pytest.mark.slow
def test_the_protocol_holds():
    check_all(TASK, seeds=30)


def naive_completion(prefix):
    """Pairs are removed until only open brackets are left; they are closed from the right."""
    rest = prefix
    while any(pair in rest for pair in ("()", "[]", "{}", "<>")):
        for pair in ("()", "[]", "{}", "<>"):
            rest = rest.replace(pair, "")
    return prefix + rest[::-1].translate(str.maketrans("([{<", ")]}>"))


def naive(sample, text):
    text = "".join(text.split()).replace("\\n", "").replace("\\t", "").replace("\\r", "")
    if len(text) > 1 and text[0] == text[-1] and text[0] in ("'", '"'):
        text = text[1:-1]
    return text == naive_completion(sample.meta["prefix"])


EDITS = {
    "right": lambda a, k: a,
    "one closer dropped": lambda a, k: a[:-1],
    "one closer more": lambda a, k: a + ")",
    "a bracket changed": lambda a, k: a[: k % len(a)] + "([{<)]}>"[k % 8] + a[k % len(a) + 1 :],
    "a bracket inserted": lambda a, k: a[: k % len(a)] + "([{<)]}>"[k % 8] + a[k % len(a) :],
    "two neighbours swapped": lambda a, k: a[: k % len(a)] + a[k % len(a) :][:2][::-1] + a[k % len(a) + 2 :],
    "closers in the wrong order": lambda a, k: a[: len(a) // 2] + a[len(a) // 2 :][::-1],
    "only the completion": lambda a, k: a[k % len(a) :],
    "written out tab": lambda a, k: a[: k % len(a)] + "\\t" + a[k % len(a) :],
}


@settings(max_examples=examples(300), deadline=None)
@given(
    st.integers(0, 50),
    st.sampled_from(LEVELS),
    st.sampled_from([*EDITS]),
    st.sampled_from([*FORMS]),
    st.integers(0, 50),
)
def test_every_form_of_right_and_wrong_sequences_is_judged_as_by_a_naive_checker(seed, level, edit, form, k):
    sample = TASK.generate(seed, TASK.levels[level])
    text = FORMS[form](EDITS[edit](naive_completion(sample.meta["prefix"]), k))
    for mode in MODES:
        assert TASK.verify(sample, text, mode) is naive(sample, text), (mode, text)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("'([{}])'", True),
        ("([{}])\\r\\n", True),
        ("“([{}])”", False),
        ("'([{}])\"", False),
        ("([{}]).", False),
        ("\\boxed{([{}])}", False),
        ("The sequence is ([{}])", False),
    ],
)
def test_verdict_on_a_published_record(text, verdict):
    meta = {"trace_id": "x", "full_sequence": "([{}])", "question_sequence": "([{", "n_types": 3, "total_length": 6}
    sample = Sample(task=TASK.name, question="", answer="([{}])", meta=meta)
    assert all(TASK.verify(sample, text, mode) is verdict for mode in MODES)
    assert TASK.verify(sample, TASK.solve(sample), "official")
    assert "([{___" in TASK.show(sample)


def test_what_is_missing_are_exactly_the_closers_so_there_is_one_completion():
    for level in LEVELS:
        for seed in range(40):
            meta = TASK.generate(seed, TASK.levels[level]).meta
            assert meta["full_sequence"] == naive_completion(meta["prefix"])
            assert len(meta["full_sequence"]) % 2 == 0


def test_every_wording_asks_for_closing_brackets_only():
    # `([` could also be completed as `([])()`, which the verifier does not accept.
    questions = [TASK.generate(seed, TASK.levels["easy"], "english").question for seed in range(60)]
    told = ("closing brackets only", "Only closing brackets are missing", "opened no others")
    assert all(any(words in question for words in told) for question in questions)
