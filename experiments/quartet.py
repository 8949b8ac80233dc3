"""Quartet (arXiv:2505.14669): all three products of every linear layer in MXFP4, four bits a number, from scratch.

maypole run quartet                      five arms on two CPU cores, minutes, then a report
maypole run quartet:grid                 three sizes, three lengths, with and without: the scaling law at home
maypole reproduce quartet                all claims, three seeds, experiments/results/quartet.json

A byte-level model learns the sources of Python's standard library. The arms have the same weights to begin with and read the same
text in the same order; they differ in how the products of the linear layers are quantised, in training as in evaluation. What is
four bits here is the values: no CPU multiplies them faster. The law is fitted on the losses that the authors published.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from data.stdlib_text import StdlibText
from data.token_files import TokenFiles
from experiments._quartet_grid import SHAPES, STEPS
from experiments._quartet_training import OneCycle, QuartetArm, QuartetTraining
from framework.experiment import Claim
from framework.mesh import MeshConfig
from framework.optimizer import AdamW
from models.decoder import DecoderConfig
from models.hf_tokenizer import HFTokenizer
from models.quant import BACKWARD_ONLY, FORWARD_ONLY, NAIVE, QUARTET, QUARTET_SR, Quantised
from models.tokenizer import ByteTokenizer

__all__ = ["LLAMA", "claims", "grid", "paper", "paper_arms", "reproduce", "smoke", "smoke_grid", "tiny"]

RULES: dict[str, Quantised | None] = {
    "exact": None,
    "quartet_rtn": QUARTET,
    "quartet_sr": QUARTET_SR,
    "forward_only": FORWARD_ONLY,
    "backward_only": BACKWARD_ONLY,
    "naive": NAIVE,
}
"""How products are quantised, by the name of the arm."""


def _size(dim: int, layers: int) -> DecoderConfig:
    return DecoderConfig(dim=dim, layers=layers, heads=dim // 32, kv_heads=dim // 32, head_dim=32, mlp_dim=3 * dim)


tiny = QuartetTraining(
    name="quartet",
    model=_size(128, 3),
    tokenizer=ByteTokenizer(tags=()),
    data=StdlibText(),
    arms=tuple(
        QuartetArm(name=name, quant=RULES[name])
        for name in ("exact", "quartet_rtn", "quartet_sr", "forward_only", "naive")
    ),
    rows=16,
    length=128,
    steps=500,
    optimizer=AdamW(lr=3e-3, warmup_steps=40, schedule="cosine", min_lr_ratio=0.1, weight_decay=0.1),
    evaluate_every=50,
)

grid = dataclasses.replace(
    tiny,
    name="quartet_grid",
    # The name of an arm says rule, width and steps; its loss is one point of a grid as the paper's.
    arms=tuple(
        QuartetArm(name=f"{rule}_w{width}_s{steps}", quant=RULES[rule], model=_size(width, layers), steps=steps)
        for width, layers in ((64, 2), (96, 2), (128, 3))
        for steps in (100, 200, 400)
        for rule in ("exact", "quartet_rtn")
    ),
    evaluate_every=100,
    checkpoint_every=400,
)

_SMALL = {"rows": 4, "length": 32, "data": StdlibText(heldout_batches=2), "evaluate_every": 2, "checkpoint_every": 2}
smoke = dataclasses.replace(
    tiny,
    **_SMALL,
    model=_size(32, 1),
    arms=tuple(QuartetArm(name=name, quant=RULES[name]) for name in ("exact", "quartet_rtn", "quartet_sr", "naive")),
    steps=4,
)
smoke_grid = dataclasses.replace(
    grid,
    **_SMALL,
    arms=tuple(
        QuartetArm(name=f"{rule}_w{width}_s{steps}", quant=RULES[rule], model=_size(width, 1), steps=steps)
        for width, steps in ((32, 2), (64, 4))
        for rule in ("exact", "quartet_rtn")
    ),
)

LLAMA = {
    name: DecoderConfig(
        vocab_size=32_000,
        dim=width,
        layers=layers,
        heads=width // 128,
        kv_heads=width // 128,
        head_dim=128,
        mlp_dim=-(-8 * width // (3 * 256)) * 256,
        norm_eps=1e-5,
        qk_norm=False,
        tied=False,
        max_position=512,
        scan=True,
        dtype="bfloat16",
    )
    for name, (layers, width) in SHAPES.items()
}
"""The paper's models by nominal size."""

_PEAK = {"30M": 1.2e-3, "50M": 1.2e-3, "100M": 6e-4, "200M": 3e-4, "430M": 1.5e-4, "800M": 7.5e-5}


def paper_arms(
    sizes: Sequence[str] = ("30M", "50M", "100M", "200M"),
    ratios: Sequence[int] = (100,),
    rules: Sequence[str] = ("exact", "quartet_rtn", "forward_only", "backward_only"),
) -> tuple[QuartetArm, ...]:
    """Runs of the paper's grid: sizes, tokens for each parameter (25, 50, ... 800) and ways to quantise."""
    return tuple(
        QuartetArm(
            name=f"{rule}_{size}_r{ratio}",
            quant=RULES[rule],
            model=LLAMA[size],
            steps=STEPS[size][ratio],
            optimizer=OneCycle(lr=_PEAK[size]),
        )
        for size in sizes
        for ratio in ratios
        for rule in rules
    )


# Planned with: maypole plan quartet:paper --topology v5e:2x4
# No TPU multiplies four-bit floats: the values have four bits, the products are bfloat16. To train it, write C4 as token files
# first: docs/papers/quartet.md.
paper = QuartetTraining(
    name="quartet_paper",
    model=LLAMA["200M"],
    tokenizer=HFTokenizer(path="meta-llama/Llama-2-7b-hf"),
    data=TokenFiles(train="c4/train.bin", heldout="c4/val.bin"),
    arms=paper_arms(),
    rows=512,
    length=512,
    microbatches=16,
    steps=76_293,
    optimizer=OneCycle(lr=3e-4),
    evaluate_every=1000,
    mesh=MeshConfig(data=8),
    checkpoint_every=1000,
)

claims = (
    Claim(
        name="eff_n_of_quest",
        arms=("law",),
        measure="quest_forward_eff_n_error",
        direction="equal",
        threshold=0.01,
        text="On the published losses, the law gives QuEST's forward pass the paper's effN of 0.64 within 0.01",
    ),
    Claim(
        name="eff_d_of_sr",
        arms=("law",),
        measure="sr_backward_eff_d_error",
        direction="equal",
        threshold=0.01,
        text="And the stochastically rounded backward pass the paper's effD of 0.88 within 0.01",
    ),
    Claim(
        name="eff_d_of_rtn",
        arms=("law",),
        measure="rtn_backward_eff_d_error",
        direction="equal",
        threshold=0.01,
        text="And the backward pass rounded to nearest the paper's effD of 0.93 within 0.01",
    ),
    Claim(
        name="law_is_refitted",
        arms=("law",),
        measure="refit_largest_difference",
        direction="equal",
        threshold=0.001,
        text="Fitted again on all published baseline runs, the law predicts within 0.1 % of the printed coefficients everywhere",
    ),
    Claim(
        name="quest_has_the_least_error",
        arms=("quest_nearest", "absmax_rtn"),
        measure="mse",
        direction="lower",
        threshold=0.0,
        text="On Gaussian data QuEST, exponents rounded to nearest, has less error than absmax rounded to nearest",
    ),
    Claim(
        name="sr_is_aligned",
        arms=("absmax_sr",),
        measure="misalignment",
        direction="equal",
        threshold=0.001,
        text="Stochastic rounding leaves the magnitude of a projection as it is",
    ),
    Claim(
        name="quartet_costs_something",
        arms=("quartet_rtn", "exact"),
        measure="final_loss",
        direction="higher",
        threshold=0.0,
        text="Trained in four bits, the small model ends with a higher loss than unquantised",
    ),
    Claim(
        name="quartet_beats_naive",
        arms=("quartet_rtn", "naive"),
        measure="final_loss",
        direction="lower",
        threshold=0.0,
        text="And with a lower one than with absmax rounding in both passes, without rotation and mask",
    ),
    Claim(
        name="forward_costs_less",
        arms=("forward_only", "quartet_rtn"),
        measure="final_loss",
        direction="lower",
        threshold=0.0,
        text="The forward pass alone costs less than both passes",
    ),
    Claim(
        name="quartet_beats_rounding_afterwards",
        arms=("quartet_rtn", "after_quest"),
        measure="final_loss",
        direction="lower",
        threshold=0.0,
        text="Trained in four bits it ends lower than trained unquantised and quantised afterwards as its forward pass is",
    ),
    Claim(
        name="rtn_no_worse_than_sr",
        arms=("quartet_rtn", "quartet_sr"),
        measure="final_loss",
        direction="lower",
        threshold=0.0,
        text="Rounding the backward pass to nearest ends no higher than rounding it stochastically (version 4 against version 1)",
    ),
)


def reproduce(*, out: Path, results: Path, seeds: Sequence[int]) -> None:
    """The law, the quantisers, every arm of `tiny` for every seed, and the grid once; finished runs are kept."""
    from experiments._quartet_results import reproduce_claims

    reproduce_claims(tiny, grid, claims, out=out, results=results, seeds=seeds)
