"""Survo: place given numbers so that the sums of rows and columns hold (SynLogic, arXiv:2505.19641, task `survo`).

The last row and the last column of a square matrix are sums; some inner cells are hidden, and the given numbers fill them, each
used once. Any filling that fits is right. Compact form: `survo X 2 3/4 X 9/5 7 12|1,5` (rows, then the numbers) with the short
answer `1,5`: the hidden cells in reading order. Official: the last ```python block, else the last fence, else the last
`[[...]]` of the text, read as JSON (single quotes count as double ones), so that 1.0 and true are also ones. Strict wants
whole numbers, and accepts the short form as well (its one widening).
"""

import collections
import dataclasses
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.synlogic import base, boards, parse
from framework.sample import Sample

__all__ = ["Survo", "SurvoParams"]

_FENCE = re.compile(r"```(.*?)```", re.DOTALL)
_OPEN, _CLOSE = re.compile(r"\[\s*\["), re.compile(r"\]\s*\]")
_SHORT = re.compile(r"[0-9]{1,9}(?:, ?[0-9]{1,9}){0,399}")
_MAX_PLACEMENTS = 20_000  # a draw whose oracle needs more is dropped
_FORMAT = (
    "Write the whole matrix, sums included, in a ```python block as a list of rows: [[1, 2, 3], [4, 5, 9], [5, 7, 12]]."
)
_ENGLISH = (
    "Survo puzzle with {0} rows and {0} columns:\n{1}\nEach number in the last column is the sum of the other numbers of its "
    "row, each number in the last row the sum of the other numbers of its column. Replace every X by one of the numbers {2}; "
    "use each of them exactly once.\n" + _FORMAT,
    "Put the numbers {2} into the cells marked X of this {0} x {0} matrix, every number once:\n{1}\nIn the end, every row but "
    "the last must add up to its last entry, and every column but the last must add up to its bottom entry.\n"
    + _FORMAT,
    "A table of {0} x {0} numbers has lost some entries (X):\n{1}\nThe right-most entry of a row is the total of the entries "
    "before it; the lowest entry of a column is the total of the entries above it. The lost entries are, in some order, {2}. "
    "Restore the table.\n" + _FORMAT,
)

Matrix = list[list[int]]
Cell = tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SurvoParams(base.Params):
    sizes: tuple[tuple[int, int, int], ...]  # one is drawn: rows with the one of the sums, least and most hidden cells
    max_value: int = 9


LEVELS: Mapping[str, SurvoParams] = {
    "tiny": SurvoParams(sizes=((3, 2, 3),)),
    "easy": SurvoParams(sizes=((4, 3, 6),)),
    "normal": SurvoParams(sizes=tuple((n, n, 2 * (n - 1)) for n in range(4, 9))),
    "hard": SurvoParams(sizes=((8, 16, 20), (9, 16, 20))),
}


@dataclasses.dataclass(frozen=True)
class Survo:
    name: str = "survo"
    measure: str = "placements of the oracle (numbers tried until the first filling)"
    json_answer: bool = False
    levels: Mapping[str, SurvoParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: SurvoParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            n, least, most = rng.choice(params.sizes)
            full = _with_sums([[rng.randint(1, params.max_value) for _ in range(n - 1)] for _ in range(n - 1)])
            cells = [(i, j) for i in range(n - 1) for j in range(n - 1)]
            hidden = rng.sample(cells, rng.randint(least, most))
            candidates = [full[i][j] for i, j in hidden]
            matrix = [[0 if (i, j) in hidden else full[i][j] for j in range(n)] for i in range(n)]
            if _search(matrix, candidates, _MAX_PLACEMENTS)[0] is None:
                return None
            board = "\n".join(" ".join(str(value or "X") for value in row) for row in matrix)
            numbers = ",".join(map(str, candidates))
            return base.Draft(
                compact=f"survo {board.replace(chr(10), '/')}|{numbers}",
                english=tuple(text.format(n, board, numbers.replace(",", ", ")) for text in _ENGLISH),
                answer="",
                meta={"original_matrix": matrix, "candidate_numbers": candidates, "n": n, "x": len(candidates)},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _solution(sample))

    def worked(self, sample: Sample) -> str:
        """Each row with hidden cells: its sum without the known cells, and what fills the rest, `7=5+2`."""
        steps = []
        for row, filled in zip(sample.meta["original_matrix"], _solution(sample), strict=True):
            placed = [value for known, value in zip(row, filled, strict=True) if known == 0]
            if placed:
                steps.append(f"{sum(placed)}={'+'.join(map(str, placed))}")
        return " ".join(steps)

    def perturb(self, sample: Sample, seed: int) -> str:
        """Two numbers swapped, or one changed."""
        rng = base.rng_for(self.name, "perturb", seed)
        right = _solution(sample)
        hidden = _hidden(sample.meta["original_matrix"])

        def candidates() -> Iterator[str]:
            for _ in range(20):
                wrong = [list(row) for row in right]
                (a, b), (c, d) = rng.choice(hidden), rng.choice(hidden)
                wrong[a][b], wrong[c][d] = wrong[c][d], wrong[a][b]
                yield _in_form(sample, wrong)
            wrong = [list(row) for row in right]
            a, b = rng.choice(hidden)
            wrong[a][b] += 1
            yield _in_form(sample, wrong)

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        original = sample.meta["original_matrix"]
        if mode == "strict" and _SHORT.fullmatch(answer.strip()):
            values, hidden = answer.strip().split(","), _hidden(original)
            if len(values) != len(hidden):
                return False
            matrix: Any = [list(row) for row in original]
            for (i, j), value in zip(hidden, values, strict=True):
                matrix[i][j] = int(value)
        else:
            matrix = _read(answer)
        kind = (int,) if mode == "strict" else (int, float, bool)  # numpy's arrays hold any of these as numbers
        if not isinstance(matrix, list) or len(matrix) != len(original):
            return False
        for row, known in zip(matrix, original, strict=True):
            if not isinstance(row, list) or len(row) != len(known) or any(type(value) not in kind for value in row):
                return False
        return _fits(original, matrix, sample.meta["candidate_numbers"], sample.meta["n"])

    def difficulty(self, sample: Sample) -> float:
        meta = sample.meta
        return float(_search(meta["original_matrix"], meta["candidate_numbers"], 10 * _MAX_PLACEMENTS)[1])

    def show(self, sample: Sample, solved: bool = False) -> str:
        matrix = _solution(sample) if solved else sample.meta["original_matrix"]
        cells = [[value or "" for value in row[:-1]] for row in matrix[:-1]]
        board = boards.draw(cells, right=[row[-1] for row in matrix[:-1]], bottom=matrix[-1][:-1])
        numbers = ", ".join(map(str, sample.meta["candidate_numbers"]))
        return boards.block(board) + f"\n\nNumbers to place: {numbers}"


def _read(text: str) -> Any:
    block = parse.last_python_block(text)
    if block is None:
        fences = _FENCE.findall(text)
        block = fences[-1] if fences else _last_matrix(text)
    try:
        return parse.json_value(block.strip().replace("'", '"'))
    except parse.LiteralError:
        return None


def _last_matrix(text: str) -> str:
    """The last of the `[[...]]` that follow one another; each half is looked for once, so the scan is linear."""
    found, pos = "", 0
    while (start := _OPEN.search(text, pos)) and (end := _CLOSE.search(text, start.end())):
        found, pos = text[start.start() : end.end()], end.end()
    return found


def _fits(original: Matrix, matrix: list[list[Any]], candidates: Sequence[int], n: int) -> bool:
    cells = [(i, j) for i in range(n) for j in range(n)]
    if any(original[i][j] not in (0, matrix[i][j]) for i, j in cells):
        return False
    filled = sorted(matrix[i][j] for i, j in cells if original[i][j] == 0)
    if filled != sorted(candidates):
        return False
    rows = all(sum(matrix[i][: n - 1]) == matrix[i][n - 1] for i in range(n - 1))
    return rows and all(sum(matrix[i][j] for i in range(n - 1)) == matrix[n - 1][j] for j in range(n - 1))


def _with_sums(inner: Matrix) -> Matrix:
    rows = [[*row, sum(row)] for row in inner]
    return [*rows, [sum(column) for column in zip(*rows, strict=True)]]


def _hidden(matrix: Matrix) -> list[Cell]:
    return [(i, j) for i, row in enumerate(matrix) for j, value in enumerate(row) if value == 0]


def _solution(sample: Sample) -> Matrix:
    """The first filling that the search finds: it follows from the question alone."""
    meta = sample.meta
    matrix = _search(meta["original_matrix"], meta["candidate_numbers"], 100 * _MAX_PLACEMENTS)[0]
    if matrix is None:
        raise ValueError(f"survo: no filling found for {meta['original_matrix']} with {meta['candidate_numbers']}")
    return matrix


def _search(original: Matrix, candidates: Sequence[int], most: int) -> tuple[Matrix | None, int]:
    """(the first filling, numbers tried). Works on the row or column with the fewest hidden cells; gives up after `most`."""
    matrix = [list(row) for row in original]
    n = len(matrix)
    left = collections.Counter(candidates)
    lines = [[(i, j) for j in range(n - 1)] for i in range(n - 1)] + [
        [(i, j) for i in range(n - 1)] for j in range(n - 1)
    ]
    totals = [matrix[i][n - 1] for i in range(n - 1)] + [matrix[n - 1][j] for j in range(n - 1)]
    tried = 0

    def fill() -> bool:
        nonlocal tried
        best: tuple[int, list[Cell], int] | None = None
        pool = sorted(left.elements())
        for line, total in zip(lines, totals, strict=True):
            gaps = [(i, j) for i, j in line if matrix[i][j] == 0]
            rest = total - sum(matrix[i][j] for i, j in line)
            k = len(gaps)
            if k == 0:
                if rest:
                    return False
                continue
            if not sum(pool[:k]) <= rest <= sum(pool[-k:]):
                return False
            if best is None or k < best[0]:
                best = k, gaps, rest
        if best is None:
            return True
        k, gaps, rest = best
        i, j = gaps[0]
        for value in [rest] if k == 1 else list(dict.fromkeys(pool)):
            if left[value] and tried < most:
                tried += 1
                left[value] -= 1
                matrix[i][j] = value
                if fill():
                    return True
                matrix[i][j] = 0
                left[value] += 1
        return False

    return (matrix if fill() else None), tried


def _in_form(sample: Sample, matrix: Matrix) -> str:
    if sample.meta.get("form") == "compact":
        return ",".join(str(matrix[i][j]) for i, j in _hidden(sample.meta["original_matrix"]))
    return "```python\n" + str(matrix) + "\n```"
