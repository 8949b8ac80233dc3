"""FLOPs of Pallas kernels. A compiled program holds a kernel as a closed box; the traced function still says what is inside."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from framework.plan_cost import Signature

__all__ = ["kernel_flops", "xla_name"]

_XLA_NAMES = {"float": "f", "bfloat": "bf", "int": "s", "uint": "u", "bool": "pred", "complex": "c"}


def kernel_flops(jaxpr: core.ClosedJaxpr) -> dict[Signature, float]:
    """Matrix FLOPs of one call of each kernel of a traced function, by the types and shapes of its results.

    A kernel's own cost estimate is believed. Without one its body counts at every place of its grid, in the larger branch of
    each condition: a kernel that skips blocks, as causal attention may, is overrated, up to twofold.
    """
    found: dict[Signature, float] = {}
    for equation in _equations(jaxpr.jaxpr):
        if equation.primitive.name == "pallas_call":
            signature = tuple((xla_name(v.aval.dtype), tuple(v.aval.shape)) for v in equation.outvars)
            found[signature] = max(found.get(signature, 0.0), _one_call(equation))
    return found


def _one_call(equation: Any) -> float:
    estimate = equation.params.get("cost_estimate")
    if estimate is not None and estimate.flops:
        return float(estimate.flops)
    grid = [n for n in equation.params["grid_mapping"].grid if isinstance(n, int | np.integer)]
    return float(math.prod(grid)) * _flops(equation.params["jaxpr"])


def _flops(jaxpr: Any) -> float:
    """Of one pass through the body of a kernel."""
    total = 0.0
    for equation in jaxpr.eqns:
        inner = [_flops(sub) for sub in _inner(equation)]
        match equation.primitive.name:
            case "dot_general":
                (contract, _), _ = equation.params["dimension_numbers"]
                left, out = equation.invars[0].aval, equation.outvars[0].aval
                total += 2.0 * math.prod(out.shape) * math.prod(left.shape[d] for d in contract)
            case "cond":
                total += max(inner)
            case "scan":
                total += equation.params["length"] * sum(inner)
            case _:
                total += sum(inner)
    return total


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        if equation.primitive.name != "pallas_call":
            for inner in _inner(equation):
                yield from _equations(inner)


def _inner(equation: Any) -> Iterator[Any]:
    """Programs inside an equation: of a loop, a branch, a call."""
    for value in jax.tree.leaves(dict(equation.params), is_leaf=lambda x: isinstance(x, core.ClosedJaxpr | core.Jaxpr)):
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def xla_name(dtype: Any) -> str:
    """A type as HLO writes it: f32, bf16, s32."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return "u32"  # a random key
    name = np.dtype(dtype).name
    kind = name.rstrip("0123456789")
    return _XLA_NAMES.get(kind, kind) + name[len(kind) :]
