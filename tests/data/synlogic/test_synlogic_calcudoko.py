"""Calcudoko (SynLogic, arXiv:2505.19641): verdicts, perturbations against a checker of its own, cages and the solution count."""

import itertools
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import check_all, examples
from test_synlogic_skyscraper_puzzle import ALL_SQUARES, grid_perturbations

from data.synlogic.calcudoko import Calcudoko, CalcudokoParams
from framework.sample import Sample

TASK = Calcudoko()
CARD = {
    "grid_size": 2,
    "regions": [
        {"cells": ["(1,1)", "(1,2)"], "target": 1, "operator": "-"},
        {"cells": ["(2,1)", "(2,2)"], "target": 2, "operator": "÷"},
    ],
}
CASES = [
    # answer, official, strict
    ("[[1 2,2 1]]", True, True),  # card
    ("1 2,2 1", True, False),  # card: official takes the whole text where there are no brackets
    ("[[1 2],[2 1]]", False, False),  # card: only the first row is between the brackets
    ("nothing", False, False),  # card
    ("[[2 1,1 2]]", True, True),
    ("[[1 2,2 1]] or [[1 1,1 1]]", True, True),  # the first one counts
    ("[[1 1,1 1]] or [[1 2,2 1]]", False, False),
    ("[[1 2,\n2 1]]", True, False),  # not on one line: the whole text is read
    ("[[1 2,\n2 1]] [[2 1,1 2]]", True, True),
    ("```python\n1 2,2 1\n```", True, False),
    ("[[ 1 2 , 2 1 ]]", True, True),
    ("[[1 2,2]]", True, False),  # a short row is padded with 1
    ("[[1 2 9,2 1 9]]", True, False),  # a long one is cut
    ("[[1 2,2 1,9 9]]", True, False),  # surplus rows too
    ("[[1 2]]", False, False),  # a missing row is all 1
    ("[[a1 b2,c2 d1]]", True, False),  # letters are dropped
    ("[[1. 2.,2. 1.]]", True, False),
    ("[[-1 -2,-2 -1]]", True, False),
    ("[[12,21]]", False, False),
    ("[[1,2],[2,1]]", False, False),
    ("[[1 2，2 1]]", False, False),
    ("[[0,0]] Row 1: 1 2\nRow 2: 2 1", True, False),  # named rows help where a row is short
    ("[[0,0]] Row 1: 1 2", False, False),
    ("[[0,0]] 第1行：1 2\n第2行：2 1", True, False),
    ("[[0 0,0 0]] Row 1: 1 2\nRow 2: 2 1", False, False),
    ("[[0,²]]", False, False),
    ("12/21", False, True),  # the widening of strict
    ("12/12", False, False),
    ("[[]]", False, False),
    ("", False, False),
]


@pytest.mark.slow
def test_every_rule_holds_for_this_task():
    check_all(TASK, seeds=2)


@pytest.mark.parametrize(("answer", "official", "strict"), CASES)
def test_verdict(answer, official, strict):
    sample = Sample(task="calcudoko", question="", meta=CARD)
    assert TASK.verify(sample, answer, "official") is official
    assert TASK.verify(sample, answer, "strict") is strict


@pytest.mark.parametrize(
    ("cells", "target", "operator", "verdict"),
    [
        (["(1,1)", "(2,1)"], 3, "+", True),
        (["(1,1)", "(2,2)"], 2, "+", False),  # the cage repeats a number
        (["(1,1)", "(2,1)"], 2, "*", True),
        (["(2,1)", "(1,1)"], 1, "-", True),
        (["(1,1)", "(2,1)"], -1, "-", True),
        (["(1,1)", "(2,1)"], 0.5, "÷", True),
        (["(1,1)", "(2,1)"], 2.0005, "÷", True),
        (["(1,1)", "(2,1)"], 2, "/", True),  # whatever is none of the three divides
        (["(1,1)"], 1, "-", False),  # - and ÷ need two cells
        (["(1,1)"], 1, "+", True),
        (["(1,3)"], 1, "+", False),  # outside of the grid
        (["(0,1)"], 1, "+", False),
        (["1,1"], 1, "+", False),
    ],
)
def test_cage_rules(cells, target, operator, verdict):
    meta = {"grid_size": 2, "regions": [{"cells": cells, "target": target, "operator": operator}]}
    sample = Sample(task="calcudoko", question="", meta=meta)
    for mode in ("official", "strict"):
        assert TASK.verify(sample, "[[1 2,2 1]]", mode) is verdict


def right_square(meta: dict, grid: object) -> bool:
    """The rules once more."""
    n = meta["grid_size"]
    if not isinstance(grid, list) or [len(row) for row in grid] != [n] * n:
        return False
    if any(sorted(line) != list(range(1, n + 1)) for line in [*grid, *([row[j] for row in grid] for j in range(n))]):
        return False
    for region in meta["regions"]:
        cells = [[int(part) for part in cell.strip("()").split(",")] for cell in region["cells"]]
        numbers = sorted(grid[i - 1][j - 1] for i, j in cells)
        if any(a == b for a, b in itertools.combinations(numbers, 2)):
            return False
        results = {"+": sum(numbers), "*": math.prod(numbers), "-": numbers[-1] - numbers[0]}
        results["÷"] = numbers[-1] / numbers[0]
        if results[region["operator"]] != region["target"]:
            return False
    return True


def written(grid: list) -> str:
    return "[[" + ",".join(" ".join(map(str, row)) for row in grid) + "]]"


def official_reading(grid: list, n: int) -> list:
    rows = [([abs(value) for value in row] + [1] * n)[:n] for row in grid]
    return (rows + [[1] * n] * n)[:n]


@settings(max_examples=examples(30), deadline=None)
@given(st.sampled_from(["tiny", "easy", "normal"]), st.integers(0, 10_000), st.integers(0, 10_000))
def test_perturbed_answers_are_judged_by_the_rules(level, seed, pick):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    meta, n = dict(sample.meta), sample.meta["grid_size"]
    right = [[int(word) for word in row.split()] for row in sample.answer[2:-2].split(",")]
    plain = written(right)
    texts: dict[str, tuple[str, object, object]] = {}  # kind -> (text, what strict reads, what official reads)
    for kind, grid in grid_perturbations(right, pick).items():
        texts[kind] = (written(grid), grid, official_reading(grid, n))
    texts |= {
        "prose": (f"It is {plain}, see [1]", right, right),
        "fence": (f"```python\n{plain}\n```", right, right),
        "lines": (plain.replace(",", ",\n"), None, right),
        "bare": (plain[2:-2], None, right),
        "JSON": (json.dumps(right), None, official_reading([[value] for value in right[0]], n)),
        "decimals": (plain.replace("1", "1.0"), None, None),
        "words": (plain.replace(",", ", then "), None, right),
        "no spaces": (plain.replace(" ", ""), None, None),
        "short form": ("/".join("".join(map(str, row)) for row in right), right, None),
        "quoted": (f'"{plain}"', right, right),
        "semicolons": (plain.replace(",", ";"), None, None),
        "trailing comma": (plain.replace("]]", ",]]"), None, right),
        "empty": ("", None, None),
    }
    for kind, (text, strict, official) in texts.items():
        assert TASK.verify(sample, text, "strict") is right_square(meta, strict), kind
        assert TASK.verify(sample, text, "official") is right_square(meta, official), kind


def test_cages_are_connected_exact_and_cover_the_grid_once():
    for params in TASK.levels.values():
        for seed in range(8):
            sample = TASK.generate(seed, params, "english")
            assert TASK.verify(sample, sample.answer, "strict")
            assert TASK.verify(sample, sample.answer, "official")
            n = sample.meta["grid_size"]
            covered = []
            for region in sample.meta["regions"]:
                assert 2 <= len(region["cells"]) <= 4
                assert (len(region["cells"]) == 2) is (region["operator"] in "-÷")
                assert type(region["target"]) is int
                assert region["target"] >= 1
                cells = {tuple(map(int, re.findall(r"\d+", cell))) for cell in region["cells"]}
                covered += cells
                reached = {min(cells)}
                for _ in cells:
                    reached |= {c for c in cells for r in reached if abs(c[0] - r[0]) + abs(c[1] - r[1]) == 1}
                assert reached == cells
            assert sorted(covered) == [(i, j) for i in range(1, n + 1) for j in range(1, n + 1)]


@pytest.mark.parametrize("unique", [False, True])
def test_unique_is_what_a_count_over_all_squares_says(unique):
    counts = []
    for seed in range(8):
        sample = TASK.generate(seed, CalcudokoParams(sizes=(4,), unique=unique))
        counts.append(sum(right_square(dict(sample.meta), grid) for grid in ALL_SQUARES[4]))
    assert min(counts) >= 1
    assert (max(counts) == 1) is unique


def test_cages_without_a_solution_are_an_error_of_the_oracle():
    regions = [{"cells": ["(1,1)", "(1,2)"], "target": 9, "operator": "+"}]
    with pytest.raises(ValueError, match="no square"):
        TASK.solve(Sample(task="calcudoko", question="", meta={"grid_size": 2, "regions": regions}))
    with pytest.raises(ValueError, match="larger than"):
        TASK.solve(Sample(task="calcudoko", question="", meta={"grid_size": 9, "regions": regions}))


@pytest.mark.parametrize("mode", ["official", "strict"])
def test_a_grid_size_without_sense_costs_nothing(mode):
    sample = Sample(task="calcudoko", question="", meta={"grid_size": 10**30, "regions": []})
    assert not Calcudoko().verify(sample, "[[1 2,2 1]]", mode)
