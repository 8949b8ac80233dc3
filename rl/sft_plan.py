"""The compiled calls of supervised fine-tuning, described without making anything: what `maypole plan` compiles for a pod."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from framework.batch import TokenBatch
from framework.mesh import sharding
from framework.plan import Program
from rl.supervised import token_step

if TYPE_CHECKING:
    from rl.sft import SFT

__all__ = ["sft_programs", "sft_remedies"]


def sft_programs(config: "SFT", mesh: Mesh) -> list[Program]:
    """The training step. Sizes of a pretrained model are read from its config.json; weights are not."""
    setup = config.build(mesh)
    model = setup.config
    tx = config.optimizer.build(config.steps or 2**31 - 1)
    shape = (config.rows, config.length)
    place = sharding(mesh, "batch", None)
    dtypes = (jnp.int32, jnp.int32, jnp.int32, jnp.float32)
    batch = TokenBatch(*(jax.ShapeDtypeStruct(shape, dtype, sharding=place) for dtype in dtypes))  # pyright: ignore[reportArgumentType]
    state, frozen = setup.abstract_state(tx), setup.abstract_frozen()
    trained, kept = (sum(x.size for x in jax.tree.leaves(tree)) for tree in (state.params, frozen))
    products = model.parameter_count() - (
        0 if model.tied else model.vocab_size * model.dim
    )  # looking a token up costs nothing
    # A matrix that is not trained needs no gradient of its own: two products in place of three.
    passes = 3.0 if trained >= kept else 2.0
    attention = 4.0 * model.layers * model.heads * model.head_dim * config.length / 2
    tokens = config.rows * config.length
    return [
        Program(
            name="training step",
            fn=functools.partial(token_step, setup.graphdef, tx=tx, microbatches=config.microbatches),
            args=(state, frozen, batch),
            kinds=("state", "frozen parameters", "batch"),
            donate=(0,),
            tokens=tokens,
            model_flops=tokens * (passes * 2.0 * products + 3.0 * attention),
        )
    ]


def sft_remedies(config: "SFT", failing: Sequence[str]) -> list[list[str]]:
    """Overrides to try, cheapest in speed first: smaller micro-batches, then recomputation, then both."""
    del failing
    shards = max(config.mesh.data, 1) * max(config.mesh.fsdp, 1)
    possible = [
        parts
        for parts in range(config.microbatches + 1, config.rows + 1)
        if config.rows % parts == 0 and config.rows // parts % shards == 0
    ]
    chosen = sorted({min((p for p in possible if p >= f * config.microbatches), default=0) for f in (2, 4, 16)} - {0})
    parts = [["--microbatches", str(p)] for p in chosen]
    if config.model.remat == "full":
        return parts
    return [*parts[:1], ["--model.remat", "full"], *(["--model.remat", "full", *part] for part in parts)]
