"""`maypole run` and `maypole resume`."""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from framework.allocator import keep_freed_memory
from framework.cli import is_user_error
from framework.cli_help import print_fields
from framework.cli_paths import check_folder, check_name
from framework.cli_stop import stop_code
from framework.cluster import CLUSTER_OPTIONS, Cluster, add_cluster_options, find_cluster
from framework.config import Spec, load_experiment
from framework.config_text import diff, diff_json, to_json
from framework.distributed import agree, is_main, joined, leave, on_main, process_id, settle
from framework.errors import UserError
from framework.experiment import Experiment
from framework.overrides import apply_overrides
from framework.platforms import quiet_without_tpu
from framework.rundir import RUN_FILES, RunDir, check_free, wait_for_run

__all__ = ["prepare_jax", "resume_command", "run_command", "split_options"]


_RUN_OPTIONS = ("--name", "--dir", "--overwrite", "--or-resume", *CLUSTER_OPTIONS)


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="maypole run",
        usage="maypole run EXPERIMENT[:VARIANT] [--name NAME] [--dir DIR] [--overwrite | --or-resume] [--field.sub value ...]",
        description="Start an experiment: a name from `maypole list`, or path/to/mine.py:config.",
        epilog="maypole run EXPERIMENT --help lists every field that can be set.",
        allow_abbrev=False,
    )
    parser.add_argument("--name", help="name of the run folder (default: the experiment and the time)")
    parser.add_argument("--dir", type=Path, default=Path("runs"), help="where run folders are made (default: runs)")
    parser.add_argument("--overwrite", action="store_true", help="move an old run of that name aside and start again")
    parser.add_argument(
        "--or-resume",
        action="store_true",
        help="continue the run of that --name if there is one: for jobs that are restarted",
    )
    add_cluster_options(parser)
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
    spec, (own, overrides) = argv[0], split_options(argv[1:], _RUN_OPTIONS)
    parsed = Spec.parse(spec)
    parsed.check_exists()
    if "-h" in argv or "--help" in argv:
        print_fields(load_experiment(spec).config, f"maypole run {spec}", parser)
        return 0
    options = parser.parse_args(own)
    if options.or_resume and (options.overwrite or options.name is None):
        raise UserError("--or-resume continues the run of a name: it needs --name NAME, and no --overwrite.")
    prepare_jax()
    cluster = find_cluster(options)
    path = _run_path(options.dir, options.name, parsed)
    there = options.or_resume and (path / RUN_FILES[0]).is_file()
    if cluster is None or cluster.process_id == 0:
        check_folder(options.dir, "--dir")
        if not there:
            check_free(path, overwrite=options.overwrite)
        print(f"maypole run {shlex.join([spec, *overrides])} -> {path}", flush=True)  # before anything slow is imported
    words = ["run", spec, *_for_every_host(own), *overrides]
    with _together(cluster, words, [str(path), there], lambda told: ["resume", told[0]]) as told:
        path, there = Path(told[0]), told[1]  # process 0's clock and view of the disk
        if there:
            return _continue(path, spec, overrides)
        loaded = load_experiment(spec)
        config = apply_overrides(loaded.config, overrides)
        for line in diff(loaded.config, config):
            print(f"  {line}", flush=True)

        def create() -> str:
            return RunDir.create(path, config, loaded.source, overrides, overwrite=options.overwrite).stamp()

        wait_for_run(path, on_main(create))
        return _work(RunDir.open(path), lambda: config, new=True)


def _continue(path: Path, spec: str, overrides: Sequence[str]) -> int:
    """`--or-resume` of a run that is there: the same words must have started it."""
    run = RunDir.open(path)
    wait_for_run(path, on_main(run.stamp))
    run = RunDir.open(path)
    if list(run.overrides) != list(overrides):
        raise UserError(
            f"{path} was started with {shlex.join([run.source, *run.overrides])}, and is now to be continued with "
            f"{shlex.join([spec, *overrides])}. Use another --name, or change the run once with: maypole resume {path} "
            f"--accept-config-change --FIELD VALUE"
        )
    print(f"{path} is there: continuing it", flush=True)
    return _work(run, run.reload, new=False)


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
    add_cluster_options(parser)
    own, overrides = split_options(argv, ("--accept-config-change", "--help", *CLUSTER_OPTIONS), first=True)
    options = parser.parse_args(own)
    run = RunDir.open(options.run)
    accept = options.accept_config_change
    if overrides and not accept:
        again = shlex.join(["maypole", "resume", str(run.path), "--accept-config-change", *overrides])
        raise UserError(f"{shlex.join(overrides)} would change the config of a run that has started. To do so: {again}")
    before = run.stored_config
    run = dataclasses.replace(run, overrides=(*run.overrides, *overrides))
    prepare_jax()
    cluster = find_cluster(options)
    if cluster is None or cluster.process_id == 0:
        print(f"maypole resume {run.path}: {shlex.join([run.source, *run.overrides])}", flush=True)

    def load() -> Experiment:
        config = run.reload(accept_change=accept)
        for line in diff_json(before, json.loads(json.dumps(to_json(config)))):
            print(f"  {line}", flush=True)
        return config

    words = ["resume", *_for_every_host(own), *overrides]
    with _together(cluster, words, str(run.path), lambda path: ["resume", path]):
        wait_for_run(run.path, on_main(run.stamp))
        return _work(run, load, new=False)


@contextlib.contextmanager
def _together(
    cluster: Cluster | None, words: Sequence[str], value: Any, again: Callable[[Any], Sequence[str]]
) -> Iterator[Any]:
    """Gives `value` of process 0, once all processes of the cluster are there. Only process 0 prints."""
    if cluster is None:
        yield value
        return
    with joined(cluster, words=words, share=lambda: value, again=again) as told, contextlib.ExitStack() as stack:
        if not is_main():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield told


def _for_every_host(words: Sequence[str]) -> list[str]:
    """The words without the options of the cluster, which differ from host to host."""
    kept: list[str] = []
    value_follows = False
    for word in words:
        name, has_value, _ = word.partition("=")
        if value_follows:
            value_follows = False
        elif name in CLUSTER_OPTIONS:
            value_follows = not has_value and name != "--distributed"
        else:
            kept.append(word)
    return kept


def split_options(argv: Sequence[str], own_names: Sequence[str], *, first: bool = False) -> tuple[list[str], list[str]]:
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
    chosen = quiet_without_tpu()
    if "jax" in sys.modules:  # called from a notebook: jax has read its environment already
        import jax

        if chosen:
            jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
        if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
            jax.config.update("jax_compilation_cache_dir", cache)


def _work(run: RunDir, load: Callable[[], Experiment], *, new: bool) -> int:
    """Run the experiment and write its report; say how to continue when it stops early."""
    folder = shlex.quote(str(run.path))
    resume = f"To continue: maypole resume {folder}"
    lower = f"To continue with other values: maypole resume {folder} --accept-config-change --optimizer.lr LOWER"
    with run.lock() if is_main() else contextlib.nullcontext():
        try:
            config = load()
            _check_same(config)
            config.run(run)
        except (Exception, KeyboardInterrupt) as error:
            settle(error)
            code = stop_code(error, again=resume, after_nan=lower)
            if code is not None:
                if isinstance(error, KeyboardInterrupt):  # this process alone; the other ends come to all of them
                    leave("it was stopped with Ctrl-C")
                return code
            theirs = isinstance(error, ValueError) and is_user_error(error)
            gone = new and is_main() and _discard(run)
            if not theirs:  # above the traceback, which main lets through
                print(f"Nothing was trained: {folder} is removed again." if gone else resume, file=sys.stderr)
            raise
        if not is_main():
            return 0
        from framework.cli_report import finish  # here and not above: plots take a second to import

        try:
            finish(run, config)
        except Exception:
            print(f"The run is finished, only its report failed. Again: maypole report {folder}", file=sys.stderr)
            raise
    return 0


def _check_same(config: Experiment) -> None:
    """On many hosts: a file that differs on one of them would make another run there, which ends in a hang."""
    mine = json.loads(json.dumps(to_json(config)))
    changes = diff_json(agree(mine), mine)
    if changes:
        listed = "\n".join(f"  {line}" for line in changes)
        raise UserError(
            f"Process {process_id()} builds another config than process 0 (there -> here):\n{listed}\n"
            "Use the same files and the same version on every host."
        )


def _discard(run: RunDir) -> bool:
    """A run that failed before a stage wrote anything leaves no folder behind: the corrected command can be typed again.

    A file that maypole does not know stays, and the folder with it.
    """
    known = (*RUN_FILES, "lock", "tokenizer.json")
    items = [item for item in run.path.iterdir() if item.name != "tokenizer"]  # a folder that comes before training
    written = any(p.is_file() and p.stat().st_size for item in items if item.is_dir() for p in item.rglob("*"))
    if written or any(item.is_file() and item.name not in known for item in items):
        return False
    shutil.rmtree(run.path)
    return True
