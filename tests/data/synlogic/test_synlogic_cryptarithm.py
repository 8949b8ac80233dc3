"""Cryptarithm: verdicts by hand, systematic changes judged by rules restated here, and what the generator promises."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import LEVELS, check_all, examples

from data.synlogic.cryptarithm import Cryptarithm, CryptarithmParams
from framework.sample import Sample

TASK = Cryptarithm()
MORE = Sample(
    task="cryptarithm",
    question="",
    answer="9567 + 1085 = 10652",
    meta={"letter_words": ["SEND", "MORE", "MONEY"], "operators": ["+"]},
)
CASES = [
    # answer, official, strict; the rules are those of card section 8
    ("The answer is 9567 + 1085 = 10652", True, True),
    ("9567+1085=10652", True, True),
    ("9567 +1085= 10652.", True, True),
    ("**9567 + 1085 = 10652**", True, True),
    (r"\boxed{9567 + 1085 = 10652}", True, True),
    ("- 9567 + 1085 = 10652", True, True),  # an item of a list
    ("答案是9567 + 1085 = 10652", True, True),
    ("SEND + MORE = MONEY means 9567 + 1085 = 10652", True, True),
    ("3 + 4 = 7, so 9567 + 1085 = 10652", True, True),
    ("9567 + 1085 = 10652, check: 7 + 5 = 12", False, False),  # the last equation counts
    ("1085 + 9567 = 10652", False, False),  # the order counts
    ("9567 + 1085\n= 10652", False, False),  # only spaces are taken out
    ("9567 + 1085 = -10652", False, False),
    ("9567 + 1085", False, False),
    ("9567 + 1085 = 10653", False, False),
    ("10652 = 9567 + 1085", False, False),
    ("9567 plus 1085 = 10652", False, False),
    ("S9 E5 N6 D7", False, False),
    ("9,567 + 1,085 = 10,652", False, False),
    ("９567 + 1085 = 10652", False, False),
    ("The answer is\n- 9567 + 1085 = 10652", True, True),  # a list
    ("x - 9567 + 1085 = 10652", True, False),
    ("9567 + 1085 = 10652 + 1", True, False),  # pieces of something longer
    ("9567 + 1085 = 10652 = 10652", True, False),
    ("9567 + 1085 = 10652.5", True, False),
    ("0.9567 + 1085 = 10652", True, False),
    ("5 / 9567 + 1085 = 10652", True, False),
    ("2 - 9567 + 1085 = 10652", False, False),
    ("9567 + 1085 = 10652\n9567 + 1085 = 10652", True, True),
    ("", False, False),
    ("9567 + 1085 = 10652" + " " * 20_000, False, False),  # too long to be an answer
]


@pytest.mark.parametrize(("answer", "official", "strict"), CASES)
def test_verdicts(answer: str, official: bool, strict: bool):
    assert TASK.verify(MORE, answer, "official") is official
    assert TASK.verify(MORE, answer, "strict") is strict


@pytest.mark.slow
def test_everything_asked_of_a_task():
    check_all(TASK, 12)


def last_chain(text: str) -> str:
    """The last equation, found letter by letter: numbers, operators and spaces before "=", then a number."""
    found, i = "", 0
    while i < len(text):
        j = text.find("=", i)
        if j < 0:
            break
        start = j
        while start > i and (text[start - 1].isdigit() or text[start - 1] in "+-* "):
            start -= 1
        end = j + 1
        while end < len(text) and text[end] == " ":
            end += 1
        end += text[end : end + 1] == "-"
        while end < len(text) and text[end].isdigit():
            end += 1
        left, right = text[start:j].strip(" +-*"), text[j + 1 : end].strip()
        if (
            right.lstrip("-").isdigit()
            and any(sign in left for sign in "+-*")
            and text[start:j].rstrip()[-1:].isdigit()
        ):
            found = f"{left}={right}".replace(" ", "")
            i = end
        else:
            i = j + 1
    return found


def turned(numbers: list[int], i: int, j: int) -> list[int]:
    text = ",".join(map(str, numbers))
    a, b = text[i % len(text)], text[j % len(text)]
    return [int(part) for part in text.translate({ord(a): b, ord(b): a}).split(",")] if "," not in a + b else numbers


NUMBERS: dict[str, Callable[[list[int], int, int], list[int]]] = {
    "itself": lambda n, i, j: n,
    "result off by one": lambda n, i, j: [*n[:-1], n[-1] + 1],
    "operand off by one": lambda n, i, j: [n[0] + 1, *n[1:]],
    "both off by one": lambda n, i, j: [n[0] + 1, *n[1:-1], n[-1] + 1],
    "operands exchanged": lambda n, i, j: [n[1], n[0], *n[2:]],
    "result first": lambda n, i, j: [n[-1], *n[:-1]],
    "two digits exchanged": turned,
    "an operand twice": lambda n, i, j: [n[0], *n[1:-1], n[0]],
    "ten times": lambda n, i, j: [10 * k for k in n],
    "digits reversed": lambda n, i, j: [int(str(k)[::-1]) for k in n],
    "zero": lambda n, i, j: [0 for _ in n],
}
# Ways to write it: (text of numbers and operators, does official read it, does strict).
TEXTS: dict[str, tuple[Callable[[str], str], bool]] = {
    "plain": (lambda t: t, True),
    "sentence": (lambda t: f"The answer is {t}", True),
    "upper case": (lambda t: f"THE ANSWER IS: {t}", True),
    "chinese": (lambda t: f"答案是：{t}。", True),
    "full stop": (lambda t: f"{t}.", True),
    "no spaces": (lambda t: t.replace(" ", ""), True),
    "more spaces": (lambda t: t.replace(" ", "   "), True),
    "fence": (lambda t: f"```\n{t}\n```", True),
    "quotes": (lambda t: f'"{t}"', True),
    "after another": (lambda t: f"1 + 1 = 2 and {t}", True),
    "before another": (lambda t: f"{t} and 1 + 1 = 2", False),
    "cut": (lambda t: t[: t.index("=")], False),
    "result on a new line": (lambda t: t.replace("= ", "=\n"), False),
    "letters in it": (lambda t: t.replace("=", "is"), False),
    "two equals signs": (lambda t: t.replace("=", "=="), False),
    "decimal": (lambda t: t.replace("= ", "= 0."), False),
    "empty": (lambda t: "", False),
}


@settings(max_examples=examples(200), deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 300),
    level=st.sampled_from(("tiny", "easy", "normal")),
    change=st.sampled_from(sorted(NUMBERS)),
    text=st.sampled_from(sorted(TEXTS)),
    i=st.integers(0, 40),
    j=st.integers(0, 40),
)
def test_changed_answers_are_judged_as_the_rules_say(seed: int, level: str, change: str, text: str, i: int, j: int):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    parts = sample.answer.split(" ")
    numbers = NUMBERS[change]([int(part) for part in parts[::2]], i, j)
    write, read = TEXTS[text]
    shown = " ".join(itertools.chain(*zip(map(str, numbers), [*parts[1::2], ""], strict=True))).strip()
    answer = write(shown)
    good = read and shown == sample.answer
    if text != "result on a new line":
        assert good == (last_chain(answer) == sample.answer.replace(" ", "")), answer
    assert TASK.verify(sample, answer, "official") is good
    assert TASK.verify(sample, answer, "strict") is good


def assignments(words: list[str], operators: list[str]) -> list[dict[str, str]]:
    letters = sorted(set("".join(words)))
    found = []
    for digits in itertools.permutations("0123456789", len(letters)):
        table = dict(zip(letters, digits, strict=True))
        numbers = ["".join(table[letter] for letter in word) for word in words]
        if any(len(number) > 1 and number[0] == "0" for number in numbers):
            continue
        left = [int(number) for number in numbers[:-1]]
        total = left[0]
        if operators == ["*"]:
            total *= left[1]
        else:
            for sign, number in zip(operators, left[1:], strict=True):
                total += number if sign == "+" else -number
        if total == int(numbers[-1]):
            found.append(table)
    return found


@pytest.mark.parametrize("level", ["tiny", "easy", "normal"])
def test_exactly_one_solution_by_brute_force(level: str):
    for seed in range(8):
        sample = TASK.generate(seed, TASK.levels[level])
        words, operators = sample.meta["letter_words"], sample.meta["operators"]
        (table,) = assignments(words, operators)
        numbers = ["".join(table[letter] for letter in word) for word in words]
        assert TASK.verify(sample, TASK.solve(sample), "strict")
        assert sample.answer.replace(" ", "").replace("=", "+").replace("-", "+").split("+") == numbers


def test_products_have_one_solution_too():
    params = CryptarithmParams(letters=(3, 4), operators="*", lengths=(2, 3), short=0.0)
    for seed in range(4):
        sample = TASK.generate(seed, params)
        assert sample.level == "custom"
        assert len(assignments(sample.meta["letter_words"], sample.meta["operators"])) == 1
        assert TASK.verify(sample, TASK.solve(sample), "official")


def test_products_come_before_sums():
    sample = Sample(
        task="cryptarithm",
        question="",
        answer="2 + 3 * 4 = 14",
        meta={"letter_words": ["A", "B", "C", "DC"], "operators": ["+", "*"]},
    )
    assert TASK.verify(sample, "2 + 3 * 4 = 14")
    assert not TASK.verify(sample, "5 * 4 = 20")


def test_send_more_money_is_solved_from_the_words_alone():
    assert TASK.solve(MORE) == "The answer is 9567 + 1085 = 10652"
    assert TASK.worked(MORE) == "D7 E5 M1 N6 O0 R8 S9 Y2"
    with pytest.raises(ValueError, match="no digits"):
        TASK.solve(Sample(task="cryptarithm", question="", meta={"letter_words": ["AA", "A", "A"], "operators": ["+"]}))


def test_levels_have_the_letters_and_operators_they_name():
    for level in LEVELS[:3]:
        params = TASK.levels[level]
        samples = [TASK.generate(seed, params) for seed in range(40)]
        assert {sample.meta["num_letter"] for sample in samples} == set(params.letters)
        assert {sample.meta["operator_num"] for sample in samples} == set(params.operations)
        for sample in samples:
            assert len(set("".join(sample.meta["letter_words"]))) == sample.meta["num_letter"]
