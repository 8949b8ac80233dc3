"""`maypole generate`: text from the newest checkpoint of a stage. With --model: `framework.cli_generate_model`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from framework.cli_paths import as_text, check_file
from framework.config_text import diff_json, to_json
from framework.errors import UserError
from framework.rundata import RunDataError, read_jsonl
from framework.rundir import RunDir, StageDir

__all__ = ["generate_command"]

PROMPT_KEYS = ("prompt", "question")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="maypole generate",
        usage="maypole generate RUN [options]\n       maypole generate --model DIR [options]",
        description="Generate text from the newest checkpoint of a stage. These are the options for a run; those for the folder of "
        "a checkpoint, whose answers to many prompts can be stopped and continued: maypole generate --model --help",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, help="the run folder, for example runs/NAME")
    parser.add_argument("--stage", help="which stage (default: the one that started last)")
    parser.add_argument("--prompt", nargs="+", default=[], metavar="TEXT", help="one or more prompts, in quotes")
    parser.add_argument("--prompts", type=Path, help='a JSONL file; each line an object with "prompt" or "question"')
    parser.add_argument("--samples", type=int, default=1, help="answers for each prompt (default: 1)")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (default: 1.0)")
    parser.add_argument("--max-tokens", type=int, default=256, help="longest answer in tokens (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same text (default: 0)")
    parser.add_argument("--out", type=Path, help="write JSONL to this file and print nothing")
    return parser


def generate_command(argv: Sequence[str]) -> int:
    """Print the answers, or write them as JSONL."""
    if any(word.partition("=")[0] == "--model" for word in argv):
        from framework.cli_generate_model import model_command

        return model_command(argv)
    options = _parser().parse_args(argv)
    run = RunDir.open(options.run)
    stage = _stage(run, options.stage)
    prompts = [*options.prompt, *(_read_prompts(options.prompts) if options.prompts else [])]
    if not prompts:
        raise UserError('There is nothing to answer. Give --prompt "TEXT" or --prompts file.jsonl.')
    if options.samples < 1 or options.max_tokens < 1 or options.temperature < 0:
        raise UserError("--samples and --max-tokens must be at least 1, and --temperature at least 0.")
    if options.out:
        check_file(options.out, "--out", "answers.jsonl")
    print(f"maypole generate {run.path}, stage {stage.name}, {len(prompts)} prompt(s)", file=sys.stderr, flush=True)
    from framework.cli_run import prepare_jax

    prepare_jax()
    config = run.rebuild()
    for line in diff_json(run.stored_config, to_json(config)):
        print(f"The config has changed since this run: {line}", file=sys.stderr)
    answers = config.policy(stage).generate(
        prompts,
        samples=options.samples,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        seed=options.seed,
    )
    records = [{"prompt": p, "responses": r} for p, r in zip(prompts, answers, strict=True)]
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
        print(as_text(options.out))
    else:
        _show(records)
    return 0


def _stage(run: RunDir, name: str | None) -> StageDir:
    stages = {stage.name: stage for stage in run.stages()}
    listed = ", ".join(stages)
    if not stages:
        raise UserError(f"{run.path} has no stage with a checkpoint yet. To continue it: maypole resume {run.path}")
    if name is not None and name not in stages:
        raise UserError(f"{run.path} has no stage {name!r}. It has: {listed}.")
    return stages[name] if name is not None else list(stages.values())[-1]


def _read_prompts(file: Path) -> list[str]:
    if file.exists() and not file.is_file():
        raise UserError(f"{file} is no regular file. For a run --prompts takes a JSONL file on disk.")
    if not file.exists():
        raise UserError(f"There is no file {file}. --prompts takes a JSONL file, --prompt the text itself.")
    try:
        lines, cut = read_jsonl(file)
    except RunDataError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}. Give another file with --prompts.") from error
    except RecursionError as error:
        raise UserError(f"{file} has a line that is nested too deeply. Take it out.") from error
    if cut:
        raise UserError(f'The last line of {file} is not a JSON object. Each line looks like {{"prompt": "..."}}.')
    return [_prompt_of(line, number, file) for number, line in enumerate(lines, start=1)]


def _prompt_of(line: dict[str, Any], number: int, file: Path) -> str:
    for key in PROMPT_KEYS:
        if isinstance(line.get(key), str):
            return line[key]
    raise UserError(f"Line {number} of {file} has neither {' nor '.join(PROMPT_KEYS)}. It has: {', '.join(line)}.")


def _show(records: Sequence[dict[str, Any]]) -> None:
    for record in records:
        print(f"> {record['prompt']}")
        for response in record["responses"]:
            print(f"{response}\n")
