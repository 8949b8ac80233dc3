"""`maypole report` and `maypole reproduce`, and what a finished run prints."""

import argparse
import os
import re
import shlex
import sys
import traceback
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from framework.cli_paths import check_file, check_folder
from framework.cli_stop import stop_code
from framework.config import PACKAGE, Spec, load_module
from framework.errors import UserError
from framework.experiment import Experiment
from framework.rundata import RunData, RunDataError, load_run
from framework.rundir import RunDir

if TYPE_CHECKING:  # plots take a second to import
    from framework.report import Section

__all__ = ["finish", "print_table", "report_command", "reproduce_command"]


def finish(run: RunDir, config: Experiment) -> Path:
    """Write the report of a finished run, print the table of its arms and, last, where the page is."""
    order = [stage.name for stage in run.stages()]
    data = [_load(run.path, order)]
    return _write(data, run.path / "report.html", config)


_SEEDS = [0, 1, 2]


def report_command(argv: Sequence[str]) -> int:
    """Write one page about one run, or about several side by side."""
    parser = argparse.ArgumentParser(prog="maypole report", description="Write a page with plots.", allow_abbrev=False)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, or single stages of runs")
    parser.add_argument(
        "--out", type=Path, help="the file to write (default: report.html in the run, or beside several runs)"
    )
    parser.add_argument("--open", action="store_true", help="show it in a browser")
    options = parser.parse_args(argv)
    if options.out:
        check_file(options.out, "--out", "report.html")
    config = _config_of(options.runs[0])
    data = [_load(path, _order(path)) for path in options.runs]
    default = options.runs[0] if len(data) == 1 else options.runs[0].resolve().parent
    out = _write(data, options.out or default / "report.html", config)
    if options.open:
        webbrowser.open(out.resolve().as_uri())
    return 0


def reproduce_command(argv: Sequence[str]) -> int:
    """Call the `reproduce` function of an experiment's module."""
    parser = argparse.ArgumentParser(
        prog="maypole reproduce", description="Run all arms and seeds of a paper's claims.", allow_abbrev=False
    )
    parser.add_argument("paper", help="a name from `maypole list`, or path/to/mine.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=_SEEDS, help="(default: 0 1 2)")
    parser.add_argument("--dir", type=Path, help="where the runs go (default: runs/reproduce-PAPER)")
    parser.add_argument(
        "--results",
        type=Path,
        help="the file to write (default: PAPER.json in experiments/results; of other seeds, in DIR)",
    )
    options = parser.parse_args(argv)
    spec = Spec.parse(options.paper)
    spec.check_exists()
    name = spec.name.partition("-")[0]
    out = options.dir or Path("runs") / f"reproduce-{name}"
    published = options.seeds == _SEEDS  # what the docs show is measured on these and no others
    results = options.results or (_results_folder(spec) if published else out) / f"{name}.json"
    check_folder(out, "--dir")
    check_file(results, "--results", f"{name}.json")
    command = f"maypole reproduce {shlex.join(argv)}"
    print(f"{command} -> {out} and {results}", flush=True)
    from framework.cli_run import prepare_jax

    prepare_jax()
    reproduce = getattr(load_module(spec), "reproduce", None)
    if not callable(reproduce):
        raise UserError(
            f"{options.paper} cannot be reproduced: its module has no function `reproduce(out: Path, results: Path, "
            f"seeds: Sequence[int])`. A single run works: maypole run {options.paper}"
        )
    try:
        reproduce(out=out, results=results, seeds=tuple(options.seeds))
    except (Exception, KeyboardInterrupt) as error:
        again = f"To continue: {command}"
        after_nan = f"With other values, the runs go to another folder: maypole reproduce {options.paper} --dir OTHER"
        code = stop_code(error, again=again, after_nan=after_nan)
        if code is None:
            raise
        return code
    print(results)
    return 0


def _results_folder(spec: Spec) -> Path:
    if spec.is_file:
        return Path.cwd()
    import importlib

    return Path(importlib.import_module(PACKAGE).__path__[0]) / "results"


def _config_of(path: Path) -> Experiment | None:
    """The experiment of a run, for its own sections; a report without them is better than none."""
    home = path if (path / "config.json").is_file() else path.parent
    try:
        return RunDir.open(home).rebuild()
    except UserError as error:
        if path.is_dir():
            print(f"The report goes without the experiment's own part: {error}", file=sys.stderr)
        return None


def _order(path: Path) -> list[str]:
    return [stage.name for stage in RunDir(path, "", ()).stages()] if path.is_dir() else []


def _load(path: Path, order: Sequence[str]) -> RunData:
    try:
        return load_run(path, order=order)
    except RunDataError as error:
        raise UserError(str(error)) from error


def _write(data: Sequence[RunData], out: Path, config: Experiment | None) -> Path:
    from framework.report import write_report

    written = write_report(data, out, sections=_sections(data, config))
    print_table(data)
    print(os.path.relpath(written) if written.resolve().is_relative_to(Path.cwd()) else written)
    return written


def _sections(data: Sequence[RunData], config: Experiment | None) -> "Sequence[Section]":
    """The experiment's own part of the page; a mistake in it must not cost the rest."""
    if config is None:
        return ()
    try:
        return tuple(config.sections(data))
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        print(
            f"The report goes without the experiment's own part: sections() raised {type(error).__name__}: {error} "
            f"({frame.filename}:{frame.lineno})",
            file=sys.stderr,
        )
        return ()


def print_table(data: Sequence[RunData]) -> None:
    """The arms of the runs: held-out accuracy, change from the warm start, entropy, reward, steps, time."""
    from rich.console import Console
    from rich.table import Table

    from framework.report_arms import arms_of
    from framework.report_summary import summary_table
    from framework.report_types import cell_text

    summary = summary_table(arms_of(data), data)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, align in zip(summary.columns, summary.alignment, strict=True):
        table.add_column(re.sub(r" \(", "\n(", column), justify="left" if align == "l" else "right", no_wrap=True)
    for row in summary.rows:
        table.add_row(*(cell_text(cell) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)
    if summary.caption:
        console.print(summary.caption, style="dim")
