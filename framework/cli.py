"""The `maypole` command: dispatch, exit codes and errors. Light on purpose: nothing here imports jax.

Exit codes: 0 done; 1 something unexpected, with a traceback; 2 a mistake that the message says how to fix; 3 `maypole plan`: it
does not fit; 75 another process of a
run on many hosts is gone or did not come, so that the same command may work when it is tried again; 130 stopped by Ctrl-C, 143 by
SIGTERM.
"""

import argparse
import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from framework.config import list_experiments, nearest
from framework.errors import UserError

__all__ = ["main"]

COMMANDS = {
    "run": (
        "framework.cli_run",
        "run_command",
        "start an experiment:  maypole run entropy_mechanism --rollout.samples 16",
    ),
    "resume": ("framework.cli_run", "resume_command", "continue a run that was stopped:  maypole resume runs/NAME"),
    "report": ("framework.cli_report", "report_command", "write the page with plots:  maypole report runs/A runs/B"),
    "reproduce": (
        "framework.cli_report",
        "reproduce_command",
        "all arms and seeds of a paper's claims, and its results file",
    ),
    "generate": (
        "framework.cli_generate",
        "generate_command",
        "text from a run or a checkpoint:  maypole generate runs/NAME --prompt TEXT",
    ),
    "serve": (
        "framework.cli_serve",
        "serve_command",
        "a model behind an OpenAI-compatible server:  maypole serve --model DIR",
    ),
    "launch": (
        "framework.cli_launch",
        "launch_command",
        "job files for GKE and SLURM:  maypole launch entropy_mechanism --on slurm --nodes 4 --print",
    ),
    "import": (
        "framework.cli_models",
        "import_command",
        "a Hugging Face checkpoint to a native folder:  maypole import SRC OUT",
    ),
    "export": (
        "framework.cli_models",
        "export_command",
        "a native folder or a run to a Hugging Face checkpoint:  maypole export SRC OUT",
    ),
    "quantise": (
        "framework.cli_models",
        "quantise_command",
        "a checkpoint's matrices in 4 bits:  maypole quantise MODEL OUT --format mxfp4",
    ),
    "plan": (
        "framework.cli_plan",
        "plan_command",
        "will it fit on that pod?  maypole plan entropy_mechanism:paper --topology v5p:4x4x4",
    ),
    "data": (
        "data.cli",
        "data_command",
        "verifiable data sets and verdicts:  maypole data synlogic --tasks all --n 10000 --out DIR",
    ),
    "list": ("framework.cli", "list_command", "the experiments that come with maypole"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Without `argv` this is the process of the `maypole` script."""
    if argv is not None:
        return _run(list(argv))
    try:
        code = _run(sys.argv[1:])
    except Exception:
        if not _was_joined():
            raise
        traceback.print_exc()
        code = 1
    if code in (130, 143) or _was_joined():
        _leave(code)
    return code


def _was_joined() -> bool:
    """Whether this was one process of several: then jax waits for the others at the usual exit, who may be gone."""
    module = sys.modules.get("framework.distributed")
    return module is not None and module.was_joined()


def _leave(code: int) -> NoReturn:
    """End the process here: at the usual exit, a compilation that Ctrl-C left behind crashes and spoils the exit code."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _run(words: list[str]) -> int:
    show_traceback = "--traceback" in words
    words = [word for word in words if word != "--traceback"]
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `maypole list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ValueError as error:
        if show_traceback or not is_user_error(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)


def is_user_error(error: ValueError) -> bool:
    """True for a `UserError`, and for a ValueError that the checks of some config's `build()` raised."""
    checks = {frame.name for frame in traceback.extract_tb(error.__traceback__)} & {"build", "__post_init__"}
    return isinstance(error, UserError) or bool(checks)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if words else 2
    if words[0] in ("-V", "--version", "version"):
        from importlib.metadata import version  # here and not above: half of the time `maypole list` takes

        print(f"maypole {version('maypole')}")
        return 0
    if words[0] not in COMMANDS:
        hint = nearest(words[0], COMMANDS)
        raise UserError(f"There is no command {words[0]!r}.{hint} Commands: {', '.join(COMMANDS)}.")
    module, function, _ = COMMANDS[words[0]]
    return getattr(importlib.import_module(module), function)(words[1:])


def _usage() -> str:
    lines = [f"  {name:<10} {doc}" for name, (_, _, doc) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: maypole COMMAND ...",
            "",
            *lines,
            "",
            "maypole COMMAND --help says more; maypole run EXPERIMENT --help lists every field of its config.",
            "--version prints the version; --traceback shows where an error came from.",
        ]
    )


def list_command(argv: Sequence[str]) -> int:
    """`maypole list`: read from source files, nothing is imported."""
    parser = argparse.ArgumentParser(prog="maypole list", description="The experiments that come with maypole.")
    parser.parse_args(argv)
    found = list_experiments()
    if not found:
        print(
            "There are no experiments in the experiments package. Your own file works: maypole run path/to/mine.py:config"
        )
    for info in found:
        print(f"{info.name}  [{', '.join(info.variants)}]\n    {info.doc}")
    if found:
        print(
            f"\nStart one:  maypole run {found[0].name}      one variant:  maypole run {found[0].name}:{found[0].variants[-1]}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
