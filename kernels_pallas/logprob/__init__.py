"""Log-probability and entropy of given tokens from hidden states and the output matrix, gradient included.

    logp, entropy = token_logprobs(hidden, unembed, targets, temperature=0.6, entropy_temperature=1.0)

Everything that needs the log-probability of a token calls this one function: losses, sampler, evaluation, distillation.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from framework.mesh import split_mesh
from kernels_pallas.logprob import chunked, reference, sharded

__all__ = ["token_logprobs"]

_DTYPES = ("float32", "bfloat16", "float16")


def token_logprobs(
    hidden: jax.Array,  # [B, T, D] float32 or bfloat16
    unembed: jax.Array,  # [D, V]; with transposed=True [V, D], as a tied embedding matrix is stored
    targets: jax.Array,  # [B, T] int
    temperature: float | jax.Array = 1.0,  # a number, or an array [], [B] or [B, T]; > 0
    *,
    entropy_temperature: float | jax.Array | None = None,  # None: the same as `temperature`
    transposed: bool = False,
    impl: Literal["auto", "chunked", "reference"] = "auto",
    chunk: int | None = None,  # vocabulary columns at a time (on a mesh: of those of a device); None picks
) -> tuple[jax.Array, jax.Array]:
    """log softmax(hidden @ unembed / temperature)[target], and the entropy in nats of that distribution.

    Returns (logp, entropy), both [B, T] float32 and differentiable in `hidden` and `unembed`; temperatures are
    constants. Matrix products accumulate in float32 whatever the input type.

    `entropy_temperature` gives the entropy of softmax(hidden @ unembed / entropy_temperature) in the same pass.

    A target outside [0, V) has no probability: its logp is nan and sends no gradient, its entropy is right. Mask with
    `jnp.where(mask, logp, 0)`; multiplying by a zero mask leaves the nan, on purpose.

    Under `with jax.set_mesh(mesh)` tokens and vocabulary are split over the mesh (see `sharded`); what the mesh does not divide
    is a UserError.
    """
    _check(hidden, unembed, targets, transposed)
    temps = _temperature("temperature", temperature, targets.shape)
    entropy_temps = None
    if entropy_temperature is not None:
        entropy_temps = _temperature("entropy_temperature", entropy_temperature, targets.shape)
    if chunk is not None and (not isinstance(chunk, int) or chunk < 1):
        raise ValueError(f"chunk={chunk!r} must be a positive number of vocabulary columns. Leave it None to pick one.")
    targets = jnp.asarray(targets, jnp.int32)
    if impl == "reference":
        return reference.token_logprobs(hidden, unembed, targets, temps, entropy_temps, transposed=transposed)
    if impl in ("auto", "chunked"):
        if (mesh := split_mesh()) is not None:
            return sharded.token_logprobs(
                hidden, unembed, targets, temps, entropy_temps, transposed=transposed, chunk=chunk, mesh=mesh
            )
        return chunked.token_logprobs(
            hidden, unembed, targets, temps, entropy_temps, transposed=transposed, chunk=chunk
        )
    raise ValueError(f"impl={impl!r} is not an implementation. Use 'auto', 'chunked' or 'reference'.")


def _check(hidden: jax.Array, unembed: jax.Array, targets: jax.Array, transposed: bool) -> None:
    for name, array in (("hidden", hidden), ("unembed", unembed)):
        if array.dtype.name not in _DTYPES:
            raise TypeError(f"{name} has dtype {array.dtype}, expected one of {', '.join(_DTYPES)}.")
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise TypeError(f"targets has dtype {targets.dtype}, expected token ids of an integer dtype.")
    want = "[V, D]" if transposed else "[D, V]"
    got = f"hidden {list(hidden.shape)}, unembed {list(unembed.shape)}, targets {list(targets.shape)}"
    if hidden.ndim != 3 or unembed.ndim != 2 or targets.shape != hidden.shape[:2]:
        raise ValueError(f"Expected hidden [B, T, D], unembed {want}, targets [B, T]; got {got}.")
    if unembed.shape[1 if transposed else 0] != hidden.shape[2]:
        raise ValueError(
            f"The width of hidden and unembed differ: expected unembed {want} with D={hidden.shape[2]}; got {got}. "
            f"If unembed is stored the other way round, pass transposed={not transposed}."
        )


def _temperature(name: str, value: float | jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A float32 constant that broadcasts against [B, T]: [], [B, 1] or [B, T]."""
    if isinstance(value, int | float) and not 0 < value < float("inf"):
        raise ValueError(
            f"{name}={value} must be a positive finite number. For greedy decoding, "
            "pass the temperature at which to report, for example 1.0."
        )
    array = jax.lax.stop_gradient(jnp.asarray(value, jnp.float32))
    if array.shape not in ((), shape[:1], shape):
        raise ValueError(f"{name} has shape {list(array.shape)}; expected [], [B] or [B, T] with [B, T]={list(shape)}.")
    return array[:, None] if array.ndim == 1 else array
