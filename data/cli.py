"""`maypole data`: data sets of verifiable questions, and verdicts on responses. Nothing here imports jax."""

import argparse
import importlib
import random
from collections.abc import Sequence

from framework.config import nearest
from framework.errors import UserError

__all__ = ["data_command", "show_command", "tasks_command"]

SUBCOMMANDS = {
    "synlogic": (
        "data.cli_build",
        "build_command",
        "make a data set of logic tasks:  maypole data synlogic --n 10000 --out DIR",
    ),
    "verify": (
        "data.cli_verify",
        "verify_command",
        "judge responses:  maypole data verify DIR --responses answers.jsonl",
    ),
    "calibrate": (
        "data.cli_calibrate",
        "calibrate_command",
        "which settings can be learnt from:  maypole data calibrate --weak A.jsonl --strong B.jsonl",
    ),
    "show": (
        "data.cli",
        "show_command",
        "one instance as a person wants to see it:  maypole data show kukurasu --solved",
    ),
    "tasks": ("data.cli", "tasks_command", "all tasks with their levels and what their difficulty counts"),
}


def data_command(argv: Sequence[str]) -> int:
    """One of the subcommands."""
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"  {name:<10} {doc}" for name, (_, _, doc) in SUBCOMMANDS.items()]
        print("\n".join(["usage: maypole data COMMAND ...", "", *lines, "", "maypole data COMMAND --help says more."]))
        return 0 if argv else 2
    if argv[0] not in SUBCOMMANDS:
        hint = nearest(argv[0], SUBCOMMANDS)
        raise UserError(f"There is no command `maypole data {argv[0]}`.{hint} Commands: {', '.join(SUBCOMMANDS)}.")
    module, function, _ = SUBCOMMANDS[argv[0]]
    return getattr(importlib.import_module(module), function)(argv[1:])


def show_command(argv: Sequence[str]) -> int:
    """Print one instance: the question, the drawing, and the answer where it is asked for."""
    parser = argparse.ArgumentParser(
        prog="maypole data show", description="One instance of a task as a person wants to see it.", allow_abbrev=False
    )
    parser.add_argument("task", metavar="TASK", help="a name of `maypole data tasks`")
    parser.add_argument("--level", default="easy", help="tiny, easy, normal or hard (default: easy)")
    parser.add_argument(
        "--seed", type=int, help="the same seed gives the same instance (default: another one each time)"
    )
    parser.add_argument(
        "--solved", action="store_true", help="fill an answer in and print it as a model should write it"
    )
    parser.add_argument(
        "--form", choices=("english", "compact"), default="english", help="wording of the question (default: english)"
    )
    options = parser.parse_args(argv)
    from data.synlogic import TASKS

    if options.task not in TASKS:
        hint = nearest(options.task, TASKS)
        raise UserError(f"There is no task {options.task!r} that can be generated.{hint} See: maypole data tasks")
    task = TASKS[options.task]
    if options.level not in task.levels:
        raise UserError(f"--level {options.level!r} is not one of {task.name}. It has: {', '.join(task.levels)}.")
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    sample = task.generate(seed, task.levels[options.level], options.form)
    again = f"maypole data show {task.name} --level {options.level} --seed {seed} --form {options.form}"
    print(f"{task.name}, level {options.level}, {task.measure}: {task.difficulty(sample):g}      again: {again}\n")
    print(sample.question)
    print(f"\n{_plain(task.show(sample, solved=options.solved))}")
    if options.solved:
        print(f"\nAnswer:\n{task.solve(sample)}")
    return 0


def tasks_command(argv: Sequence[str]) -> int:
    """Print a table of all tasks."""
    parser = argparse.ArgumentParser(
        prog="maypole data tasks",
        description="All tasks of SynLogic, their levels, and what the difficulty of an instance counts.",
        allow_abbrev=False,
    )
    parser.parse_args(argv)
    from rich.table import Table

    from data.cli_progress import wide_console
    from data.synlogic import TASKS
    from data.synlogic.published import known_tasks

    table = Table("task", "levels", "difficulty is measured in", title="SynLogic tasks", title_justify="left")
    for name in sorted(known_tasks()):
        if name in TASKS:
            table.add_row(name, ", ".join(TASKS[name].levels), TASKS[name].measure)
        else:
            table.add_row(name, "none: only judges", "")
    wide_console().print(table)
    return 0


def _plain(markdown: str) -> str:
    """Markdown as it reads on a terminal: without the lines that begin and end a block."""
    return "\n".join(line for line in markdown.splitlines() if not line.startswith("```"))
