"""The device mesh, and the one table that maps logical axes to it. Nothing else writes a PartitionSpec."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from framework import state as state_lib
from framework.errors import UserError

Tree = TypeVar("Tree")
Out = TypeVar("Out")

AXES = ("data", "fsdp", "tensor", "context", "expert")

# Logical axis -> mesh axis or axes. None: the whole dimension on every device.
RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),  # rows of a batch; fsdp devices see different rows too
    "length": "context",  # time, for context parallelism
    "embed": "fsdp",  # the model dimension D: ZeRO-3 style
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
    "experts": "expert",
    "head_dim": None,
    "layers": None,  # the stacked axis of scanned layers
    "rank": None,  # the inner dimension of a low-rank adapter
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis. One axis may be -1: all the devices the others leave."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1
    context: int = 1
    expert: int = 1

    def build(self, devices: Sequence[jax.Device] | None = None) -> Mesh:  # pyright: ignore[reportInvalidTypeForm]
        """A mesh with all five axes. Takes the first devices when fewer are asked for than there are."""
        devices = list(jax.devices() if devices is None else devices)
        sizes = [getattr(self, axis) for axis in AXES]
        given = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
        if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
            raise UserError(f"mesh {given} is not a mesh. Use sizes of 1 or more, and -1 for at most one axis.")
        if -1 in sizes:
            axis = sizes.index(-1)
            others = math.prod(size for size in sizes if size != -1)
            if len(devices) % others:
                raise UserError(
                    f"mesh {given} cannot use {len(devices)} devices: the other axes take {others}, which does not "
                    f"divide {len(devices)}. Choose them so that their product divides {len(devices)}."
                )
            sizes[axis] = len(devices) // others
        needed = math.prod(sizes)
        if needed > len(devices):
            raise UserError(
                f"mesh {given} needs {needed} devices, but there {_are(len(devices))}. Set one axis to -1 (for instance "
                f"mesh.data=-1, and the others to 1), or start with more devices; on a CPU: "
                f"XLA_FLAGS=--xla_force_host_platform_device_count={needed}."
            )
        if needed < len(devices) and jax.process_count() > 1:
            raise UserError(
                f"mesh {given} uses {needed} of {len(devices)} devices over {jax.process_count()} hosts, which would "
                "leave hosts without work. Set mesh.data=-1 to use all of them."
            )
        # Explicit axes (the default of jax.make_mesh) refuse with_sharding_constraint.
        return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices[:needed])


def _are(n: int) -> str:
    return "is 1" if n == 1 else f"are {n}"


def spec(*logical: str | None) -> PartitionSpec:
    """PartitionSpec of an array whose dimensions have these logical names (None: not split)."""
    unknown = [name for name in logical if name is not None and name not in RULES]
    if unknown:
        raise KeyError(f"logical axis {unknown[0]!r} is not in framework.mesh.RULES. Use one of: {', '.join(RULES)}.")
    return PartitionSpec(*(RULES[name] if name else None for name in logical))


def sharding(mesh: Mesh, *logical: str | None) -> NamedSharding:
    """Where an array with these logical axes lives; no names: the whole of it on every device."""
    return NamedSharding(mesh, spec(*logical))


def current_mesh() -> AbstractMesh | None:
    """The mesh of the surrounding `with jax.set_mesh(mesh)`, also while a function is traced; None outside of one.

    It knows axes, sizes and the platform, which is what a model needs to split its work and to choose its kernels.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty else mesh


def split_mesh() -> AbstractMesh | None:
    """`current_mesh()` where arrays are whole and have to be split; None on one device, and inside of jax.shard_map."""
    mesh = current_mesh()
    return None if mesh is None or mesh.size == 1 or mesh.manual_axes else mesh


def platform() -> str:
    """What the program being traced will run on: "cpu", "gpu" or "tpu"; of the current mesh, or of the default device."""
    mesh = current_mesh()
    name = jax.default_backend() if mesh is None or mesh.abstract_device is None else mesh.abstract_device.platform
    return {"cuda": "gpu", "rocm": "gpu"}.get(name, name)


def constrain(x: jax.Array, *logical: str | None) -> jax.Array:
    """`x`, kept split over the current mesh as its logical axes say; `x` itself outside of a mesh."""
    mesh = split_mesh()
    if mesh is None:
        return x
    check_split("an activation", x.shape, logical, mesh)
    return jax.lax.with_sharding_constraint(x, spec(*logical))


def check_split(what: str, shape: Sequence[int], logical: Sequence[str | None], mesh: Mesh | AbstractMesh) -> None:
    """Refuse an array with a dimension that cannot be dealt out evenly; the error says what to change."""
    for dim, (name, size) in enumerate(zip(logical, shape, strict=True)):
        axes = _mesh_axes(name)
        shards = math.prod(mesh.shape[axis] for axis in axes)
        if size % shards == 0:
            continue
        split = ", ".join(f"{axis}={mesh.shape[axis]}" for axis in axes)
        rest, fits = size, []
        for axis in axes:
            fit = math.gcd(rest, mesh.shape[axis])
            rest //= fit
            fits += [] if fit == mesh.shape[axis] else [f"mesh.{axis}={fit}"]
        raise UserError(
            f"{what} {list(shape)}: dimension {dim} ({name!r}) has size {size}, which cannot be split over {shards} devices "
            f"(mesh {split}). Use {' and '.join(fits)}, or a size that {shards} divides, such as {-(-size // shards) * shards}."
        )


def jit_on(mesh: Mesh, function: Callable[..., Out], **options: Any) -> Callable[..., Out]:
    """`jax.jit(function, **options)`, traced and called with `mesh` as the current mesh."""
    compiled = jax.jit(function, **options)

    def call(*args: Any, **kwargs: Any) -> Out:
        with jax.set_mesh(mesh):
            return compiled(*args, **kwargs)

    return call


def shard_tree(mesh: Mesh, tree: Tree, *, whole: Sequence[str] = ()) -> Tree:
    """The tree with a NamedSharding for each array: what `out_shardings=` and `jax.device_put` take.

    `tree` may be abstract (jax.eval_shape). Parameters say their axes in their own metadata,
    `nnx.Param(x, logical=("embed", "mlp"))`; what says nothing is replicated, and so are axes named in `whole`.
    """
    return state_lib.rebuild(tree, [_leaf_sharding(mesh, leaf, whole) for leaf in state_lib.leaves(tree)])


def abstract_tree(mesh: Mesh, tree: Tree) -> Tree:
    """The tree with a sharded jax.ShapeDtypeStruct for each array: what restoring a checkpoint takes."""
    return state_lib.rebuild(
        tree,
        [
            jax.ShapeDtypeStruct(leaf.value.shape, leaf.value.dtype, sharding=_leaf_sharding(mesh, leaf))  # pyright: ignore[reportAttributeAccessIssue]
            for leaf in state_lib.leaves(tree)
        ],
    )


def _leaf_sharding(mesh: Mesh, leaf: state_lib.Leaf, whole: Sequence[str] = ()) -> NamedSharding:
    shape = np.shape(leaf.value)  # pyright: ignore[reportArgumentType]
    if leaf.logical is None:
        return sharding(mesh)
    if len(leaf.logical) != len(shape):
        raise UserError(
            f"{leaf.name} has {len(shape)} dimensions, {list(shape)}, but logical={leaf.logical} names "
            f"{len(leaf.logical)}. Give one name (or None) for each dimension."
        )
    logical = [None if name in whole else name for name in leaf.logical]
    check_split(leaf.name, shape, logical, mesh)
    return sharding(mesh, *logical)


def _mesh_axes(logical: str | None) -> tuple[str, ...]:
    (axes,) = spec(logical)
    return () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)


def batch_shards(mesh: Mesh | AbstractMesh) -> int:
    """Number of parts the rows of a batch are split into."""
    return math.prod(mesh.shape[axis] for axis in _mesh_axes("batch"))


def check_batch(batch: int, mesh: Mesh, field: str = "batch_size") -> None:
    """Refuse a batch whose rows cannot be dealt out evenly. `field` is the config field to name in the error."""
    axes, shards = _mesh_axes("batch"), batch_shards(mesh)
    if batch % shards or batch < 1:
        split = ", ".join(f"{axis}={mesh.shape[axis]}" for axis in axes)
        raise UserError(
            f"{field}={batch} cannot be split over {shards} devices (mesh {split}). "
            f"Use {field}={max(-(-batch // shards), 1) * shards}, or set "
            f"{' and '.join(f'mesh.{axis}=1' for axis in axes if mesh.shape[axis] > 1) or 'a positive batch'}."
        )


def put_batch(mesh: Mesh, tree: Tree) -> Tree:
    """Numpy arrays [B, ...] -> device arrays with the rows split over the batch axes; scalars go everywhere.

    Every host passes the same whole batch (it is a function of seed and step) and keeps its own rows.
    """

    def put(x):
        x = np.asarray(x)
        if x.ndim == 0:
            target = sharding(mesh)
        else:
            check_batch(x.shape[0], mesh)
            target = sharding(mesh, "batch")
        if target.is_fully_addressable:
            return jax.device_put(x, target)
        return jax.make_array_from_callback(x.shape, target, lambda index: x[index])

    return jax.tree.map(put, tree)
