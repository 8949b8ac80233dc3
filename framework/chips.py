"""What a chip can do, by its maker's public figures, and the names of TPU topologies.

Peak rates are for bfloat16 matrix products, which is also how a TPU multiplies float32 by default. Figures: the system
architecture pages of Cloud TPU (docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e), November 2026. Those pages give the
interconnect of a chip as the sum of both directions (v4 as that of one); what counts here is what can leave a chip a second.
"""

import dataclasses
import math
import re

from framework.errors import UserError

__all__ = ["CHIPS", "Chip", "Topology", "known_topologies", "topology_of_size"]

_GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator chip, which is one jax device."""

    title: str
    flops: float  # bfloat16 operations a second
    hbm: int  # bytes of memory
    usable_hbm: int  # bytes the compiler lets a program use (read from its own refusals); the rest is the runtime's
    hbm_bandwidth: float  # bytes a second
    network: float  # bytes a second that can leave the chip over all its links to neighbours
    dimensions: int  # of the torus: 2 or 3 numbers in a topology
    largest: int  # chips of the largest pod
    examples: tuple[str, ...]  # shapes one can rent


CHIPS: dict[str, Chip] = {
    "v4": Chip(
        title="TPU v4",
        flops=275e12,
        hbm=32 * _GIB,
        usable_hbm=int(30.75 * _GIB),
        hbm_bandwidth=1228e9,
        network=300e9,
        dimensions=3,
        largest=4096,
        examples=("2x2x1", "2x2x4", "4x4x4"),
    ),
    "v5e": Chip(
        title="TPU v5e",
        flops=197e12,
        hbm=16 * _GIB,
        usable_hbm=int(15.75 * _GIB),
        hbm_bandwidth=819e9,
        network=200e9,
        dimensions=2,
        largest=256,
        examples=("2x4", "4x4", "8x16", "16x16"),
    ),
    "v5p": Chip(
        title="TPU v5p",
        flops=459e12,
        hbm=95 * _GIB,
        usable_hbm=int(95.73 * _GIB),  # the compiler counts a little more than the 95 GiB that are advertised
        hbm_bandwidth=2765e9,
        network=600e9,
        dimensions=3,
        largest=8960,
        examples=("2x2x1", "2x4x4", "4x4x4", "4x4x8", "8x8x8"),
    ),
    "v6e": Chip(
        title="TPU v6e",
        flops=918e12,
        hbm=32 * _GIB,
        usable_hbm=int(31.24 * _GIB),
        hbm_bandwidth=1638e9,
        network=400e9,
        dimensions=2,
        largest=256,
        examples=("2x4", "4x4", "8x16", "16x16"),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """Chips of one family in a grid: `v5p:4x4x4`."""

    family: str
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> "Topology":
        """Read `FAMILY:AxB` or `FAMILY:AxBxC`; raises UserError with the families and shapes there are."""
        family, colon, grid = text.strip().lower().partition(":")
        if family not in CHIPS:
            raise UserError(f"--topology {text}: there is no family {family!r}. {known_topologies()}")
        chip = CHIPS[family]
        shape = tuple(int(n) for n in grid.split("x")) if re.fullmatch(r"\d+(x\d+)*", grid) else ()
        if not colon or len(shape) != chip.dimensions or min(shape) < 1:
            wanted = "x".join("ABC"[: chip.dimensions])
            raise UserError(
                f"--topology {text}: a {chip.title} pod is a grid of {chip.dimensions} numbers, {family}:{wanted}. "
                f"For instance: {', '.join(f'{family}:{shape}' for shape in chip.examples)}."
            )
        if math.prod(shape) > chip.largest:
            raise UserError(
                f"--topology {text} has {math.prod(shape)} chips, but the largest {chip.title} pod has {chip.largest}. "
                f"Use a smaller one, such as {family}:{chip.examples[-1]}."
            )
        return cls(family=family, shape=shape)

    @property
    def chip(self) -> Chip:
        return CHIPS[self.family]

    @property
    def chips(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.family}:{'x'.join(map(str, self.shape))}"


def topology_of_size(chips: int, family: str) -> str | None:
    """A pod of that many chips that one can rent, of this family if there is one, to be named in an error."""
    for name in (family, "v5p", "v6e"):
        for shape in CHIPS[name].examples:
            if math.prod(map(int, shape.split("x"))) == chips:
                return f"{name}:{shape}"
    return None


def known_topologies() -> str:
    """A sentence that names the families, each with an example."""
    families = (f"{family}:{chip.examples[-2]} ({chip.title})" for family, chip in CHIPS.items())
    return f"Families: {', '.join(families)}. Other sizes work as well, such as v5e:2x4."
