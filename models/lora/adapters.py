"""Adapters in a built model: put in, found again, and merged into the matrices they stand beside."""

import dataclasses
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.core import Tracer
from jax.sharding import NamedSharding

from framework.errors import UserError
from framework.mesh import shard_tree
from models.linear import Linear, project

__all__ = ["LoRA", "LoRALinear", "adapters", "add_lora", "merge_lora", "shallow_copy"]

Model = TypeVar("Model", bound=nnx.Module)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRA:
    """Train low-rank adapters and nothing else: x W + (x A) B * scale with W frozen (arXiv:2106.09685).

    No dropout: models are functions of their inputs and take no random key. It is a `models.trainable.Trainable`.
    """

    rank: int = 16
    """Columns of A and rows of B."""
    alpha: float = 32.0
    """scale = alpha / rank."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that get an adapter, in every block."""
    rslora: bool = False
    """scale = alpha / sqrt(rank) instead (arXiv:2312.03732): the size of an update does not shrink with the rank."""

    @property
    def scale(self) -> float:
        """What the product of the two adapter matrices is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def validate(self) -> None:
        """Check the numbers; raises UserError with the fix."""
        if self.rank < 1:
            raise UserError(f"lora.rank={self.rank} leaves nothing to train. Use at least 1, such as lora.rank=16.")
        if not 0 < self.alpha < math.inf:
            raise UserError(
                f"lora.alpha={self.alpha} must be positive, or adapters change nothing. Use {2 * self.rank}."
            )
        if not self.targets:
            raise UserError("lora.targets is empty, so nothing would be trained. Use for example ('q_proj', 'v_proj').")

    def prepare(self, model: Model, key: jax.Array) -> Model:
        """`model` with new adapters."""
        return add_lora(model, self, key)

    def trained(self, names: Sequence[str]) -> set[str]:
        """Which of the parameters with these names are trained: the adapters."""
        found = {name for name in names if name.rsplit("/", 1)[-1] in ("lora_a", "lora_b")}
        if not found:
            raise UserError("The model has no adapters to train. Put them in first: add_lora(model, LoRA(), key).")
        return found


class LoRALinear(nnx.Module):
    """A linear layer and its adapter. The adapter is kept in float32 and used in the type of x, as the layer itself is.

    A is drawn as PEFT does, uniform within 1 / sqrt(in) (Kaiming's rule with a = sqrt(5)); B is 0, so that a new adapter
    changes nothing. With a stacked layer axis, A is [L, in, rank] and B [L, rank, out].
    """

    def __init__(self, base: Linear, config: LoRA, key: jax.Array):
        self.base, self.config = base, config
        *stack, size_in, size_out = base.kernel.shape
        *names, name_in, name_out = base.kernel.get_metadata()["logical"]
        bound = size_in**-0.5
        a = jax.random.uniform(key, (*stack, size_in, config.rank), jnp.float32, -bound, bound)
        self.lora_a = nnx.LoRAParam(a, logical=(*names, name_in, "rank"))
        b = jnp.zeros((*stack, config.rank, size_out), jnp.float32)
        self.lora_b = nnx.LoRAParam(b, logical=(*names, "rank", name_out))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., in] -> [..., out]."""
        low = project(x, self.lora_a[...]) * self.config.scale  # [..., rank]
        return self.base(x) + project(low, self.lora_b[...])

    def merged(self) -> Linear:
        """The layer with W + A B * scale in place of W, computed in float32 and kept in the type of W."""
        plain = shallow_copy(self.base)
        kernel = self.base.kernel[...]
        exact = jnp.matmul(self.lora_a[...], self.lora_b[...], precision=jax.lax.Precision.HIGHEST)
        plain.kernel.set_value((kernel.astype(jnp.float32) + exact * self.config.scale).astype(kernel.dtype))
        return plain


def add_lora(model: Model, config: LoRA, key: jax.Array) -> Model:
    """A model that shares the arrays of `model` and has an adapter at every target. Works under jit and nnx.eval_shape.

    The adapter of a layer depends on `key` and on the layer's path alone. Beside matrices that live on a mesh, the adapters
    are placed on it as their axes say.

    Raises:
        UserError: targets that the model does not have, a rank that is no low rank, adapters already there.
    """
    config.validate()
    model = shallow_copy(model)
    if any(True for _ in adapters(model)):
        raise UserError("The model has adapters already. Use merge_lora(model) first to put new ones on top.")
    linears = list(_children(model, Linear))
    there = sorted({name for _, _, name, _ in linears})
    if unknown := [target for target in config.targets if target not in there]:
        raise UserError(
            f"lora.targets names {', '.join(map(repr, unknown))}, but the linear layers of this model are: "
            f"{', '.join(there)}. Embeddings and norms can have no adapter."
        )
    for path, parent, name, linear in linears:
        if name not in config.targets:
            continue
        size_in, size_out = linear.kernel.shape[-2:]
        if config.rank > min(size_in, size_out):
            raise UserError(
                f"lora.rank={config.rank} is larger than {path} with its {size_in} x {size_out} numbers, which then is "
                f"cheaper to train whole. Use a rank of {min(size_in, size_out)} or less, or take {name!r} out of "
                "lora.targets."
            )
        adapter = LoRALinear(linear, config, jax.random.fold_in(key, zlib.crc32(path.encode())))
        _place_like(adapter, linear)
        setattr(parent, name, adapter)
    return model


def merge_lora(model: Model) -> Model:
    """A plain model that computes what `model` with its adapters does: the matrices are W + A B * scale.

    A matrix kept in bfloat16 is rounded after the sum, so there the two models agree only as far as bfloat16 can tell.
    """
    model = shallow_copy(model)
    found = list(_children(model, LoRALinear))
    if not found:
        raise UserError("The model has no adapters to merge. It can be saved or used as it is.")
    for _, parent, name, adapter in found:
        setattr(parent, name, adapter.merged())
    return model


def adapters(model: nnx.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Path such as "blocks/0/attention/q_proj" and adapter, for all there are."""
    for path, _, _, adapter in _children(model, LoRALinear):
        yield path, adapter


Child = TypeVar("Child", bound=nnx.Module)


def _children(model: nnx.Module, kind: type[Child]) -> Iterator[tuple[str, nnx.Module, str, Child]]:
    """Path, parent, name and module of every attribute that is a module of this kind."""
    for path, parent in list(nnx.iter_modules(model)):
        for name, child in list(vars(parent).items()):
            if isinstance(child, kind):
                yield "/".join(map(str, (*path, name))), parent, name, child


def shallow_copy(model: Model) -> Model:
    """Another model of the same arrays, so that changing modules and variables leaves the given one as it is."""
    graphdef, state = nnx.split(model)
    return nnx.merge(graphdef, jax.tree.map(lambda x: x, state))  # the map makes new Variables around the arrays


def _place_like(adapter: LoRALinear, linear: Linear) -> None:
    kernel: Any = linear.kernel.get_value()
    if isinstance(kernel, Tracer) or not isinstance(getattr(kernel, "sharding", None), NamedSharding):
        return  # inside jit the caller's out_shardings decide
    for variable in (adapter.lora_a, adapter.lora_b):
        target = shard_tree(kernel.sharding.mesh, variable).get_value()
        variable.set_value(jax.device_put(variable.get_value(), target))
