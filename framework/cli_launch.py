"""`maypole launch`: a job file for a cluster, printed or written. It starts nothing."""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from framework.cli_paths import check_file
from framework.config import Spec, load_experiment
from framework.errors import UserError
from framework.launch import TARGETS, Job, check_mesh, parse_topology, render
from framework.overrides import apply_overrides

__all__ = ["launch_command"]

_HOW = {"gke": "kubectl apply -f {}", "xpk": "CLUSTER=... PROJECT=... ZONE=... bash {}", "slurm": "sbatch {}"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="maypole launch",
        usage="maypole launch EXPERIMENT[:VARIANT] --on {gke,xpk,slurm} (--topology T | --nodes N) (--print | --out FILE) "
        "[--field.sub value ...]",
        description="A job file that starts the experiment on every host of a cluster, and again from its newest checkpoint "
        "after a failure. It is printed or written; nothing is started.",
        epilog="For example: maypole launch entropy_mechanism:paper --on gke --topology v5p:4x4x4 --image IMAGE --print",
        allow_abbrev=False,
    )
    parser.add_argument("--on", choices=list(TARGETS), required=True, help="GKE with JobSet, GKE with XPK, or SLURM")
    parser.add_argument("--topology", metavar="T", help="TPU slice in chips, such as v5p:4x4x4, v5e:4x8, v6e:4x4")
    parser.add_argument("--nodes", type=int, metavar="N", help="machines, one process on each; for GPUs")
    parser.add_argument("--gpus", type=int, default=8, metavar="G", help="GPUs of a machine; 0: none (default: 8)")
    parser.add_argument(
        "--gpu-type", default="", metavar="LABEL", help="GKE's name of the GPU, such as nvidia-h100-80gb"
    )
    parser.add_argument("--image", default="IMAGE", help="container image with maypole in it, for gke and xpk")
    parser.add_argument("--name", help="of the job and its run folder (default: the experiment's)")
    parser.add_argument(
        "--dir",
        help="folder for runs, the same storage on every host (default: /runs; for slurm, runs in the folder you are in)",
    )
    parser.add_argument(
        "--claim",
        default="maypole-runs",
        help="volume claim (gke) or storage (xpk) mounted there (default: maypole-runs)",
    )
    parser.add_argument("--time", default="24:00:00", help="SLURM's limit, hours:minutes:seconds (default: 24:00:00)")
    parser.add_argument(
        "--restarts", type=int, default=10, metavar="K", help="how often to go on after a host is lost (default: 10)"
    )
    parser.add_argument("--print", action="store_true", help="print the job file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the job file")
    return parser


def launch_command(argv: Sequence[str]) -> int:
    """Render a job file."""
    parser = _parser()
    if not argv or argv[0] in ("-h", "--help") or {"-h", "--help"} & set(argv):
        parser.print_help(sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0].startswith("-"):
        raise UserError(f"The experiment comes first: maypole launch EXPERIMENT {shlex.join(argv)}")
    from framework.cli_run import split_options

    own_names = [name for action in parser._actions for name in action.option_strings]
    own, overrides = split_options(argv[1:], own_names)
    options = parser.parse_args(own)
    job = _job(argv[0], options, overrides)
    if not options.print and options.out is None:
        raise UserError("maypole launch starts nothing by itself. --print shows the job file, --out FILE writes it.")
    text = render(job, options.on)
    config = apply_overrides(
        load_experiment(argv[0]).config, overrides
    )  # a wrong field is found here, not on the cluster
    check_mesh(config, job.devices)
    if options.print:
        print(text, end="")
    if options.out is not None:
        check_file(options.out, "--out", f"{job.name}.{'yaml' if options.on == 'gke' else 'sh'}")
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
        print(f"{options.out}: start it with  {_HOW[options.on].format(options.out)}", file=sys.stderr)
    return 0


def _job(spec: str, options: argparse.Namespace, overrides: Sequence[str]) -> Job:
    parsed = Spec.parse(spec)
    parsed.check_exists()
    if (options.topology is None) == (options.nodes is None):
        raise UserError(
            "Say how large: either --topology, such as v5p:4x4x4, for TPUs, or --nodes N for machines with GPUs."
        )
    name = options.name or re.sub(r"[^a-z0-9]+", "-", parsed.name.lower()).strip("-")
    piece = None if options.topology is None else parse_topology(options.topology)
    hosts = options.nodes if piece is None else piece.hosts
    return Job(
        name=name,
        spec=spec,
        overrides=tuple(overrides),
        hosts=hosts,
        devices_per_host=options.gpus if piece is None else piece.chips // piece.hosts,
        slice=piece,
        gpu_type=options.gpu_type,
        image=options.image,
        dir=options.dir or (str(Path.cwd() / "runs") if options.on == "slurm" else "/runs"),
        claim=options.claim,
        time=options.time,
        restarts=options.restarts,
    )
