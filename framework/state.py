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

from framework.errors import UserError

PyTree = object  # any nesting of dicts, dataclasses and nnx.State with arrays at the leaves
Tree = TypeVar("Tree")
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EMA:
    """An exponential moving average of the trained parameters, kept in float32 and used in place of them for evaluation.

    ema <- d * ema + (1 - d) * params after every update, where d = decay or, with `warmup`,
    d = min(decay, (1 + t) / (10 + t)) at update t = 0, 1, ...: a short run is not an average of its random start.
    """

    decay: float = 0.999  # averages over the last 1 / (1 - decay) updates or so
    warmup: bool = True  # smaller decay at the start: 0.1 at the first update, 0.9 at the 81st, 0.99 at the 891st

    def validate(self) -> None:
        """Raises UserError for a decay that is none."""
        if not 0 < self.decay < 1:
            raise UserError(
                f"ema.decay={self.decay} must lie between 0 and 1, such as 0.999. For no average use ema=None."
            )

    def decay_at(self, step: jax.Array) -> jax.Array:
        """The d of the formula at the update after `step` finished ones, float32 []."""
        t = step.astype(jnp.float32)
        return jnp.minimum(self.decay, (1 + t) / (10 + t)) if self.warmup else jnp.float32(self.decay)


class Transform(optax.GradientTransformation):
    """An optax transformation that can say its learning rate, so that every step logs it."""

    learning_rate: optax.Schedule | None = None  # of the number of finished updates

    @classmethod
    def of(cls, tx: optax.GradientTransformation, learning_rate: optax.Schedule) -> Transform:
        made = cls(*tx)
        made.learning_rate = learning_rate
        return made


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Parameters, optimizer state and the number of finished steps. Replace it, never change it.

    All of it is donated to the next step and written to every checkpoint. So `params` are the trained parameters alone:
    frozen ones are another argument of the step, which closes over them, and cost no gradient, no optimizer state and no
    disk (`models.trainable.split_params` makes the two trees).
    """

    params: PyTree  # an nnx.State or a plain tree of arrays
    opt_state: PyTree  # what optax keeps; its leaves inherit the logical axes of the parameters
    step: jax.Array  # int32 [], updates applied so far
    ema: PyTree | None = None  # like params, in float32; None: no average is kept
    ema_config: EMA | None = dataclasses.field(default=None, metadata={"static": True})  # set if and only if ema is

    @classmethod
    def create(cls, params: PyTree, tx: optax.GradientTransformation, *, ema: EMA | None = None) -> TrainState:
        """State before the first update. Works under jax.jit and jax.eval_shape."""
        average = None
        if ema is not None:
            ema.validate()
            # A copy also of float32 leaves: the same buffer twice in a state could not be donated.
            average = jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), params)
        opt_state = tx.init(params)  # pyright: ignore[reportArgumentType]
        return cls(params=params, opt_state=opt_state, step=jnp.zeros((), jnp.int32), ema=average, ema_config=ema)

    def apply(self, grads: PyTree, tx: optax.GradientTransformation) -> tuple[TrainState, Metrics]:
        """One update. The norms returned are global L2 norms: of the gradient before clipping, of the
        update that was added, and of the parameters afterwards. An optimizer that says its learning rate
        (`Transform`) has it logged, as it was in this update."""
        updates, opt_state = tx.update(grads, self.opt_state, self.params)  # pyright: ignore[reportArgumentType]
        params = optax.apply_updates(self.params, updates)  # pyright: ignore[reportArgumentType]
        metrics = {
            "grad/norm": global_norm(grads),
            "update/norm": global_norm(updates),
            "param/norm": global_norm(params),
        }
        if isinstance(tx, Transform) and tx.learning_rate is not None:
            metrics["optimizer/lr"] = jnp.asarray(tx.learning_rate(self.step), jnp.float32)
        ema = self.ema
        if self.ema_config is not None:
            decay = self.ema_config.decay_at(self.step)
            ema = jax.tree.map(lambda old, new: old + (1 - decay) * (new.astype(jnp.float32) - old), ema, params)
        return dataclasses.replace(self, params=params, opt_state=opt_state, step=self.step + 1, ema=ema), metrics

    @property
    def averaged(self) -> PyTree:
        """What to evaluate and export: the average in the types of the parameters, or the parameters if there is none."""
        if self.ema is None:
            return self.params
        return jax.tree.map(lambda average, new: average.astype(new.dtype), self.ema, self.params)


def global_norm(tree: PyTree) -> jax.Array:
    """L2 norm over all leaves, summed in float32 (a bfloat16 sum of squares stops growing at 256 equal terms)."""
    squares = [_sum_of_squares(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares))) if squares else jnp.zeros(())


def _sum_of_squares(x: jax.Array) -> jax.Array:
    # XLA sums one number at a time on a CPU: the three norms of a step took three times as long as AdamW itself. A product
    # with itself runs at the speed of memory there; elsewhere it would be rounded, or cost six passes of the matrix unit.
    return jax.lax.platform_dependent(
        x,
        cpu=lambda x: jnp.tensordot(x, x, axes=x.ndim),
        default=lambda x: jnp.sum(jnp.square(x)),
    )


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
