"""The losses that the authors of Quartet published, as data (arXiv:2505.14669, notebook of the official repository, MIT licence).

Every run is a Llama of 30 to 200 million parameters on C4; its loss is the final validation cross-entropy in nats per token.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

__all__ = [
    "ALL_BF16",
    "BF16",
    "EXTRAPOLATION",
    "PARAMETERS",
    "PUBLISHED_EFFICIENCY",
    "PUBLISHED_QUANTISERS",
    "QUARTET_SR_30M",
    "QUARTET_TABLE",
    "QUEST_FORWARD",
    "RTN_BACKWARD",
    "SHAPES",
    "SR_BACKWARD",
    "STEPS",
    "TOKENS_PER_STEP",
    "Grid",
    "PublishedQuantiser",
    "llama_parameters",
]

TOKENS_PER_STEP = 512 * 512
"""Tokens of one optimiser step: 512 sequences of 512 tokens."""

SHAPES: Mapping[str, tuple[int, int]] = {
    "30M": (6, 640),
    "50M": (7, 768),
    "100M": (8, 1024),
    "200M": (10, 1280),
    "430M": (13, 1664),
    "800M": (16, 2048),
}
"""Layers and width by nominal size; heads are 128 wide."""


def llama_parameters(layers: int, width: int) -> int:
    """Non-embedding parameters of the paper's Llama: what N is in the law.

    Attention has four matrices of width x width, the SwiGLU three of width x hidden, hidden = 8/3 width rounded up to a multiple
    of 256; RMSNorm twice a layer and once at the end.
    """
    hidden = -(-8 * width // (3 * 256)) * 256
    return layers * (4 * width**2 + 3 * width * hidden + 2 * width) + width


PARAMETERS = {name: llama_parameters(*shape) for name, shape in SHAPES.items()}
"""N by nominal size."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """Final losses of one method over model sizes and training lengths."""

    parameters: np.ndarray
    """[K] non-embedding parameters, N."""
    tokens: np.ndarray
    """[K] training tokens, D."""
    loss: np.ndarray
    """[K] validation loss, nats per token."""

    def __len__(self) -> int:
        return len(self.loss)

    def of_size(self, parameters: int) -> "Grid":
        """The runs of one model size, shortest first."""
        chosen = self.parameters == parameters
        return Grid(parameters=self.parameters[chosen], tokens=self.tokens[chosen], loss=self.loss[chosen])

    def joined(self, other: "Grid") -> "Grid":
        """The runs of both."""
        return Grid(
            parameters=np.concatenate([self.parameters, other.parameters]),
            tokens=np.concatenate([self.tokens, other.tokens]),
            loss=np.concatenate([self.loss, other.loss]),
        )


_RATIOS = (25, 50, 100, 200, 400, 800)
STEPS: Mapping[str, Mapping[int, int]] = {
    "30M": dict(zip(_RATIOS, (2861, 5722, 11444, 22888, 45776, 91552), strict=True)),
    "50M": dict(zip(_RATIOS, (4768, 9536, 19073, 38146, 76293, 152587), strict=True)),
    "100M": dict(zip(_RATIOS, (9536, 19073, 38146, 76293, 152587, 305175), strict=True)),
    "200M": dict(zip(_RATIOS[:3], (19073, 38146, 76293), strict=True)),
    "430M": {100: 164031},
    "800M": {100: 305175},
}
"""Optimiser steps by nominal size and tokens for each (nominal) parameter."""


def _grid(losses: Mapping[str, tuple[float, ...]]) -> Grid:
    """Losses by nominal size, shortest run first; a method may have fewer of the longest runs."""
    rows = [
        (PARAMETERS[size], steps * TOKENS_PER_STEP, loss)
        for size, values in losses.items()
        for steps, loss in zip(STEPS[size].values(), values, strict=False)
    ]
    parameters, tokens, loss = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    return Grid(parameters=parameters, tokens=tokens, loss=loss)


BF16 = _grid(
    {
        "30M": (3.41571, 3.29368, 3.20785, 3.14700, 3.09895, 3.06090),
        "50M": (3.24001, 3.14171, 3.06770, 3.01214, 2.97009, 2.93528),
        "100M": (3.05118, 2.95905, 2.88578, 2.83359, 2.79347, 2.76273),
        "200M": (2.88419, 2.79835, 2.73594),
    }
)
"""The baseline: all products in bfloat16."""

EXTRAPOLATION = _grid({"430M": (2.57078,), "800M": (2.46098,)})
"""The two largest baseline runs, one length each: what a law fitted on `BF16` has not seen."""

ALL_BF16 = BF16.joined(EXTRAPOLATION)
"""What the coefficients that the paper prints are fitted on, as fitting them again shows."""

QUEST_FORWARD = _grid(
    {
        "30M": (3.48209, 3.36955, 3.28726, 3.23693, 3.19918, 3.16289),
        "50M": (3.30821, 3.21191, 3.14552, 3.09955, 3.06232, 3.02732),
        "100M": (3.11734, 3.02910, 2.96130, 2.91450, 2.87995, 2.84843),
        "200M": (2.94854, 2.86402, 2.80348),
    }
)
"""QuEST's MXFP4 forward pass, backward pass in bfloat16: gives effN."""

SR_BACKWARD = _grid(
    {
        "30M": (3.43020, 3.30879, 3.22104, 3.15739, 3.11049, 3.07110),
        "50M": (3.25517, 3.15509, 3.08219, 3.02440, 2.98139, 2.94425),
        "100M": (3.06675, 2.97427, 2.90044, 2.84596, 2.80412, 2.77130),
        "200M": (2.89457, 2.80889, 2.74316),
    }
)
"""Forward pass in bfloat16, backward pass with stochastic rounding: gives effD."""

RTN_BACKWARD = _grid(
    {
        "30M": (3.42107, 3.30239, 3.21718, 3.15450, 3.10874, 3.07237),
        "50M": (3.25115, 3.15301, 3.07698, 3.02249, 2.98040, 2.94730),
        "100M": (3.05782, 2.96895, 2.89647, 2.84466, 2.80699),
    }
)
"""Forward pass in bfloat16, backward pass with rounding to nearest: gives effD. Three runs fewer than the others."""

QUARTET_SR_30M = _grid({"30M": (3.50033, 3.38181, 3.29879, 3.24354, 3.20481, 3.16667)})
"""Both passes quantised as in the paper's first version, one size only."""

QUARTET_TABLE = _grid({"30M": (3.49, 3.38, 3.29, 3.24, 3.20)})
"""Both passes as in the fourth version; table 3 prints two decimals."""

PUBLISHED_EFFICIENCY: Mapping[str, tuple[float, float]] = {
    "LUQ-INT4": (0.49, 0.15),
    "LUQ-FP4": (0.01, 0.07),
    "Quartet": (0.65, 0.95),
}
"""(effN, effD) of table 3, end to end; the other methods of the table have none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedQuantiser:
    """A row of table 2."""

    eff_n: float
    """As a forward quantiser."""
    mse: float
    """On Gaussian data of unit variance."""
    eff_d: float
    """As a backward quantiser."""
    misalignment: float
    """Of the projection's magnitude."""


PUBLISHED_QUANTISERS: Mapping[str, PublishedQuantiser] = {
    "SR absmax": PublishedQuantiser(eff_n=0.42, mse=2.77e-2, eff_d=0.88, misalignment=0.0),
    "RTN absmax": PublishedQuantiser(eff_n=0.59, mse=1.37e-2, eff_d=0.93, misalignment=9.3e-3),
    "QuEST": PublishedQuantiser(eff_n=0.64, mse=1.32e-2, eff_d=0.83, misalignment=1.3e-2),
}
"""Table 2 of the fourth version."""
