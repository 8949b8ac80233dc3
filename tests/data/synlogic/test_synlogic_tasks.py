"""Claims about every task: the oracle is right, the wrong answer is wrong, instances are reproducible and small where asked."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.synlogic import TASKS
from data.synlogic.boolean_trees import reduction, render, value
from data.synlogic.dyck_language_errors import first_error

LEVELS = [(name, level) for name, task in TASKS.items() for level in task.levels]
# The short answers of these two are the official ones; the others' are accepted by strict only, see their docstrings.
SHORT_IS_OFFICIAL = {"dyck_language", "dyck_language_errors"}


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_oracle_is_accepted_and_perturbed_answers_are_rejected(name, level):
    task = TASKS[name]
    for seed in range(200):
        compact = task.generate(seed, task.levels[level], "compact")
        english = task.generate(seed, task.levels[level], "english")
        assert (compact.task, compact.level, compact.seed, compact.meta["form"]) == (name, level, seed, "compact")
        short, official = task.solve(compact), task.solve(english)
        assert task.verify(compact, short, "strict")
        assert task.verify(compact, short, "official") is (name in SHORT_IS_OFFICIAL)
        assert task.verify(english, official, "strict")
        assert task.verify(english, official, "official")
        for sample in (compact, english):
            assert not task.verify(sample, task.perturb(sample, seed), "strict")
        # Both forms of a seed are one instance.
        assert {**compact.meta, "form": ""} == {**english.meta, "form": ""}
        json.dumps(compact.meta)


@pytest.mark.parametrize("name", TASKS)
def test_tiny_fits_a_character_level_model_and_has_enough_questions(name):
    task = TASKS[name]
    samples = [task.generate(seed, task.levels["tiny"]) for seed in range(600)]
    assert max(len(sample.question) for sample in samples) <= 40
    assert max(len(task.worked(sample)) + len(task.solve(sample)) for sample in samples) <= 40
    assert len({sample.question for sample in samples}) > 300
    assert all("<" + "think" not in task.worked(sample) for sample in samples)


@pytest.mark.parametrize("name", TASKS)
def test_english_has_three_wordings_and_shows_single_braces(name):
    task = TASKS[name]
    questions = [task.generate(seed, task.levels["easy"], "english").question for seed in range(40)]
    assert len({question[:12] for question in questions}) >= 3
    if not name.startswith("dyck"):  # a bracket sequence may open two of a kind
        assert not any("{{" in question or "{0}" in question for question in questions)


def test_one_seed_gives_one_sample_in_every_process():
    script = (
        "from data.synlogic import TASKS\n"
        "import sys\n"
        "import data.mixture, data.synlogic\n"
        "for name, task in TASKS.items():\n"
        "    for form in ('compact', 'english'):\n"
        "        s = task.generate(11, task.levels['easy'], form)\n"
        "        print(repr((s, task.solve(s), task.worked(s), task.perturb(s, 5))))\n"
        "assert 'jax' not in sys.modules, 'the data package must not import jax'\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(runs[0].splitlines()) == 2 * len(TASKS)


BOMB = "10**10**10"
HOSTILE = {
    "brackets": "(" * 100_000,
    "nested": "(" * 5_000 + "1" + ")" * 5_000,
    "square": "[" * 19_000,
    "rows": '[["X"],' * 2_500,
    "spaces": "[" + " " * 9_000 + "[" + " " * 9_000,
    "boxes": "\\boxed{" * 2_500,
    "texts": "\\boxed{" + "\\text{" * 2_500,
    "fences": "```python" * 2_000,
    "power": BOMB,
    "fenced power": f"```python\n{BOMB}\n```",
    "boxed power": f"[[{BOMB}=1]]",
    "power tower": "```python\n9**9**9**9**9\n```",
    "minus signs": "-" * 19_000 + "1",
    "fenced minus signs": f"```python\n{'-' * 900}1\n```",
    "import": "```python\n__import__('os').system('true')\n```",
    "lines": "```python\nimport os\nos.abort()\n```",
    "null": "\x00" * 100,
    "null in the middle": "([\x00])",
    "unicode digits": "[[١+٢*٣=٧]]",
    "superscripts": "²³",
    "surrogate": "\ud800",
    "digits": "9" * 19_999,
    "tags": "</answer><answer>" * 900,
    "empty": "",
}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_answers_are_rejected_fast(name, kind):
    task = TASKS[name]
    sample = task.generate(0, task.levels["easy"])
    start = time.perf_counter()
    assert task.verify(sample, HOSTILE[kind], "strict") is False
    assert task.verify(sample, HOSTILE[kind], "official") is False
    assert time.perf_counter() - start < 0.5  # 50 ms each on an idle machine; tests run on busy ones


@pytest.mark.parametrize("power", ["9**9**9**9", "(9-9)**(9-9-9)", "(9-99)**(9/9+9999999)"])
def test_official_mathador_survives_powers_of_the_right_numbers(power):
    task = TASKS["mathador"]
    sample = task.generate(0, task.levels["normal"])
    numbers = [int(digits) for digits in re.findall("[0-9]+", power)]
    sample = type(sample)(task="mathador", question="", meta={**sample.meta, "numbers": numbers})
    start = time.perf_counter()
    assert task.verify(sample, f"```python\n{power}\n```", "official") is False
    assert time.perf_counter() - start < 0.5


SAMPLES = [task.generate(0, task.levels[level], "english") for task in TASKS.values() for level in ("tiny", "normal")]
PIECES = st.sampled_from(
    [*"ABX1?0.,/+-*%=()[]{}<>\"' \n\\", "[[", "]]", "\\boxed{", "```python", "```", "**", "//", "-1", "valid"]
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SAMPLES), st.text() | st.lists(PIECES, max_size=40).map("".join))
def test_verify_returns_a_bool_for_any_text(sample, text):
    for mode in ("strict", "official"):
        assert TASKS[sample.task].verify(sample, text, mode) in (True, False)


@given(st.text("()[]{}", max_size=8))
def test_first_error_agrees_with_repeated_removal_of_pairs(text):
    rest = text
    while any(pair in rest for pair in ("()", "[]", "{}")):
        rest = rest.replace("()", "").replace("[]", "").replace("{}", "")
    assert (first_error(text) == -1) is (rest == "")
    assert (first_error(text) == len(text) + 1) is (rest != "" and not set(rest) & set(")]}"))


def test_a_share_of_bracket_strings_is_balanced_as_asked():
    task = TASKS["dyck_language_errors"]
    labels = [task.generate(seed, task.levels["normal"]).meta["is_valid"] for seed in range(400)]
    assert 0.13 < sum(labels) / len(labels) < 0.27  # 0.2 asked, 400 draws: three and a half standard errors


def test_reductions_of_boolean_options_end_in_their_value():
    task = TASKS["boolean_expressions"]
    for seed in range(40):
        for tree in task.generate(seed, task.levels["normal"]).meta["options"]:
            assert reduction(tree)[-1] == str(value(tree))[0]
            python = render(tree, compact=False)
            if '"' not in python:  # facts have no Python value; this text was made here, from numbers and signs only
                assert eval(python) is value(tree)


@pytest.mark.parametrize(
    ("name", "question", "worked", "answer"),
    [
        ("dyck_language", "dyck {}{({}", "{ . { {( {({ {(", "{}{({})}"),
        ("boolean_expressions", "bool A:T&T B:!(9>0) C:T&F", "A:T B:!T=F C:F", "A"),
    ],
)
def test_compact_samples_read_as_documented(name, question, worked, answer):
    task = TASKS[name]
    sample = task.generate(0, task.levels["tiny"])
    assert (sample.question, task.worked(sample), task.solve(sample)) == (question, worked, answer)
