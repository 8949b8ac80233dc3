"""Four bits after training instead of in it: the unquantised arm, its matrices rounded when it is done."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments._quartet_training import QuartetTraining
from framework.batch import TokenBatch
from framework.rundir import RunDir
from models.ptq import PTQ, quantize_model
from models.quant import FORWARD_ONLY, quantise
from rl.sft_policy import plain_model
from rl.supervised import token_loss

__all__ = ["WAYS", "losses_after_training"]

WAYS: Mapping[str, Callable[[Any], Any]] = {
    "after_quest": lambda model: quantise(model, FORWARD_ONLY, jax.random.key(0)),
    "after_mxfp4_weights": lambda model: quantize_model(model, PTQ(format="mxfp4")),
    "after_nvfp4_weights": lambda model: quantize_model(model, PTQ(format="nvfp4")),
}
"""What is done to a finished model: weights and activations as in Quartet's forward pass (which draws nothing: the key is unused),
or the weights alone, as `maypole quantise` stores them. No calibration as GPTQ has it."""


def losses_after_training(config: QuartetTraining, run: RunDir) -> dict[str, float]:
    """Held-out loss of the first arm, in nats a token, by the way its newest checkpoint is quantised.

    The text is that of the arm's own evaluations.
    """
    arm = config.arms[0]
    training = config.training(arm)
    model = plain_model(training, run.stage(arm.name))
    tokenizer = training.build_tokenizer(model.config)
    data = config.data.build(tokenizer, rows=config.rows, length=config.length, seed=config.seed, say=lambda text: None)
    return {name: _loss(way(model), data.heldout) for name, way in WAYS.items()}


def _loss(model: Any, batches: Sequence[TokenBatch]) -> float:
    graphdef, state = nnx.split(model)

    @jax.jit
    def summed(state: nnx.State, batch: TokenBatch) -> tuple[jax.Array, jax.Array]:
        return token_loss(nnx.merge(graphdef, state), batch, batch.mask), jnp.sum(batch.mask)

    lost, count = np.sum(np.asarray([summed(state, batch) for batch in batches], np.float64), axis=0)
    return float(lost / count)
