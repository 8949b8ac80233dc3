"""Claims about all tasks together: the same samples everywhere, hostile text refused in time. Each has its own file as well."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import (
    HOSTILE,
    LEVELS,
    check_hostile,
    check_oracles,
    check_tiny,
    digest,
    examples,
)

from data.synlogic import TASKS, VERIFIERS
from data.synlogic.boolean_trees import reduction, render, value
from data.synlogic.dyck_language_errors import first_error
from framework.sample import Sample

SPINE = (
    "dyck_language",
    "dyck_language_errors",
    "boolean_expressions",
    "math_path",
    "word_sorting",
    "kukurasu",
    "mathador",
)
DIGESTS = json.loads((Path(__file__).parent / "digests.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_thousand_seeds_of_three_levels_have_an_accepted_oracle(name):
    for level in ("easy", "normal", "hard"):
        check_oracles(name, level, 1_000)


@pytest.mark.parametrize("name", SPINE)
def test_tiny_fits_a_character_level_model_and_has_enough_questions(name):
    check_tiny(TASKS[name], chars=40)


@pytest.mark.parametrize("name", TASKS)
def test_samples_are_those_of_every_process_and_python_version(name):
    # Committed, so that a change of any generator, oracle or wording shows. To accept one, run task_checks.py of this folder.
    assert {level: digest(TASKS[name], level) for level in LEVELS} == DIGESTS[name]


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


@pytest.mark.parametrize("name", VERIFIERS)
def test_hostile_answers_are_rejected_fast(name):
    # The other verifiers judge data of others; the truth of an easy text is enough to aim at.
    task = TASKS.get(name)
    sample = (
        task.generate(0, task.levels["easy"], "english") if task else Sample(task=name, question="", answer="[[1]]")
    )
    for kind in HOSTILE:
        check_hostile(VERIFIERS[name], sample, kind)


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


@settings(max_examples=examples(60), deadline=None)
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
