"""Devices of a pod that is not there: what libtpu describes and the compiler compiles for."""

import contextlib
import math
import os
from collections.abc import Iterator

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from framework.chips import Topology, topology_of_size
from framework.errors import UserError
from framework.mesh import AXES, MeshConfig
from framework.platforms import require_libtpu

__all__ = ["build_mesh", "topology_devices"]

# What libtpu would otherwise look for on a Cloud TPU machine, with waiting and complaints where there is none.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # its lock keeps two programs from one chip; a plan touches no chip
}


def topology_devices(topology: Topology) -> list[jax.Device]:  # pyright: ignore[reportInvalidTypeForm]
    """One device a chip. They can be compiled for, not computed on."""
    require_libtpu()
    # One device for the two cores of a chip, which is how the later families present themselves anyway.
    options = {"chip_config_name": "megacore"} if topology.family == "v4" else {}
    with _environment():
        try:
            return list(topologies.get_topology_desc(str(topology), "tpu", **options).devices)
        except jax.errors.JaxRuntimeError as error:
            examples = ", ".join(f"{topology.family}:{shape}" for shape in topology.chip.examples)
            raise UserError(
                f"--topology {topology}: libtpu does not know this shape ({str(error).splitlines()[0]}). For instance: {examples}."
            ) from None


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    added = [name for name in _ENVIRONMENT if name not in os.environ]
    os.environ.update({name: _ENVIRONMENT[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def build_mesh(config: MeshConfig, topology: Topology) -> Mesh:
    """The mesh of a config over all chips of a topology; a UserError that says which fields to set if they do not match."""
    devices = topology_devices(topology)
    sizes = {axis: getattr(config, axis) for axis in AXES}
    wanted, chips = math.prod(sizes.values()), topology.chips
    if min(sizes.values()) > 0 and wanted != chips:
        given = ", ".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1) or "data=1"
        same_size = topology_of_size(wanted, topology.family)
        instead = f", or plan for {wanted} chips: --topology {same_size}" if same_size else ""
        raise UserError(
            f"the mesh ({given}) uses {wanted} chip{'s' if wanted != 1 else ''}, but {topology} has {chips}. "
            f"Use {_fitting(sizes, chips)}{instead}."
        )
    return config.build(devices=devices)


def _fitting(sizes: dict[str, int], chips: int) -> str:
    """Options that make the mesh fill the chips: the axes that split the model stay if they can, fsdp takes the rest."""
    kept = {axis: size for axis, size in sizes.items() if axis not in ("data", "fsdp")}
    rest = chips // math.prod(kept.values()) if chips % math.prod(kept.values()) == 0 else 0
    if not rest:
        return " ".join([f"--mesh.fsdp {chips}", *(f"--mesh.{axis} 1" for axis in ("data", *kept) if sizes[axis] != 1)])
    data = " --mesh.data 1" if sizes["data"] != 1 else ""
    return f"--mesh.fsdp {rest}{data}"
