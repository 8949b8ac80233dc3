"""Rows of an embedding table that is split over the vocabulary and the width."""

import jax
import jax.numpy as jnp

from framework.mesh import check_split, spec, split_mesh

__all__ = ["lookup"]

(_VOCAB,), (_EMBED,), (_BATCH,), (_LENGTH,) = spec("vocab"), spec("embed"), spec("batch"), spec("length")


def lookup(table: jax.Array, tokens: jax.Array, dtype: jnp.dtype, *, along: str | None = "length") -> jax.Array:
    """table [V, D], tokens [B, T] int -> their rows [B, T, D] in `dtype`. `along` names the axis T; None: not split.

    On a mesh a device finds the tokens that its part of the vocabulary has and leaves zeros elsewhere; the sum over `tensor` is
    the row. XLA on its own would make the whole table on every device, and a gradient as large.

    Raises:
        UserError: the mesh does not divide B, T, V or D.
    """
    mesh = split_mesh()
    if mesh is None:
        return table.astype(dtype)[tokens]
    check_split("tokens [B, T]", tokens.shape, ("batch", along), mesh)
    check_split("embedding [V, D]", table.shape, ("vocab", "embed"), mesh)

    split = mesh.shape[_VOCAB] > 1
    others = tuple(axis for axis in (*_BATCH, *([_LENGTH] if along else [])) if axis != _EMBED)

    def part(table: jax.Array, tokens: jax.Array) -> jax.Array:
        # Said here, so that the gradient is split along `fsdp` before it is summed over the other axes that split the tokens.
        table = jax.lax.pcast(table.astype(dtype), others, to="varying")
        if mesh.shape[_EMBED] > 1:
            table = jax.lax.all_gather(table, _EMBED, axis=1, tiled=True)  # [V / tensor, D]
        if not split:
            return table[tokens]
        rows = table.shape[0]
        local = tokens - jax.lax.axis_index(_VOCAB) * rows
        mine = (local >= 0) & (local < rows)
        found = jnp.where(mine[..., None], table[jnp.where(mine, local, 0)], 0)
        return jax.lax.psum(found, _VOCAB)  # one device has the row, the others zeros: exact in any type

    table_spec = spec("vocab" if split else None, "embed")
    return jax.shard_map(part, in_specs=(table_spec, spec("batch", along)), out_specs=spec("batch", along, None))(
        table, tokens
    )
