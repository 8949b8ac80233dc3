"""Reading a compiled program (HLO text): its instructions, its loops and how often they turn.

XLA's own cost analysis counts the body of a loop once, and a step of a scanned model is nearly all loop. So the plan reads the
program itself: instructions here, what they cost in `plan_cost.py`.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["Array", "Computation", "Instruction", "Module", "arrays_of"]

_ITEM_BITS = {"pred": 8, "s4": 4, "u4": 4, "s2": 2, "u2": 2, "bf16": 16, "c64": 64, "c128": 128, "token": 0}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(")
_SAME_VALUE = ("copy", "bitcast", "convert", "reshape", "copy-done", "copy-start")
_NAME = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Array:
    """An array as the program keeps it."""

    dtype: str  # XLA's name: f32, bf16, s32
    shape: tuple[int, ...]
    in_hbm: bool  # False: in the small memory beside the compute units

    @property
    def bytes(self) -> int:
        """Without the padding of its layout."""
        bits = _ITEM_BITS.get(self.dtype) or int(re.sub(r"\D.*", "", self.dtype.lstrip("fsuec")) or 0)
        return math.prod(self.shape) * bits // 8


@functools.lru_cache(maxsize=4096)
def arrays_of(shape: str) -> tuple[Array, ...]:
    """The arrays of a shape as HLO writes it; several for a tuple."""
    return tuple(
        Array(
            dtype=dtype,
            shape=tuple(int(n.lstrip("<=")) for n in dims.split(",") if n),
            in_hbm=not re.search(r"S\([1-9]", layout),
        )
        for dtype, dims, layout in _ARRAY.findall(shape)
    )


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    arguments: str  # what stands between the brackets: operands, or the value of a constant
    rest: str  # attributes and metadata
    root: bool

    @property
    def arrays(self) -> tuple[Array, ...]:
        return arrays_of(self.shape)

    def attribute(self, name: str) -> str:
        """The text of an attribute up to the next one, or "" """
        found = re.search(rf"(?:^|[ ,]){name}=((?:\{{[^}}]*\}}|\[[^\]]*\]|[^,{{\[ ])+)", self.rest)
        return found[1] if found else ""

    def called(self, attribute: str) -> list[str]:
        """Names of computations in an attribute: `calls=%f`, `branch_computations={%a, %b}`."""
        return _NAME.findall(self.attribute(attribute))

    @property
    def op_name(self) -> str:
        """Where in the traced function it comes from: "jit(step)/jvp()/while/body/dot_general"."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    @property
    def stack_frame(self) -> int:
        found = re.search(r"stack_frame_id=(\d+)", self.rest)
        return int(found[1]) if found else 0


@dataclasses.dataclass(frozen=True)
class Computation:
    name: str
    instructions: Mapping[str, Instruction]  # in the order of the program

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    @functools.cached_property
    def users(self) -> Mapping[str, Sequence[Instruction]]:
        """Instructions that read the result of an instruction."""
        found: dict[str, list[Instruction]] = {}
        for instruction in self:
            for operand in dict.fromkeys(instruction.operands):
                found.setdefault(operand, []).append(instruction)
        return found

    @functools.cached_property
    def parameters(self) -> Mapping[int, Instruction]:
        return {int(i.arguments): i for i in self if i.opcode == "parameter"}

    @functools.cached_property
    def root(self) -> Instruction:
        return next(i for i in self if i.root)


class Module:
    """A compiled program."""

    def __init__(self, text: str):
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        name, lines = "", None  # of the computation that is being read
        header: list[str] = []
        for line in text.splitlines():
            if lines is None:
                if found := _HEADER.match(line):
                    name, lines = found[2], []
                    self.entry = name if found[1] else self.entry
                elif not self.computations:
                    header.append(line)
            elif line == "}" or line.startswith("}, execution_thread"):
                parsed = (instruction for text in lines if (instruction := _parse(text)) is not None)
                self.computations[name] = Computation(name, {instruction.name: instruction for instruction in parsed})
                lines = None
            elif _INSTRUCTION.match(line):
                lines.append(line)
            elif lines:
                lines[-1] += line  # metadata of a kernel, which may hold line breaks
        self._files = _source_lines(header)  # of a stack frame: "file.py:12"
        self.by_name = {i.name: i for c in self.computations.values() for i in c}

    def source(self, instruction: Instruction) -> str:
        """ "file.py:12" of the line of Python that it comes from, or "" """
        return self._files.get(instruction.stack_frame, "")

    def trips(self, loop: Instruction, within: Computation) -> int | None:
        """How often the body of a `while` runs, from the bound that its condition compares its counter with, the counter's first
        value and its step (the compiler may have joined two turns in one).

        A loop that may also end early counts in full. None: the bound is not in the program.
        """
        (condition,) = loop.called("condition")
        found = [
            trips
            for computation, compare, values in self._compares(condition)
            if (trips := self._turns(compare, computation, values, loop, within)) is not None
        ]
        return min(found) if found else None

    def _compares(
        self, name: str, values: Sequence[tuple[str, str]] = ()
    ) -> Iterator[tuple[str, Instruction, Sequence[tuple[str, str]]]]:
        """Comparisons in a condition, those inside its fusions with the operands of the fusion."""
        for instruction in self.computations[name]:
            if instruction.opcode == "compare":
                yield name, instruction, values
            elif instruction.opcode == "fusion":
                (called,) = instruction.called("calls")
                yield from self._compares(called, [(name, operand) for operand in instruction.operands])

    def _turns(
        self,
        compare: Instruction,
        computation: str,
        values: Sequence[tuple[str, str]],
        loop: Instruction,
        within: Computation,
    ) -> int | None:
        direction = compare.attribute("direction")
        side = {"LT": 1, "LE": 1, "NE": 1, "GT": 0, "GE": 0}.get(direction)
        if side is None or len(compare.operands) != 2:
            return None
        bound = self._constant(computation, compare.operands[side], values, loop, within)
        if bound is None:
            return None
        index = self._state_index(computation, compare.operands[1 - side], values)
        start = self._start(index, loop, within)
        return -(-(bound + (direction in ("LE", "GE")) - start) // self._step(index, loop))

    def _constant(
        self, place: str, name: str, values: Sequence[tuple[str, str]], loop: Instruction, within: Computation
    ) -> int | None:
        """Follow a value to a constant: through copies, to the operands of a fusion, out of the loop's state."""
        while True:
            instruction = self.computations[place].instructions.get(name)
            if instruction is None:
                return None
            if instruction.opcode == "constant":
                whole = re.fullmatch(r"-?\d+", instruction.arguments)
                return None if whole is None else int(whole[0])
            if instruction.opcode in _SAME_VALUE:
                name = instruction.operands[0]
            elif instruction.opcode == "parameter" and values:
                place, name = values[int(instruction.arguments)]
                values = ()
            elif instruction.opcode == "get-tuple-element" and place != within.name:
                state = within.instructions.get(loop.operands[0])
                if state is None or state.opcode != "tuple":
                    return None
                place, name = within.name, state.operands[int(instruction.attribute("index"))]
            else:
                return None

    def _state_index(self, place: str, name: str, values: Sequence[tuple[str, str]]) -> int | None:
        """Which element of the loop's state the counter is."""
        while True:
            instruction = self.computations[place].instructions.get(name)
            if instruction is None:
                return None
            if instruction.opcode == "get-tuple-element":
                return int(instruction.attribute("index"))
            if instruction.opcode in _SAME_VALUE:
                name = instruction.operands[0]
            elif instruction.opcode == "parameter" and values:
                place, name = values[int(instruction.arguments)]
                values = ()
            else:
                return None

    def _start(self, index: int | None, loop: Instruction, within: Computation) -> int:
        state = within.instructions.get(loop.operands[0])
        if index is None or state is None or state.opcode != "tuple":
            return 0
        return self._constant(within.name, state.operands[index], (), loop, within) or 0

    def _step(self, index: int | None, loop: Instruction) -> int:
        (name,) = loop.called("body")
        body = self.computations[name]
        if index is None or body.root.opcode != "tuple":
            return 1
        add = body.instructions.get(body.root.operands[index])
        while add is not None and add.opcode in _SAME_VALUE:
            add = body.instructions.get(add.operands[0])
        if add is None or add.opcode != "add":
            return 1
        steps = [self._constant(name, operand, (), loop, body) for operand in add.operands]
        return max((step for step in steps if step), default=1)


def _parse(line: str) -> Instruction | None:
    found = _INSTRUCTION.match(line)
    if found is None:
        return None
    text = found[3]
    after_shape = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ") if " " in text else len(text)
    opcode = _OPCODE.match(text, after_shape)
    if opcode is None:
        return None
    end = _closing(text, opcode.end() - 1)
    arguments = text[opcode.end() : end]
    return Instruction(
        name=found[2],
        opcode=opcode[1],
        shape=text[:after_shape],
        operands=tuple(_NAME.findall(arguments)),
        arguments=arguments,
        rest=text[end + 1 :].lstrip(", "),
        root=bool(found[1]),
    )


def _closing(text: str, start: int) -> int:
    """Position of the bracket that closes the one at `start`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    return len(text)


_ROOT = f"{Path(__file__).resolve().parents[1]}/"


def _source_lines(header: Sequence[str]) -> dict[int, str]:
    """The tables at the head of the text: stack frame -> location -> file and line."""
    files: dict[int, str] = {}
    places: dict[int, str] = {}
    frames: dict[int, str] = {}
    for line in header:
        if found := re.match(r'(\d+) "(.*)"$', line):
            # Ours are named as in the repository, whatever folder that is in.
            files.setdefault(
                int(found[1]), found[2].removeprefix(_ROOT)
            )  # the function names that follow have numbers of their own
        elif found := re.match(r"(\d+) \{file_name_id=(\d+) .*?\bline=(\d+)", line):
            places[int(found[1])] = f"{files.get(int(found[2]), '?')}:{found[3]}"
        elif found := re.match(r"(\d+) \{file_location_id=(\d+)", line):
            frames[int(found[1])] = places.get(int(found[2]), "")
    return frames
