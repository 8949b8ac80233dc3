"""Supervised fine-tuning as an experiment: one stage of next-token training, whole models or adapters.

Read this file for the fields and the order of things, `rl/sft_run.py` for the stage, `rl/supervised.py` for one step.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jax
import optax
from jax.sharding import Mesh

from framework.config_types import check_types
from framework.console import Console
from framework.distributed import is_main
from framework.errors import UserError
from framework.experiment import Policy
from framework.inference import EngineConfig
from framework.mesh import MeshConfig, batch_shards, check_batch
from framework.optimizer import AdamW, Optimizer
from framework.report import Section
from framework.rundata import RunData
from framework.rundir import RunDir, StageDir
from framework.state import EMA
from kernels_pallas.mxfp4 import GROUP
from models.decoder import DecoderConfig, Pretrained
from models.hf_tokenizer import HFTokenizer
from models.lora import LoRA
from models.quant import Quantised
from models.quartet import check_tokens
from models.tokenizer import ByteTokenizer, LanguageTokenizer
from models.trainable import Freeze, Trainable
from rl.model_setup import ModelSetup
from rl.sft_data import TokenData, TokenSource
from rl.sft_run import run_stage

if TYPE_CHECKING:  # a run needs nothing of the plan
    from framework.plan import Program

__all__ = ["SFT", "SFTEvaluation"]

STAGE = "sft"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SFTEvaluation:
    """Held-out loss, and a few answers to look at."""

    every: int = 100
    """Steps between evaluations; the first is before training."""
    answers: int = 8
    """Held-out questions answered greedily at each evaluation, for samples.jsonl; 0 for none."""
    max_prompt: int = 256
    """Longest question that is answered, tokens; longer ones are left out."""
    max_new_tokens: int = 128
    """Longest answer, tokens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SFT:
    """Next-token training on conversations. Implements `framework.experiment.Experiment`."""

    name: str
    """Default name of the run folder."""
    seed: int = 0
    """Random weights, adapters and the order of the data follow from it."""
    model: DecoderConfig | Pretrained
    """A model from scratch, or one from a checkpoint."""
    tokenizer: ByteTokenizer | HFTokenizer
    """Text to tokens; `HFTokenizer` with the checkpoint's folder for a pretrained model."""
    data: TokenSource
    """Conversations: `data.chats.Chats`, or a config of your own with the same `build`."""
    trainable: Trainable = Freeze()
    """What is trained: everything (the default), `models.lora.LoRA`, `Freeze` or `TrainOnly`."""
    quant: Quantised | None = None
    """Layers trained in 4 bits, for example `models.quant.QUARTET`; None: none. Not with adapters."""
    rows: int = 16
    """Rows a batch."""
    length: int = 512
    """Tokens a row."""
    microbatches: int = 1
    """Parts each batch is computed in, to save memory; the result is the same."""
    epochs: float = 1.0
    """Passes over the data; may be a fraction. Not used with `steps`."""
    steps: int | None = None
    """Optimizer steps; None: as many as `epochs` takes."""
    optimizer: Optimizer = AdamW(lr=1e-5, warmup_steps=20, schedule="cosine")
    """Learning rate and the like."""
    ema: EMA | None = None
    """An average of the weights over the steps, used for evaluation, generation and export; None: the weights themselves."""
    evaluation: SFTEvaluation = SFTEvaluation()
    """Held-out loss and answers."""
    plain_prompts: bool = False
    """`maypole generate` continues a prompt as it stands, as data of prompt and completion texts wants it; False: as a chat."""
    mesh: MeshConfig = MeshConfig()
    """Devices; the default uses one."""
    checkpoint_every: int = 200
    """Steps between checkpoints; the last step is always saved."""

    def validate(self) -> None:
        """Check types and numbers; raises UserError."""
        check_types(self)
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed={self.seed} is out of range. Use a number from 0 to {2**31 - 1}.")
        for owner, names in (
            (self, ("rows", "microbatches", "checkpoint_every")),
            (self.evaluation, ("every", "max_prompt", "max_new_tokens")),
        ):
            for field in names:
                if getattr(owner, field) < 1:
                    prefix = "" if owner is self else "evaluation."
                    raise UserError(f"{prefix}{field}={getattr(owner, field)} must be at least 1.")
        if self.length < 2:
            raise UserError(f"length={self.length} leaves no token to predict from the one before it. Use 512.")
        if self.rows % self.microbatches:
            raise UserError(
                f"rows={self.rows} cannot be computed in microbatches={self.microbatches} equal parts. "
                f"Use rows={-(-self.rows // self.microbatches) * self.microbatches}."
            )
        if self.steps is not None and self.steps < 1:
            raise UserError(f"steps={self.steps} trains nothing. Use 1 or more, or None and epochs=1.")
        if not 0 < self.epochs < math.inf:
            raise UserError(f"epochs={self.epochs} must be a positive number, such as 1 or 0.5.")
        if self.evaluation.answers < 0:
            raise UserError(f"evaluation.answers={self.evaluation.answers} cannot be negative. Use 0 for none.")
        if isinstance(self.tokenizer, ByteTokenizer) and self.tokenizer.merges:
            raise UserError(
                f"tokenizer.merges={self.tokenizer.merges} would be learnt from texts that are not read yet. Use merges=0, or an "
                "HFTokenizer for longer tokens."
            )
        if self.ema is not None:
            self.ema.validate()
        if isinstance(self.model, DecoderConfig):
            self.model.validate()
        if self.quant is not None:
            self.quant.validate()
            if isinstance(self.trainable, LoRA):
                raise UserError(
                    "quant and trainable=LoRA are set, but adapters stand beside frozen matrices, which need no gradient. Use "
                    "quant=None, or trainable=Freeze() to train the matrices in 4 bits."
                )
            if self.quant.backward is not None and self.rows // self.microbatches * self.length % GROUP:
                raise UserError(
                    f"rows={self.rows} in microbatches={self.microbatches} parts of length={self.length} tokens cannot be cut into "
                    f"groups of {GROUP} tokens, as quant asks. Use length={-(-self.length // GROUP) * GROUP}."
                )

    def build(self, mesh: Mesh | None = None) -> ModelSetup:
        """The model on its mesh, with what is trained of it."""
        self.validate()
        mesh = self.mesh.build() if mesh is None else mesh
        shards = batch_shards(mesh)
        check_batch(self.rows, mesh, "rows")
        if self.rows // self.microbatches % shards:
            raise UserError(
                f"rows={self.rows} in microbatches={self.microbatches} parts cannot be split over {shards} devices (mesh "
                f"data={mesh.shape['data']}, fsdp={mesh.shape['fsdp']}). Use rows={self.microbatches * shards}, or fewer parts."
            )
        if self.length % mesh.shape["context"]:
            context = mesh.shape["context"]
            raise UserError(
                f"length={self.length} cannot be split over mesh.context={context} devices. "
                f"Use length={-(-self.length // context) * context}."
            )
        if self.quant is not None and self.quant.backward is not None:
            with jax.set_mesh(mesh):  # now, not when the first step is traced
                check_tokens((self.rows // self.microbatches, self.length, GROUP))
        return ModelSetup(
            mesh, self.model, jax.random.fold_in(jax.random.key(self.seed), 1), self.trainable, self.ema, self.quant
        )

    def build_tokenizer(self, model: DecoderConfig) -> LanguageTokenizer:
        """The tokenizer, once it is clear that the model has a row for every id."""
        tokenizer = self.tokenizer.build()
        if model.vocab_size < tokenizer.vocab_size:
            raise UserError(
                f"The model has vocab_size={model.vocab_size}, but the tokenizer uses ids up to {tokenizer.vocab_size - 1}. "
                f"Use model.vocab_size={-(-tokenizer.vocab_size // 16) * 16}, or the tokenizer of the model."
            )
        return tokenizer  # pyright: ignore[reportReturnType]  # it does not see the value behind a cached_property

    def total_steps(self, data: TokenData) -> int:
        """Optimizer steps of the run."""
        return self.steps or max(1, math.ceil(round(self.epochs * data.epoch_steps, 6)))

    def run(self, run: RunDir) -> None:
        """Start or continue."""
        setup = self.build()
        tokenizer = self.build_tokenizer(setup.config)
        setup.abstract_state(self.stored_optimizer())  # what cannot be trained says so before the data is read
        data = self.data.build(tokenizer, rows=self.rows, length=self.length, seed=self.seed, say=_say)
        steps = self.total_steps(data)
        tx = self.optimizer.build(steps)
        with Console(stages=[(STAGE, steps)]) as console:
            if is_main():
                tokenizer.save(run.path / "tokenizer")
            run_stage(self, setup, data, tokenizer, tx, steps, run.stage(STAGE), console)

    def sections(self, runs: Sequence[RunData]) -> Sequence[Section]:
        """Nothing beside what every report shows."""
        del runs
        return ()

    def engine_config(self, tokenizer: LanguageTokenizer) -> EngineConfig:
        """Shapes of the answers to held-out questions."""
        return EngineConfig(
            slots=max(self.evaluation.answers, 1),
            max_length=self.evaluation.max_prompt + self.evaluation.max_new_tokens,
            max_new_tokens=self.evaluation.max_new_tokens,
            stop_tokens=tokenizer.stop_ids,
            pad_token=tokenizer.pad_id,
        )

    def stored_optimizer(self) -> optax.GradientTransformation:
        """For reading checkpoints, whose arrays do not depend on how long the schedule was."""
        return self.optimizer.build(self.steps or 2**31 - 1)

    def policy(self, stage: StageDir) -> Policy:
        """Answer prompts from the stage's newest checkpoint, as a chat with one question."""
        from rl.sft_policy import SFTPolicy

        return SFTPolicy(self, stage)

    def export(self, stage: StageDir, folder: Path, *, dtype: Literal["bfloat16", "float32"], shard_size: int) -> None:
        """Write the model of the stage's newest checkpoint in Hugging Face format, adapters merged, with its tokenizer."""
        from rl.sft_policy import export_stage

        export_stage(self, stage, folder, dtype=dtype, shard_size=shard_size)

    def programs(self, mesh: Mesh) -> "Sequence[Program]":
        """The compiled calls of a run on this mesh, for `maypole plan`."""
        from rl.sft_plan import sft_programs

        return sft_programs(self, mesh)

    def remedies(self, failing: Sequence[str]) -> Sequence[Sequence[str]]:
        """What to change when these programs need too much memory."""
        from rl.sft_plan import sft_remedies

        return sft_remedies(self, failing)


def _say(text: str) -> None:
    """Data is read before the console has a stage to show."""
    Console().print(text)
