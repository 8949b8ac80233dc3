"""Grid puzzles in the manner of ARC-AGI: find the rule behind pairs of grids (SynLogic, arXiv:2505.19641, task `arc_agi`).

The paper takes this task from public data. Ours are made of the steps in `arc_agi_rules` (mirror, turn, fall, crop, recolour,
fill holes, count objects, ...), one or two in a row; an instance is kept only if all rules of the library that agree with
the examples give the same test output, and no shorter rule agrees. `read_arc` reads the public files. `ArcAgi("arc_agi_2")`
judges the records of the second edition. Compact form: `arc 12/30>21/03 50/06>05/60 70/08` (examples, then the test input)
with the short answer `07/80`; the official answer is a JSON list of rows.

Official: lower-cased, the text after the last "```json" up to the next "```", as JSON or else as a Python literal, equals the
reference as Python compares (1.0 and true equal 1). Strict wants whole numbers, and accepts the short form as well (its one
widening).
"""

import dataclasses
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.synlogic import base, boards, parse
from data.synlogic.arc_agi_rules import Grid, apply_all, library, random_grid, rules_that_agree
from framework.errors import UserError
from framework.sample import Sample

__all__ = ["ArcAgi", "ArcAgiParams", "read_arc"]

_SHORT = re.compile(r"[0-9]{1,30}(?:/[0-9]{1,30}){0,29}")
_DEPTH = 2  # the longest rules that the oracle looks for
_FORMAT = (
    "Give the output grid as a JSON list of rows of integers inside a ```json code block, for example [[0, 1], [2, 0]]."
)
_STEPS = (
    "such as mirroring, turning, moving cells to one side, cropping, repeating, recolouring, filling holes, framing or "
    "counting objects"
)
_ENGLISH = (
    "Grids of colours 0 to 9 (0 is empty). One rule turns every input below into its output; it consists of a few steps "
    + _STEPS
    + ".\n\n{0}\n\nApply the same rule to this test input:\n{1}\n\n"
    + _FORMAT,
    "Study the examples and find the rule that makes each output from its input. Digits are colours, 0 is the background. The "
    "rule is a short sequence of operations "
    + _STEPS
    + ".\n\n{0}\n\nTest input:\n{1}\n\nWhat is its output? "
    + _FORMAT,
    "What happens to the grids here? Work out the transformation (a few steps, "
    + _STEPS
    + ") from these pairs; a digit is a "
    "colour and 0 means nothing:\n\n{0}\n\nThen transform this grid in the same way:\n{1}\n\n" + _FORMAT,
)

_PUBLIC = (
    "One rule turns each input grid below into its output grid. Digits are colours, 0 is mostly the background.\n\n{0}\n\n"
    "Find the rule and apply it to this test input:\n{1}\n\n" + _FORMAT
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArcAgiParams(base.Params):
    steps: tuple[int, ...]  # one is drawn: how many steps the rule has
    sides: tuple[int, int]  # rows and columns of inputs, from and to
    examples: tuple[int, ...] = (3,)  # one is drawn
    colours: int = 3  # how many colours the inputs have


LEVELS: Mapping[str, ArcAgiParams] = {
    "tiny": ArcAgiParams(steps=(1,), sides=(2, 3), examples=(2,), colours=2),
    "easy": ArcAgiParams(steps=(1,), sides=(3, 6), colours=4),
    "normal": ArcAgiParams(steps=(2,), sides=(4, 9), examples=(3, 4), colours=2),
    "hard": ArcAgiParams(steps=(2,), sides=(6, 12), examples=(2, 3, 4), colours=5),
}


@dataclasses.dataclass(frozen=True)
class ArcAgi:
    name: str = "arc_agi"
    measure: str = "rules tried by the oracle (one more step, all steps in a fixed order)"
    json_answer: bool = True
    levels: Mapping[str, ArcAgiParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: ArcAgiParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            if max(params.steps) > _DEPTH:
                raise ValueError(
                    f"arc_agi: steps={params.steps}, but the oracle looks for rules of up to {_DEPTH} steps."
                )
            colours = tuple(sorted(rng.sample(range(1, 10), params.colours)))
            rule = [rng.choice(library(colours)) for _ in range(rng.choice(params.steps))]
            count = rng.choice(params.examples)
            pairs: dict[Grid, Grid] = {}
            for _ in range(4 * count):
                n, m = rng.randint(*params.sides), rng.randint(*params.sides)
                grid = random_grid(rng, n, m, colours)
                output = apply_all(rule, grid)
                if output and output != grid and any(map(any, output)) and max(map(len, (output, output[0]))) <= 20:
                    pairs[grid] = output
                if len(pairs) > count:
                    break
            else:
                return None
            *shown, (test, answer) = pairs.items()
            first = None
            for steps, output, _ in rules_that_agree(shown, test, len(rule)):
                if output != answer or len(steps) < len(rule):
                    return None
                first = first or steps
            if first is None or len({output for _, output in shown}) == 1:
                return None
            train = [{"input": _lists(grid), "output": _lists(output)} for grid, output in shown]
            examples = " ".join(f"{_short(grid)}>{_short(output)}" for grid, output in shown)
            return base.Draft(
                compact=f"arc {examples} {_short(test)}",
                english=tuple(_prompt(wording, train, _lists(test)) for wording in _ENGLISH),
                answer=json.dumps(_lists(answer)),
                meta={"train": train, "test": [{"input": _lists(test)}]},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _found(sample)[1])

    def worked(self, sample: Sample) -> str:
        """The rule, step by step."""
        return ", then ".join(_found(sample)[0])

    def perturb(self, sample: Sample, seed: int) -> str:
        """One cell with another colour, two rows exchanged, or the test input itself."""
        rng = base.rng_for(self.name, "perturb", seed)
        grid = _found(sample)[1]

        def candidates() -> Iterator[str]:
            i, j = rng.randrange(len(grid)), rng.randrange(len(grid[0]))
            row = grid[i][:j] + bytes([(grid[i][j] + rng.randint(1, 9)) % 10]) + grid[i][j + 1 :]
            wrong = [(*grid[:i], row, *grid[i + 1 :]), grid[::-1], _grid(sample.meta["test"][0]["input"])]
            rng.shuffle(wrong)
            yield from (_in_form(sample, candidate) for candidate in wrong)

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        if mode == "strict" and _SHORT.fullmatch(answer.strip()):
            named: Any = [[int(cell) for cell in row] for row in answer.strip().split("/")]
        else:
            text = answer.strip().lower().split("```json")[-1].split("```")[0].strip()
            try:
                named = _value(text)
            except parse.LiteralError:
                return False
            if mode == "strict" and not (isinstance(named, list) and all(map(_whole, named))):
                return False
        return bool(named == json.loads(sample.answer))

    def difficulty(self, sample: Sample) -> float:
        return float(_found(sample)[2])

    def show(self, sample: Sample, solved: bool = False) -> str:
        pairs = [(pair["input"], pair["output"]) for pair in sample.meta["train"]]
        unknown = [["?"]]
        pairs.append((sample.meta["test"][0]["input"], _lists(_found(sample)[1]) if solved else unknown))
        return "\n\n".join(boards.block(_beside(_drawn(left), _drawn(right))) for left, right in pairs)


def read_arc(path: str, name: str = "arc_agi") -> list[Sample]:
    """The tasks of a public ARC file, or of all .json files of a folder: one sample for each test grid.

    Raises:
        UserError: nothing at the path, or a file that is not {"train": [...], "test": [...]} with grids, with its name.
    """
    place = Path(path).expanduser()
    files = sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not files:
        raise UserError(f"The folder {path} holds no .json file. Name the folder with the ARC tasks.")
    samples = []
    for file in files:
        try:
            task = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror}). Check the path.") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file} is not JSON ({error}). An ARC task is one JSON object.") from error
        train, tests = (_pairs(task, part, file) for part in ("train", "test"))
        for k, pair in enumerate(tests):
            samples.append(
                Sample(
                    task=name,
                    question=_prompt(_PUBLIC, train, pair["input"]),
                    answer=json.dumps(pair["output"]),
                    meta={"train": train, "test": [{"input": pair["input"]}], "id": file.stem},
                    level="public",
                    seed=k,
                )
            )
    return samples


def _pairs(task: object, part: str, file: Path) -> list[dict[str, list[list[int]]]]:
    pairs = task.get(part) if isinstance(task, dict) else None
    if not isinstance(pairs, list) or not pairs:
        raise UserError(f'{file} has no list "{part}". An ARC task is {{"train": [...], "test": [...]}}.')
    for k, pair in enumerate(pairs, start=1):
        for side in ("input", "output"):
            grid = pair.get(side) if isinstance(pair, dict) else None
            rows = grid if isinstance(grid, list) else []
            colours = [cell for row in rows if _whole(row) for cell in row]
            rectangular = len({len(row) for row in rows if isinstance(row, list)}) == 1
            if not (rows and all(map(_whole, rows)) and rectangular and colours and set(colours) <= set(range(10))):
                raise UserError(
                    f'{file}: "{side}" of pair {k} of "{part}" is not a grid: equally long rows of colours 0 to 9. '
                    "Mend the file, or leave it out."
                )
    return [{side: pair[side] for side in ("input", "output")} for pair in pairs]


def _whole(row: object) -> bool:
    return isinstance(row, list) and all(type(cell) is int for cell in row)


def _value(text: str) -> Any:
    try:
        return parse.json_value(text)
    except parse.LiteralError:
        return parse.literal(text)


def _found(sample: Sample) -> tuple[list[str], Grid, int]:
    """(names of the steps, test output, rules tried) of the first and shortest rule that agrees with all examples."""
    examples = [(_grid(pair["input"]), _grid(pair["output"])) for pair in sample.meta["train"]]
    test = _grid(sample.meta["test"][0]["input"])
    for depth in range(1, _DEPTH + 1):
        for steps, output, tried in rules_that_agree(examples, test, depth):
            return [step.name for step in steps], output, tried
    raise ValueError(f"arc_agi: no rule of up to {_DEPTH} steps of the library agrees with these examples")


def _grid(rows: Sequence[Sequence[int]]) -> Grid:
    return tuple(map(bytes, rows))


def _lists(grid: Grid) -> list[list[int]]:
    return [list(row) for row in grid]


def _short(grid: Grid) -> str:
    return "/".join("".join(map(str, row)) for row in grid)


def _prompt(wording: str, train: Sequence[Mapping[str, list[list[int]]]], test: list[list[int]]) -> str:
    shown = [
        f"Example {k}\nInput:\n{_rows(pair['input'])}\nOutput:\n{_rows(pair['output'])}"
        for k, pair in enumerate(train, start=1)
    ]
    return wording.format("\n\n".join(shown), _rows(test))


def _rows(grid: Sequence[Sequence[int]]) -> str:
    return "\n".join(" ".join(map(str, row)) for row in grid)


def _drawn(grid: Sequence[Sequence[object]]) -> list[str]:
    return boards.draw([["" if cell == 0 else cell for cell in row] for row in grid]).splitlines()


def _beside(left: Sequence[str], right: Sequence[str]) -> str:
    width = max(map(len, left))
    height = max(len(left), len(right))
    rows = [[*lines, *[""] * (height - len(lines))] for lines in (left, right)]
    return "\n".join(
        f"{a:<{width}}  {'→' if k == 1 else ' '}  {b}".rstrip() for k, (a, b) in enumerate(zip(*rows, strict=True))
    )


def _in_form(sample: Sample, grid: Grid) -> str:
    return _short(grid) if sample.meta.get("form") == "compact" else f"```json\n{json.dumps(_lists(grid))}\n```"
