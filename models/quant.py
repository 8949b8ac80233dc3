"""Quartet: linear layers whose three products have MXFP4 operands, put into a built model from outside (arXiv:2505.14669).

    model = quantise(model, QUARTET, key)            # every projection of every block; embeddings, norms and the head stay
    frozen = at_step(frozen, step)                   # in a training step: new random signs

The forward pass rotates by a fixed Hadamard matrix and quantises by QuEST; the backward pass rotates by random signs and the
matrix, and quantises by absmax with a factor 3/4 (version 4 of the paper, algorithm 1). What it keeps for the backward pass is
4-bit codes and 1-bit masks. `models/quartet.py` is the arithmetic of one layer.
"""

import dataclasses
import zlib
from typing import TypeVar

import jax
from flax import nnx

from framework.errors import UserError
from framework.mesh import RULES, split_mesh
from kernels_pallas.mxfp4 import ABSMAX_RTN, ABSMAX_SR, GROUP, QUEST, Quantizer
from models.linear import Linear
from models.lora import LoRALinear
from models.lora.adapters import shallow_copy
from models.quartet import quartet_project

__all__ = [
    "BACKWARD_ONLY",
    "FORWARD_ONLY",
    "NAIVE",
    "QUARTET",
    "QUARTET_SR",
    "QuantKey",
    "Quantised",
    "QuartetLinear",
    "at_step",
    "check_sizes",
    "quantise",
    "unquantise",
]

Model = TypeVar("Model", bound=nnx.Module)
Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantised:
    """Which layers are quantised in training, and how. Trained are the same float32 or bfloat16 matrices as without it."""

    forward: Quantizer | None = QUEST
    """Of the input and the matrix in the forward product; None leaves them as they are."""
    backward: Quantizer | None = ABSMAX_RTN
    """Of the gradient, the matrix and the input in the two backward products; None: products of what the forward pass saw."""
    rotate: bool = True
    """Hadamard rotation by blocks of 32: a fixed one forward, one with random signs backward."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that are quantised, in every block."""

    def validate(self) -> None:
        """Raises UserError for a rule that cannot be meant."""
        for field in ("forward", "backward"):
            quantizer = getattr(self, field)
            if quantizer is None:
                continue
            quantizer.validate()
            if field == "forward" and quantizer.rounding == "stochastic":
                raise UserError(
                    "quant.forward rounds stochastically, but a model is a function of its inputs, and generation must see "
                    "what training sees. Use rounding='down' or 'even'."
                )
        if self.forward is None and self.backward is None:
            raise UserError("quant quantises neither pass. Use quant=None for a plain model, or models.quant.QUARTET.")
        if not self.targets:
            raise UserError(
                "quant.targets is empty, so nothing would be quantised. Use for example ('q_proj', 'v_proj')."
            )


QUARTET = Quantised()
"""Version 4 of the paper: backward pass rounded to nearest."""
QUARTET_SR = Quantised(backward=ABSMAX_SR)
"""Version 1 of the paper: backward pass rounded stochastically."""
FORWARD_ONLY = Quantised(backward=None)
"""Quantised forward pass, exact products in the backward pass: what effN is measured with."""
BACKWARD_ONLY = Quantised(forward=None)
"""Exact forward pass, quantised backward pass: what effD is measured with."""
NAIVE = Quantised(forward=ABSMAX_RTN, rotate=False)
"""absmax and rounding to nearest in both passes, no rotation, no mask: what a first try would be."""


class QuantKey(nnx.Variable):
    """Random key data of a layer, uint32 [2] (or [L, 2] when layers are stacked): the signs and noise of one backward pass."""


# Layers that read the same input share what is made of it: signs, and noise of the input (the paper fuses their matrices).
_FUSED = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "gate_up", "up_proj": "gate_up"}


class QuartetLinear(nnx.Module):
    """x W + b with quantised operands. Takes over the variables of a `Linear` under their names."""

    def __init__(self, linear: Linear, rule: Quantised, key: jax.Array, name: str):
        self.kernel, self.bias, self.rule = linear.kernel, linear.bias, rule
        self.salt = zlib.crc32(name.encode()) & 0x7FFFFFFF
        stack = linear.kernel.shape[:-2]
        keys = jax.random.split(key, stack) if stack else key
        self.key = QuantKey(jax.random.key_data(keys), logical=(*("layers" for _ in stack), None))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., in] -> [..., out]; differentiated, the number of tokens must be a multiple of 32."""
        key = jax.random.wrap_key_data(self.key[...])
        y = quartet_project(x, self.kernel[...], key, self.rule, self.salt)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)

    def plain(self) -> Linear:
        """The layer without quantisation, of the same variables."""
        sizes, logical = self.kernel.shape[-2:], self.kernel.get_metadata()["logical"][-2:]
        bias = self.bias is not None
        # No arrays, they are replaced.
        linear = nnx.eval_shape(lambda: Linear(nnx.Rngs(0), *sizes, logical=logical, bias=bias))
        linear.kernel, linear.bias = self.kernel, self.bias
        return linear


def quantise(model: Model, rule: Quantised, key: jax.Array) -> Model:
    """A model that shares the arrays of `model` and quantises in its target layers. Works under jit and nnx.eval_shape.

    Raises:
        UserError: targets that the model does not have, sizes that are no multiple of 32, adapters or quantised layers there.
    """
    rule.validate()
    model = shallow_copy(model)
    found = [
        ("/".join(map(str, path)), parent, name, child)
        for path, parent in list(nnx.iter_modules(model))
        for name, child in list(vars(parent).items())
        if isinstance(child, Linear | LoRALinear | QuartetLinear)
    ]
    if any(not isinstance(child, Linear) for *_, child in found):
        raise UserError(
            "The model has adapters or quantised layers already. Quantise a plain model: merge_lora(model) or "
            "unquantise(model) makes one."
        )
    there = sorted({name for _, _, name, _ in found})
    if unknown := [target for target in rule.targets if target not in there]:
        raise UserError(
            f"quant.targets names {', '.join(map(repr, unknown))}, but the linear layers of this model are: {', '.join(there)}."
        )
    for path, parent, name, linear in found:
        if isinstance(linear, Linear) and name in rule.targets:
            check_sizes(linear, f"{path}/{name}")
            own = jax.random.fold_in(key, zlib.crc32(f"{path}/{_FUSED.get(name, name)}".encode()))
            setattr(parent, name, QuartetLinear(linear, rule, own, name))
    return model


def unquantise(model: Model) -> Model:
    """The plain model of the same arrays: what is exported."""
    model = shallow_copy(model)
    for _, parent in list(nnx.iter_modules(model)):
        for name, child in list(vars(parent).items()):
            if isinstance(child, QuartetLinear):
                setattr(parent, name, child.plain())
    return model


def at_step(tree: Tree, step: jax.Array | int, part: jax.Array | int = 0) -> Tree:
    """The tree of variables with the keys of this step, and of this part of its batch: a function of both and of the first keys."""

    def fold(variable: nnx.Variable) -> nnx.Variable:
        if not isinstance(variable, QuantKey):
            return variable
        keys = jax.random.wrap_key_data(variable[...])
        now = lambda key: jax.random.key_data(jax.random.fold_in(jax.random.fold_in(key, step), part))  # noqa: E731
        return variable.replace(now(keys) if keys.ndim == 0 else jax.vmap(now)(keys))

    return jax.tree.map(fold, tree, is_leaf=lambda x: isinstance(x, nnx.Variable))


def check_sizes(linear: Linear, path: str) -> None:
    """Refuse a matrix whose sides are no multiples of 32, whole or on each device of the current mesh."""
    mesh = split_mesh()
    logical = linear.kernel.get_metadata()["logical"][-2:]
    for which, size, name in zip(("in", "out"), linear.kernel.shape[-2:], logical, strict=True):
        axis = RULES[name] if name else None
        parts = mesh.shape[axis] if mesh is not None and isinstance(axis, str) else 1
        if size % GROUP:
            raise UserError(
                f"{path} has {which}={size}, which is no multiple of {GROUP}: groups of {GROUP} share a scale. Use "
                f"{-(-size // GROUP) * GROUP}, or take {path.rsplit('/', 1)[-1]!r} out of quant.targets."
            )
        whole = GROUP * parts
        if size % whole:
            raise UserError(
                f"{path} has {which}={size}, split over mesh.{axis}={parts} devices into {size / parts:g} each, which cuts groups "
                f"of {GROUP}. Use a size that {whole} divides, such as {-(-size // whole) * whole}, or "
                f"mesh.{axis}={_largest_split(size, parts)}."
            )


def _largest_split(size: int, parts: int) -> int:
    return max(n for n in range(1, parts + 1) if parts % n == 0 and size % (GROUP * n) == 0)
