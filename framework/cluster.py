"""Which process of how many this is, and where process 0 listens: from options, from variables, or from the cluster.

Imports no jax unless the cluster is to be detected.
"""

import argparse
import dataclasses
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence

from framework.errors import UserError

__all__ = ["CLUSTER_OPTIONS", "Cluster", "add_cluster_options", "find_cluster"]

CLUSTER_OPTIONS = ("--coordinator", "--processes", "--process-id", "--distributed", "--join-timeout", "--peer-timeout")
COORDINATOR, PROCESSES, PROCESS_ID = "MAYPOLE_COORDINATOR", "MAYPOLE_PROCESSES", "MAYPOLE_PROCESS_ID"
DISTRIBUTED, JOIN_TIMEOUT, PEER_TIMEOUT = "MAYPOLE_DISTRIBUTED", "MAYPOLE_JOIN_TIMEOUT", "MAYPOLE_PEER_TIMEOUT"

JOIN_S, PEER_S = 300.0, 40.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """One process among several that run the same command."""

    coordinator: str
    """HOST:PORT of process 0. jax's own service takes the next port, or any free one where that is taken."""
    processes: int
    process_id: int
    """0 to processes - 1; process 0 writes, the others compute."""
    detected: bool = False
    """By jax from the cluster, so that the command to type needs only --distributed."""
    local_device_ids: tuple[int, ...] | None = None
    """Devices of this process, where the cluster runs several processes a machine."""
    join_timeout_s: float = JOIN_S
    peer_timeout_s: float = PEER_S

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)

    def options(self, process_id: int) -> list[str]:
        """What is typed behind a command on the host of that process."""
        if self.detected:
            return ["--distributed"]
        return [
            *("--coordinator", self.coordinator),
            *("--processes", str(self.processes)),
            *("--process-id", str(process_id)),
        ]


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """The options of `run` and `resume` for many hosts."""
    group = parser.add_argument_group(
        "many hosts",
        "Type the same command on every host, with another --process-id on each. All of them must see the same run folder "
        f"(a shared file system); only process 0 writes and prints. The variables {COORDINATOR}, {PROCESSES} and "
        f"{PROCESS_ID} do the same.",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens; PORT+1 is used as well")
    group.add_argument("--processes", metavar="N", help="number of processes, one a host")
    group.add_argument("--process-id", metavar="I", help="this one, 0 to N-1")
    group.add_argument(
        "--distributed", action="store_true", help="find the three out on a Cloud TPU, under SLURM or in Kubernetes"
    )
    group.add_argument(
        "--join-timeout",
        metavar="SECONDS",
        help=f"how long to wait for every process at the start (default: {JOIN_S:g})",
    )
    group.add_argument(
        "--peer-timeout",
        metavar="SECONDS",
        help=f"a process that is silent for so long counts as gone, and all stop (default: {PEER_S:g})",
    )


def find_cluster(options: argparse.Namespace, env: Mapping[str, str] | None = None) -> Cluster | None:
    """The cluster that options or variables ask for; None for a run of one process. Raises UserError."""
    env = os.environ if env is None else env
    join_s = _seconds(options.join_timeout, env, "--join-timeout", JOIN_TIMEOUT, JOIN_S)
    peer_s = _seconds(options.peer_timeout, env, "--peer-timeout", PEER_TIMEOUT, PEER_S)
    given = {
        "--coordinator": options.coordinator or env.get(COORDINATOR),
        "--processes": options.processes or env.get(PROCESSES),
        "--process-id": options.process_id or env.get(PROCESS_ID),
    }
    missing = [name for name, value in given.items() if value in (None, "")]
    if options.distributed or env.get(DISTRIBUTED, "0") not in ("", "0"):
        return dataclasses.replace(_detect(join_s, given), join_timeout_s=join_s, peer_timeout_s=peer_s)
    if len(missing) == len(given):
        return None
    if missing:
        raise UserError(
            f"A run on many hosts needs --coordinator, --processes and --process-id; {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing. For example: --coordinator HOST0:8476 --processes 4 "
            "--process-id 2. On a Cloud TPU, under SLURM or in Kubernetes --distributed finds them."
        )
    return Cluster(
        coordinator=_coordinator(str(given["--coordinator"])),
        processes=(count := _whole(given["--processes"], "--processes", 1, None)),
        process_id=_whole(given["--process-id"], "--process-id", 0, count - 1),
        join_timeout_s=join_s,
        peer_timeout_s=peer_s,
    )


def _coordinator(text: str) -> str:
    host, _, port = text.rpartition(":")
    if (
        not host
        or not port.isascii()
        or not port.isdecimal()
        or not 1 <= int(port) <= 65534
        or re.search(r"\s|/", host)
    ):
        raise UserError(
            f"--coordinator {text!r} is not HOST:PORT. Give the name or address of the host of process 0, which every other "
            "host can reach, and a free port up to 65534, for example: --coordinator host-0:8476"
        )
    return text


def _whole(value: object, option: str, least: int, most: int | None) -> int:
    text = str(value)
    if text.isascii() and text.isdecimal() and least <= int(text) and (most is None or int(text) <= most):
        return int(text)
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}, as there are {most + 1} processes"
    raise UserError(f"{option} {text} cannot be used: give a whole number {allowed}.")


def _seconds(value: object, env: Mapping[str, str], option: str, variable: str, default: float) -> float:
    text = value or env.get(variable) or default
    try:
        seconds = float(str(text))
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds < math.inf:
        raise UserError(f"{option} {text} is no time in seconds. Give a number of at least 1, for example {default:g}.")
    return seconds


def _detect(timeout_s: float, given: Mapping[str, object]) -> Cluster:
    """What jax finds out about the cluster; what is given already is not looked for."""
    # jax offers no public way to ask before it connects, and the roll call must come before.
    from jax._src.clusters import ClusterEnv

    coordinator, processes, process_id = given["--coordinator"], given["--processes"], given["--process-id"]
    coordinator, processes, process_id, devices = ClusterEnv.auto_detect_unset_distributed_params(
        None if coordinator is None else _coordinator(str(coordinator)),
        None if processes is None else _whole(processes, "--processes", 1, None),
        None if process_id is None else _whole(process_id, "--process-id", 0, None),
        None,
        None,
        math.ceil(timeout_s),
    )
    if os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] == "1":
        devices = None  # jax gives each SLURM task one GPU, also where it is the only task of its machine
    if coordinator is None or processes is None or process_id is None:
        raise UserError(
            "--distributed found no cluster: this is no Cloud TPU, no SLURM step (start it with srun, not with sbatch alone) "
            "and no Kubernetes job (which needs the package kubernetes). Say it yourself on every host: "
            "--coordinator HOST0:8476 --processes N --process-id I"
        )
    return Cluster(
        coordinator=coordinator,
        processes=processes,
        process_id=process_id,
        detected=True,
        local_device_ids=None if devices is None else tuple(devices),
    )


def command_line(words: Sequence[str], cluster: Cluster, process_id: int) -> str:
    """The `maypole ...` command as it is typed on the host of that process."""
    return shlex.join(["maypole", *words, *cluster.options(process_id)])
