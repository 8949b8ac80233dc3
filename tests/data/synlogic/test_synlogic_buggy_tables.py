"""Buggy tables: the common checks, the published rules as verdicts, and answers recomputed from the prompt with floats."""

import json
import re
import statistics
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import check_all, examples

from data.synlogic.buggy_tables import BuggyTables
from data.synlogic.buggy_tables_bugs import BUGS
from data.synlogic.buggy_tables_query import answer_of, difference, is_safe
from framework.sample import Sample

TASK = BuggyTables()


def record(answer: str) -> Sample:
    return Sample(task="buggy_tables", question="", answer=answer, meta={})


@pytest.mark.slow
def test_buggy_tables_is_a_task():
    check_all(TASK, seeds=15)


VERDICTS = [
    # truth, answer, official, strict: card, section 4
    ("12.30", "12.3", False, False),
    ("12.35", "12.345", False, False),
    ("93.00", "x 93.00 y", True, True),
    ("93.00", "93.00 (tolerance 0.01)", False, False),
    ("93.00", "93.00", True, True),
    ("93.00", " 93.00\n", True, True),
    ("93.00", '```json\n{"result": [{"answer": "93.00"}]}\n```', True, True),
    ("93.00", '```json\n{"result": [{"answer": 93.00}]}\n```', True, True),
    ("93.00", "93", False, False),
    ("93.00", "93.000", False, False),
    ("93.00", "093.00", False, False),
    ("93.00", "-93.00", False, False),
    ("93.00", "12.00 or 93.00", True, True),  # the last one
    ("93.00", "93.00 or 12.00", False, False),
    ("93.00", "93.00 of 100", True, True),
    ("93.00", "$93.00", True, True),
    ("93.00", "93.00%", True, True),
    ("93.00", "93.00.", True, True),
    ("93.00", "93.00x", False, False),
    ("93.00", "答案：93.00", True, True),
    ("93.00", "", False, False),
    ("0.00", "0.00", True, True),
    ("0.00", "-0.00", False, False),
    # parts of other numbers, which strict refuses
    ("93.00", "1,193.00", False, False),
    ("193.00", "1,193.00", True, False),
    ("93.00", "1,93.00", True, False),
    ("93.00", "0.1.93.00", False, False),
    ("93.00", "v93.00", True, False),
    ("93.00", "93.00.5", True, False),
    ("93.00", "93.00,5", True, False),
    ("-93.00", "5-93.00", True, False),
    # a reference without two decimals is compared as a text
    ("93", "93", True, False),
    ("none", " none ", True, False),
    ("", "", True, False),
]


@pytest.mark.parametrize(("truth", "answer", "official", "strict"), VERDICTS, ids=[repr(v[:2]) for v in VERDICTS])
def test_verdict(truth: str, answer: str, official: bool, strict: bool):
    assert TASK.verify(record(truth), answer, "official") is official
    assert TASK.verify(record(truth), answer, "strict") is strict


PERTURBATIONS = {
    "as it is": lambda x: x,
    "json block": lambda x: f'```json\n{{"result": [{{"answer": "{x}"}}]}}\n```',
    "json number": lambda x: f'{{"answer": {x}}}',
    "one cent more": lambda x: str(Decimal(x) + Decimal("0.01")),
    "one more": lambda x: str(Decimal(x) + 1),
    "negative": lambda x: f"-{x}",
    "plus sign": lambda x: f"+{x}",
    "one decimal": lambda x: x[:-1],
    "three decimals": lambda x: x + "0",
    "no decimals": lambda x: x[:-3],
    "comma": lambda x: x.replace(".", ","),
    "leading zero": lambda x: f"0{x}",
    "ten times": lambda x: str(Decimal(x) * 10) + "0",
    "digits reversed": lambda x: x[::-1],
    "spaces": lambda x: f"  {x} ",
    "quotes": lambda x: f'"{x}"',
    "bold": lambda x: f"**{x}**",
    "box": lambda x: rf"\boxed{{{x}}}",
    "unit": lambda x: f"{x} minutes",
    "unit without space": lambda x: f"{x}min",
    "prose before": lambda x: f"The difference is {x}",
    "full stop": lambda x: f"It is {x}.",
    "equation": lambda x: f"7.00 - 1.00 = {x}",
    "other number after": lambda x: f"{x}, not 5.25",
    "other number before": lambda x: f"not 5.25 but {x}",
    "whole number after": lambda x: f"{x} (5 rows)",
    "thousands": lambda x: f"7,{x}",
    "glued to a word": lambda x: f"x{x}",
    "version": lambda x: f"{x}.1",
    "exponent": lambda x: f"{x}e0",
    "words": lambda x: "zero",
    "empty": lambda x: "",
}


def plain_verdict(text: str, truth: str, strict: bool) -> bool:
    """The rule restated for a truth with two decimals: the last such number of the text, compared as text."""
    numbers = list(re.finditer(r"-?\d+\.\d\d(?!\w)", text))
    if not numbers or numbers[-1][0] != truth:
        return False
    before, behind = text[: numbers[-1].start()], text[numbers[-1].end() :]
    part = re.search(r"([A-Za-z0-9_.]|[0-9],)$", before) or re.match(r"[.,][0-9]", behind)
    return not (strict and part)


@settings(max_examples=examples(25), deadline=None)
@given(seed=st.integers(0, 10_000), level=st.sampled_from(("tiny", "easy")))
def test_every_kind_of_change_is_judged_as_the_rule_says(seed: int, level: str):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    for kind, change in PERTURBATIONS.items():
        text = change(sample.answer)
        assert TASK.verify(sample, text, "official") is plain_verdict(text, sample.answer, strict=False), kind
        assert TASK.verify(sample, text, "strict") is plain_verdict(text, sample.answer, strict=True), kind


def turned(values: list[str], places: int) -> list[str]:
    for _ in range(places):
        values = [*values[1:], values[0]]
    return values


def repaired(question: str) -> tuple[list[str], list[list[str | None]]]:
    """Header and rows, from the words of the prompt alone."""
    sizes = re.search(r"(\d+) rows", question) or re.search(r"besides the header, (\d+)", question)
    columns_told = re.search(r"(\d+) columns", question)
    assert sizes
    assert columns_told
    n, m = int(sizes[1]), int(columns_told[1])
    table = question.split("\n\n")[1]
    told = question.split("\n\n")[2]
    if table.startswith("| "):
        head, _, *lines = [line[2:-2].split(" | ") for line in table.splitlines()]
        cells = [cell for line in lines for cell in line]
    else:
        values = table[1:-1].split(", ")
        head, cells = values[:m], values[m:]
    assert len(head) == m
    if "left out empty cells" in told:
        empty = {(int(i), int(j)) for i, j in re.findall(r"\((\d+), (\d+)\)", told)}
        return head, [[None if (i, j) in empty else cells.pop(0) for j in range(m)] for i in range(n)]
    if "appended made-up values to the rows" in told:
        lines = []
        for i in range(n):
            lines.append(cells[:m])
            cells = cells[m + i :]
        assert cells == []
        return head, lines
    if "appended made-up values to the columns" in told:
        assert len(cells) == n * m + m * (m - 1) // 2
        cells = cells[: n * m]
    rows = [cells[i : i + m] for i in range(0, len(cells), m)]
    if "ERROR" in told:
        lost = told.split("are: ")[1].removesuffix(".").split(", ")
        columns = [[lost.pop(0) if cell == "ERROR" else cell for cell in column] for column in zip(*rows, strict=True)]
        assert lost == []
        rows = [list(row) for row in zip(*columns, strict=True)]
    elif "joined rows" in told:
        rows = [list(part) for row in rows for part in zip(*(cell.split(" && ") for cell in row), strict=True)]
    elif "values of each column down" in told:
        columns = [turned(list(column), i) for i, column in enumerate(zip(*rows, strict=True))]
        rows = [list(row) for row in zip(*columns, strict=True)]
    elif "values of each row to the right" in told:
        rows = [turned(row, i) for i, row in enumerate(rows)]
    assert len(rows) == n
    return head, [list(row) for row in rows]


STATISTICS = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "sum": sum,
    "maximum": max,
    "minimum": min,
    "sample standard deviation": statistics.stdev,
    "sample variance": statistics.variance,
}
HOLDS = {
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def answer_from(question: str) -> str:
    head, rows = repaired(question)
    asked = question.split("\n\n")[3]
    if "Take all rows" not in asked:
        told = asked.split("rows with ")[1].split(". What is")[0]
        for column, low, high in re.findall(r"(\w+) between (\d+) and (\d+)", told):
            at = head.index(column)
            rows = [row for row in rows if row[at] is not None and int(low) <= int(row[at] or 0) <= int(high)]
        for column, op, value in re.findall(r"(\w+) ([<>=!]+) (\d+)", told):
            at = head.index(column)
            rows = [row for row in rows if row[at] is not None and HOLDS[op](int(row[at] or 0), int(value))]
    stat = re.search(r"difference between the (.*?)(?: \(.*?\))? of (\w+) and the .*? of (\w+)\?", asked)
    assert stat
    compared = [[int(v) for row in rows if (v := row[head.index(column)]) is not None] for column in stat.groups()[1:]]
    if min(map(len, compared)) < (2 if "sample" in stat[1] else 1):
        return "0.00"
    first, second = (STATISTICS[stat[1]](values) for values in compared)
    return f"{abs(first - second):.2f}"


@pytest.mark.parametrize("level", ["tiny", "easy", "normal", "hard"])
def test_the_answer_follows_from_the_prompt(level: str):
    seen: Counter[str] = Counter()
    for seed in range(35):
        sample = TASK.generate(seed, TASK.levels[level], "english")
        assert answer_from(sample.question) == sample.answer, (seed, sample.meta["bug_type"])
        assert f"```json\n{json.dumps({'result': [{'answer': '42.00'}]})}\n```" in sample.question
        seen[sample.meta["bug_type"]] += 1
    assert set(seen) == set(BUGS)


def test_few_answers_are_zero():
    samples = [TASK.generate(seed, TASK.levels["easy"]) for seed in range(150)]
    assert 0 < sum(sample.answer == "0.00" for sample in samples) <= 20


def test_statistics_by_hand():
    first, second = [1, 2, 4], [10, 20]
    by_hand = {
        "mean": "12.67",  # 15 - 7/3
        "median": "13.00",
        "sum": "23.00",
        "max": "16.00",
        "min": "9.00",
        "variance": "47.67",  # 50 - 7/3
        "stdev": "5.54",  # 7.0711 - 1.5275
    }
    for stat, want in by_hand.items():
        assert answer_of(difference(stat, first, second)) == want
    assert answer_of(difference("stdev", [5], second)) == "0.00"
    assert answer_of(difference("max", [], second)) == "0.00"


def test_values_on_a_rounding_boundary_are_not_asked_for():
    assert not is_safe(Decimal("0.125"))
    assert not is_safe(Decimal("0.1250009"))
    assert is_safe(Decimal("0.125002"))
    assert is_safe(Decimal("0.12"))


def test_published_records_can_be_solved():
    meta = {
        "bug_type": "null",
        "bug_description": "Nothing was at: [(0, 1), (2, 2)].",
        "original_table": [
            {"day": "Mon", "num_calls": 9, "num_emails": 4},
            {"day": "Tue", "num_calls": 3, "num_emails": 1},
            {"day": "Wed", "num_calls": 5, "num_emails": 30},
            {"day": "Thu", "num_calls": 1, "num_emails": 40},
        ],
        "query_result": {
            "conditions": ["num_calls between [3, 9]"],  # Tuesday and Wednesday, of which one email count is left
            "columns_compared": ["num_calls", "num_emails"],
            "statistic": "sum",
        },
    }
    sample = Sample(task="buggy_tables", question="", answer="7.00", meta=meta)
    assert TASK.verify(sample, TASK.solve(sample), "official")
    sample = Sample(task="buggy_tables", question="", answer="18.00", meta={**meta, "bug_type": "error"})
    assert TASK.verify(sample, TASK.solve(sample), "official")  # 9+3+5 and 4+1+30: the damage does not count
