"""`maypole run` and `maypole resume`."""

import argparse
import datetime
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from framework.allocator import keep_freed_memory
from framework.cli import is_user_error
from framework.cli_help import print_fields
from framework.config import Spec, load_experiment
from framework.config_text import diff
from framework.errors import UserError
from framework.experiment import Experiment
from framework.overrides import apply_overrides
from framework.rundir import RunDir, check_free

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
        prog="maypole resume", description="Continue a run that was stopped.", allow_abbrev=False
    )
    parser.add_argument("run", type=Path, help="the run folder, for example runs/NAME")
    parser.add_argument(
        "--accept-config-change", action="store_true", help="go on with the config as its source gives it now"
    )
    options = parser.parse_args(argv)
    run = RunDir.open(options.run)
    print(f"maypole resume {run.path}: {shlex.join([run.source, *run.overrides])}", flush=True)
    prepare_jax()
    return _work(run, lambda: run.reload(accept_change=options.accept_config_change), new=False)


def _split(argv: Sequence[str], own_names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words that belong to the command's own options, and the rest: overrides of config fields."""
    own: list[str] = []
    rest: list[str] = []
    into = rest
    for word in argv:
        if word.startswith("--"):
            into = own if word.partition("=")[0] in own_names else rest
        into.append(word)
    return own, rest


def _run_path(folder: Path, name: str | None, spec: Spec) -> Path:
    if name is not None:
        if not name or Path(name).name != name or name.startswith("."):
            raise UserError(
                f"--name {name!r} is not a folder name: no slashes, no leading dot. --dir says where it goes."
            )
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
    resume = f"To continue: maypole resume {shlex.quote(str(run.path))}"
    with run.lock():
        try:
            config = load()
            config.run(run)
        except KeyboardInterrupt:
            print(f"\nStopped.\n{resume}", file=sys.stderr)
            return 130
        except Exception as error:
            if _loop_error(error, "Interrupted"):
                print(f"{error}\n{resume}", file=sys.stderr)
                return 128 + int(getattr(error, "signum", 2))
            if _loop_error(error, "NonFiniteLoss"):
                print(f"error: {error}\n{resume}", file=sys.stderr)
                return 1
            if isinstance(error, ValueError) and is_user_error(error):
                if new:
                    _discard(run)
                raise
            print(resume, file=sys.stderr)  # above the traceback, which main lets through
            raise
        from framework.cli_report import finish  # here and not above: plots take a second to import

        try:
            finish(run, config)
        except Exception:
            print(f"The run is finished, only its report failed. Again: maypole report {run.path}", file=sys.stderr)
            raise
    return 0


def _loop_error(error: Exception, name: str) -> bool:
    """Whether `framework.loop` raised it; that module imports jax, so it is asked for only where it is loaded."""
    kind = getattr(sys.modules.get("framework.loop"), name, None)
    return kind is not None and isinstance(error, kind)


def _discard(run: RunDir) -> None:
    """A config that could not even be built leaves no folder behind, so that the corrected command can be typed again."""
    if not run.stages() and not any(p.is_dir() and any(p.iterdir()) for p in run.path.iterdir()):
        shutil.rmtree(run.path)
