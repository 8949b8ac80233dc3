"""Block Hadamard transform along the last dimension, fixed or with random signs.

    y = hadamard(x)                          # x H over each 32 numbers
    s = random_signs(key)                    # [32] of -1 and 1
    y = hadamard(x, s)                       # (x * s) H: pairs of operands rotated alike have the product they had
    x = hadamard(y, s, inverse=True)

Orthonormal, in float32 whatever the type of x.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from framework.errors import UserError
from kernels_pallas.hadamard import kernel, product, reference

__all__ = ["Impl", "hadamard", "matrix", "random_signs"]

Impl = Literal["auto", "pallas", "interpret", "xla", "reference"]

matrix = reference.matrix


def hadamard(
    x: jax.Array,  # [..., K], float32 or bfloat16
    signs: jax.Array | None = None,  # [block] of -1 and 1, before the transform; None: the fixed one
    *,
    block: int = 32,  # a power of two that divides K
    inverse: bool = False,
    impl: Impl = "auto",
) -> jax.Array:
    """(x * signs) H over each `block` numbers of the last dimension, float32 [..., K]; `inverse` gives x back.

    H[i, j] = (-1)^popcount(i and j) / sqrt(block) (Quartet, arXiv:2505.14669, section 3). "reference" fixes the order of the sums,
    "pallas" and "interpret" (the same kernel in the interpreter) equal it to the bit; "xla" is a product with H and rounds
    differently in the last bits. "auto": "pallas" on a TPU where it can run, "xla" elsewhere.

    Raises:
        UserError: an implementation asked for by name cannot run here.
        ValueError: K is no multiple of the block, or signs of another length.
    """
    check(x, signs, block)
    if impl not in get_args(Impl):
        raise UserError(f"hadamard impl={impl!r} is not one. Use {' or '.join(map(repr, get_args(Impl)))}.")
    if impl == "reference":
        return reference.hadamard(x, signs, block, inverse=inverse)
    reason = kernel.unsupported(x, block, interpret=impl == "interpret")
    if impl in ("pallas", "interpret") and reason is not None:
        raise UserError(f"{impl} hadamard cannot run: {reason}. Or use 'auto', which takes what can run.")
    if impl == "xla" or reason is not None:
        return product.hadamard(x, signs, block, inverse=inverse)
    return kernel.hadamard(x, signs, block, inverse=inverse, interpret=impl == "interpret")


def random_signs(key: jax.Array, block: int = 32) -> jax.Array:
    """[block] float32 of -1 and 1, each as likely."""
    return jax.random.rademacher(key, (block,), jnp.float32)


def check(x: jax.Array, signs: jax.Array | None, block: int) -> None:
    """Raises ValueError for arrays that do not fit together."""
    if block < 1 or block & (block - 1):
        raise ValueError(f"block={block} is no power of two. Use 32.")
    if x.ndim < 1 or x.shape[-1] % block:
        raise ValueError(
            f"x {list(x.shape)} cannot be cut into blocks of {block} along its last dimension: rows would be mixed. "
            f"Pad it with zeros to a multiple of {block}, or use another block."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x has type {x.dtype}; give float32 or bfloat16.")
    if signs is not None and signs.shape != (block,):
        raise ValueError(f"signs {list(signs.shape)} must be [{block}], one for each place of a block.")
