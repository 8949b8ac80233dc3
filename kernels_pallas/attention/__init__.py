"""Causal grouped-query attention over rows of packed sequences, by the fastest implementation of the platform.

    out = attention(q, k, v, segment_ids, window=None)

Under `with jax.set_mesh(mesh)` it is split over the mesh: rows, heads, and the length of a row (see `parallel`).
"""

from typing import Literal, get_args

import jax

from framework.errors import UserError
from framework.mesh import platform, split_mesh
from kernels_pallas.attention import blocked, cudnn, parallel, reference, splash
from kernels_pallas.attention.parallel import AXIS as CONTEXT
from kernels_pallas.attention.parallel import ContextImpl
from kernels_pallas.attention.reference import visible

__all__ = ["ContextImpl", "Impl", "attention", "visible"]

Impl = Literal["auto", "blocked", "splash", "cudnn", "reference"]


def attention(
    q: jax.Array,  # [B, T, H, h]
    k: jax.Array,  # [B, T, K, h]; K divides H, and key head j serves query heads j H/K ...
    v: jax.Array,  # [B, T, K, h]
    segment_ids: jax.Array | None = None,  # [B, T] int, 0 is padding; None: one sequence a row
    *,
    window: int | None = None,  # tokens that a token looks at, itself included; None: all earlier ones
    impl: Impl = "auto",
    context_impl: ContextImpl = "gathered",  # how keys reach the queries of other devices, if the mesh splits the length
) -> jax.Array:
    """Each token looks at the tokens before it in its own segment: [B, T, H, h], in the type of v. Softmax in float32.

    "auto" takes splash on a TPU and cudnn on a GPU where they can run, and blocked (plain XLA) otherwise. The output of a
    padding token (segment 0) is finite, and differs from one implementation to the other.

    Raises:
        UserError: an implementation asked for by name cannot run here, or the mesh does not divide heads, rows or length.
    """
    for field, given, allowed in (("impl", impl, Impl), ("context_impl", context_impl, ContextImpl)):
        if given not in get_args(allowed):
            raise UserError(f"attention {field}={given!r} is not one. Use {' or '.join(map(repr, get_args(allowed)))}.")
    window = None if window is None or window >= q.shape[1] else window  # as good as none
    mesh = split_mesh()
    if mesh is not None:
        parallel.check(q, k, mesh)
    name = _choose(q, k, v, window, impl, 1 if mesh is None else mesh.shape[CONTEXT])
    # XLA splits its own operations by itself; over the length it would fetch whole score matrices.
    if mesh is None or name == "reference" or (name == "blocked" and mesh.shape[CONTEXT] == 1):
        run = {"blocked": blocked, "splash": splash, "cudnn": cudnn, "reference": reference}[name]
        return run.attention(q, k, v, segment_ids, window=window)
    return parallel.attention(q, k, v, segment_ids, window=window, impl=name, context_impl=context_impl, mesh=mesh)


def _choose(
    q: jax.Array, k: jax.Array, v: jax.Array, window: int | None, impl: Impl, context: int
) -> Literal["blocked", "splash", "cudnn", "reference"]:
    """The implementation to run. One asked for by name runs or is an error: it is never replaced by another."""
    if impl in ("blocked", "reference"):
        return impl
    wanted = impl if impl != "auto" else {"tpu": "splash", "gpu": "cudnn"}.get(platform(), "blocked")
    if wanted == "blocked":
        return "blocked"
    reason = (
        splash.unsupported(q, k, v, window=window, context=context)
        if wanted == "splash"
        else cudnn.unsupported(q, k, v)
    )
    if reason is None:
        return "splash" if wanted == "splash" else "cudnn"
    if impl == "auto":
        return "blocked"
    raise UserError(
        f"{impl} attention cannot run: {reason}. Or use 'auto', which takes what can run (model.attention='auto')."
    )
