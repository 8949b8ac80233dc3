"""The chunked pass on a mesh: each device takes the tokens it has and the vocabulary columns it has.

Left to itself, XLA would fetch the whole output matrix for every slice of the vocabulary. Here each device runs the pass of
`kernels_pallas.logprob.chunked` over its own columns, and what travels is explicit: the matrix once along `fsdp`, four numbers
a token along `tensor`, and in the backward pass the hidden gradient along `tensor` and the matrix gradient along the axes that
split the tokens.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec

from framework.mesh import check_split, spec
from kernels_pallas.logprob import chunked
from kernels_pallas.logprob.chunked import Softmax

__all__ = ["gather_columns", "matrix_spec", "psum", "scatter_columns", "token_logprobs", "vocab_start"]

BATCH, (LENGTH,), (EMBED,), (VOCAB,) = spec("batch")[0], spec("length"), spec("embed"), spec("vocab")


def psum(x: jax.Array, axes: tuple[str, ...], mesh: AbstractMesh) -> jax.Array:
    """Sum over mesh axes, leaving out those of size 1."""
    real = tuple(axis for axis in axes if mesh.shape[axis] > 1)
    return jax.lax.psum(x, real) if real else x


def matrix_spec(transposed: bool) -> PartitionSpec:
    """How an output matrix [D, V], or [V, D] if transposed, lies on the mesh."""
    return spec("vocab", "embed") if transposed else spec("embed", "vocab")


def gather_columns(unembed: jax.Array, transposed: bool, mesh: AbstractMesh) -> jax.Array:
    """A device's own vocabulary columns whole, from the parts of them along `fsdp`."""
    if mesh.shape[EMBED] == 1:
        return unembed
    return jax.lax.all_gather(unembed, EMBED, axis=1 if transposed else 0, tiled=True)


def scatter_columns(gradient: jax.Array, transposed: bool, split: tuple[str, ...], mesh: AbstractMesh) -> jax.Array:
    """The sum of the gradients of a device's columns over the axes that split the tokens, laid out like the matrix."""
    if mesh.shape[EMBED] > 1:  # first, so that only a part of it is summed over the other axes
        gradient = jax.lax.psum_scatter(gradient, EMBED, scatter_dimension=1 if transposed else 0, tiled=True)
    return psum(gradient, tuple(axis for axis in split if axis != EMBED), mesh)


def vocab_start(columns: int) -> jax.Array:
    """The token id of a device's first column."""
    return jax.lax.axis_index(VOCAB) * columns


def _layout(mesh: AbstractMesh, targets: jax.Array) -> tuple[PartitionSpec, tuple[str, ...]]:
    """How [B, T] arrays are split, and the mesh axes that see different tokens."""
    # One token a row, as a decode step has, is no length to split: every device along `context` computes it.
    length = None if targets.shape[1] == 1 else "length"
    return spec("batch", length), (*BATCH, LENGTH) if length else BATCH


def _specs(mesh: AbstractMesh, arrays, transposed: bool):
    """Specs of hidden, unembed, targets and the two temperatures."""
    _, _, targets, *temperatures = arrays
    tokens, _ = _layout(mesh, targets)

    def temperature(t: jax.Array | None) -> PartitionSpec | None:
        if t is None or t.ndim == 0:
            return None if t is None else PartitionSpec()
        return PartitionSpec(tokens[0], tokens[1] if t.shape[1] == targets.shape[1] else None)

    hidden = PartitionSpec(*tokens, None)
    return hidden, matrix_spec(transposed), tokens, *(temperature(t) for t in temperatures)


def _merge(parts: Softmax, mesh: AbstractMesh) -> Softmax:
    """The statistics of all columns from those of each device's."""
    if mesh.shape[VOCAB] == 1:
        return parts
    top = jax.lax.pmax(parts.top, VOCAB)
    shift = parts.top - top  # <= 0
    keep = jnp.exp(shift)
    total = jax.lax.psum(parts.total * keep, VOCAB)
    return Softmax(top, total, jax.lax.psum((parts.moment + parts.total * shift) * keep, VOCAB))


def _local(targets: jax.Array, unembed: jax.Array, transposed: bool) -> jax.Array:
    """Targets counted from a device's first column; those of other devices lie outside of [0, columns)."""
    return targets - vocab_start(unembed.shape[0 if transposed else 1])


def _forward(static, *arrays):
    mesh, chunk, transposed = static

    def part(hidden, unembed, targets, *temperatures):
        columns = gather_columns(unembed, transposed, mesh)
        sampled, other, picked, logits = chunked.statistics(
            (chunk, transposed), hidden, columns, _local(targets, unembed, transposed), *temperatures
        )
        if mesh.shape[VOCAB] > 1:
            found = psum((~jnp.isnan(picked)).astype(jnp.float32), (VOCAB,), mesh)
            picked = jnp.where(found > 0, psum(jnp.nan_to_num(picked), (VOCAB,), mesh), jnp.nan)
        sampled, other = _merge(sampled, mesh), None if other is None else _merge(other, mesh)
        return chunked.outputs(sampled, other, picked), (sampled, other, logits)

    specs = _specs(mesh, arrays, transposed)
    tokens = specs[2]
    return jax.shard_map(
        part,
        in_specs=specs,
        out_specs=(tokens, (tokens, tokens, PartitionSpec(*tokens, VOCAB))),
        check_vma=False,  # outputs are equal along `tensor` because they are sums over it
    )(*arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _token_logprobs(static, *arrays):
    return _forward(static, *arrays)[0]


def _fwd(static, *args):
    arrays = tuple(None if a is None else a.value for a in args)
    out, known = _forward(static, *arrays)
    return out, (arrays, known)


def _bwd(static, residuals, cotangents):
    mesh, chunk, transposed = static
    arrays, known = residuals
    vocab = arrays[1].shape[0 if transposed else 1]
    g_logp, g_entropy = chunked.cotangent_arrays(cotangents, arrays[2], vocab)
    specs = _specs(mesh, arrays, transposed)
    tokens, (_, split) = specs[2], _layout(mesh, arrays[2])

    def part(arrays, known, g_logp, g_entropy):
        hidden, unembed, targets, *temperatures = arrays
        columns = gather_columns(unembed, transposed, mesh)
        mine = (hidden, columns, _local(targets, unembed, transposed), *temperatures)
        d_hidden, d_columns = chunked.gradients((chunk, transposed), mine, known, g_logp, g_entropy)
        d_hidden = psum(d_hidden, (VOCAB,), mesh).astype(hidden.dtype)
        return d_hidden, scatter_columns(d_columns, transposed, split, mesh)

    d_hidden, d_unembed = jax.shard_map(
        part,
        in_specs=(specs, (tokens, tokens, PartitionSpec(*tokens, VOCAB)), tokens, tokens),
        out_specs=specs[:2],
        check_vma=False,
    )(arrays, known, g_logp, g_entropy)
    return d_hidden, d_unembed, None, None, None


_token_logprobs.defvjp(_fwd, _bwd, symbolic_zeros=True)


def token_logprobs(
    hidden: jax.Array,  # [B, T, D]
    unembed: jax.Array,  # [D, V], or [V, D] if transposed
    targets: jax.Array,  # [B, T] int
    temperature: jax.Array,  # broadcasts to [B, T], float32, > 0
    entropy_temperature: jax.Array | None,  # the same, or None for `temperature`
    *,
    transposed: bool,
    chunk: int | None,  # of a device's own vocabulary columns at a time; None picks
    mesh: AbstractMesh,
) -> tuple[jax.Array, jax.Array]:  # logp [B, T], entropy [B, T] in nats, float32
    """Arguments as checked by `kernels_pallas.logprob`, whole arrays on `mesh`.

    Raises:
        UserError: the mesh does not divide B, T, D or V.
    """
    length = None if targets.shape[1] == 1 else "length"
    check_split("token_logprobs: hidden states [B, T, D]", hidden.shape, ("batch", length, None), mesh)
    names = ("vocab", "embed") if transposed else ("embed", "vocab")
    check_split(f"token_logprobs: output matrix [{'V, D' if transposed else 'D, V'}]", unembed.shape, names, mesh)
    _, split = _layout(mesh, targets)
    own_tokens = targets.size // math.prod(mesh.shape[axis] for axis in split)
    own_columns = unembed.shape[0 if transposed else 1] // mesh.shape[VOCAB]
    static = (mesh, chunk or chunked.pick_chunk(own_tokens, own_columns), transposed)
    return _token_logprobs(static, hidden, unembed, targets, temperature, entropy_temperature)
