"""`maypole data calibrate`: which settings a model can learn from, of the verdicts on a weak and on a strong model."""

import argparse
import collections
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.cli_records import json_lines
from framework.cli_paths import check_file
from framework.errors import UserError

__all__ = ["calibrate_command"]

Counts = dict[tuple[str, str], tuple[int, ...]]

_EPILOG = """WEAK and STRONG are what `maypole data verify --out` wrote for the same records, with several responses to each.

example:
  maypole data verify grid --responses weak.jsonl --out weak-verdicts.jsonl
  maypole data verify grid --responses strong.jsonl --out strong-verdicts.jsonl
  maypole data calibrate --weak weak-verdicts.jsonl --strong strong-verdicts.jsonl --out calibration.json"""


def calibrate_command(argv: Sequence[str]) -> int:
    """Print a table of all settings, and which of them are learnable."""
    parser = argparse.ArgumentParser(
        prog="maypole data calibrate",
        description="Which (task, level) settings can be learnt: pass@k of the strong model above 0, and a pass rate of the weak "
        "one above 0 and at most --max-weak (SynLogic, arXiv:2505.19641, section 2).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--weak", type=Path, required=True, metavar="JSONL", help="verdicts on the weak model")
    parser.add_argument("--strong", type=Path, required=True, metavar="JSONL", help="verdicts on the strong model")
    parser.add_argument("--k", type=int, help="of pass@k (default: 10, or the responses to a record if they are fewer)")
    parser.add_argument(
        "--max-weak", type=float, default=0.5, help="highest pass rate of the weak model (default: 0.5)"
    )
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the calibration, for PassRateSchedule, here")
    options = parser.parse_args(argv)
    if options.out is not None:
        check_file(options.out, "--out", "calibration.json")
    if not 0.0 < options.max_weak <= 1.0:
        raise UserError(f"--max-weak {options.max_weak} is not a pass rate. Use a number above 0, up to 1.")
    from data.synlogic.calibrate import calibrate

    (weak, samples, asked), (strong, others, also) = _counts(options.weak), _counts(options.strong)
    if samples != others or asked != also:
        raise UserError(
            f"{options.weak} and {options.strong} do not judge the same records: {_summary(weak, samples)} against "
            f"{_summary(strong, others)}. Ask both models the same questions, as often."
        )
    k = min(10, samples) if options.k is None else options.k
    if not 1 <= k <= samples:
        raise UserError(f"--k {k} cannot be estimated from {samples} responses a record. Use 1 to {samples}.")
    found = calibrate(weak, strong, samples=samples, k=k, max_weak=options.max_weak)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found.to_json(), indent=1) + "\n", encoding="utf-8")
    print(found.table())
    learnable = found.tasks("learnable")
    print(f"{len(learnable)} of {len(found.cells)} settings are learnable.")
    if learnable:
        print(f"data=SynLogic(tasks={learnable!r})")
    return 0


def _counts(path: Path) -> tuple[Counts, int, dict[tuple[str, str], list[int]]]:
    """(right responses to each record, by setting; responses to each record; numbers of the records, by setting)."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file. Write it with maypole data verify ... --out {path}")
    right: dict[tuple[str, str], dict[int, list[float]]] = collections.defaultdict(
        lambda: collections.defaultdict(list)
    )
    for number, row in enumerate(json_lines(path), start=1):
        where = f"{path}:{number}"
        missing = [name for name in ("index", "task", "level", "reward") if name not in row]
        if missing:
            raise UserError(
                f"{where} has no {', '.join(missing)}, so it is no verdict. Write the file with maypole data verify --out."
            )
        right[str(row["task"]), str(row["level"])][_int(row["index"], where)].append(_number(row["reward"], where))
    tries = {len(rewards) for records in right.values() for rewards in records.values()}
    if len(tries) != 1:
        given = f"{min(tries)} to {max(tries)} responses to a record" if tries else "no verdicts"
        raise UserError(f"{path} has {given}. Give every record the same number of responses, such as 10.")
    counts = {
        pair: tuple(sum(reward > 0 for reward in records[index]) for index in sorted(records))
        for pair, records in sorted(right.items())
    }
    return counts, tries.pop(), {pair: sorted(records) for pair, records in right.items()}


def _int(value: Any, where: str) -> int:
    if not isinstance(value, int):
        raise UserError(f"{where}: index is {value!r:.40}, not the number of a record.")
    return value


def _number(value: Any, where: str) -> float:
    if not isinstance(value, int | float):
        raise UserError(f"{where}: reward is {value!r:.40}, not a number.")
    return float(value)


def _summary(counts: Counts, samples: int) -> str:
    return f"{sum(map(len, counts.values()))} records of {len(counts)} settings, {samples} responses each"
