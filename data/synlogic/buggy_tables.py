"""Buggy tables: repair a table, then compute with it (SynLogic, arXiv:2505.19641, task `buggy_tables`)

A log of a person's days was written by a program with one of seven bugs; the question asks for the absolute difference of a
statistic of two columns over the rows that meet some conditions, with two decimals.
Compact form: `table rotate_rows 3x2: 1 2/4 3/5 6 ? max a-b b>2` (size, rows, query; columns are letters) with the short answer
`1.00`.
The official verifier reduces the reference and the answer to their LAST number with exactly two decimals at a word boundary (or to
the whole text where there is none) and compares the texts, so that `1,234.50` passes for 234.50. The strict one wants a number that
stands alone; it widens nothing.
In the official generator the number of rows, the places of empty cells and the odd last row are told wrongly, and dates depend on
the day of generation; not so here. Tables whose prompt would be too long are drawn again.
"""

import dataclasses
import datetime
import random
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from data.synlogic import base, boards, buggy_tables_query, parse
from data.synlogic import buggy_tables_published as published
from data.synlogic.buggy_tables_bugs import BUGS, FLAT_ONLY, Row, damage, describe, flat, markdown, repair
from data.synlogic.buggy_tables_query import answer_of, difference, is_safe, question_of, selected, spread
from framework.sample import Sample

__all__ = ["BuggyTables", "BuggyTablesParams"]

_MAX_PROMPT = 7_900
_MAX_EXTENDED = 32  # rows of a table with `add_end_row`: the made-up values grow with the square
_RANGES: Mapping[str, tuple[int, int]] = {
    "num_calls": (0, 15),
    "num_meetings": (0, 8),
    "num_tasks_completed": (0, 20),
    "num_emails": (0, 50),
    "num_messages": (0, 200),
    "num_steps": (1_000, 20_000),
    "study_minutes": (0, 360),
    "exercise_minutes": (0, 120),
    "sleep_minutes": (300, 600),
    "coding_minutes": (0, 480),
    "music_listening_minutes": (0, 240),
    "phone_screen_time_minutes": (30, 360),
    "calories_burned": (1_500, 3_500),
    "calories_consumed": (1_200, 3_000),
    "water_intake_ml": (500, 3_000),
}
_TEXTS = ("date", "bed_time", "weekday")
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_FIRST_DAY = datetime.date(2024, 1, 1)
_FORM = (
    "Round to two decimals and always write both of them (such as 42.00 or 0.50). Answer with nothing but this JSON block, with "
    'your number in it:\n```json\n{{"result": [{{"answer": "42.00"}}]}}\n```'
)
_ENGLISH = (
    "Here is a table with {0} rows below its header and {1} columns, written {2}:\n\n{3}\n\n{4}\n\nRepair the table first. {5}\n"
    + _FORM,
    "Someone kept a log. It has {1} columns and {0} rows (the header not counted) and was saved {2}:\n\n{3}\n\n"
    "Something went wrong. {4}\n\nUndo the damage in your head. {5}\n" + _FORM,
    "The following data were exported {2}. There are {1} columns and, besides the header, {0} rows.\n\n{3}\n\n{4}\n\nAnswer this "
    "for the data as they should be. {5}\n" + _FORM,
)
_NUMBER = re.compile(
    r"-?\d+(?:\.\d{2}\b)?"
)  # numbers without two decimals are taken too, or else digits would be read twice
_PART_BEFORE = re.compile(r"(?:[\w.]|[0-9],)\Z", re.ASCII)
_PART_BEHIND = re.compile(r"[.,][0-9]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuggyTablesParams(base.Params):
    """Ranges are (smallest, largest)."""

    rows: tuple[int, int]
    columns: tuple[int, int] = (18, 18)
    names: tuple[str, ...] = (*_TEXTS, *_RANGES)
    rate: tuple[float, float] = (0.05, 0.20)  # share of damaged cells, for `error` and `null`
    conditions: tuple[int, int] = (2, 3)
    statistics: tuple[str, ...] = tuple(buggy_tables_query.STATISTICS)
    bugs: tuple[str, ...] = BUGS
    zeros: float = 0.1  # share of answers 0.00 that are kept


LEVELS: Mapping[str, BuggyTablesParams] = {
    "tiny": BuggyTablesParams(
        rows=(3, 4), columns=(2, 3), names=("num_calls", "num_meetings", "num_tasks_completed"), conditions=(0, 1),
        statistics=("sum", "max", "min"), zeros=0.5,
    ),
    "easy": BuggyTablesParams(rows=(15, 24)),
    "normal": BuggyTablesParams(rows=(25, 40)),
    "hard": BuggyTablesParams(rows=(45, 65), columns=(12, 18), rate=(0.25, 0.35)),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class BuggyTables:
    name: str = "buggy_tables"
    levels: Mapping[str, BuggyTablesParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)
    measure: str = "cells of the repaired table"
    json_answer: bool = False

    def generate(self, seed: int, params: BuggyTablesParams, form: base.Form = "compact") -> Sample:
        return base.emit(self, lambda rng: _draft(rng, params), seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, answer_of(_value(sample)))

    def worked(self, sample: Sample) -> str:
        """The selected values of both columns with their statistic: `a 4 5 sum 9; b 3 sum 3`."""
        parts = []
        query, letters = _query_of(sample), _letters(_columns_of(sample))
        for column, values in zip(query["cols_to_compare"], _selected(sample), strict=True):
            stat = query["stat_type"]
            parts.append(" ".join([letters[column], *map(str, values), stat, spread(stat, values)]))
        return "; ".join(parts)

    def perturb(self, sample: Sample, seed: int) -> str:
        """Another statistic, the statistic of one column only, or a little off."""
        rng = base.rng_for(self.name, "perturb", seed)
        first, second = _selected(sample)
        value = _value(sample)
        values = [difference(stat, first, second) for stat in ("sum", "max", "min", "mean")]
        values += [value + 1, value + Decimal("0.01"), abs(value - 1)]
        rng.shuffle(values)
        return base.first_rejected(self, sample, (_in_form(sample, answer_of(wrong)) for wrong in values))

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        given, truth = _reduced(answer), _reduced(sample.answer)
        if mode == "official":
            return given == truth
        return given == truth and _stands_alone(answer.strip())

    def difficulty(self, sample: Sample) -> float:
        return sample.meta["num_rows"] * len(_columns_of(sample))

    def show(self, sample: Sample, solved: bool = False) -> str:
        meta = sample.meta
        told = f"{meta['bug_description']}\n\n**{question_of(_query_of(sample))}**"
        if not solved:
            table = meta["buggy_table"] if meta["major_type"] == "col" else boards.block(meta["buggy_table"])
            return f"{table}\n\n{told}"
        rows = [["" if cell is None else cell for cell in row] for row in _repaired(sample)]
        return f"{boards.table(_columns_of(sample), rows)}\n\n{told}\n\nAnswer: {answer_of(_value(sample))}"


def _draft(rng: random.Random, params: BuggyTablesParams) -> base.Draft | None:
    bug = rng.choice(params.bugs)
    n, m = rng.randint(*params.rows), rng.randint(*params.columns)
    if bug == "add_end_row":
        n = min(n, _MAX_EXTENDED)
    columns = _columns(rng, params.names, m)
    rows = [[_cell(rng, column) for column in columns] for _ in range(n)]
    rate = round(rng.uniform(*params.rate), 2)
    damaged, affected = damage(rng, bug, rows, rate, lambda j: _cell(rng, columns[j]))
    layout = "row" if bug in FLAT_ONLY else rng.choice(("col", "row"))
    text = markdown(columns, damaged) if layout == "col" else flat(columns, damaged)
    query = _query(rng, params, columns, rows)
    known: list[Row] = [list(row) for row in rows]
    if bug == "null":
        for i, j in affected:
            known[i][j] = None
    value = difference(query["stat_type"], *selected(query, columns, known))
    answer = answer_of(value)
    if not is_safe(value) or (answer == "0.00" and rng.random() >= params.zeros):
        return None
    told, question = describe(bug, affected), question_of(query)
    written = "as a markdown table" if layout == "col" else "as one list, row after row, with the header first"
    english = tuple(frame.format(n, m, written, text, told, question) for frame in _ENGLISH)
    if max(map(len, english)) > _MAX_PROMPT:
        return None
    return base.Draft(
        compact=_compact(bug, columns, n, damaged, affected, query),
        english=english,
        answer=answer,
        meta={
            "num_rows": n,
            "major_type": layout,
            "bug_type": bug,
            "bug_rate": rate if affected else None,
            "queries": [question],
            "buggy_table": text,
            "bug_description": told,
            "columns": columns,
            "affected": affected,
            "query": query,
        },
    )


def _columns(rng: random.Random, names: Sequence[str], count: int) -> list[str]:
    """At least two columns of numbers, in a random order."""
    numbers = rng.sample([name for name in names if name in _RANGES], 2)
    others = rng.sample([name for name in names if name not in numbers], count - 2)
    return rng.sample(numbers + others, count)


def _cell(rng: random.Random, column: str) -> str:
    if column == "date":
        return (_FIRST_DAY + datetime.timedelta(days=rng.randint(0, 365))).isoformat()
    if column == "bed_time":
        return f"{rng.randint(21, 23)}:{rng.randint(0, 59):02}"
    return rng.choice(_WEEKDAYS) if column == "weekday" else str(rng.randint(*_RANGES[column]))


def _query(
    rng: random.Random, params: BuggyTablesParams, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Thresholds are values of the table, so that a condition divides the rows."""
    numeric = [column for column in columns if column in _RANGES]
    conditions = {}
    for column in rng.sample(numeric, min(len(numeric), rng.randint(*params.conditions))):
        values = [int(row[columns.index(column)]) for row in rows]
        op = rng.choice(buggy_tables_query.OPERATORS)
        limits = sorted(rng.sample(values, 2))
        conditions[column] = {"op": op, "value": limits if op == "between" else limits[0]}
    return {
        "cols_to_compare": rng.sample(numeric, 2),
        "stat_type": rng.choice(params.statistics),
        "conditions": conditions,
    }


def _compact(
    bug: str, columns: Sequence[str], n: int, rows: Sequence[Row], affected: Sequence[Any], query: Mapping[str, Any]
) -> str:
    short = ((str(cell).replace(" && ", "&").replace("ERROR", "E") for cell in row if cell is not None) for row in rows)
    between = " " if bug in FLAT_ONLY else "/"
    told = " ".join(f"{place[0]}.{place[1]}" if bug == "null" else str(place) for place in affected)
    body = between.join(" ".join(row) for row in short) + (f" at {told}" if told and bug == "null" else "")
    lost = f" E {told}" if bug == "error" else ""
    asked = buggy_tables_query.short_of(query, _letters(columns))
    return f"table {bug} {n}x{len(columns)}: {body}{lost} ? {asked}"


def _letters(columns: Sequence[str]) -> dict[str, str]:
    return dict(zip(columns, "abcdefghijklmnopqrstuvwxyz", strict=False))


def _repaired(sample: Sample) -> list[Row]:
    """The table as it should be: the bug undone on the written table (published records say what was there before)."""
    meta = sample.meta
    if "query" not in meta:
        return published.rows_of(meta)
    return repair(meta["buggy_table"], meta["bug_type"], meta["num_rows"], len(meta["columns"]), meta["affected"])


def _columns_of(sample: Sample) -> list[str]:
    return list(sample.meta["columns"]) if "columns" in sample.meta else published.columns_of(sample.meta)


def _query_of(sample: Sample) -> Mapping[str, Any]:
    return sample.meta["query"] if "query" in sample.meta else published.query_of(sample.meta)


def _selected(sample: Sample) -> tuple[list[int], list[int]]:
    return selected(_query_of(sample), _columns_of(sample), _repaired(sample))


def _value(sample: Sample) -> Decimal:
    return difference(_query_of(sample)["stat_type"], *_selected(sample))


def _last_number(text: str) -> re.Match[str] | None:
    """The last number with exactly two decimals."""
    found = [match for match in _NUMBER.finditer(text) if "." in match[0]]
    return found[-1] if found else None


def _reduced(text: str) -> str:
    """The last number with exactly two decimals, as it is written; the stripped text where there is none."""
    number = _last_number(text)
    return number[0] if number else text.strip()


def _stands_alone(text: str) -> bool:
    """The last number is one, in ASCII digits, and no part of a longer number or word such as `1,234.50`."""
    number = _last_number(text)
    if number is None or not number[0].isascii():
        return False
    before, behind = text[max(0, number.start() - 2) : number.start()], text[number.end() :]
    return _PART_BEFORE.search(before) is None and _PART_BEHIND.match(behind) is None


def _in_form(sample: Sample, answer: str) -> str:
    if sample.meta.get("form") == "compact":
        return answer
    return f'```json\n{{"result": [{{"answer": "{answer}"}}]}}\n```'
