"""What a training run carries from step to step, and how the leaves of such a tree are named."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import ArrayLike

PyTree = object  # any nesting of dicts, dataclasses and nnx.State with arrays at the leaves
Tree = TypeVar("Tree")
Metrics = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Parameters, optimizer state and the number of finished steps. Replace it, never change it."""

    params: PyTree  # an nnx.State or a plain tree of arrays
    opt_state: PyTree  # what optax keeps; its leaves inherit the logical axes of the parameters
    step: jax.Array  # int32 [], updates applied so far

    @classmethod
    def create(cls, params: PyTree, tx: optax.GradientTransformation) -> TrainState:
        """State before the first update. Works under jax.jit and jax.eval_shape."""
        return cls(params=params, opt_state=tx.init(params), step=jnp.zeros((), jnp.int32))  # pyright: ignore[reportArgumentType]

    def apply(self, grads: PyTree, tx: optax.GradientTransformation) -> tuple[TrainState, Metrics]:
        """One update. The norms returned are global L2 norms: of the gradient before clipping, of the
        update that was added, and of the parameters afterwards."""
        updates, opt_state = tx.update(grads, self.opt_state, self.params)  # pyright: ignore[reportArgumentType]
        params = optax.apply_updates(self.params, updates)  # pyright: ignore[reportArgumentType]
        metrics = {
            "grad/norm": global_norm(grads),
            "update/norm": global_norm(updates),
            "param/norm": global_norm(params),
        }
        return TrainState(params=params, opt_state=opt_state, step=self.step + 1), metrics


def global_norm(tree: PyTree) -> jax.Array:
    """L2 norm over all leaves, summed in float32 (a bfloat16 sum of squares stops growing at 256 equal terms)."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares))) if squares else jnp.zeros(())


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of a state tree."""

    name: str  # path with slashes, "params/blocks/0/kernel"
    value: ArrayLike | jax.ShapeDtypeStruct
    logical: tuple[str | None, ...] | None  # axis names its nnx.Variable carries, or None


def leaves(tree: PyTree) -> Iterator[Leaf]:
    """The leaves of `tree` in jax's order, so that `jax.tree.unflatten(jax.tree.structure(tree), ...)` puts them back."""
    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: isinstance(x, nnx.Variable))
    for path, node in nodes:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not isinstance(node, nnx.Variable):
            yield Leaf(name, node, None)
            continue
        logical = node.get_metadata().get("logical")
        # A Variable may hold no array at all (optax puts a MaskedNode there) or, rarely, several.
        for value in jax.tree.leaves(node):
            yield Leaf(name, value, tuple(logical) if logical is not None else None)


def rebuild(tree: Tree, values: Sequence[object]) -> Tree:
    """`tree` with its leaves replaced, in the order of `leaves`."""
    return jax.tree.unflatten(jax.tree.structure(tree), values)
