"""What all stages of an experiment share, made once: mesh, tokenizer, questions, model structure, sharded states."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from framework.inference import Engine, EngineConfig
from framework.sample import Sample
from models.tokenizer import LanguageTokenizer
from rl.config import Questions
from rl.model_setup import ModelSetup

__all__ = ["Setup"]


@dataclasses.dataclass(frozen=True)
class Setup:
    """Made by `GRPO.build()`."""

    model: ModelSetup
    questions: Questions
    heldout: Sequence[Sample]
    tokenizer: LanguageTokenizer
    engine_config: EngineConfig
    key: jax.Array
    own_questions: Mapping[str, Questions] = dataclasses.field(default_factory=dict)
    """Of the arms that have their own."""

    def questions_of(self, arm: str) -> Questions:
        """What an arm trains on."""
        return self.own_questions.get(arm, self.questions)

    @property
    def mesh(self) -> Mesh:
        """Devices of training and sampling."""
        return self.model.mesh

    @property
    def graphdef(self) -> Any:
        """Structure of the model, a static argument of every compiled step."""
        return self.model.graphdef

    def purpose_key(self, purpose: str) -> jax.Array:
        """A key of its own for each use of randomness."""
        return purpose_key(self.key, purpose)

    def engine(self, trained: nnx.State, frozen: nnx.State) -> Engine:
        """An engine with these weights, on the training mesh."""
        model = nnx.merge(self.graphdef, nnx.merge_state(trained, frozen))
        return Engine(model, self.engine_config, mesh=self.mesh)


def purpose_key(key: jax.Array, purpose: str) -> jax.Array:
    """A key of its own for each use of randomness; the numbers must never change, or old runs cannot be resumed."""
    return jax.random.fold_in(key, {"init": 1, "rollout": 2, "evaluation": 3, "pick": 4}[purpose])
