"""Crosswords: laying words out so that every run of letters is one of them, and finding such a layout again.

Helper of `wordscapes` (SynLogic, arXiv:2505.19641). A slot is (row, column, down, length); "across" is down = 0.
"""

import random
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Slot", "cells", "find_layout", "random_layout", "runs"]

Cell = tuple[int, int]
Slot = tuple[int, int, int, int]

_TRIES = 60  # places looked at for each word to lay


def cells(slot: Slot) -> list[Cell]:
    i, j, down, length = slot
    return [(i + k * down, j + k * (1 - down)) for k in range(length)]


def random_layout(
    rng: random.Random, by_letter: Mapping[str, Sequence[tuple[str, int]]], size: int, count: int, crossings: int
) -> list[tuple[str, Slot]] | None:
    """`count` different words in a square; each but the first crosses another, and words that do not cross do not touch.

    `by_letter` has for every letter the words that hold it, with the place of the letter.
    """
    letters: dict[Cell, str] = {}
    used: dict[tuple[Cell, int], None] = {}  # cells that belong to a word of this direction
    placed: list[tuple[str, Slot]] = []
    crossed = 0
    for _ in range(_TRIES * count):
        if len(placed) == count:
            return placed
        if placed:
            i, j = rng.choice(sorted(letters))
            down = rng.randrange(2)
            if ((i, j), down) in used:
                continue
            word, at = rng.choice(by_letter[letters[i, j]])
            slot = (i - at * down, j - at * (1 - down), down, len(word))
        else:
            word = rng.choice(by_letter[rng.choice("aeo")])[0]
            if len(word) > size:
                continue
            slot = (rng.randrange(size), rng.randrange(size - len(word) + 1), 0, len(word))
            if rng.randrange(2):
                slot = (slot[1], slot[0], 1, len(word))
        added = _crossings(letters, used, word, slot, size)
        if added is not None and crossed + added <= crossings and all(word != other for other, _ in placed):
            crossed += added
            placed.append((word, slot))
            letters.update(zip(cells(slot), word, strict=True))
            used.update(dict.fromkeys((cell, slot[2]) for cell in cells(slot)))
    return placed if len(placed) == count else None


def _crossings(
    letters: Mapping[Cell, str], used: Mapping[tuple[Cell, int], None], word: str, slot: Slot, size: int
) -> int | None:
    """How many letters the word shares with others, or None where it does not fit."""
    i, j, down, length = slot
    across = 1 - down
    if min(i, j) < 0 or max(i + (length - 1) * down, j + (length - 1) * across) >= size:
        return None
    if (i - down, j - across) in letters or (i + length * down, j + length * across) in letters:
        return None
    shared = 0
    for (a, b), letter in zip(cells(slot), word, strict=True):
        if (a, b) in letters:
            if letters[a, b] != letter or ((a, b), down) in used:
                return None
            shared += 1
        elif (a + across, b + down) in letters or (a - across, b - down) in letters:
            return None
    return shared


def runs(grid: Sequence[Sequence[str]], blank: str, down: int) -> list[Slot]:
    """The longest runs of at least two cells that are not `blank`, in one direction."""
    lines = list(zip(*grid, strict=True)) if down else grid
    found = []
    for k, line in enumerate(lines):
        start = 0
        for j in range(len(line) + 1):
            if j == len(line) or line[j] == blank:
                if j - start > 1:
                    found.append((start, k, 1, j - start) if down else (k, start, 0, j - start))
                start = j + 1
    return found


def find_layout(
    grid: Sequence[Sequence[str]], across: Sequence[str], down: Sequence[str], limit: int
) -> tuple[list[tuple[str, Slot]] | None, int]:
    """(places of all words that fill every X, words tried); the word with the fewest places goes first.

    First only whole runs are places; in published grids words may also be pieces of runs. None where none was found within
    `limit` words tried.
    """
    words = [(word.lower(), 0) for word in across if word] + [(word.lower(), 1) for word in down if word]
    open_cells = {(i, j) for i, row in enumerate(grid) for j, cell in enumerate(row) if cell == "X"}
    tried = 0
    for whole in (True, False):
        places = [list(_slots(grid, way, len(word), whole)) for word, way in words]

        def visit(letters: dict[Cell, str], taken: dict[int, Slot], places: list[list[Slot]]) -> dict[int, Slot] | None:
            nonlocal tried
            if len(taken) == len(words):
                return taken if len(letters) == len(open_cells) else None
            used = set(taken.values())
            left = {
                k: [slot for slot in places[k] if slot not in used and _fits(letters, words[k][0], slot)]
                for k in range(len(words))
                if k not in taken
            }
            k = min(left, key=lambda k: len(left[k]))
            for slot in left[k]:
                tried += 1
                if tried > limit:
                    return None
                more = {**letters, **dict(zip(cells(slot), words[k][0], strict=True))}
                found = visit(more, {**taken, k: slot}, places)
                if found is not None:
                    return found
            return None

        found = visit({}, {}, places)
        if found is not None:
            return [(words[k][0], found[k]) for k in sorted(found)], tried
    return None, tried


def _slots(grid: Sequence[Sequence[str]], down: int, length: int, whole: bool) -> Iterator[Slot]:
    for i, j, way, longest in runs(grid, "0", down):
        for k in range(longest - length + 1):
            if not whole or longest == length:
                yield (i + k * way, j + k * (1 - way), way, length)


def _fits(letters: Mapping[Cell, str], word: str, slot: Slot) -> bool:
    return all(letters.get(cell, letter) == letter for cell, letter in zip(cells(slot), word, strict=True))
