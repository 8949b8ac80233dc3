"""Packed matrices in the place of those of a built decoder's linear layers. See `models.ptq`.

A layer is the same module as before: its matrix is an object that multiplies.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding

from framework.errors import UserError
from framework.mesh import check_split, shard_tree, split_mesh
from kernels_pallas import e2m1, mxfp4, nvfp4
from kernels_pallas.hadamard import hadamard
from models.linear import Linear
from models.lora.adapters import adapters, shallow_copy

__all__ = [
    "PTQ",
    "Format",
    "PackedKernel",
    "PackedMatrix",
    "abstract_packed",
    "pack",
    "packed_layers",
    "quantize_model",
    "quantize_tokens",
]

Format = Literal["mxfp4", "nvfp4"]
Model = TypeVar("Model", bound=nnx.Module)

_PARTS = 16  # a mesh may cut a matrix in NVFP4 into so many parts along each axis


@dataclasses.dataclass(frozen=True, kw_only=True)
class PTQ:
    """How the matrices of a model are quantised."""

    format: Format = "mxfp4"
    """"mxfp4": groups of 32 with a power of two, 4.25 bits a weight; "nvfp4": groups of 16 with an 8-bit float, 4.5 bits."""
    rotate: bool = False
    """Quantise W H and multiply it with x H, H the Hadamard transform of each group: outliers are spread over their group."""
    activations: bool = False
    """Quantise what is multiplied with the weights as well, each token on its own."""

    @property
    def group(self) -> int:
        """Numbers that share a scale, which is also the block of the rotation."""
        return mxfp4.GROUP if self.format == "mxfp4" else nvfp4.GROUP

    @property
    def bits(self) -> float:
        """Bits a weight, of codes and group scales."""
        return 4 + 8 / self.group

    def validate(self) -> None:
        """Raises UserError for a format that is none."""
        if self.format not in get_args(Format):
            raise UserError(f"format={self.format!r} is not known. Use {' or '.join(map(repr, get_args(Format)))}.")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedMatrix:
    """A matrix [..., in, out] in 4 bits, kept the other way round, so that groups lie along its last dimension."""

    codes: jax.Array  # uint8 [..., out, in / 2]
    scales: jax.Array  # uint8 [..., out, in / group]
    tensor_scale: jax.Array | None
    """NVFP4: float32 [..., P, Q], all the same number G: one for each part that a mesh may cut the matrix into, because the axes of
    the matrix are those of everything that belongs to it."""
    config: PTQ = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., in, out]."""
        *stack, size_out, half = self.codes.shape
        return (*stack, 2 * half, size_out)

    def __getitem__(self, key: object) -> "PackedMatrix":
        """`matrix[...]`, as all variables are read."""
        if key is not ...:
            raise TypeError(f"A packed matrix {list(self.shape)} has no item {key!r}. Use values() for its numbers.")
        return self

    def astype(self, dtype: Any) -> "PackedMatrix":
        """Itself: numbers are given the type of what they are multiplied with."""
        del dtype
        return self

    def values(self) -> jax.Array:
        """The numbers it stands for, float32 [..., in, out]; of W H if it is rotated."""
        if self.tensor_scale is None:
            return mxfp4.dequantize(mxfp4.MXFP4(self.codes, self.scales)).mT
        *stack, p, q = self.tensor_scale.shape
        if split_mesh() is None:
            rows = jnp.broadcast_to(self.tensor_scale[..., :1, :1], (*self.codes.shape[:-1], 1))
            return nvfp4.dequantize(nvfp4.NVFP4(self.codes, self.scales, rows)).mT
        value = nvfp4.reference.dequantize(e2m1.unpack(self.codes), self.scales, None)  # [..., out, in]
        parts = value.reshape(*stack, p, value.shape[-2] // p, q, value.shape[-1] // q)
        return (parts * (1.0 / self.tensor_scale)[..., :, None, :, None]).reshape(value.shape).mT

    def __rmatmul__(self, x: jax.Array) -> jax.Array:
        """x [..., in] -> [..., out], in the type of x; the tokens of x do not know of each other."""
        # Bound to x, which is new at every step: what does not change may be computed before a loop, for all layers at once.
        y, here = jax.lax.optimization_barrier((x, self))
        if self.config.rotate:
            y = hadamard(y, block=self.config.group)
        if self.config.activations:
            return here.multiplied(quantize_tokens(y, self.config)).astype(x.dtype)
        return y.astype(x.dtype) @ here.values().astype(x.dtype)

    def multiplied(self, tokens: mxfp4.MXFP4 | nvfp4.NVFP4) -> jax.Array:
        """tokens [..., in] of the same format -> float32 [..., out]: products of 4-bit numbers, summed in float32."""
        if isinstance(tokens, mxfp4.MXFP4):
            return mxfp4.matmul(tokens, mxfp4.MXFP4(self.codes, self.scales))
        assert self.tensor_scale is not None
        return nvfp4.matmul(tokens, nvfp4.NVFP4(self.codes, self.scales, self.tensor_scale[0, 0]))


def quantize_tokens(x: jax.Array, config: PTQ) -> mxfp4.MXFP4 | nvfp4.NVFP4:
    """x [..., in] in the format; one scale a token where NVFP4 has one a tensor, so that tokens do not know of each other."""
    if config.format == "mxfp4":
        return mxfp4.quantize(x)[0]
    return nvfp4.quantize(x, scale=nvfp4.tensor_scale(x, rows=True))


class PackedKernel(nnx.Variable):
    """Holds a `PackedMatrix` where a linear layer had its matrix. No parameter: nothing of it is trained.

    `logical` names the axes (out, in) of codes and scales, which framework.mesh splits alike: a group is never cut.
    """


def pack(kernel: jax.Array, config: PTQ) -> PackedMatrix:
    """kernel [in, out] or stacked [L, in, out] -> packed; computed in float32."""
    if kernel.ndim > 2:
        return jax.vmap(lambda one: pack(one, config))(kernel)
    turned = kernel.T.astype(jnp.float32)  # [out, in]
    if config.rotate:
        turned = hadamard(turned, block=config.group)
    if config.format == "mxfp4":
        packed, _ = mxfp4.quantize(turned)
        return PackedMatrix(packed.codes, packed.scales, None, config)
    packed = nvfp4.quantize(turned)
    return PackedMatrix(packed.codes, packed.scales, jnp.full(_parts(turned.shape), packed.scale), config)


_pack = jax.jit(pack, static_argnums=1)


def _parts(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many copies of the tensor scale are kept along (out, in)."""
    size_out, size_in = shape[-2:]
    return math.gcd(size_out, _PARTS), math.gcd(size_in // nvfp4.GROUP, _PARTS)


def quantize_model(model: Model, config: PTQ, *, progress: Callable[[int, int], None] | None = None) -> Model:
    """A model whose linear layers are packed; it shares everything else with `model`, which stays as it is.

    Matrices that live on a mesh stay on it, split along the same axes. `progress(done, total)` counts bytes of matrices.

    Raises:
        UserError: a size that is no multiple of the group, a model that is quantised already or has adapters, a mesh that would
            cut a group.
    """
    config.validate()
    model = shallow_copy(model)
    if any(True for _ in packed_layers(model)):
        raise UserError("The model is quantised already. Quantise the one it was made of.")
    if any(True for _ in adapters(model)):
        raise UserError("The model has adapters. Use merge_lora(model) first, and quantise the result.")
    linears = list(_linears(model))
    _check_sizes(linears, config)
    total, done = sum(linear.kernel.get_value().nbytes for _, linear in linears), 0
    for path, linear in linears:
        kernel: Any = linear.kernel.get_value()
        packed = PackedKernel(_pack(kernel, config), logical=_turned(linear))
        sharding = None if isinstance(kernel, Tracer) else getattr(kernel, "sharding", None)
        if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
            groups = packed.get_value().scales.shape
            check_split(f"{path} in groups of {config.group} inputs", groups, _turned(linear), sharding.mesh)
            packed.set_value(jax.device_put(packed.get_value(), shard_tree(sharding.mesh, packed).get_value()))
        _put(linear, packed)
        done += kernel.nbytes
        if progress is not None:
            progress(done, total)
    return model


def abstract_packed(model: Model, config: PTQ) -> Model:
    """`quantize_model` of a model of shapes (`models.decoder.hf_names.abstract_decoder`): nothing is computed."""
    config.validate()
    model = shallow_copy(model)
    linears = list(_linears(model))
    _check_sizes(linears, config)
    for _, linear in linears:
        *stack, size_in, size_out = linear.kernel.shape
        shape = lambda *size: jax.ShapeDtypeStruct((*stack, *size), jnp.uint8)  # noqa: B023, E731
        parts = (*stack, *_parts((size_out, size_in)))
        scale = jax.ShapeDtypeStruct(parts, jnp.float32) if config.format == "nvfp4" else None
        make: Any = PackedMatrix  # of shapes in the place of arrays
        matrix = make(shape(size_out, size_in // 2), shape(size_out, size_in // config.group), scale, config)
        _put(linear, PackedKernel(matrix, logical=_turned(linear)))
    return model


def packed_layers(model: nnx.Module) -> Iterator[tuple[str, PackedMatrix]]:
    """Path such as "blocks/0/attention/q_proj" and matrix of every packed layer."""
    for path, linear in _linears(model):
        kernel: Any = linear.kernel
        if isinstance(kernel, PackedKernel):
            yield path, kernel.get_value()


def _linears(model: nnx.Module) -> Iterator[tuple[str, Linear]]:
    for path, module in nnx.iter_modules(model):
        if isinstance(module, Linear):
            yield "/".join(map(str, path)), module


def _put(linear: Linear, kernel: PackedKernel) -> None:
    linear.kernel = kernel  # pyright: ignore[reportAttributeAccessIssue]  # multiplies as the Param that was there


def _turned(linear: Linear) -> tuple[str | None, ...]:
    *stack, name_in, name_out = linear.kernel.get_metadata()["logical"]
    return (*stack, name_out, name_in)


def _check_sizes(linears: list[tuple[str, Linear]], config: PTQ) -> None:
    if not linears:
        raise UserError("The model has no linear layers to quantise.")
    uneven = {path: size for path, linear in linears if (size := linear.kernel.shape[-2]) % config.group}
    if not uneven:
        return
    path, size = next(iter(uneven.items()))
    other = PTQ(format="nvfp4")
    fits = all(size % other.group == 0 for size in uneven.values())
    fix = (
        f"Use format={other.format!r} (--format {other.format}), with groups of {other.group}"
        if fits and config.format != other.format
        else (f"Only models whose layers have multiples of {other.group} inputs can be quantised")
    )
    raise UserError(
        f"{path} has {size} inputs, which cannot be cut into the groups of {config.group} that {config.format} has "
        f"({len(uneven)} of {len(linears)} layers are like that). {fix}."
    )
