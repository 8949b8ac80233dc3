"""What all stages of an experiment share, made once: mesh, tokenizer, questions, model structure, sharded states."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from framework.inference import Engine, EngineConfig
from framework.mesh import abstract_tree, shard_tree
from framework.sample import Sample
from framework.state import TrainState
from models.decoder import DecoderConfig
from models.tokenizer import TextTokenizer
from rl.config import Questions

__all__ = ["Setup"]


@dataclasses.dataclass(frozen=True)
class Setup:
    """Made by `GRPO.build()`."""

    mesh: Mesh
    questions: Questions
    heldout: Sequence[Sample]
    tokenizer: TextTokenizer
    model: DecoderConfig
    engine_config: EngineConfig
    key: jax.Array

    @functools.cached_property
    def graphdef(self) -> Any:
        """Structure of the model, a static argument of every compiled step."""
        return nnx.graphdef(self._abstract_model())

    def _abstract_model(self) -> nnx.Module:
        return nnx.eval_shape(lambda: self.model.build(jax.random.key(0)))

    def purpose_key(self, purpose: str) -> jax.Array:
        """A key of its own for each use of randomness; the numbers must never change, or old runs cannot be resumed."""
        return jax.random.fold_in(self.key, {"init": 1, "rollout": 2, "evaluation": 3, "pick": 4}[purpose])

    def new_params(self) -> nnx.State:
        """Random weights, each shard made on its own device."""
        return self._init(self.purpose_key("init"))

    @functools.cached_property
    def _init(self) -> Callable[[jax.Array], nnx.State]:
        shardings = shard_tree(self.mesh, nnx.state(self._abstract_model()))
        return jax.jit(lambda key: nnx.state(self.model.build(key)), out_shardings=shardings)

    def new_state(self, params: nnx.State, tx: optax.GradientTransformation) -> TrainState:
        """A state before its first update. The weights are copied: the state is donated step by step, `params` stay."""
        create = functools.partial(TrainState.create, tx=tx)
        shardings = shard_tree(self.mesh, jax.eval_shape(create, params))
        return jax.jit(create, out_shardings=shardings)(jax.tree.map(jnp.copy, params))

    def abstract_state(self, tx: optax.GradientTransformation) -> TrainState:
        """Shapes and shardings of a state: what restoring a checkpoint takes."""
        params = nnx.state(self._abstract_model())
        return abstract_tree(self.mesh, jax.eval_shape(functools.partial(TrainState.create, tx=tx), params))

    def engine(self, params: nnx.State) -> Engine:
        """An engine with these weights, on the training mesh."""
        return Engine(nnx.merge(self.graphdef, params), self.engine_config, mesh=self.mesh)
