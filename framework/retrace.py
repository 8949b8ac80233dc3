"""A budget for compilations: a function traced more often than declared says which argument changed."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")

Signature = dict[str, str]  # argument path -> "float32[8, 128]", or "= 'left'" for a static value

_SHOWN = 6  # differences printed in full; a changed batch size changes many leaves at once


class RetraceError(RuntimeError):
    """A function was traced more often than its budget allows."""


class TraceBudget:
    """Counts how often functions are traced. One instance a run.

        budget = TraceBudget()
        step = jax.jit(budget.counted(step, "train step"), donate_argnums=0)

    Wrap the outermost Python function, the one given to jax.jit: its body runs once a trace and never
    again, so that counting costs nothing afterwards. `jax.eval_shape` and `.lower()` trace as well and count.
    """

    def __init__(self) -> None:
        self._seen: dict[str, list[Signature]] = {}
        self._lock = threading.Lock()  # a sampler thread may compile beside the trainer

    def counted(self, fn: Callable[P, R], name: str, budget: int = 1) -> Callable[P, R]:
        """`fn`, allowed to be traced `budget` times in all (over every function counted under `name`)."""
        if budget < 1:
            raise ValueError(f"budget={budget} for {name!r} would forbid the first compilation. Use budget=1 or more.")

        @functools.wraps(fn)  # keeps the signature, so that static_argnames and donate_argnames work
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            signature = signature_of(args, kwargs)
            with self._lock:
                seen = self._seen.setdefault(name, [])
                seen.append(signature)
                earlier = seen[:-1]
            if len(earlier) >= budget:
                raise RetraceError(_message(name, budget, earlier, signature))
            return fn(*args, **kwargs)

        return wrapper

    def traces(self, name: str) -> int:
        """How often the functions counted under `name` were traced so far."""
        return len(self._seen.get(name, []))


def signature_of(args: tuple[object, ...], kwargs: dict[str, object]) -> Signature:
    """What jax.jit keys its cache on: shape and dtype of each array, the value of each static argument."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path((args, kwargs))
    signature = {_path_name(path): _describe(leaf) for path, leaf in leaves}
    # The same leaves in another container (a tuple for a list, other metadata) also make a new trace.
    return signature | {"(tree structure)": _shorten(str(treedef))}


def _path_name(path: tuple[object, ...]) -> str:
    """((0 | 1), argument, ...) -> "argument 0/params/kernel" or "tokens"."""
    which, argument, *inner = path
    positional = getattr(which, "idx", 0) == 0
    label = jax.tree_util.keystr((argument,), simple=True)  # pyright: ignore[reportArgumentType]
    rest = jax.tree_util.keystr(tuple(inner), simple=True, separator="/")  # pyright: ignore[reportArgumentType]
    head = f"argument {label}" if positional else label
    return f"{head}/{rest}" if rest else head


def _describe(leaf: object) -> str:
    if hasattr(leaf, "shape"):
        aval = jax.typeof(leaf)
        shape = ", ".join(str(size) for size in getattr(aval, "shape", ()))
        weak = " (a bare Python number)" if getattr(aval, "weak_type", False) else ""
        return f"{getattr(aval, 'dtype', '?')}[{shape}]{weak}"
    return f"= {_shorten(repr(leaf))}"


def _shorten(text: str, limit: int = 100) -> str:
    return text if len(text) <= limit else f"{text[: limit - 12]}... #{hash(text) & 0xFFFFFF:06x}"


def _message(name: str, budget: int, earlier: list[Signature], new: Signature) -> str:
    closest = min(earlier, key=lambda old: len(_differences(old, new)))
    changes = _differences(closest, new)
    head = f"{name!r} is being traced for the {_ordinal(len(earlier) + 1)} time, but its budget is {budget}."
    if not changes:
        return (
            f"{head} No argument changed its shape, dtype or static value, so the jitted function itself is new each "
            "time. Call jax.jit once, outside the loop, and keep its result."
        )
    lines = [f"  {path}: {old} -> {now}" for path, old, now in changes[:_SHOWN]]
    if len(changes) > _SHOWN:
        lines.append(f"  ... and {len(changes) - _SHOWN} more")
    return "\n".join(
        [
            f"{head} What changed since the closest earlier trace:",
            *lines,
            f"Pad this argument to a fixed set of shapes (or pass a changing number as an array), or declare "
            f"budget={len(earlier) + 1} for {name!r}.",
        ]
    )


def _differences(old: Signature, new: Signature) -> list[tuple[str, str, str]]:
    paths = [*new, *(path for path in old if path not in new)]
    changes = [(p, old.get(p, "(absent)"), new.get(p, "(absent)")) for p in paths if old.get(p) != new.get(p)]
    # The structure is worth a line only when no leaf explains it.
    leaves = [change for change in changes if change[0] != "(tree structure)"]
    return leaves or changes


def _ordinal(n: int) -> str:
    suffix = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"
