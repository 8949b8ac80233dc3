"""Which parameters of a model are trained. The others are frozen: no gradient, no optimizer state, no place in checkpoints."""

import dataclasses
import difflib
import fnmatch
import re
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import jax
from flax import nnx

from framework import state as state_lib
from framework.errors import UserError

__all__ = ["Freeze", "TrainOnly", "Trainable", "parameter_names", "split_params"]

Model = TypeVar("Model", bound=nnx.Module)
_SHOWN = 12  # names listed in an error


class Trainable(Protocol):
    """A frozen dataclass that says what is trained: `Freeze`, `TrainOnly`, or `models.lora.LoRA`."""

    def prepare(self, model: Model, key: jax.Array) -> Model:
        """The model with what training adds to it, such as adapters."""
        ...

    def trained(self, names: Sequence[str]) -> set[str]:
        """Those of the parameter names that are trained. Raises UserError for a choice that cannot be meant."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Freeze:
    """Train all but the named parameters; without names, train all.

    A name is a pattern over whole parameter names, in which * stands for anything, slashes too:
    "embedding", "blocks/0/*", "*/mlp/*", "*/bias".
    """

    paths: tuple[str, ...] = ()

    def prepare(self, model: Model, key: jax.Array) -> Model:
        """The model as it is."""
        del key
        return model

    def trained(self, names: Sequence[str]) -> set[str]:
        """All but those that a pattern matches."""
        left = set(names) - _matching(self.paths, names, "freeze.paths")
        if not left:
            raise UserError(f"freeze.paths={self.paths} freezes every parameter. Leave some to train.")
        return left


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOnly:
    """Train the named parameters and freeze all others. Patterns as in `Freeze`."""

    paths: tuple[str, ...]

    def prepare(self, model: Model, key: jax.Array) -> Model:
        """The model as it is."""
        del key
        return model

    def trained(self, names: Sequence[str]) -> set[str]:
        """Those that a pattern matches."""
        if not self.paths:
            raise UserError("train_only.paths is empty, so nothing would be trained. Use '*' for all parameters.")
        return _matching(self.paths, names, "train_only.paths")


def parameter_names(model: nnx.Module) -> list[str]:
    """Names such as "blocks/0/attention/q_proj/kernel": those of checkpoints and of patterns."""
    return [leaf.name for leaf in state_lib.leaves(nnx.state(model, nnx.Param))]


def split_params(model: nnx.Module, trainable: Trainable) -> tuple[Any, nnx.State, nnx.State]:
    """(graphdef, trained, frozen); `nnx.merge(graphdef, trained, frozen)` is the model again.

    Differentiate with respect to `trained` alone and pass `frozen` beside the donated state:
    `jax.grad(lambda trained: loss(nnx.merge(graphdef, trained, frozen)))`. Works under jit and nnx.eval_shape.
    Arrays that are no parameters are never trained.
    """
    chosen = trainable.trained(parameter_names(model))

    def is_trained(path: Sequence[object], value: object) -> bool:
        return isinstance(value, nnx.Param) and "/".join(map(str, path)) in chosen

    graphdef, trained, frozen = nnx.split(model, is_trained, ...)
    return graphdef, trained, frozen


def _matching(patterns: Sequence[str], names: Sequence[str], field: str) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise UserError(f"{field} has {pattern!r}, which matches no parameter. {_advice(pattern, names)}")
        found.update(matched)
    return found


def _advice(pattern: str, names: Sequence[str]) -> str:
    if any(name.startswith(f"{pattern.rstrip('/')}/") for name in names):
        return f"Use {pattern.rstrip('/') + '/*'!r} for all parameters below it."
    short = list(dict.fromkeys(re.sub(r"/\d+/", "/*/", name) for name in names))  # one line for all layers
    layered = re.match(r"(\w+)/(\d+|\*)(/.*)", pattern)
    whole = [name for name in names if layered and re.match(rf"{layered[1]}/[^\d]", name)]
    if layered and whole:
        without = layered[1] + layered[3]
        example = next((p for p in (without, f"{without}/*") if fnmatch.filter(names, p)), whole[0])
        return (
            "The layers of this model are stacked (model.scan=True): one array holds all of them, and they are frozen or "
            f"trained together. Use model.scan=False, or a pattern without the layer, such as {example!r}."
        )
    near = difflib.get_close_matches(pattern, short, n=4, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    more = f" and {len(short) - _SHOWN} more" if len(short) > _SHOWN else ""
    return f"The parameters are: {', '.join(short[:_SHOWN])}{more}."
