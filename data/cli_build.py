"""`maypole data synlogic`: make a data set of SynLogic tasks."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from data.cli_progress import RecordProgress
from framework.cli_paths import check_folder
from framework.errors import UserError

__all__ = ["build_command"]

_EPILOG = """examples:
  maypole data synlogic --tasks all --level easy --n 10000 --validation 10 --out synlogic-easy
  maypole data synlogic --tasks kukurasu,math_path --level easy,hard --weights math_path=3 --n 5000 --out mix

Each row is a pure function of (seed, task, level, number), so the files are the same bytes for any number of workers. A stopped
command goes on where it was when it is typed again. The rows have the layout of MiniMaxAI/SynLogic, which verl reads."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="maypole data synlogic",
        description="Make a data set of SynLogic tasks (arXiv:2505.19641), checked by its own verifiers and without duplicates.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write; new, empty, or of a stopped command")
    add("--tasks", nargs="+", default=["all"], metavar="TASK", help="all, or names with commas between (default: all)")
    add(
        "--level",
        nargs="+",
        default=["easy"],
        metavar="LEVEL",
        help="tiny, easy, normal, hard, or all; several share evenly (default: easy)",
    )
    add("--n", type=int, default=1000, help="training records of all tasks together (default: 1000)")
    add(
        "--validation",
        type=int,
        default=0,
        metavar="N",
        help="validation records of each task, besides --n (default: 0)",
    )
    add("--weights", nargs="+", default=[], metavar="TASK=W", help="share of a task in --n; 1 for those not named")
    add(
        "--form",
        choices=("english", "compact"),
        default="english",
        help="english for language models, compact for tiny ones",
    )
    add("--seed", type=int, default=0, help="another seed gives other records (default: 0)")
    add(
        "--no-instruction",
        action="store_true",
        help="prompts are the question alone, without how to write the response",
    )
    add(
        "--max-prompt-chars",
        type=int,
        default=8000,
        metavar="N",
        help="longer prompts are dropped, in characters (default: 8000)",
    )
    add("--format", nargs="+", default=["parquet"], metavar="F", help="parquet, jsonl, or both (default: parquet)")
    add("--rows-per-file", type=int, default=50_000, metavar="N", help="rows of one file at most (default: 50000)")
    add("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="local processes (default: one a core)")
    add(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: the cluster of RAY_ADDRESS, or one on this machine",
    )
    add("--force", action="store_true", help="make a data set anew that is there with other settings")
    return parser


def build_command(argv: Sequence[str]) -> int:
    """Make the data set and say what came of it."""
    options = _parser().parse_args(argv)
    check_folder(options.out, "--out")
    from data.synlogic import TASKS
    from data.synlogic.build import BuildConfig, build
    from data.synlogic.build.engines import open_engine

    tasks, levels = _names(options.tasks), _names(options.level)
    if levels == ("all",):  # every task has the same four
        levels = tuple(next(iter(TASKS.values())).levels)
    config = BuildConfig(
        tasks=tuple(TASKS) if tasks == ("all",) else tasks,
        levels=levels,
        n=options.n,
        validation=options.validation,
        weights=tuple(_weight(word) for word in _names(options.weights)),
        form=options.form,
        seed=options.seed,
        max_prompt_chars=options.max_prompt_chars,
        formats=_formats(_names(options.format)),
        instruction=not options.no_instruction,
        rows_per_file=options.rows_per_file,
    )
    config.build()  # mistakes are said before anything is started
    engine = open_engine(options.engine, options.workers)
    began = time.monotonic()
    try:
        with RecordProgress("records") as progress:
            manifest = build(config, options.out, engine=engine, force=options.force, progress=progress)
    except KeyboardInterrupt:
        print(f"\n{options.out}: what is done is kept. To go on, type the same command again.", file=sys.stderr)
        raise
    seconds = time.monotonic() - began
    for warning in manifest["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    rows = manifest["train"] + manifest["validation"]
    count = len({group["task"] for group in manifest["groups"]})
    print(
        f"{options.out}: {manifest['train']:,} training and {manifest['validation']:,} validation records of {count} task(s) in "
        f"{seconds:.1f} s ({rows / max(seconds, 1e-9):,.0f}/s)\n"
        f"dropped: {manifest['duplicates']:,} duplicates, {manifest['too_long']:,} too long, {manifest['failed']:,} without an "
        f"instance; draws rejected: {manifest['oracle_rejected']:,} by their own verifier, {manifest['redrawn']:,} by the "
        "generator\n"
        + "\n".join(
            f"  {name}  {file['rows']:,} rows  {file['bytes'] / 1e6:.1f} MB" for name, file in manifest["files"].items()
        )
    )
    return 0


def _names(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip() for word in words for name in word.split(",") if name.strip())


def _formats(names: tuple[str, ...]) -> tuple:
    names = ("parquet", "jsonl") if names == ("both",) else names
    unknown = [name for name in names if name not in ("parquet", "jsonl")]
    if unknown:
        raise UserError(f"--format {unknown[0]!r} is not a format. Use parquet, jsonl, or both.")
    return names


def _weight(word: str) -> tuple[str, float]:
    task, _, text = word.partition("=")
    try:
        return task, float(text)
    except ValueError:
        raise UserError(f"--weights {word!r} is not TASK=NUMBER. Type for example --weights kukurasu=2") from None
