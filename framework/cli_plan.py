"""`maypole plan`: will it fit on that pod, and how fast can it be? No accelerator needed.

Exit codes: 0 it fits; 3 it does not, and a command that does is printed if one was found; otherwise those of `framework.cli`.
"""

import argparse
import dataclasses
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from framework.chips import Topology, known_topologies
from framework.cli_paths import check_file, check_folder
from framework.config import Spec, load_experiment
from framework.config_text import diff
from framework.errors import UserError
from framework.overrides import apply_overrides
from framework.platforms import require_libtpu

if TYPE_CHECKING:  # rich and jax are imported when the first line is out
    from framework.console import Console
    from framework.experiment import Experiment
    from framework.plan import Plan, Planner

__all__ = ["DOES_NOT_FIT", "plan_command"]

DOES_NOT_FIT = 3
DEFAULT_TRIES = 4
_USAGE = (
    "maypole plan EXPERIMENT[:VARIANT] --topology FAMILY:SHAPE [--only PROGRAM ...] "
    "[--quick] [--tries N] [--out FILE] [--dump DIR] [--field.sub value ...]"
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="maypole plan",
        usage=_USAGE,
        description="Compile the real training and decoding steps of an experiment for a TPU pod that is not there, on this CPU, "
        "and print for one device: memory by kind in GiB (2^30 bytes), the largest buffers, matrix FLOPs, HBM traffic, "
        "bytes sent to other devices, and the seconds, tokens/s and MFU that the chip's peak rates allow at best.",
        epilog="Exit code 0: it fits. 3: it does not; then the experiment's remedies are tried one after the other, and the "
        "first that fits is printed as a command.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--topology", help="the pod, such as v5p:4x4x4 or v5e:2x4 (families v4, v5e, v5p, v6e; one device a chip)"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PROGRAM", help="only programs whose names begin like this"
    )
    parser.add_argument(
        "--tries", type=int, default=DEFAULT_TRIES, help="remedies to try when it does not fit (default: %(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="stop each compilation when memory is laid out: the same figures but for the size of the code, in a fraction of "
        "the time; that the machine code can be made is not shown",
    )
    parser.add_argument("--out", type=Path, help="where the JSON goes (default: runs/plans/EXPERIMENT-TOPOLOGY.json)")
    parser.add_argument(
        "--dump", type=Path, help="keep what the compiler writes in this folder: HLO, buffer assignment"
    )
    return parser


def plan_command(argv: Sequence[str]) -> int:
    """Compile for a topology, print the tables, save the JSON."""
    parser = _parser()
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help(sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0].startswith("-"):
        raise UserError(
            f"The experiment comes first: maypole plan EXPERIMENT {shlex.join(argv)}. To see which: maypole list"
        )
    if "-h" in argv or "--help" in argv:
        parser.epilog = f"{parser.epilog} To see every field that can be set: maypole run {argv[0]} --help"
        parser.print_help()
        return 0
    spec = Spec.parse(argv[0])
    spec.check_exists()
    options, overrides = parser.parse_known_args(argv[1:])  # what is not ours changes a field of the config
    if options.topology is None:
        raise UserError(f"For which pod? maypole plan {shlex.join(argv)} --topology v5p:4x4x4 ({known_topologies()})")
    if options.tries < 0:
        raise UserError(f"--tries {options.tries} is not a number of tries. Use 0 to try nothing, or {DEFAULT_TRIES}.")
    topology = Topology.parse(options.topology)
    require_libtpu()
    name = f"{spec.name}-{str(topology).replace(':', '-')}.json"
    out = options.out or Path("runs") / "plans" / name
    check_file(out, "--out", name)
    if options.dump is not None:
        check_folder(options.dump, "--dump")
    print(f"maypole plan {shlex.join([argv[0], *overrides])} for {topology} -> {out}", flush=True)
    prepare_planning()
    from framework.console import Console

    loaded = load_experiment(argv[0])
    config = apply_overrides(loaded.config, overrides)
    for line in diff(loaded.config, config):
        print(f"  {line}", flush=True)
    with Console() as console:
        return _plan(argv[0], config, overrides, topology, options, out, console)


def prepare_planning() -> None:
    """Variables that jax and libtpu read when they start: planning runs on the CPU, and quietly."""
    # A program for a pod that is not there can be stored, but not read back, and jax warns of that each time.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _plan(
    spec: str,
    config: "Experiment",
    overrides: list[str],
    topology: Topology,
    options: argparse.Namespace,
    out: Path,
    console: "Console",
) -> int:
    from framework.plan import Planner
    from framework.plan_report import plan_json

    planner = Planner(topology, console.status, options.dump)
    plan = planner.plan(config, only=options.only, child=_child(spec, topology, overrides, options))
    _show(plan, console)
    result = plan_json(plan, experiment=spec, overrides=overrides)
    if not plan.fits:
        result["remedies"] = _remedies(spec, config, overrides, plan, planner, options, console)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    console.print(str(out))
    return 0 if plan.fits else DOES_NOT_FIT


def _child(
    spec: str, topology: Topology, overrides: Sequence[str], options: argparse.Namespace
) -> Callable[[str], list[str]] | None:
    """The command that compiles one program for `--quick`."""
    if not options.quick:
        return None
    command = [sys.executable, "-m", "framework.plan_child", str(topology), spec]
    return lambda program: [*command, program, *overrides]


def _show(plan: "Plan", console: "Console") -> None:
    from rich.console import Console as RichConsole

    from framework.plan_report import tables, verdict

    mesh = ", ".join(f"{axis}={size}" for axis, size in plan.mesh.items() if size > 1) or "one device"
    console.print(f"{plan.topology.chips} {plan.topology.chip.title} chips, mesh {mesh}")
    width = max(shutil.get_terminal_size((120, 25)).columns, 100)
    rich = RichConsole(highlight=False, width=width)
    for table in tables(plan):
        rich.print()
        rich.print(table)
    rich.print()
    for line in verdict(plan):
        console.print(line)


def _remedies(
    spec: str,
    config: "Experiment",
    overrides: list[str],
    plan: "Plan",
    planner: "Planner",
    options: argparse.Namespace,
    console: "Console",
) -> list[dict[str, object]]:
    """Try what the experiment proposes, one after the other; say the first command that fits."""
    from framework.mesh import MeshConfig

    failing = [program.name for program in plan.programs if not program.fits]
    filled = dataclasses.replace(config, mesh=MeshConfig(**plan.mesh))  # without -1: remedies count devices  # pyright: ignore[reportArgumentType]
    proposed = list(filled.remedies(failing))
    tried: list[dict[str, object]] = []
    for number, remedy in enumerate(proposed[: options.tries], 1):
        words = shlex.join(remedy)
        console.print(f"Try {number} of {min(options.tries, len(proposed))}: {words}")
        changed = apply_overrides(config, remedy)
        child = _child(spec, planner.topology, [*overrides, *remedy], options)
        found = planner.plan(changed, only=options.only, first=failing, quick=True, child=child)
        tried.append({"overrides": list(remedy), "fits": found.fits, "bytes": _needed(found)})
        if found.fits:
            only = ["--only", *options.only] if options.only else []
            command = shlex.join(
                ["maypole", "plan", spec, "--topology", str(planner.topology), *only, *overrides, *remedy]
            )
            console.print(f"  fits: {_needed(found) / 2**30:.2f} GiB on each device. Type: {command}")
            return tried
        console.print(f"  does not fit: {_needed(found) / 2**30:.2f} GiB on each device")
    if len(tried) < len(proposed):
        console.print(f"{len(proposed) - len(tried)} more could be tried: --tries {len(proposed)}")
    else:
        console.print("Nothing that was tried fits. Plan for more chips with --topology, or use a smaller model.")
    return tried


def _needed(plan: "Plan") -> int:
    return max(program.memory.total for program in plan.programs)
