"""A fine-tuned model from a stage's newest checkpoint: text from it, and its export."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jax
from flax import nnx

from framework.checkpoint import Checkpoints
from framework.errors import UserError
from framework.inference import Engine, Request
from framework.rundir import StageDir
from models.decoder import Decoder, save_hf
from models.tokenizer import LanguageTokenizer
from rl.model_setup import ModelSetup

if TYPE_CHECKING:
    from rl.sft import SFT

__all__ = ["SFTPolicy", "export_stage", "plain_model"]


@dataclasses.dataclass(frozen=True)
class SFTPolicy:
    """Implements `framework.experiment.Policy`: every prompt is the first message of a chat, or continued as it stands."""

    config: "SFT"
    stage: StageDir

    @functools.cached_property
    def _loaded(self) -> tuple[ModelSetup, LanguageTokenizer, nnx.State, int]:
        setup = self.config.build()
        tokenizer = self.config.build_tokenizer(setup.config)
        trained, frozen, step = _weights(self.config, setup, self.stage)
        return setup, tokenizer, nnx.merge_state(trained, frozen), step

    def generate(
        self, prompts: Sequence[str], *, samples: int, temperature: float, max_tokens: int, seed: int
    ) -> list[list[str]]:
        """`samples` answers to each prompt. Raises UserError without a checkpoint."""
        setup, tokenizer, weights, step = self._loaded
        if self.config.plain_prompts:
            encoded = [[*tokenizer.start_ids, *tokenizer.encode(prompt)] for prompt in prompts]
        else:
            encoded = [tokenizer.chat.prompt([{"role": "user", "content": prompt}]) for prompt in prompts]
        config = dataclasses.replace(
            self.config.engine_config(tokenizer),
            slots=max(min(len(prompts) * samples, 32), 1),
            max_length=max(map(len, encoded)) + max_tokens,
            max_new_tokens=max_tokens,
        )
        engine = Engine(nnx.merge(setup.graphdef, weights), config, mesh=setup.mesh)
        engine.load(weights, step)
        requests = [
            Request(id=i, prompt=prompt, samples=samples, temperature=temperature, max_tokens=max_tokens)
            for i, prompt in enumerate(encoded)
        ]
        completions = engine.generate(requests, jax.random.key(seed))
        texts = [tokenizer.decode(completion.tokens.tolist()) for completion in completions]
        return [texts[i * samples : (i + 1) * samples] for i in range(len(prompts))]


def export_stage(
    config: "SFT", stage: StageDir, folder: Path, *, dtype: Literal["bfloat16", "float32"], shard_size: int
) -> None:
    """See `SFT.export`."""
    model = plain_model(config, stage)
    save_hf(model, folder, tokenizer=config.build_tokenizer(model.config), dtype=dtype, shard_size=shard_size)


def plain_model(config: "SFT", stage: StageDir) -> Decoder:
    """The model of the newest checkpoint, adapters merged and nothing quantised. Raises UserError without a checkpoint."""
    setup = config.build()
    trained, frozen, _ = _weights(config, setup, stage)
    return setup.plain(trained, frozen)


def _weights(config: "SFT", setup: ModelSetup, stage: StageDir) -> tuple[nnx.State, nnx.State, int]:
    """(trained, frozen, step): the trained ones from the newest checkpoint, the frozen ones from where the run took them."""
    restored = Checkpoints(stage.checkpoints_path).restore_latest(setup.abstract_state(config.stored_optimizer()))
    if restored is None:
        raise UserError(f"{stage.path} has no finished checkpoint yet. Wait for one, or choose another with --stage.")
    step, state, _ = restored
    _, frozen = setup.init()
    return state.averaged, frozen, step  # pyright: ignore[reportReturnType]
