"""Claims of word_sorting: form by form verdicts against a naive checker; published records."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synlogic_perturbations import FORMS
from task_checks import LEVELS, check_all, examples

from data.synlogic.word_sorting import WordSorting
from framework.sample import Sample

TASK = WordSorting()


@pytest.mark.slow
def test_the_protocol_holds():
    check_all(TASK, seeds=20)


def naive_order(sample):
    """Words are renamed so that the usual order of the new names is the changed order of the old ones."""
    front = sample.meta["front"]
    alphabet = front + "".join(sorted(set(string.ascii_lowercase) - set(front)))
    renamed = str.maketrans(alphabet, string.ascii_lowercase)
    words = sorted(sample.meta["words"], key=lambda word: word.translate(renamed))
    return words[::-1] if sample.meta["decreasing"] else words


def naive(sample, text, mode):
    _, box, rest = text.rpartition("\\boxed{")
    if box and "}" in rest:
        text = rest.split("}")[0]
    elif mode == "official" or "\\boxed" in text:
        return False
    words = text.replace(" ", "").replace("，", ",").split(",")
    return [word.strip() for word in words] == naive_order(sample)


EDITS = {
    "right": lambda w, k: w,
    "two neighbours swapped": lambda w, k: [*w[: k % len(w)], *w[k % len(w) :][:2][::-1], *w[k % len(w) + 2 :]],
    "first and last swapped": lambda w, k: [w[-1], *w[1:-1], w[0]],
    "a word dropped": lambda w, k: w[: k % len(w)] + w[k % len(w) + 1 :],
    "a word repeated": lambda w, k: [*w, w[k % len(w)]],
    "reversed": lambda w, k: w[::-1],
    "usual order": lambda w, k: sorted(w),
    "another word": lambda w, k: [*w[:-1], "zzz"],
    "a letter dropped": lambda w, k: [*w[:-1], w[-1][1:]],
    "capital letters": lambda w, k: [word.title() for word in w],
    "numbered": lambda w, k: [f"{i}. {word}" for i, word in enumerate(w, 1)],
    "quoted": lambda w, k: [f'"{word}"' for word in w],
    "a space inside": lambda w, k: [*w[:-1], w[-1][:1] + " " + w[-1][1:]],
    "a line end before a word": lambda w, k: [*w[:-1], "\n" + w[-1]],
    "a line end inside": lambda w, k: [*w[:-1], w[-1][:1] + "\n" + w[-1][1:]],
}


@settings(max_examples=examples(400), deadline=None)
@given(
    st.integers(0, 40),
    st.sampled_from(LEVELS),
    st.sampled_from([*EDITS]),
    st.sampled_from([",", ", ", "，", " ", "\n", " < ", ",\n", ";"]),
    st.sampled_from([*FORMS]),
    st.integers(0, 99),
)
def test_every_form_of_right_and_wrong_lists_is_judged_as_by_a_naive_checker(seed, level, edit, separator, form, k):
    sample = TASK.generate(seed, TASK.levels[level])
    listed = separator.join(EDITS[edit](naive_order(sample), k))
    for answer in (listed, f"\\boxed{{{listed}}}"):
        text = FORMS[form](answer)
        for mode in ("strict", "official"):
            assert TASK.verify(sample, text, mode) is naive(sample, text, mode), (mode, text)


PUBLISHED = {"words": ["bee", "ant", "zoo"], "sorted_words": ["zoo", "ant", "bee"], "front_letters": "z,q", "order": 1}


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [  # runs of the official verifier
        ("\\boxed{zoo,\nant,\n bee}", True, True),
        ("\\boxed{zoo, an\nt, bee}", False, False),
        ("\\boxed{z oo, ant, bee}", True, True),
        ("\\boxed{\\text{zoo, ant, bee}}", False, False),
        ("\\boxed{zoo, ant, bee} \\boxed{", False, False),
        ("\\boxed{zoo, ant\xa0, bee}", True, True),
        ("zoo, ant, bee", False, True),
        ("```zoo, ant, bee```", False, False),
    ],
)
def test_verdict_on_a_published_record(text, official, strict):
    sample = Sample(task=TASK.name, question="", answer="zoo, ant, bee", meta=PUBLISHED)
    assert TASK.verify(sample, text, "official") is official
    assert TASK.verify(sample, text, "strict") is strict
    assert TASK.solve(sample) == "\\boxed{zoo,ant,bee}"
    assert "zoo, ant, bee" in TASK.show(sample, solved=True)


def test_a_decreasing_published_record_is_the_reverse():
    meta = {**PUBLISHED, "order": -1}
    sample = Sample(task=TASK.name, question="", answer="bee, ant, zoo", meta=meta)
    assert TASK.solve(sample) == "\\boxed{bee,ant,zoo}"


def test_the_front_changes_the_order_of_some_lists():
    samples = [TASK.generate(seed, TASK.levels["normal"]) for seed in range(40)]
    assert sum(naive_order(s) != sorted(s.meta["words"], reverse=s.meta["decreasing"]) for s in samples) > 30
