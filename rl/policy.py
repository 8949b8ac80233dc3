"""A policy from a stage's newest checkpoint: text in, text out, and its export."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax
import optax
from flax import nnx

from framework.checkpoint import Checkpoints
from framework.errors import UserError
from framework.inference import Engine, Request
from framework.rundir import StageDir
from models.decoder import save_hf
from rl.setup import Setup

__all__ = ["StagePolicy"]


@dataclasses.dataclass(frozen=True)
class StagePolicy:
    """Implements `framework.experiment.Policy`."""

    setup: Setup
    tx: optax.GradientTransformation
    stage: StageDir

    def generate(
        self, prompts: Sequence[str], *, samples: int, temperature: float, max_tokens: int, seed: int
    ) -> list[list[str]]:
        """`samples` continuations of each prompt. Raises UserError without a checkpoint or for a prompt that is too long."""
        tokenizer = self.setup.tokenizer
        encoded = [[*tokenizer.start_ids, *tokenizer.encode(prompt)] for prompt in prompts]
        engine = self.engine(
            slots=max(min(len(prompts) * samples, 32), 1), max_prompt=max(map(len, encoded)), max_new_tokens=max_tokens
        )
        requests = [
            Request(
                id=i,
                prompt=prompt,
                samples=samples,
                temperature=temperature,
                max_tokens=max_tokens,
            )
            for i, prompt in enumerate(encoded)
        ]
        texts = [
            tokenizer.decode(completion.tokens.tolist())
            for completion in engine.generate(requests, jax.random.key(seed))
        ]
        return [texts[i * samples : (i + 1) * samples] for i in range(len(prompts))]

    def engine(self, *, slots: int, max_prompt: int, max_new_tokens: int) -> Engine:
        """An engine with these weights, in shapes of what it is asked for, not those of the training run."""
        trained, frozen, step = self._weights()
        weights = nnx.merge_state(trained, frozen)
        config = dataclasses.replace(
            self.setup.engine_config, slots=slots, max_length=max_prompt + max_new_tokens, max_new_tokens=max_new_tokens
        )
        engine = Engine(nnx.merge(self.setup.graphdef, weights), config, mesh=self.setup.mesh)
        engine.load(weights, step)
        return engine

    def export(self, folder: Path, *, dtype: Literal["bfloat16", "float32"], shard_size: int) -> None:
        """Write the model in Hugging Face format, adapters merged, with its tokenizer."""
        trained, frozen, _ = self._weights()
        model = self.setup.model.plain(trained, frozen)
        save_hf(model, folder, tokenizer=self.setup.tokenizer, dtype=dtype, shard_size=shard_size)

    def _weights(self) -> tuple[nnx.State, nnx.State, int]:
        """(trained, frozen, step): the trained ones from the newest checkpoint, the frozen ones from where the run took them."""
        restored = Checkpoints(self.stage.checkpoints_path).restore_latest(self.setup.model.abstract_state(self.tx))
        if restored is None:
            raise UserError(
                f"{self.stage.path} has no finished checkpoint yet. Wait for one, or choose another with --stage."
            )
        step, state, _ = restored
        _, frozen = self.setup.model.init()
        return state.params, frozen, step  # pyright: ignore[reportReturnType]
