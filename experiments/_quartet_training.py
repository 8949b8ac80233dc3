"""The experiment behind `experiments/quartet.py`: one language model, trained once for every way to quantise its products."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from data.stdlib_text import StdlibText
from framework import state as state_lib
from framework.config_types import check_types
from framework.console import Console
from framework.distributed import agree, is_main
from framework.errors import UserError
from framework.experiment import Policy
from framework.mesh import MeshConfig
from framework.optimizer import AdamW, Optimizer, clip_by_global_norm, decay_mask
from framework.report import Section
from framework.rundata import RunData
from framework.rundir import RunDir, StageDir
from models.decoder import DecoderConfig
from models.hf_tokenizer import HFTokenizer
from models.quant import Quantised
from models.tokenizer import ByteTokenizer
from rl.sft import SFT, SFTEvaluation
from rl.sft_data import TokenSource
from rl.sft_run import run_stage

if TYPE_CHECKING:  # a run needs nothing of the plan
    from framework.plan import Program

__all__ = ["OneCycle", "QuartetArm", "QuartetTraining"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneCycle:
    """AdamW as the authors of Quartet run it: torch's OneCycleLR, from lr / 100 up and down again to lr / 10, both as a cosine."""

    lr: float = 1.2e-3
    """Peak."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    """Of matrices and embeddings."""
    grad_clip: float = 1.0
    """Largest global gradient norm."""
    warmup: float = 0.1
    """Share of the steps on the way up."""

    def learning_rate(self, total_steps: int) -> optax.Schedule:
        """Learning rate as a function of the number of finished updates; as in torch, the last update has the last rate."""
        last = max(total_steps - 1, 1)
        top = max(self.warmup * (last + 1) - 1, 1e-9)

        def rate(count):
            up, down = jnp.clip(count / top, 0.0, 1.0), jnp.clip((count - top) / max(last - top, 1e-9), 0.0, 1.0)
            cosine = lambda start, end, done: end + (start - end) / 2 * (1 + jnp.cos(jnp.pi * done))  # noqa: E731
            return self.lr * jnp.where(count <= top, cosine(0.01, 1.0, up), cosine(1.0, 0.1, down))

        return rate

    def build(self, total_steps: int | None = None) -> optax.GradientTransformation:
        """Raises UserError for numbers that cannot work."""
        if not (0 < self.lr < math.inf and 0 < self.warmup < 1 and self.grad_clip > 0):
            raise UserError(
                f"lr={self.lr}, warmup={self.warmup} and grad_clip={self.grad_clip} must be positive, and warmup below 1. "
                "Use lr=1.2e-3, warmup=0.1 and grad_clip=1.0."
            )
        rate = self.learning_rate(total_steps or 2**31 - 1)
        adamw = optax.adamw(
            rate, b1=self.betas[0], b2=self.betas[1], eps=1e-8, weight_decay=self.weight_decay, mask=decay_mask
        )
        return state_lib.Transform.of(optax.chain(clip_by_global_norm(self.grad_clip), adamw), rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuartetArm:
    """One training run of the comparison, a stage named `name`. What is None is the experiment's."""

    name: str
    """Folder of the stage, and label in the report."""
    quant: Quantised | None = None
    """How the products of its linear layers are quantised; None: not at all."""
    model: DecoderConfig | None = None
    """A size of its own, for a scaling grid."""
    steps: int | None = None
    """A length of its own."""
    optimizer: Optimizer | None = None
    """A learning rate of its own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuartetTraining:
    """Arms that start from the same weights, read the same data in the same order, and differ in their products.

    Implements `framework.experiment.Experiment`.
    """

    name: str
    """Default name of the run folder."""
    seed: int = 0
    """First weights, order of the data, signs and noise of the quantisers."""
    model: DecoderConfig = DecoderConfig()
    """Sizes; the sides of a quantised matrix must be multiples of 32."""
    tokenizer: ByteTokenizer | HFTokenizer = ByteTokenizer(tags=())
    """Text to tokens."""
    data: TokenSource = StdlibText()
    """What is read."""
    arms: tuple[QuartetArm, ...]
    """What is compared; the gaps of a report are to the first."""
    rows: int = 16
    """Rows a batch; rows x length must be a multiple of 32."""
    length: int = 128
    """Tokens a row."""
    microbatches: int = 1
    """Parts each batch is computed in."""
    steps: int = 500
    """Optimizer steps of an arm."""
    optimizer: Optimizer = AdamW(lr=3e-3, warmup_steps=40, schedule="cosine", weight_decay=0.1)
    """The same for all arms, as in the paper."""
    evaluate_every: int = 50
    """Steps between evaluations; the first is before training."""
    mesh: MeshConfig = MeshConfig()
    """Devices; the default uses one."""
    checkpoint_every: int = 250
    """Steps between checkpoints; the last step is always saved."""

    def validate(self) -> None:
        """Check types and numbers, of every arm as the training it is; raises UserError."""
        check_types(self)
        names = [arm.name for arm in self.arms]
        if not names or len(set(names)) < len(names):
            raise UserError(f"arms={names} must be one or more arms of different names: each has a folder of its own.")
        for arm in self.arms:
            self.training(arm).validate()

    def training(self, arm: QuartetArm) -> SFT:
        """The training that an arm is."""
        return SFT(
            name=self.name,
            seed=self.seed,
            model=arm.model or self.model,
            tokenizer=self.tokenizer,
            data=self.data,
            quant=arm.quant,
            rows=self.rows,
            length=self.length,
            microbatches=self.microbatches,
            steps=arm.steps or self.steps,
            optimizer=arm.optimizer or self.optimizer,
            evaluation=SFTEvaluation(every=self.evaluate_every, answers=0),
            plain_prompts=True,
            mesh=self.mesh,
            checkpoint_every=self.checkpoint_every,
        )

    def arm(self, name: str) -> QuartetArm:
        """The arm of that name. Raises UserError if there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise UserError(f"There is no arm {name!r}. It has: {', '.join(arm.name for arm in self.arms)}.")

    def build(self) -> None:
        """Every arm's model on its mesh, as shapes: what cannot be trained says so. Raises UserError."""
        self.validate()
        for arm in self.arms:
            config = self.training(arm)
            config.build().abstract_state(config.stored_optimizer())

    def run(self, run: RunDir) -> None:
        """Start or continue: every arm that is not done, one after the other."""
        self.build()
        trainings = {arm.name: self.training(arm) for arm in self.arms}
        stages = {name: run.stage(name) for name in trainings}
        if agree(
            all(stage.done and stage.summary["steps"] >= (trainings[name].steps or 0) for name, stage in stages.items())
        ):
            return  # before the data is read
        first = trainings[self.arms[0].name]
        tokenizer = first.build_tokenizer(self.model)
        if is_main():
            tokenizer.save(run.path / "tokenizer")
        data = self.data.build(tokenizer, rows=self.rows, length=self.length, seed=self.seed, say=_say)
        with Console(stages=[(name, config.steps or 0) for name, config in trainings.items()]) as console:
            for name, config in trainings.items():
                steps = config.total_steps(data)
                setup = config.build()
                run_stage(config, setup, data, tokenizer, config.optimizer.build(steps), steps, stages[name], console)

    def sections(self, runs: Sequence[RunData]) -> Sequence[Section]:
        """Gaps, the law, and the quantisers."""
        from experiments._quartet_report import sections

        return sections(runs)

    def policy(self, stage: StageDir) -> Policy:
        """Continue prompts with the newest checkpoint of an arm, quantised as it was trained."""
        return self.training(self.arm(stage.name)).policy(stage)

    def export(self, stage: StageDir, folder: Path, *, dtype: Literal["bfloat16", "float32"], shard_size: int) -> None:
        """Write the unquantised weights of an arm's newest checkpoint in Hugging Face format, with the tokenizer."""
        self.training(self.arm(stage.name)).export(stage, folder, dtype=dtype, shard_size=shard_size)

    def programs(self, mesh: Mesh) -> "Sequence[Program]":
        """The training step of the largest model of every kind of arm, for `maypole plan`: smaller ones need less."""
        largest: dict[Quantised | None, QuartetArm] = {}
        for arm in self.arms:
            held = largest.get(arm.quant)
            if held is None or self._size(arm) > self._size(held):
                largest[arm.quant] = arm
        return [
            dataclasses.replace(program, name=f"{program.name} ({arm.name})")
            for arm in largest.values()
            for program in self.training(arm).programs(mesh)
        ]

    def remedies(self, failing: Sequence[str]) -> Sequence[Sequence[str]]:
        """What to change when these programs need too much memory."""
        return self.training(max(self.arms, key=self._size)).remedies(failing)

    def _size(self, arm: QuartetArm) -> int:
        return (arm.model or self.model).parameter_count()


def _say(text: str) -> None:
    """Data is read before the console has a stage to show."""
    Console().print(text)
