"""The largest pieces of memory of a compiled program, from the buffer assignment that XLA writes beside it."""

import dataclasses
import re
from collections.abc import Sequence

from framework.plan_hlo import Array, Module, arrays_of

__all__ = ["Buffer", "shards", "temporaries"]

_ALLOCATION = re.compile(r"^allocation \d+: size (\d+),(?: color (\d+),)?.*?(preallocated-temp)?:?$")
_VALUE = re.compile(r"^ value: <\d+ ([\w.\-]+)(\{[^}]*\})?(?: \(phi\))?.*?> \(size=(\d+),offset=(\d+)\): (.*)$")


@dataclasses.dataclass(frozen=True)
class Buffer:
    """One piece of memory of a device."""

    bytes: int
    kind: str  # "temporary", or what an argument holds: "parameters"
    shape: str  # "bf16[16,10240,3584]", on one device
    what: str  # the operation that makes it, or the path of the argument
    source: str  # "models/decoder/layers.py:12", or ""


@dataclasses.dataclass(frozen=True)
class _Slot:
    offset: int
    size: int
    names: list[tuple[str, str]]  # name and shape of the values that live there, one after the other


def temporaries(assignment: str, module: Module) -> list[Buffer]:
    """Temporaries in HBM, largest first. Of those that share a place at different times the largest is named."""
    taken: list[_Slot] = []
    for slot in sorted(_slots(assignment), key=lambda s: -s.size):
        if not any(slot.offset < t.offset + t.size and t.offset < slot.offset + slot.size for t in taken):
            taken.append(slot)
    return [_describe(slot, module) for slot in taken]


def shards(assignment: str, wholes: Sequence[Array]) -> int:
    """Bytes of arrays like these as the program keeps them among its temporaries, each whole or split over devices.

    The largest piece of the same type whose dimensions divide those of the whole is taken to be its shard; 0 for an array of
    which there is none.
    """
    kept = {
        a: size for slot in _slots(assignment) for _, shape in slot.names for a, size in [(_only(shape), slot.size)]
    }
    return sum(max((size for a, size in kept.items() if _is_shard(a, whole)), default=0) for whole in wholes)


def _only(shape: str) -> Array:
    (array,) = arrays_of(shape)
    return array


def _is_shard(part: Array, whole: Array) -> bool:
    if part.dtype != whole.dtype or len(part.shape) != len(whole.shape):
        return False
    return all(n and w % n == 0 for n, w in zip(part.shape, whole.shape, strict=True))


def _slots(assignment: str) -> list[_Slot]:
    slots: dict[tuple[int, int], _Slot] = {}
    inside = False
    for line in assignment.splitlines():
        if line.startswith("allocation "):
            found = _ALLOCATION.match(line)
            inside = found is not None and found[2] in (None, "0") and found[3] is not None
        elif inside and (found := _VALUE.match(line)):
            name, _, size, offset, shape = found.groups()
            if shape.startswith("("):
                continue  # a table of addresses: its parts have places of their own
            slot = slots.setdefault((int(offset), int(size)), _Slot(int(offset), int(size), []))
            slot.names.append((name, shape))
        elif not line.startswith(" "):
            inside = False
    return list(slots.values())


def _describe(slot: _Slot, module: Module) -> Buffer:
    """Named after the first of its values that says which operation it comes from."""
    known = [(module.by_name[name], shape) for name, shape in slot.names if name in module.by_name]
    chosen = next(
        ((i, shape) for i, shape in known if "/" in i.op_name and i.opcode not in ("while", "parameter")),
        next(((i, shape) for i, shape in known if i.op_name), None),
    )
    instruction, shape = chosen or (None, slot.names[0][1])
    return Buffer(
        bytes=slot.size,
        kind="temporary",
        shape=re.sub(r"\{[^}]*\}", "", shape),
        what=(instruction.op_name if instruction else "") or slot.names[0][0],
        source=module.source(instruction) if instruction else "",
    )
