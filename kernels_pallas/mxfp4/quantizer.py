"""Ways to choose a group's scale and to round its elements."""

import dataclasses
from typing import Literal, get_args

from framework.errors import UserError

__all__ = ["ABSMAX_RTN", "ABSMAX_SR", "OCP", "QUEST", "Quantizer"]

Scale = Literal["ocp", "absmax", "quest"]
Exponent = Literal["floor", "nearest"]
Rounding = Literal["even", "down", "stochastic"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantizer:
    """How 32 numbers become a power of two and 32 codes. A static argument of every function here."""

    scale: Scale = "ocp"
    """"ocp": 2^(log2 absmax - 2), OCP's rule, elements above 6 saturate. "absmax": the same scale, elements times 3/4, so that none
    saturates, and the value times 4/3 (Quartet's backward pass). "quest": 2^(log2 of the scale with the least squared error on
    normally distributed numbers), with a mask of the elements that did not saturate (Quartet's forward pass)."""
    exponent: Exponent = "floor"
    """How the logarithm becomes an integer: "floor" as the released kernel, or "nearest", whose error on normal numbers is smaller
    (with "ocp" and "absmax" more elements saturate then)."""
    rounding: Rounding = "even"
    """To the nearest element, ties to the even code as in hardware ("even") or to the smaller magnitude as in the released training
    kernel ("down"); or "stochastic", by a uniform number for each element."""

    @property
    def gain(self) -> float:
        """What code times scale is multiplied by to give the value."""
        return 4 / 3 if self.scale == "absmax" else 1.0

    @property
    def masks(self) -> bool:
        """Whether a mask of the elements that did not saturate comes out as well."""
        return self.scale == "quest"

    def validate(self) -> None:
        """Raises UserError for a name that is none."""
        for field, allowed in (("scale", Scale), ("exponent", Exponent), ("rounding", Rounding)):
            if getattr(self, field) not in get_args(allowed):
                raise UserError(
                    f"quantizer.{field}={getattr(self, field)!r} is not known. Use {' or '.join(map(repr, get_args(allowed)))}."
                )


OCP = Quantizer()
"""The plain rule of the OCP microscaling formats, as hardware converts."""
QUEST = Quantizer(scale="quest", rounding="down")
"""Quartet's forward quantiser as released."""
ABSMAX_RTN = Quantizer(scale="absmax", rounding="down")
"""Quartet's backward quantiser, version 4 of the paper."""
ABSMAX_SR = Quantizer(scale="absmax", rounding="stochastic")
"""Quartet's backward quantiser, version 1 of the paper."""
