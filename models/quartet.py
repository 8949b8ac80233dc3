"""The arithmetic of one Quartet layer: a product with a rule of its own for the gradient (arXiv:2505.14669 v4, algorithm 1).

Letters: T tokens, I in, O out, H the Hadamard matrix of 32. Operands are multiplied as the exact values of their 4-bit numbers, in
bfloat16 (which holds them) where the hardware is quick at it, and in float32 on a CPU. A product with an operand that is not
quantised is made in the type of that operand. Second derivatives mean nothing: rounding has none.
"""

import functools
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from framework.errors import UserError
from framework.mesh import batch_shards, platform, split_mesh
from framework.products import dot32
from kernels_pallas.hadamard import hadamard, random_signs
from kernels_pallas.mxfp4 import GROUP, Quantizer, fused

if TYPE_CHECKING:
    from models.quant import Quantised

__all__ = ["check_tokens", "quartet_project"]

_LAST = ((1,), (1,))  # both operands are contracted over their last dimension, along which their groups lie


def quartet_project(x: jax.Array, kernel: jax.Array, key: jax.Array, rule: "Quantised", salt: int) -> jax.Array:
    """x [..., I] @ kernel [I, O] in the type of x, with operands quantised as `rule` says in all three products.

    Args:
        x: [..., I], I a multiple of 32.
        kernel: [I, O], both multiples of 32.
        key: of the signs and the noise of the backward pass; layers that read the same x may share it.
        rule: the quantisers.
        salt: tells apart the noise of layers that share a key.

    Raises:
        UserError: differentiated with a number of tokens that is no multiple of 32 (on each device, under a mesh).
    """
    return _project(x, kernel, key, rule, salt)  # pyright: ignore[reportReturnType]  # it does not see through the decorator


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _project(x: jax.Array, kernel: jax.Array, key: jax.Array, rule: "Quantised", salt: int) -> jax.Array:
    return _forward(x, kernel, key, rule, salt)[0]


@functools.partial(jax.jit, static_argnums=(3, 4))  # layers of one shape are traced once
def _forward(x: jax.Array, kernel: jax.Array, key: jax.Array, rule: "Quantised", salt: int):
    del salt
    tokens, weights = x.reshape(-1, x.shape[-1]), kernel.T  # [T, I], [O, I]
    q = rule.forward
    if q is None:
        y, kept = dot32(tokens, weights.astype(x.dtype), _LAST), (tokens, weights)  # as a plain layer
    else:
        rotated = [_rotated(operand, None, rule) for operand in (tokens, weights)]
        parts = [fused.quantize(operand, q) for operand in rotated]
        y = dot32(_multiplied(parts[0].values), _multiplied(parts[1].values), _LAST) * q.gain**2
        kept = tuple(part.kept() for part in parts)
        kept = kept if q.masks else tuple(part._replace(mask=None) for part in kept)
    y = y.astype(x.dtype).reshape(*x.shape[:-1], kernel.shape[1])
    like = jnp.zeros((0,), x.dtype), jnp.zeros((0,), kernel.dtype)  # types are no residuals that jax takes
    return y, (kept, key, like)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _backward(rule: "Quantised", salt: int, saved, dy: jax.Array):
    kept, key, like = saved
    dy2 = dy.reshape(-1, dy.shape[-1])  # [T, O]
    x, w = kept if rule.forward is None else (part.values() for part in kept)
    gain = 1.0 if rule.forward is None else rule.forward.gain
    if rule.backward is None:
        # In the type of dy, of which nothing is lost; 4-bit numbers without their gain are exact in it.
        dx = dot32(dy2, w.astype(dy.dtype), ((1,), (0,))) * gain  # over O: [T, I]
        dw = dot32(dy2, x.astype(dy.dtype), ((0,), (0,))) * gain  # over T: [O, I]
    else:
        check_tokens(dy.shape)
        draw, x, w = _Draw(key, salt, rule), x * gain, w * gain
        dx = _product(dy2, w.T, draw, rule.backward, "dy along out", "w")  # over O: [T, I]
        dw = _product(dy2.T, x.T, draw, rule.backward, "dy along tokens", "x")  # over T: [O, I]
    if rule.forward is not None:
        # The mask belongs to the rotated operand, so it comes before the rotation back.
        dx, dw = (_unrotated(part.masked(d), rule) for d, part in zip((dx, dw), kept, strict=True))
    return dx.astype(like[0].dtype).reshape(*dy.shape[:-1], dx.shape[-1]), dw.T.astype(like[1].dtype), None


_project.defvjp(_forward, _backward)


class _Draw:
    """Signs and noise of one backward pass."""

    _SHARED = ("signs", "x")  # by all layers that read the same x
    _OWN = ("dy along out", "dy along tokens", "w")

    def __init__(self, key: jax.Array, salt: int, rule: "Quantised"):
        self._key, self._salt = key, salt
        self.signs = random_signs(jax.random.fold_in(key, 0), GROUP) if rule.rotate else None

    def noise(self, what: str, shape: tuple[int, ...]) -> jax.Array:
        """Uniform in (0, 1) for every element of this operand, in steps of 2^-16: no bias that 10^9 draws would show.

        Neighbours share 32 random bits. jax.random.bits would make 32 for each and throw half of them away.
        """
        if what in self._SHARED:
            key = jax.random.fold_in(self._key, self._SHARED.index(what))
        else:
            key = jax.random.fold_in(jax.random.fold_in(self._key, self._salt), 2 + self._OWN.index(what))
        pairs = jax.random.bits(key, (*shape[:-1], shape[-1] // 2))  # the last dimension is a multiple of 32
        bits = jax.lax.bitcast_convert_type(pairs, jnp.uint16).reshape(shape)
        return (bits.astype(jnp.float32) + 0.5) * 2.0**-16


def _product(a: jax.Array, b: jax.Array, draw: _Draw, q: Quantizer, name_a: str, name_b: str) -> jax.Array:
    """a [N, K] times b [M, K] transposed, both rotated by the same signs and quantised along K: float32 [N, M]."""
    values = []
    for operand, name in ((a, name_a), (b, name_b)):
        blocks = hadamard(operand, draw.signs) if draw.signs is not None else operand
        u = draw.noise(name, operand.shape) if q.rounding == "stochastic" else None
        values.append(_multiplied(fused.quantize(blocks, q, u).values))
    return dot32(values[0], values[1], _LAST) * q.gain**2  # 16/9, once for both operands


def _rotated(x: jax.Array, signs: jax.Array | None, rule: "Quantised") -> jax.Array:
    return hadamard(x, signs) if rule.rotate else x


def _unrotated(x: jax.Array, rule: "Quantised") -> jax.Array:
    return hadamard(x, inverse=True) if rule.rotate else x


def _multiplied(x: jax.Array) -> jax.Array:
    """The type that operands are multiplied in. An element times a power of two is exact in bfloat16."""
    return x.astype(jnp.float32 if platform() == "cpu" else jnp.bfloat16)


def check_tokens(shape: tuple[int, ...]) -> None:
    """Refuse a batch [..., O] whose tokens cannot be cut into groups of 32, on each device of the current mesh."""
    tokens = math.prod(shape[:-1])
    if tokens % GROUP:
        batch = f"{' x '.join(map(str, shape[:-1]))} = {tokens} tokens" if len(shape) > 2 else f"{tokens} token(s)"
        raise UserError(
            f"A batch of {batch} cannot be cut into groups of {GROUP}, which share a "
            f"scale in the gradient of a quantised matrix. Use rows and lengths whose product {GROUP} divides, such as a length of "
            f"{-(-shape[-2] // GROUP) * GROUP if len(shape) > 1 else GROUP}."
        )
    mesh = split_mesh()
    if mesh is None:
        return
    rows, context = batch_shards(mesh), mesh.shape["context"]
    along = shape[-2] // context if len(shape) > 2 else 1
    here = tokens // (rows * context)
    if here % GROUP or (context > 1 and along % GROUP):
        batch = " x ".join(map(str, shape[:-1]))
        raise UserError(
            f"A batch of {batch} tokens over {rows} x {context} devices leaves {here} tokens in pieces of {along} on each, which "
            f"cuts groups of {GROUP}. Use a length that {GROUP * context} divides, or fewer devices along mesh.data, mesh.fsdp "
            "and mesh.context."
        )
