"""Wordscapes: verdicts by hand, systematic changes judged by rules restated here, and what the generator promises."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import LEVELS, check_all, examples

from data.synlogic.words import WORDS
from data.synlogic.wordscapes import Wordscapes
from framework.sample import Sample

TASK = Wordscapes()
TO = {"grid": [["X", "X"], ["X", "0"]], "across_words": ["to"], "down_words": ["ta"]}
GAP = {"grid": [["X", "0", "X"], ["X", "X", "X"]], "across_words": ["at", "ski"], "down_words": ["as"]}
# A published kind of grid: two words lie side by side, the runs of the columns are no words.
BESIDE = {"grid": [["X", "X", "X"], ["X", "X", "X"]], "across_words": ["cat", "dog"], "down_words": []}
CASES = [
    # meta, answer, official, strict
    (TO, '[["t","o"],["a"," "]]', True, True),  # card, section 37
    (TO, '[["T","O"],["A","0"]]', True, True),  # card, section 37
    (TO, '[["t","o"],["a","x"]]', False, False),  # card, section 37
    (TO, "[[t, o], [a, 0]]", True, True),
    (TO, "[['t', 'o'], ['a', '']]", True, True),
    (TO, '[["t", "o"], ["a", 0]]', True, True),
    (TO, 'Here: ```json\n[\n ["t", "o"],\n ["a", " "]\n]\n```', True, True),
    (TO, '<think>[["x"]]</think>[["t","o"],["a"," "]]', True, True),
    (TO, '[["x","x"],["x"," "]] or [["t","o"],["a"," "]]', False, False),  # the first list counts
    (TO, '[[["t","o"],["a"," "]]]', True, True),
    (TO, '[["t","o"] , ["a"," "]]', False, False),  # rows are split at "],"
    (TO, '[["t","o"],["a"]]', False, False),
    (TO, '[["t","o"]]', False, False),
    (TO, '[["o","t"],["a"," "]]', False, False),
    (TO, '[["t","o"],["b"," "]]', False, False),
    (TO, '(("t","o"),("a"," "))', False, False),
    (TO, "to/a0", False, True),  # the widening of strict
    (TO, "TO/A0\n", False, True),
    (TO, "to/a", False, False),
    (TO, "to a", False, False),
    (TO, '[["st","o"],["a"," "]]', True, False),  # extra letters in a cell
    (TO, '[["to","a"],["ta"," "]]', True, False),
    (TO, '[["t","o!"],["a"," "]]', True, False),
    (TO, "", False, False),
    (TO, "[[]]", False, False),
    (TO, '[["t","o"],["a"," "]]' + " " * 20_000, False, False),  # too long to be an answer
    (GAP, '[["a"," ","t"],["s","k","i"]]', True, False),  # "at" lies across a gap
    (BESIDE, '[["c","a","t"],["d","o","g"]]', True, True),
    (BESIDE, '[["d","o","g"],["c","a","t"]]', True, True),
    (BESIDE, '[["d","o","g"],["c","a","r"]]', False, False),
    ({**BESIDE, "across_words": ["cat", "do"]}, '[["c","a","t"],["d","o","x"]]', True, False),  # a letter of no word
    ({**BESIDE, "across_words": ["cat", "do"], "down_words": ["tx"]}, '[["c","a","t"],["d","o","x"]]', True, True),
    ({**BESIDE, "across_words": ["cat", "cat"]}, '[["c","a","t"],["x","y","z"]]', True, False),  # both have to stand
    ({**BESIDE, "across_words": ["cat", "ca"]}, '[["c","a","t"],["x","y","z"]]', True, False),
    ({**BESIDE, "across_words": ["", "cat"], "down_words": ["tz"]}, '[["c","a","t"],["x","y","z"]]', True, False),
]


@pytest.mark.parametrize(("meta", "answer", "official", "strict"), CASES)
def test_verdicts(meta: dict, answer: str, official: bool, strict: bool):
    sample = Sample(task="wordscapes", question="", meta=meta)
    assert TASK.verify(sample, answer, "official") is official
    assert TASK.verify(sample, answer, "strict") is strict


@pytest.mark.slow
def test_everything_asked_of_a_task():
    check_all(TASK, 20)


def pieces(rows: list[list[str]]) -> list[str]:
    """The stretches of two or more letters, row by row."""
    return [piece.lower() for row in rows for piece in "".join(row).split(" ") if len(piece) > 1]


def right(meta: dict, rows: list[list[str]]) -> bool:
    """Strict for our grids: one letter on each X, and the stretches of letters are the words."""
    if [[cell == " " for cell in row] for row in rows] != [[cell == "0" for cell in row] for row in meta["grid"]]:
        return False
    if any(len(cell) != 1 for row in rows for cell in row):
        return False
    columns = [list(column) for column in zip(*rows, strict=True)]
    return sorted(pieces(rows)) == meta["across_words"] and sorted(pieces(columns)) == meta["down_words"]


def loosely(meta: dict, rows: list[list[str]]) -> bool:
    """The official rule: blanks in place, words somewhere once blanks are gone."""
    if [len(row) for row in rows] != [len(row) for row in meta["grid"]]:
        return False
    for kinds, row in zip(meta["grid"], rows, strict=True):
        for kind, cell in zip(kinds, row, strict=True):
            if (kind == "0") != (cell.strip() == ""):
                return False
    lines = ["".join(row).replace(" ", "").lower() for row in rows]
    columns = ["".join(column).replace(" ", "").lower() for column in zip(*rows, strict=True)]
    return all(any(word in line for line in lines) for word in meta["across_words"]) and all(
        any(word in line for line in columns) for word in meta["down_words"]
    )


Rows = list[list[str]]


def put(rows: Rows, i: int, j: int, cell: str) -> Rows:
    new = [list(row) for row in rows]
    new[i % len(new)][j % len(new[0])] = cell
    return new


CHANGES: dict[str, Callable[[Rows, int, int], Rows]] = {
    "itself": lambda r, i, j: r,
    "a letter changed": lambda r, i, j: put(r, i, j, "q"),
    "a letter gone": lambda r, i, j: put(r, i, j, " "),
    "a cell of two letters": lambda r, i, j: put(r, i, j, r[i % len(r)][j % len(r)] + "s"),
    "letters exchanged": lambda r, i, j: put(put(r, i, j, r[j % len(r)][i % len(r)]), j, i, r[i % len(r)][j % len(r)]),
    "upper case": lambda r, i, j: [[cell.upper() for cell in row] for row in r],
    "transposed": lambda r, i, j: [list(column) for column in zip(*r, strict=True)],
    "mirrored": lambda r, i, j: [row[::-1] for row in r],
    "upside down": lambda r, i, j: r[::-1],
    "a row missing": lambda r, i, j: r[:-1],
    "a row twice": lambda r, i, j: [*r, r[-1]],
    "a column missing": lambda r, i, j: [row[:-1] for row in r],
    "a column more": lambda r, i, j: [[*row, " "] for row in r],
    "rows exchanged": lambda r, i, j: [r[1], r[0], *r[2:]],
    "shifted": lambda r, i, j: [[row[-1], *row[:-1]] for row in r],
    "blanks filled": lambda r, i, j: [["q" if cell == " " else cell for cell in row] for row in r],
    "letters only": lambda r, i, j: [["q" if cell != " " else cell for cell in row] for row in r],
}
# Ways to write it: (text, does official read it, does strict).
TEXTS: dict[str, tuple[Callable[[Rows], str], bool, bool]] = {
    "json": (json.dumps, True, True),
    "single quotes": (str, True, True),
    "zeros": (lambda r: str(r).replace("' '", "0"), True, True),
    "no quotes": (lambda r: str(r).replace("' '", "0").replace("'", ""), True, True),
    "lines": (lambda r: json.dumps(r).replace("], ", "],\n  "), True, True),
    "fence": (lambda r: f"```json\n{json.dumps(r)}\n```", True, True),
    "sentence": (lambda r: f"The grid is {json.dumps(r)}.", True, True),
    "short": (lambda r: "/".join("".join(row) for row in r).replace(" ", "0"), False, True),
    "plain rows": (lambda r: "\n".join(" ".join(row) for row in r), False, False),
    "tuples": (lambda r: str(tuple(map(tuple, r))), False, False),
    "unclosed": (lambda r: json.dumps(r)[:-2], False, False),
    "another before": (lambda r: f'[["q"]] {json.dumps(r)}', False, False),
    "empty": (lambda r: "", False, False),
}


@settings(max_examples=examples(200), deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 300),
    level=st.sampled_from(("tiny", "easy")),
    change=st.sampled_from(sorted(CHANGES)),
    text=st.sampled_from(sorted(TEXTS)),
    i=st.integers(0, 5),
    j=st.integers(0, 5),
)
def test_changed_answers_are_judged_as_the_rules_say(seed: int, level: str, change: str, text: str, i: int, j: int):
    sample = TASK.generate(seed, TASK.levels[level], "english")
    rows = CHANGES[change](json.loads(sample.answer), i, j)
    write, official, strict = TEXTS[text]
    meta = dict(sample.meta)
    if text == "short" and change == "a cell of two letters":  # the short form has one letter for each cell
        strict = False
    assert TASK.verify(sample, write(rows), "official") is (official and loosely(meta, rows))
    assert TASK.verify(sample, write(rows), "strict") is (strict and right(meta, rows))


def test_every_run_of_letters_is_a_word_and_words_are_connected():
    for level in LEVELS:
        for seed in range(15):
            sample = TASK.generate(seed, TASK.levels[level])
            rows = json.loads(sample.answer)
            assert right(dict(sample.meta), rows)
            words = sample.meta["across_words"] + sample.meta["down_words"]
            assert len(set(words)) == len(words)
            assert len(words) in TASK.levels[level].words
            assert set(words) <= set(WORDS)
            letters = {(i, j) for i, row in enumerate(rows) for j, cell in enumerate(row) if cell != " "}
            reached, todo = set(), [min(letters)]
            while todo:
                i, j = todo.pop()
                if (i, j) in letters - reached:
                    reached.add((i, j))
                    todo += [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)]
            assert reached == letters


def test_published_grids_are_solved_from_grid_and_words():
    for meta in (TO, BESIDE, {**BESIDE, "across_words": ["cat", "do"], "down_words": ["tx"]}):
        sample = Sample(task="wordscapes", question="", meta=meta)
        assert TASK.verify(sample, TASK.solve(sample), "official")
        assert TASK.verify(sample, TASK.solve(sample), "strict")
        assert TASK.show(sample, solved=True) != TASK.show(sample)
    with pytest.raises(ValueError, match="no places"):
        TASK.solve(Sample(task="wordscapes", question="", meta=GAP))
