"""Wordscapes: fill a crossword grid with given words (SynLogic, arXiv:2505.19641, task `wordscapes`).

Compact form: `cross XXX/X00/X00|ant|arm` (grid, words across, words down) with the short answer `ant/r00/m00`; the official
answer is a list of rows of letters with " " where the grid has 0. In the official grids words may touch side by side, so that
runs of letters arise which are no word; in ours every run of two or more letters, across and down, is exactly one given word.

Official: the first `[[...]]`, read loosely (quotes optional; 0 and "" are blanks); blanks exactly where the grid has 0; every
word is in some row or column once blanks are taken out, so words may lie across gaps, cells may hold several letters, and the
rest may be anything. Strict wants one letter in every X, the words as whole runs (in published grids, whose runs differ from
the words, as pieces of runs that cover every letter), and accepts the short form as well (its one widening).
"""

import dataclasses
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence

from data.synlogic import base, boards, parse
from data.synlogic.words import WORDS
from data.synlogic.wordscapes_layout import Slot, cells, find_layout, random_layout, runs
from framework.sample import Sample

__all__ = ["Wordscapes", "WordscapesParams"]

_OPEN, _CLOSE = re.compile(r"\[\s*\["), re.compile(r"\]\s*\]")
_GRID = re.compile(r"\[\s*\[(?:\s*\[)?(.+?)(?:\]\s*)?\]\s*\]", re.DOTALL)
_ROWS = re.compile(r"\],\s*\[")
_CELLS = re.compile(r"\"([^\"]*)\"|'([^']*)'|([^,\s]+)")
_SHORT = re.compile(r"[A-Za-z0]{1,30}(?:/[A-Za-z0]{1,30}){0,29}")
_LIMIT = 20_000  # words tried by the oracle
_BY_LETTER = {
    letter: [(word, k) for word in WORDS for k, char in enumerate(word) if char == letter]
    for letter in "abcdefghijklmnopqrstuvwxyz"
}
_FORMAT = (
    'Answer with all rows as a list of lists of letters, and " " for each 0, for example [["i", "t"], ["s", " "]].'
)
_ENGLISH = (
    "Crossword without clues. Put the words across ({0}) from left to right and the words down ({1}) from top to bottom into the "
    "grid, one letter on each X; 0 stays empty. Each word is used once, and letters next to each other always belong to one of "
    "these words.\n{2}\n" + _FORMAT,
    "Fill the X cells with letters so that the rows hold the words {0} and the columns hold the words {1}. Every word stands "
    "once, words share the letter where they cross, no other letter sequences arise, and 0 cells stay blank.\nThe grid:\n{2}\n"
    + _FORMAT,
    "Here is an empty grid (X = letter, 0 = blank):\n{2}\nPlace across: {0}. Place down: {1}. Use every word once, in its "
    "direction; each stretch of neighbouring letters must be exactly one of the words.\n" + _FORMAT,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordscapesParams(base.Params):
    sizes: tuple[int, ...]  # one is drawn: the grid is square
    words: tuple[int, ...]  # one is drawn: how many words
    crossings: int = 10  # at most so many letters are shared


LEVELS: Mapping[str, WordscapesParams] = {
    "tiny": WordscapesParams(sizes=(3, 4), words=(2,)),
    "easy": WordscapesParams(sizes=(5, 6), words=(4, 5)),
    "normal": WordscapesParams(sizes=(7, 8), words=(6, 7, 8)),
    "hard": WordscapesParams(sizes=(11, 12), words=(12, 13), crossings=20),
}


@dataclasses.dataclass(frozen=True)
class Wordscapes:
    name: str = "wordscapes"
    measure: str = "words tried by the oracle (the word with the fewest places first)"
    json_answer: bool = True
    levels: Mapping[str, WordscapesParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: WordscapesParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            size = rng.choice(params.sizes)
            placed = random_layout(rng, _BY_LETTER, size, rng.choice(params.words), params.crossings)
            if placed is None:
                return None
            solution = _filled([["0"] * size for _ in range(size)], placed)
            grid = [["0" if cell == " " else "X" for cell in row] for row in solution]
            across, down = (sorted(word for word, slot in placed if slot[2] == way) for way in (0, 1))
            if not across or not down:
                return None
            text = "\n".join(" ".join(row) for row in grid)
            return base.Draft(
                compact=f"cross {'/'.join(''.join(row) for row in grid)}|{','.join(across)}|{','.join(down)}",
                english=tuple(wording.format(", ".join(across), ", ".join(down), text) for wording in _ENGLISH),
                answer=json.dumps(solution),
                meta={"grid": grid, "across_words": across, "down_words": down},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _filled(sample.meta["grid"], _layout(sample)))

    def worked(self, sample: Sample) -> str:
        """Each word with its direction and its first cell, counted from 1: `ant>1,1 arm^1,1` (`^`: from the top)."""
        return " ".join(f"{word}{'>^'[down]}{i + 1},{j + 1}" for word, (i, j, down, _) in _layout(sample))

    def perturb(self, sample: Sample, seed: int) -> str:
        """One letter changed, or two letters exchanged."""
        rng = base.rng_for(self.name, "perturb", seed)
        solution = _filled(sample.meta["grid"], _layout(sample))
        letters = [(i, j) for i, row in enumerate(solution) for j, cell in enumerate(row) if cell != " "]

        def candidates() -> Iterator[str]:
            for _ in range(30):
                changed = [list(row) for row in solution]
                (i, j), (a, b) = rng.choice(letters), rng.choice(letters)
                changed[i][j], changed[a][b] = changed[a][b], changed[i][j]
                if rng.random() < 0.5:
                    changed[i][j] = rng.choice("abcdefghijklmnopqrstuvwxyz")
                yield _in_form(sample, changed)

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        if mode == "strict" and _SHORT.fullmatch(answer.strip()):
            rows = [[" " if char == "0" else char for char in row] for row in answer.strip().split("/")]
        else:
            rows = _read(answer)
        grid, across, down = (sample.meta[key] for key in ("grid", "across_words", "down_words"))
        if [len(row) for row in rows] != [len(row) for row in grid]:
            return False
        kinds = [
            (kind, cell) for line, row in zip(grid, rows, strict=True) for kind, cell in zip(line, row, strict=True)
        ]
        if any((kind == "0" and cell.strip()) or (kind == "X" and not cell.strip()) for kind, cell in kinds):
            return False
        if mode == "strict":
            return all(len(cell) == 1 and cell.isalpha() for kind, cell in kinds if kind == "X") and _whole(
                grid, rows, across, down
            )
        columns = [[row[j] for row in rows if j < len(row)] for j in range(len(rows[0]))] if rows else []
        return _hidden(across, rows) and _hidden(down, columns)

    def difficulty(self, sample: Sample) -> float:
        meta = sample.meta
        return float(find_layout(meta["grid"], meta["across_words"], meta["down_words"], _LIMIT)[1])

    def show(self, sample: Sample, solved: bool = False) -> str:
        rows = sample.meta["grid"]
        if solved:
            rows = _filled(rows, _layout(sample))
        marks = [["" if cell == "X" else "■" if cell in ("0", " ") else cell for cell in row] for row in rows]
        words = [f"{way}: {', '.join(sample.meta[f'{way}_words'])}" for way in ("across", "down")]
        return boards.block("\n".join([boards.draw(marks), *words]))


def _read(text: str) -> list[list[str]]:
    """The rows that the official verifier reads; [] for none."""
    if "<think>" in text and "</think>" in text:
        text = text.rpartition("</think>")[2]
    start = _OPEN.search(text)
    # Without an end there is no match, however many starts there are; `match` at the first start then has to find it.
    if start is None or not _CLOSE.search(text, start.end() + 1):
        return []
    found = _GRID.match(text, start.start())
    rows = []
    for row in _ROWS.split(found[1]) if found else []:
        matches = _CELLS.findall(row.strip().strip("[],"))
        values = [next((value for value in match if value), "") for match in matches]
        if values:
            rows.append([" " if value in ("0", "") else value for value in values])
    return rows


def _hidden(words: Sequence[str], lines: Sequence[Sequence[str]]) -> bool:
    """Every word is a piece of some line without its spaces: the official rule."""
    texts = ["".join(line).replace(" ", "").lower() for line in lines]
    return all(any(word.lower() in text for text in texts) for word in words)


def _whole(
    grid: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], across: Sequence[str], down: Sequence[str]
) -> bool:
    """The words are the runs; where their lengths differ from those of the runs, pieces of runs that cover every letter."""
    wanted = [sorted(word.lower() for word in words if word) for words in (across, down)]
    slots = [runs(grid, "0", way) for way in (0, 1)]
    lengths = [sorted(slot[3] for slot in side) for side in slots]
    if lengths == [sorted(map(len, words)) for words in wanted]:
        return wanted == [sorted(_text(rows, slot) for slot in side) for side in slots]
    covered: set[tuple[int, int]] = set()
    for words, side in zip(wanted, slots, strict=True):
        for word in words:
            places = [
                (i + k * way, j + k * (1 - way), way, len(word))
                for i, j, way, length in side
                for k in range(length - len(word) + 1)
            ]
            places = [slot for slot in places if _text(rows, slot) == word]
            if len(places) < words.count(word):
                return False
            covered.update(cell for slot in places for cell in cells(slot))
    return all((i, j) in covered for i, row in enumerate(grid) for j, cell in enumerate(row) if cell == "X")


def _text(rows: Sequence[Sequence[str]], slot: Slot) -> str:
    return "".join(rows[i][j] for i, j in cells(slot)).lower()


def _layout(sample: Sample) -> list[tuple[str, Slot]]:
    meta = sample.meta
    found, _ = find_layout(meta["grid"], meta["across_words"], meta["down_words"], _LIMIT)
    if found is None:
        raise ValueError("wordscapes: the oracle found no places for these words")
    return found


def _filled(grid: Sequence[Sequence[str]], placed: Sequence[tuple[str, Slot]]) -> list[list[str]]:
    rows = [[" "] * len(row) for row in grid]
    for word, slot in placed:
        for (i, j), letter in zip(cells(slot), word, strict=True):
            rows[i][j] = letter
    return rows


def _in_form(sample: Sample, rows: Sequence[Sequence[str]]) -> str:
    if sample.meta.get("form") == "compact":
        return "/".join("".join(row).replace(" ", "0") for row in rows)
    return json.dumps([list(row) for row in rows])
