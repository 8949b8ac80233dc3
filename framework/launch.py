"""Job files for clusters: what starts `maypole run` on every host, and again after a failure. Nothing is sent anywhere.

GKE (a JobSet) and SLURM say who is who in variables; XPK leaves it to `--distributed`, which asks the Cloud TPU.
"""

import dataclasses
import json
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from framework.chips import Topology as PlannedTopology
from framework.errors import UserError

__all__ = ["TARGETS", "Job", "Slice", "check_mesh", "parse_topology", "render"]

Target = Literal["gke", "xpk", "slurm"]
TARGETS: dict[str, str] = {"gke": "gke.yaml.j2", "xpk": "xpk.sh.j2", "slurm": "slurm.sh.j2"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Generation:
    """How the chips of one TPU generation are sold."""

    gke: str  # value of the node label cloud.google.com/gke-tpu-accelerator
    xpk: str  # what --tpu-type begins with
    xpk_units: int  # what --tpu-type counts, a chip: cores for the older ones
    dims: int  # of a topology
    one_host: int  # chips of the largest machine that is a slice of its own


_GENERATIONS: Mapping[str, _Generation] = {
    "v4": _Generation(gke="tpu-v4-podslice", xpk="v4", xpk_units=2, dims=3, one_host=4),
    "v5e": _Generation(gke="tpu-v5-lite-podslice", xpk="v5litepod", xpk_units=1, dims=2, one_host=8),
    "v5p": _Generation(gke="tpu-v5p-slice", xpk="v5p", xpk_units=2, dims=3, one_host=4),
    "v6e": _Generation(gke="tpu-v6e-slice", xpk="v6e", xpk_units=1, dims=2, one_host=8),
}
_CHIPS_PER_HOST = 4  # in every slice of more than one host


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """A TPU slice, such as v5p:4x4x4."""

    generation: str
    topology: str
    chips: int
    hosts: int
    gke: str
    xpk: str


def parse_topology(text: str) -> Slice:
    """`v5p:4x4x4` and its like. Raises UserError."""
    name, _, shape = text.partition(":")
    generation = _GENERATIONS.get(name)
    examples = "v5e:4x4, v6e:2x4, v5p:4x4x4"
    if generation is None:
        raise UserError(f"--topology {text!r}: the chip is one of {', '.join(_GENERATIONS)}, for example {examples}.")
    if not re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3})*", shape) or shape.count("x") + 1 != generation.dims:
        raise UserError(
            f"--topology {text!r}: a {name} slice has {generation.dims} dimensions, for example "
            f"{name}:{'x'.join(['4'] * generation.dims)}."
        )
    PlannedTopology.parse(text)  # the shapes and sizes there are
    chips = math.prod(int(size) for size in shape.split("x"))
    one_host = chips <= generation.one_host
    if not one_host and chips % _CHIPS_PER_HOST:
        raise UserError(
            f"--topology {text!r} has {chips} chips, which machines of {_CHIPS_PER_HOST} cannot make up. "
            f"Use {name}:{'x'.join(['4'] * generation.dims)}."
        )
    return Slice(
        generation=name,
        topology=shape,
        chips=chips,
        hosts=1 if one_host else chips // _CHIPS_PER_HOST,
        gke=generation.gke,
        xpk=f"{generation.xpk}-{chips * generation.xpk_units}",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Everything a job file says."""

    name: str
    """Of the job and of the run folder: lower-case letters, digits and hyphens, as Kubernetes wants them."""
    spec: str
    """The experiment."""
    overrides: tuple[str, ...] = ()
    hosts: int = 1
    devices_per_host: int = 0
    slice: Slice | None = None
    gpu_type: str = ""
    """Value of the node label cloud.google.com/gke-accelerator; empty for any."""
    image: str = "IMAGE"
    dir: str = "/runs"
    """Folder for runs that every host sees."""
    claim: str = "maypole-runs"
    """Volume claim (GKE) or storage (XPK) behind `dir`."""
    time: str = "24:00:00"
    restarts: int = 10
    port: int = 8476
    grace_s: int = 120
    join_s: int = 1800
    """Images are pulled and nodes are booted while the first process waits."""

    @property
    def tpu(self) -> bool:
        return self.slice is not None

    @property
    def devices(self) -> int:
        return self.hosts * max(self.devices_per_host, 1)

    @property
    def xpk_type(self) -> str:
        return "" if self.slice is None else self.slice.xpk

    @property
    def selector(self) -> dict[str, str]:
        if self.slice is not None:
            return {
                "cloud.google.com/gke-tpu-accelerator": self.slice.gke,
                "cloud.google.com/gke-tpu-topology": self.slice.topology,
            }
        return {"cloud.google.com/gke-accelerator": self.gpu_type} if self.gpu_type else {}

    @property
    def command(self) -> str:
        words = ["maypole", "run", self.spec, "--name", self.name, "--dir", self.dir, "--or-resume", *self.overrides]
        return shlex.join(words)

    def validate(self) -> None:
        """Raises UserError with what to type instead."""
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", self.name):
            fixed = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:40].strip("-") or "run"
            raise UserError(
                f"--name {self.name!r} cannot name a job: use up to 40 lower-case letters, digits and hyphens, beginning with "
                f"a letter, such as --name {fixed if fixed[0].isalpha() else f'run-{fixed}'}"
            )
        for field, value in (
            ("--nodes", self.hosts),
            ("--restarts", self.restarts + 1),
            ("--gpus", self.devices_per_host + 1),
        ):
            if value < 1:
                raise UserError(f"{field} is too small. Use --nodes 2, --gpus 8, --restarts 10 or the like.")
        for word in (self.spec, self.image, self.dir, self.claim, self.gpu_type, *self.overrides):
            if not word.isprintable():
                raise UserError(f"{word!r} holds a line break or another invisible character. Leave it out.")
        if not self.dir.startswith("/"):
            raise UserError(
                f"--dir {self.dir!r} must be the whole path of a folder that every host sees, such as /runs."
            )
        if not re.fullmatch(r"(\d+-)?\d{1,3}(:\d{2}){0,2}", self.time):
            raise UserError(f"--time {self.time!r} is no time limit. Use hours:minutes:seconds, such as 24:00:00.")


def render(job: Job, target: Target) -> str:
    """The text of the job file."""
    import jinja2  # here and not above: `maypole launch --help` need not wait for it

    job.validate()
    if target == "xpk" and not job.tpu:
        raise UserError(
            "--on xpk starts TPU slices: say which with --topology, such as v5p:4x4x4. For GPUs use --on gke."
        )
    if target == "slurm" and job.tpu:
        raise UserError("--on slurm counts machines: use --nodes N and --gpus G instead of --topology.")
    if target == "gke" and not job.devices_per_host:
        raise UserError("--on gke needs a TPU slice, --topology v5p:4x4x4, or GPUs, --nodes N --gpus G.")
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates") / "launch"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # not HTML; values are quoted by the filters for YAML and for the shell
    )
    env.filters |= {"json": json.dumps, "sh": shlex.quote}
    values: dict[str, Any] = {
        "job": job,
        "title": f"maypole run {job.spec} on {_where(job)}",
        "xpk_command": shlex.quote(f"{job.command} --distributed --join-timeout {job.join_s}"),
    }
    return env.get_template(TARGETS[target]).render(values)


def _where(job: Job) -> str:
    hosts = f"{job.hosts} host{'s' if job.hosts > 1 else ''}"
    if job.slice is not None:
        return f"{hosts}, TPU {job.slice.generation} {job.slice.topology} ({job.slice.chips} chips)"
    return f"{hosts} with {job.devices_per_host} GPU{'s' if job.devices_per_host != 1 else ''} each"


def check_mesh(config: object, devices: int) -> None:
    """A mesh that leaves devices idle, or wants more than there are, is found here and not when the pod is up."""
    mesh = getattr(config, "mesh", None)
    if not dataclasses.is_dataclass(mesh) or isinstance(mesh, type):
        return
    sizes = {field.name: getattr(mesh, field.name) for field in dataclasses.fields(mesh)}
    shown = ", ".join(f"{name}={size}" for name, size in sizes.items())
    if list(sizes.values()).count(-1) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise UserError(f"mesh {shown} is not a mesh. Use sizes of 1 or more, and -1 for at most one axis.")
    product = math.prod(size for size in sizes.values() if size != -1)
    good = devices % product == 0 if -1 in sizes.values() else product == devices
    if not good:
        raise UserError(
            f"The experiment's mesh ({shown}) takes {product} device{'s' if product > 1 else ''}, and there are {devices}. "
            f"Add --mesh.fsdp -1 (weights split over all of them) or --mesh.data -1 (a copy of the weights on each)."
        )
