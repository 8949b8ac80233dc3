"""`maypole data verify`: verdicts on the responses to a data set, by task."""

import argparse
import collections
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.cli_progress import RecordProgress, wide_console
from framework.cli_paths import check_file
from framework.errors import UserError

__all__ = ["verify_command"]

_EPILOG = """FILE is a folder or file of `maypole data synlogic`, a Parquet or JSONL file in the layout of MiniMaxAI/SynLogic, JSONL
with Data records (question, answer, metadata and task), or a hub id. RESP has one response a line:
  {"index": 0, "response": "<think>..</think><answer>..</answer>"}     index: number of the record, from 0
  {"id": "..", "response": ".."}                                       id: what the record calls itself
  {"responses": ["..", ".."]}                                          one line a record, as `maypole generate --out` writes it
and any other file than .jsonl one text a line, in the order of the records.

examples:
  maypole data verify synlogic-easy --split validation --responses answers.jsonl
  maypole data verify MiniMaxAI/SynLogic --config easy --responses answers.jsonl --mode official --out verdicts.jsonl"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="maypole data verify",
        description="Judge responses to SynLogic records. A response counts as right when it is one think block, then one answer "
        "block whose text the verifier of its task accepts.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="the records")
    add("--responses", type=Path, required=True, metavar="RESP", help="the responses, one a line")
    add(
        "--mode",
        choices=("strict", "official"),
        default="strict",
        help="strict: the holes of the published verifiers are closed; official: as published, to compare (default: strict)",
    )
    add("--answers", action="store_true", help="RESP holds the texts of the answer blocks alone: format is not judged")
    add("--out", type=Path, metavar="JSONL", help="write one verdict a line to this file")
    add("--split", help="of a folder or a hub data set (default: its only one; of the hub, validation)")
    add("--config", help="configuration of a hub data set, for example easy or hard")
    add("--task", help="task of all records, where they do not say it")
    return parser


def verify_command(argv: Sequence[str]) -> int:
    """Print a table a task; 2 if a record could not be judged."""
    options = _parser().parse_args(argv)
    if options.out is not None:
        check_file(options.out, "--out", "verdicts.jsonl")
    from data.cli_records import read_records, read_responses

    records = read_records(options.file, split=options.split, config=options.config, task=options.task)
    responses = read_responses(options.responses, records)
    if not responses:
        raise UserError(f"{options.responses} holds no responses. Write one a line.")
    verdicts = []
    with RecordProgress("responses") as progress:
        for response in responses:
            record = records[response.record]
            judged = _judge(record.sample, response.text, record.where, options.mode, bare=options.answers)
            named = {"id": record.id} if record.id else {}
            setting = {"task": record.sample.task, "level": record.sample.level}
            verdicts.append({"index": response.record, **named, **setting, **judged})
            progress(len(verdicts), len(responses), "judging")
    if options.out is not None:
        _write(options.out, verdicts)
    _print_table(verdicts, f"{options.file}, {options.mode} verifiers", bare=options.answers)
    unanswered = len(records) - len({verdict["index"] for verdict in verdicts})
    if unanswered:
        print(f"{unanswered:,} of {len(records):,} records have no response and do not count.", file=sys.stderr)
    problems = [verdict["problem"] for verdict in verdicts if "problem" in verdict]
    if problems:
        print(
            f"error: {len(problems):,} responses could not be judged and count as wrong. The first: {problems[0]}",
            file=sys.stderr,
        )
    return 2 if problems else 0


def _judge(sample: Any, text: str, where: str, mode: Any, *, bare: bool) -> dict[str, Any]:
    from data.synlogic import extract_answer, has_format
    from data.synlogic.published import verdict

    answer = text if bare else extract_answer(text)
    good_format = bare or has_format(text)
    problem = {}
    try:
        correct = verdict(sample, answer, mode, where)
    except (
        Exception
    ) as error:  # a broken record, or a verifier that fails on it: one of thousands must not end the command
        said = (
            str(error) if isinstance(error, UserError) else f"{where}: the verifier of {sample.task} failed: {error!r}"
        )
        correct, problem = False, {"problem": said}
    reward = float(correct and good_format)
    return {"answer": answer, "format": good_format, "correct": correct, "reward": reward, **problem}


def _write(out: Path, verdicts: Sequence[dict[str, Any]]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f"{out.name}.unfinished")
    unfinished.write_text("".join(json.dumps(verdict) + "\n" for verdict in verdicts), encoding="utf-8")
    os.replace(unfinished, out)


def _print_table(verdicts: Sequence[dict[str, Any]], title: str, *, bare: bool) -> None:
    from rich.table import Table

    groups: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for verdict in verdicts:
        groups[verdict["task"]].append(verdict)
    several = len(verdicts) > len({verdict["index"] for verdict in verdicts})
    columns = ["records", *(["responses"] if several else []), "accuracy", *(["pass@k"] if several else [])]
    columns += ["unparsable"] if bare else ["format", "unparsable"]
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = "accuracy: right and well-formed; unparsable: without an answer text"
    table.add_column("task")
    for column in columns:
        table.add_column(column, justify="right")
    rows = [(task, groups[task]) for task in sorted(groups)]
    for task, of_task in rows:
        table.add_row(task, *_row(of_task, several, bare))
    if len(rows) > 1:
        table.add_section()
        table.add_row("all", *_row(verdicts, several, bare))
        means = [sum(v["reward"] for v in of_task) / len(of_task) for _, of_task in rows]
        table.caption += f"\nmean of the {len(rows)} tasks' accuracies: {sum(means) / len(means):.3f}"
    wide_console().print(table)


def _row(verdicts: Sequence[dict[str, Any]], several: bool, bare: bool) -> list[str]:
    best: dict[int, float] = {}
    for verdict in verdicts:
        best[verdict["index"]] = max(best.get(verdict["index"], 0.0), verdict["reward"])
    n = len(verdicts)
    cells = [f"{len(best):,}", *([f"{n:,}"] if several else []), f"{sum(v['reward'] for v in verdicts) / n:.3f}"]
    cells += [f"{sum(best.values()) / len(best):.3f}"] if several else []
    cells += [] if bare else [f"{sum(v['format'] for v in verdicts) / n:.3f}"]
    return [*cells, f"{sum(not v['answer'].strip() for v in verdicts) / n:.3f}"]
