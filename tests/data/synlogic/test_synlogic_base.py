"""Answer extraction, format and rewards: the check values of the paper's official helper, and text that tries to fool them."""

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.synlogic import TASKS, extract_answer, has_format, official_reward, parse, verifier_reward
from framework.sample import Sample

DYCK = Sample(task="dyck_language", question="dyck ([", answer="([])", meta={"full_sequence": "([])"})
SUM_24 = Sample(
    task="mathador", question="", meta={"numbers": [4, 7, 8, 8], "operators": ["+", "-", "*", "/"], "result": 24}
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think><answer> 5 </answer>", "5"),
        ("<think>a</think>5", ""),
        ("<think><answer>4</answer></think><answer>5</answer>", "5"),
        ("<answer>1</answer><answer>2</answer>", "1"),
        ("<think>a</think> mid </think><answer>9</answer>", ""),
        ("", ""),
        ("<answer>open", ""),
        ("<think>a</think><answer>two\nlines</answer>", "two\nlines"),
    ],
)
def test_extraction_matches_the_official_helper(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("<think>a</think><answer>b</answer>", True),
        (" <think></think>\n <answer></answer>\n", True),
        ("<answer>b</answer>", False),
        ("<think>a</think>", False),
        ("x<think>a</think><answer>b</answer>", False),
        ("<think>a</think>x<answer>b</answer>", False),
        ("<think>a</think><answer>b</answer>x", False),
        ("<answer>b</answer><think>a</think>", False),
        ("<think>a<answer>b</answer></think>", False),
        ("<think>a</think><answer>b</answer><answer>b</answer>", False),
        ("<think><think>a</think><answer>b</answer>", False),
        ("<think>a</think></think><answer>b</answer>", False),
        ("</think>a<think><answer>b</answer>", False),
    ],
)
def test_format_is_one_think_block_then_one_answer_block(text, good):
    assert has_format(text) is good


@pytest.mark.parametrize("reward", [verifier_reward, official_reward])
@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("<think>x</think><answer>([])</answer>", 1.0),
        ("<answer>([])</answer>", 0.0),
        ("([])", 0.0),
        ("<think>x</think><answer>([)]</answer>", 0.0),
        ("", 0.0),
        ("<think><answer>([])</answer></think><answer>()</answer>", 0.0),
    ],
)
def test_reward_is_one_only_for_a_right_answer_in_the_format(reward, response, value):
    assert reward(DYCK, response) == value


def test_official_reward_pays_for_an_expression_that_misses_the_target_and_ours_does_not():
    response = "<think>x</think><answer>```python\n4+7+8+8\n```</answer>"
    assert official_reward(SUM_24, response) == 1.0
    assert verifier_reward(SUM_24, response) == 0.0


def test_reward_of_an_unknown_task_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no SynLogic task 'chess'.*kukurasu"):
        verifier_reward(Sample(task="chess", question=""), "")


@given(st.text())
def test_extraction_and_format_never_raise(text):
    extract_answer(text)
    has_format(text)
    parse.last_box(text)
    parse.last_box_balanced(text)
    parse.last_python_block(text)


def test_boxes_and_fences_take_the_last_one():
    assert parse.last_box(r"\boxed{a} \boxed{b{c}d}") == "b{c"
    assert parse.last_box_balanced(r"\boxed{a} \boxed{b{c}d}") == "b{c}d"
    assert parse.last_box_balanced(r"\boxed{a} \boxed{b{c}d") is None
    assert parse.last_box(r"\boxed{b") is None
    assert parse.last_box("") is None
    assert parse.last_python_block("```python\n1\n``` ```python\n2\n```") == "2"
    assert parse.last_python_block("```python\n1") is None


def test_the_registry_holds_all_tasks_under_their_own_names():
    assert len(TASKS) == 35
    assert all(task.name == name and {"tiny", "easy", "normal"} <= set(task.levels) for name, task in TASKS.items())


def test_an_impossible_setting_is_an_error_that_names_it():
    task = TASKS["kukurasu"]
    params = type(task.levels["tiny"])(sizes=((2, 2),), fill=(0.0,))
    with pytest.raises(ValueError, match=r"kukurasu: no instance in 2000 draws.*fill=\(0.0,\)"):
        task.generate(0, params)
    with pytest.raises(ValueError, match="form='short' is not a question form"):
        task.generate(0, task.levels["tiny"], "short")


@pytest.mark.parametrize(
    "unit",
    ["1,", "1.5,", "'a',", "[1],", "(1,2),", "-1,", "True,", "1,\n", "'' ", "[1]", "[1][0]", "1:1,", "{1:1},", "{}+1,"],
)
@pytest.mark.parametrize("around", ["{}", "[{}]", "(({}))", "{{{}}}"])
def test_a_literal_of_thousands_of_values_is_refused_or_read_at_once(unit, around):
    text = around.format(unit * (19_900 // len(unit)))
    seconds = []
    for _ in range(3):
        start = time.process_time()
        with contextlib.suppress(parse.LiteralError):
            parse.literal(text)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.05


def test_a_literal_may_have_as_many_values_as_the_largest_grid():
    grid = [[9] * 30] * 30
    assert parse.literal(str(grid)) == grid
    assert parse.literal(str([["↗"] * 30] * 30)) == [["↗"] * 30] * 30
    with pytest.raises(parse.LiteralError, match="too many values"):
        parse.literal("1," * 2_501)
