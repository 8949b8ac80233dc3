"""The linear layer of all models: a matrix that names its axes, and the one place where another product can be put in."""

import jax
import jax.numpy as jnp
from flax import nnx

from framework.products import dot32

__all__ = ["Linear", "project"]


@jax.custom_vjp
def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [..., in] @ kernel [in, out] in the type of x; the gradient of the kernel is summed and given in the kernel's own type.

    Two reasons for a rule of its own. A float32 master matrix used in bfloat16 gets its gradient without a rounding in between.
    And automatic differentiation would make the kernel's gradient transposed and turn it round, which XLA computes at half of
    the speed on a CPU.
    """
    return x @ kernel.astype(x.dtype)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return project(x, kernel), (x, kernel)


def _backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    rows = tuple(range(x.ndim - 1))
    last = ((g.ndim - 1,), (1,))
    towards_x = jax.lax.dot_general(g, kernel.astype(g.dtype), (last, ((), ())))
    # The left operand is turned round in memory before the product: make it the narrow one.
    grad = dot32(x, g, (rows, rows)) if x.shape[-1] <= g.shape[-1] else dot32(g, x, (rows, rows)).T
    return towards_x, grad.astype(kernel.dtype)


project.defvjp(_forward, _backward)


class Linear(nnx.Module):
    """x W + b. The matrix is stored [in, out], in `param_dtype`, and used in the type of x.

    Adapters and quantised products are put in from outside: they replace this module in a built model.
    """

    def __init__(
        self,
        rngs: nnx.Rngs,
        size_in: int,
        size_out: int,
        *,
        logical: tuple[str | None, str | None],
        bias: bool = False,
        std: float | None = None,  # of the normal distribution the matrix is drawn from; None: 1 / sqrt(size_in)
        param_dtype: str = "float32",
    ):
        scale = size_in**-0.5 if std is None else std
        kernel = jax.random.normal(rngs.params(), (size_in, size_out), jnp.float32) * scale
        self.kernel = nnx.Param(kernel.astype(param_dtype), logical=logical)
        self.bias = nnx.Param(jnp.zeros((size_out,), param_dtype), logical=logical[1:]) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., in] -> [..., out]."""
        y = project(x, self.kernel[...])
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)
