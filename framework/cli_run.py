"""`maypole run` and `maypole resume`."""

import argparse
import dataclasses
import datetime
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from framework.allocator import keep_freed_memory
from framework.cli import is_user_error
from framework.cli_help import print_fields
from framework.cli_paths import check_folder, check_name
from framework.cli_stop import stop_code
from framework.config import Spec, load_experiment
from framework.config_text import diff, diff_json, to_json
from framework.errors import UserError
from framework.experiment import Experiment
from framework.overrides import apply_overrides
from framework.rundir import RUN_FILES, RunDir, check_free

__all__ = ["prepare_jax", "resume_command", "run_command"]


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="maypole run",
        usage="maypole run EXPERIMENT[:VARIANT] [--name NAME] [--dir DIR] [--overwrite] [--field.sub value ...]",
        description="Start an experiment: a name from `maypole list`, or path/to/mine.py:config.",
        epilog="maypole run EXPERIMENT --help lists every field that can be set.",
        allow_abbrev=False,
    )
    parser.add_argument("--name", help="name of the run folder (default: the experiment and the time)")
    parser.add_argument("--dir", type=Path, default=Path("runs"), help="where run folders are made (default: runs)")
    parser.add_argument("--overwrite", action="store_true", help="move an old run of that name aside and start again")
    return parser


def run_command(argv: Sequence[str]) -> int:
    """Start an experiment in a new run folder."""
    parser = _run_parser()
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help(sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0].startswith("-"):
        raise UserError(
            f"The experiment comes first: maypole run EXPERIMENT {shlex.join(argv)}. To see which: maypole list"
        )
    spec, (own, overrides) = argv[0], _split(argv[1:], ("--name", "--dir", "--overwrite"))
    parsed = Spec.parse(spec)
    parsed.check_exists()
    if "-h" in argv or "--help" in argv:
        print_fields(load_experiment(spec).config, f"maypole run {spec}", parser)
        return 0
    options = parser.parse_args(own)
    check_folder(options.dir, "--dir")
    path = _run_path(options.dir, options.name, parsed)
    check_free(path, overwrite=options.overwrite)
    print(f"maypole run {shlex.join([spec, *overrides])} -> {path}", flush=True)  # before anything slow is imported
    prepare_jax()
    loaded = load_experiment(spec)
    config = apply_overrides(loaded.config, overrides)
    for line in diff(loaded.config, config):
        print(f"  {line}", flush=True)
    run = RunDir.create(path, config, loaded.source, overrides, overwrite=options.overwrite)
    return _work(run, lambda: config, new=True)


def resume_command(argv: Sequence[str]) -> int:
    """Continue a run: every stage that is not done, from its newest checkpoint."""
    parser = argparse.ArgumentParser(
        prog="maypole resume",
        usage="maypole resume RUN [--accept-config-change [--field.sub value ...]]",
        description="Continue a run that was stopped.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, help="the run folder, for example runs/NAME")
    parser.add_argument(
        "--accept-config-change",
        action="store_true",
        help="go on with the config as its source gives it now, and with the fields set here",
    )
    own, overrides = _split(argv, ("--accept-config-change", "--help"), first=True)
    options = parser.parse_args(own)
    run = RunDir.open(options.run)
    accept = options.accept_config_change
    if overrides and not accept:
        again = shlex.join(["maypole", "resume", str(run.path), "--accept-config-change", *overrides])
        raise UserError(f"{shlex.join(overrides)} would change the config of a run that has started. To do so: {again}")
    before = run.stored_config
    run = dataclasses.replace(run, overrides=(*run.overrides, *overrides))
    print(f"maypole resume {run.path}: {shlex.join([run.source, *run.overrides])}", flush=True)
    prepare_jax()

    def load() -> Experiment:
        config = run.reload(accept_change=accept)
        for line in diff_json(before, json.loads(json.dumps(to_json(config)))):
            print(f"  {line}", flush=True)
        return config

    return _work(run, load, new=False)


def _split(argv: Sequence[str], own_names: Sequence[str], *, first: bool = False) -> tuple[list[str], list[str]]:
    """Words that belong to the command's own options, and the rest: overrides of config fields.

    first: words before any option are the command's own as well.
    """
    own: list[str] = []
    rest: list[str] = []
    into = own if first else rest
    for word in argv:
        if word == "-h":
            own.append(word)
            continue
        if word.startswith("--"):
            into = own if word.partition("=")[0] in own_names else rest
        into.append(word)
    return own, rest


def _run_path(folder: Path, name: str | None, spec: Spec) -> Path:
    if name is not None:
        check_name(name)
        return folder / name
    base = path = folder / f"{spec.name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    count = 2
    while path.exists():
        path, count = base.with_name(f"{base.name}-{count}"), count + 1
    return path


def prepare_jax() -> None:
    """Defaults jax reads when it is imported: compiled programs are kept between runs, and its C++ parts log less.
    Freed memory is kept as well, see `framework.allocator`.

    Variables that are set already win. The cache is `$MAYPOLE_CACHE`, or `~/.cache/maypole/xla`.
    """
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = os.environ.get("MAYPOLE_CACHE") or str(user_cache / "maypole" / "xla")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    keep_freed_memory()
    if "jax" in sys.modules:  # called from a notebook: jax has read its environment already
        import jax

        if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
            jax.config.update("jax_compilation_cache_dir", cache)


def _work(run: RunDir, load: Callable[[], Experiment], *, new: bool) -> int:
    """Run the experiment and write its report; say how to continue when it stops early."""
    folder = shlex.quote(str(run.path))
    resume = f"To continue: maypole resume {folder}"
    lower = f"To continue with other values: maypole resume {folder} --accept-config-change --optimizer.lr LOWER"
    with run.lock():
        try:
            config = load()
            config.run(run)
        except (Exception, KeyboardInterrupt) as error:
            code = stop_code(error, again=resume, after_nan=lower)
            if code is not None:
                return code
            theirs = isinstance(error, ValueError) and is_user_error(error)
            gone = new and _discard(run)
            if not theirs:  # above the traceback, which main lets through
                print(f"Nothing was trained: {folder} is removed again." if gone else resume, file=sys.stderr)
            raise
        from framework.cli_report import finish  # here and not above: plots take a second to import

        try:
            finish(run, config)
        except Exception:
            print(f"The run is finished, only its report failed. Again: maypole report {folder}", file=sys.stderr)
            raise
    return 0


def _discard(run: RunDir) -> bool:
    """A run that failed before a stage wrote anything leaves no folder behind: the corrected command can be typed again.

    A file that maypole does not know stays, and the folder with it.
    """
    known = (*RUN_FILES, "lock", "tokenizer.json")
    items = list(run.path.iterdir())
    written = any(p.is_file() and p.stat().st_size for item in items if item.is_dir() for p in item.rglob("*"))
    if written or any(item.is_file() and item.name not in known for item in items):
        return False
    shutil.rmtree(run.path)
    return True
