"""Instances and verdicts per second on one core, and what `difficulty` measures, for every SynLogic task and level.

    python benchmarks/synlogic.py --out benchmarks/results/synlogic.json --page docs/synlogic.md
    python benchmarks/synlogic.py --tasks kukurasu,sudoku --instances 20

Generation counts everything that `maypole data synlogic` does to one instance: drawing, wording, the oracle and its check. A
verdict is one call of `verify`, half of them strict and half official, on right and on wrong answers in turn. CPU seconds of
this process, which other loads on the machine disturb less than wall seconds. With --page the table of the docs is written anew.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from _environment import describe, publish

from data.synlogic import TASKS
from data.synlogic.boards import table

LEVELS = ("easy", "normal", "hard")
MEASURED = ("data/synlogic", "benchmarks/synlogic.py")
START, END = "<!-- rates -->\n", "<!-- end of rates -->"


def measure(name: str, level: str, instances: int, seconds: float) -> dict[str, float]:
    """At least `instances` instances, and as many more as `seconds` allow."""
    task = TASKS[name]
    params = task.levels[level]
    samples = []
    began = time.process_time()
    while len(samples) < instances or (time.process_time() - began < seconds and len(samples) < 20 * instances):
        samples.append(task.generate(len(samples), params, "english"))
    generated = time.process_time() - began
    judged = [
        (sample, text) for i, sample in enumerate(samples) for text in (task.solve(sample), task.perturb(sample, i))
    ]
    verdicts = 0
    began = time.process_time()
    while (spent := time.process_time() - began) < seconds / 2 or not verdicts:
        for sample, text in judged:
            task.verify(sample, text, "strict")
            task.verify(sample, text, "official")
        verdicts += 2 * len(judged)
    return {
        "instances": len(samples),
        "instances_per_s": round(len(samples) / generated, 1),
        "verdicts_per_s": round(verdicts / spent, 1),
        "difficulty_median": statistics.median(task.difficulty(sample) for sample in samples[:100]),
        "prompt_chars_median": statistics.median(len(sample.question) for sample in samples),
    }


def summary(tasks: dict[str, dict[str, dict[str, float]]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for level in LEVELS:
        made = {name: levels[level]["instances_per_s"] for name, levels in tasks.items()}
        judged = {name: levels[level]["verdicts_per_s"] for name, levels in tasks.items()}
        out[level] = {
            "instances_per_s_median": statistics.median(made.values()),
            "instances_per_s_lowest": min((rate, name) for name, rate in made.items()),
            "verdicts_per_s_median": statistics.median(judged.values()),
            "verdicts_per_s_lowest": min((rate, name) for name, rate in judged.items()),
        }
    return out


def markdown(result: dict[str, Any]) -> str:
    """The table of the docs page."""
    rows = []
    for name, levels in result["tasks"].items():
        rates = [f"{levels[level]['instances_per_s']:,.0f}" for level in LEVELS]
        judged = f"{min(levels[level]['verdicts_per_s'] for level in LEVELS):,.0f}"
        hard = " / ".join(f"{levels[level]['difficulty_median']:,.4g}" for level in LEVELS)
        rows.append([f"`{name}`", *rates, judged, f"{TASKS[name].measure}: {hard}"])
    easy = result["summary"]["easy"]
    rows.append(
        [
            "median",
            *(f"{result['summary'][level]['instances_per_s_median']:,.0f}" for level in LEVELS),
            f"{easy['verdicts_per_s_median']:,.0f}",
            "",
        ]
    )
    head = [
        "task",
        *(f"{level}, instances/s" for level in LEVELS),
        "verdicts/s (slowest level; median: easy)",
        "difficulty, median of easy / normal / hard",
    ]
    return (
        f"One core of {result['hardware']['cpu']}, {result['date'][:10]}, by `python benchmarks/synlogic.py`.\n\n"
        + table(head, rows)
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="all", help="names separated by commas (default: all)")
    parser.add_argument("--instances", type=int, default=40, help="of a task and level, at least (default: 40)")
    parser.add_argument("--seconds", type=float, default=1.0, help="to generate for, of a task and level (default: 1)")
    parser.add_argument("--out", type=Path, help="write JSON here as well")
    parser.add_argument("--page", type=Path, help="docs page whose table of rates is written anew")
    args = parser.parse_args()
    names = list(TASKS) if args.tasks == "all" else args.tasks.split(",")
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        parser.error(f"there is no task {unknown[0]!r}. See: maypole data tasks")
    if args.page and START not in args.page.read_text(encoding="utf-8"):  # said before the minutes of measuring
        parser.error(f"{args.page} has no place for the table between {START.strip()} and {END}.")
    result = describe("SynLogic generators and verifiers", MEASURED)
    tasks = {name: {level: measure(name, level, args.instances, args.seconds) for level in LEVELS} for name in names}
    result |= {"tasks": tasks, "summary": summary(tasks)}
    publish(result, args.out)
    if args.page:
        head, _, rest = args.page.read_text(encoding="utf-8").partition(START)
        _, end, tail = rest.partition(END)
        if not end:
            parser.error(f"{args.page} has no place for the table between {START.strip()} and {END}.")
        args.page.write_text(head + START + markdown(json.loads(json.dumps(result))) + END + tail, encoding="utf-8")


if __name__ == "__main__":
    main()
