"""What one call of a compiled program costs on one device: matrix FLOPs, memory traffic, bytes sent to other devices.

Loops count as often as they turn. Only matrix products count as FLOPs (the rest runs beside them on a TPU, or waits for
memory). Traffic is what the instructions read and write in HBM: a slice of a large array counts as the slice.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence

from framework.plan_hlo import Array, Computation, Instruction, Module

__all__ = ["Collective", "Cost", "KernelFlops", "program_cost"]

Signature = tuple[tuple[str, tuple[int, ...]], ...]
KernelFlops = Mapping[Signature, float]
"""FLOPs of one call of a kernel, by the types and shapes of its results: the compiled program does not say."""

_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id", "iota",
    "copy-done", "async-done", "async-update", "all-gather-done", "all-reduce-done", "collective-permute-done", "send-done",
    "recv-done", "domain", "opt-barrier", "add-dependency",
}  # fmt: skip
_COLLECTIVES = {
    "all-gather", "all-gather-start", "all-reduce", "all-reduce-start", "reduce-scatter", "all-to-all", "ragged-all-to-all",
    "collective-permute", "collective-permute-start", "collective-broadcast",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Collective:
    """Traffic between devices of one kind."""

    calls: float
    bytes_sent: float  # by each device, in the best case of a ring


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one device and one call."""

    flops: float = 0.0
    hbm_bytes: float = 0.0
    collectives: Mapping[str, Collective] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what could not be counted

    @property
    def bytes_sent(self) -> float:
        return sum(c.bytes_sent for c in self.collectives.values())

    def __add__(self, other: "Cost") -> "Cost":
        merged = dict(self.collectives)
        for kind, c in other.collectives.items():
            before = merged.get(kind, Collective(0, 0))
            merged[kind] = Collective(before.calls + c.calls, before.bytes_sent + c.bytes_sent)
        notes = tuple(dict.fromkeys((*self.notes, *other.notes)))
        return Cost(self.flops + other.flops, self.hbm_bytes + other.hbm_bytes, merged, notes)

    def times(self, n: float) -> "Cost":
        sent = {kind: Collective(c.calls * n, c.bytes_sent * n) for kind, c in self.collectives.items()}
        return Cost(self.flops * n, self.hbm_bytes * n, sent, self.notes)


def program_cost(module: Module, kernels: KernelFlops | None = None) -> Cost:
    """Add up the whole program from its entry."""
    return _Counter(module, kernels or {}).computation(module.entry)


class _Counter:
    def __init__(self, module: Module, kernels: KernelFlops):
        self.module, self.kernels = module, kernels
        self.computation = functools.cache(self._computation)
        self.inside_fusion = functools.cache(self._inside_fusion)

    def _computation(self, name: str) -> Cost:
        """A computation whose instructions run one after the other."""
        computation = self.module.computations[name]
        cost = Cost()
        seen: set[str] = set()  # a collective that is spread over several fusions appears in each of them
        for instruction in computation:
            cost += self._instruction(instruction, computation)
            for kind, collective, channel in self._collectives(instruction):
                if not channel or channel not in seen:
                    seen.add(channel)
                    cost += Cost(collectives={kind: collective})
        return cost

    def _instruction(self, i: Instruction, within: Computation) -> Cost:
        match i.opcode:
            case "while":
                (body,) = i.called("body")
                trips = self.module.trips(i, within)
                note = () if trips else (f"loop {i.op_name or i.name} has no bound in the program and counts once",)
                return self.computation(body).times(trips if trips is not None else 1) + Cost(notes=note)
            case "conditional":
                branches = [
                    self.computation(name)
                    for attribute in ("branch_computations", "true_computation", "false_computation")
                    for name in i.called(attribute)
                ]
                return max(branches, key=lambda c: (c.flops, c.hbm_bytes, c.bytes_sent), default=Cost())
            case "call" | "async-start":
                names = i.called("calls") or i.called("to_apply")
                return functools.reduce(Cost.__add__, map(self.computation, names), Cost())
            case "fusion":
                (called,) = i.called("calls")
                return self.inside_fusion(called) + Cost(hbm_bytes=self._fusion_traffic(i, called, within))
            case "custom-call":
                if "tpu_custom_call" not in i.rest:
                    return Cost()  # a mark for the compiler: a buffer, the start of a transfer
                return self._kernel(i) + Cost(hbm_bytes=self._traffic(i, within))
            case opcode if opcode in _FREE:
                return Cost()
            case _:
                return Cost(flops=_matrix_flops(i, within), hbm_bytes=self._traffic(i, within))

    def _inside_fusion(self, name: str) -> Cost:
        """FLOPs only: what a fusion passes on inside itself never reaches memory."""
        computation = self.module.computations[name]
        cost = Cost()
        for i in computation:
            if i.opcode == "fusion":
                (called,) = i.called("calls")
                cost += self.inside_fusion(called)
            elif i.opcode == "custom-call" and "tpu_custom_call" in i.rest:
                cost += self._kernel(i)
            else:
                cost += Cost(flops=_matrix_flops(i, computation))
        return cost

    def _kernel(self, i: Instruction) -> Cost:
        flops = self.kernels.get(tuple((a.dtype, a.shape) for a in i.arrays))
        if flops is None:
            name = re.sub(r"[.\d]+$", "", i.name)
            return Cost(notes=(f"the FLOPs of kernel {name} are unknown and not counted",))
        return Cost(flops=flops)

    # --- memory traffic ---

    def _traffic(self, i: Instruction, within: Computation) -> float:
        match i.opcode:
            case "dynamic-slice" | "slice" | "gather":
                return _hbm(_operand(i, 0, within), at_most=i.arrays) + _hbm(i.arrays)
            case "dynamic-update-slice":
                update = _operand(i, 1, within)
                return _hbm(update) + _hbm(i.arrays, at_most=update)
            case "scatter":
                update = _operand(i, len(i.operands) - 1, within)
                return _hbm(update) + 2 * _hbm(i.arrays, at_most=update)
            case "copy-start":
                return _hbm(i.arrays[:2])
            case "collective-permute-start" | "all-gather-start" | "all-reduce-start":
                return _hbm(i.arrays)  # the pair of what it reads and what it writes
            case _:
                read = sum(_hbm(_operand(i, k, within)) for k in range(len(i.operands)))
                return read + _hbm(i.arrays)

    def _fusion_traffic(self, i: Instruction, called: str, within: Computation) -> float:
        inner = self.module.computations[called]
        total = 0.0
        for number, parameter in inner.parameters.items():
            given = _operand(i, number, within) if number < len(i.operands) else ()
            whole = _hbm(given)
            total += min(whole, self._read(inner, parameter.name, whole)) if whole else 0.0
        return total + self._written(inner, inner.root.name, i.arrays)

    def _read(self, computation: Computation, name: str, whole: float) -> float:
        """Bytes of a value that a fusion reads: all of it, or only slices."""
        total = 0.0
        for user in computation.users.get(name, ()):
            first = user.operands[0] == name
            if user.opcode in ("dynamic-slice", "slice", "gather") and first:
                total += sum(a.bytes for a in user.arrays)
            elif user.opcode in ("bitcast", "reshape") or (user.opcode == "dynamic-update-slice" and first):
                # An update happens in place; who reads the updated array reads this one.
                total += self._read(computation, user.name, whole)
            elif user.opcode == "tuple":
                continue
            elif user.opcode == "fusion":
                (called,) = user.called("calls")
                inner = self.module.computations[called]
                numbers = [k for k, operand in enumerate(user.operands) if operand == name]
                total += sum(self._read(inner, inner.parameters[k].name, whole) for k in numbers)
                if any(_passes_on(inner, inner.parameters[k].name) for k in numbers):
                    total += self._read(computation, user.name, whole)
            else:
                return whole
        return total

    def _written(self, computation: Computation, name: str, arrays: Sequence[Array]) -> float:
        """Bytes that a fusion writes; an update in place writes the update."""
        root = computation.instructions[name]
        if root.opcode == "tuple" and len(root.operands) == len(arrays):
            parts = zip(root.operands, arrays, strict=True)
            return sum(self._written(computation, operand, (array,)) for operand, array in parts)
        if root.opcode in ("bitcast", "reshape"):
            return self._written(computation, root.operands[0], arrays)
        if root.opcode == "parameter":
            return 0.0  # handed through
        if root.opcode == "dynamic-update-slice":
            return _hbm(arrays, at_most=_operand(root, 1, computation))
        if root.opcode == "fusion":
            (called,) = root.called("calls")
            inner = self.module.computations[called]
            return self._written(inner, inner.root.name, arrays)
        return _hbm(arrays)

    # --- traffic between devices ---

    def _collectives(self, i: Instruction) -> list[tuple[str, Collective, str]]:
        """Kind, size and channel of the collectives of an instruction, those inside a fusion included."""
        if i.opcode == "fusion":
            (called,) = i.called("calls")
            return [found for inner in self.module.computations[called] for found in self._collectives(inner)]
        if i.opcode not in _COLLECTIVES:
            return []
        kind = i.opcode.removesuffix("-start")
        sizes = [a.bytes for a in i.arrays]
        if i.opcode.endswith("-start") and len(sizes) > 1 and kind != "all-reduce":
            sizes = [max(sizes)] if kind == "all-gather" else sizes[:1]
        group, size = _group(i), sum(sizes)
        share = (group - 1) / group
        sent = {
            "all-gather": share * size,  # size: the gathered result
            "all-reduce": 2 * share * size,
            "reduce-scatter": (group - 1) * size,  # size: one share of the result
        }.get(kind, share * size)
        if kind.startswith("collective"):
            sent = float(size)
        return [(kind, Collective(1, sent), i.attribute("channel_id"))] if group > 1 else []


def _passes_on(computation: Computation, name: str) -> bool:
    """True if a fusion inside a fusion gives a value on as it is, under another shape."""
    if name == computation.root.name:
        return True
    onward = (u for u in computation.users.get(name, ()) if u.opcode in ("bitcast", "reshape"))
    return any(_passes_on(computation, user.name) for user in onward)


def _group(i: Instruction) -> int:
    """Devices that take part together, from one of the three ways HLO writes groups."""
    if "source_target_pairs=" in i.rest:
        return 2
    text = i.rest.partition("replica_groups=")[2]
    if text.startswith("{{"):
        return text[2 : text.index("}")].count(",") + 1
    if found := re.match(r"\[(\d+),(\d+)\]<=", text):
        return int(found[2])
    if found := re.match(r"mesh\[([^\]]*)\](?:, device_ids=\([^)]*\))? ?\{([^}]*)\}", text):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        return math.prod(sizes[name] for name in re.findall(r"'(\w+)'", found[2]))
    return 1


def _operand(i: Instruction, number: int, within: Computation) -> tuple[Array, ...]:
    found = within.instructions.get(i.operands[number]) if number < len(i.operands) else None
    return () if found is None else found.arrays


def _hbm(arrays: Sequence[Array], at_most: Sequence[Array] | None = None) -> float:
    size = float(sum(a.bytes for a in arrays if a.in_hbm))
    return size if at_most is None else min(size, float(sum(a.bytes for a in at_most)))


# --- matrix products ---


def _matrix_flops(i: Instruction, within: Computation) -> float:
    if i.opcode == "dot":
        left = _operand(i, 0, within)[0].shape
        contracted = [int(n) for n in re.findall(r"\d+", i.attribute("lhs_contracting_dims"))]
        return 2.0 * math.prod(i.arrays[0].shape) * math.prod(left[d] for d in contracted)
    if i.opcode == "convolution":  # what a TPU makes of every matrix product; batch dimensions become spatial ones
        return _convolution_flops(i, within)
    return 0.0


def _convolution_flops(i: Instruction, within: Computation) -> float:
    left, right, out = re.fullmatch(r"(\w+)_(\w+)->(\w+)", i.attribute("dim_labels")).groups()  # pyright: ignore[reportOptionalMemberAccess]
    sizes = [_operand(i, 0, within)[0].shape, _operand(i, 1, within)[0].shape, i.arrays[0].shape]
    lhs, rhs, result = (
        dict(zip(labels, shape, strict=True)) for labels, shape in zip((left, right, out), sizes, strict=True)
    )
    window = dict(re.findall(r"(\w+)=(\S+)", i.attribute("window").strip("{}")))
    pairs = 1
    for d in sorted(label for label in out if label.isdigit()):
        k = int(d)
        number = lambda name, default, k=k: int(window[name].split("x")[k]) if name in window else default  # noqa: E731
        pad = int(window["pad"].split("x")[k].split("_")[0]) if "pad" in window else 0
        dilations = number("lhs_dilate", 1), number("rhs_dilate", 1)
        pairs *= _valid_pairs(lhs[d], rhs[d], result[d], number("stride", 1), pad, *dilations)
    return 2.0 * result["b"] * result["f"] * rhs["i"] * pairs


@functools.lru_cache(maxsize=4096)
def _valid_pairs(size: int, kernel: int, out: int, stride: int, pad: int, dilate: int, kernel_dilate: int) -> int:
    """Pairs of an output place and a kernel place that meet an element of the input, not padding or a hole."""
    last = (size - 1) * dilate
    few, many, few_step, many_step = (kernel, out, kernel_dilate, stride)
    if kernel > out:
        few, many, few_step, many_step = (out, kernel, stride, kernel_dilate)
    count = 0
    for n in range(few):  # places m of the longer side with 0 <= base + m * step <= last, on the grid of `dilate`
        base = n * few_step - pad
        low = max(0, -(base // many_step))  # rounded up
        high = min(many - 1, (last - base) // many_step)
        if high < low:
            continue
        if dilate == 1:
            count += high - low + 1
        else:
            count += sum((base + m * many_step) % dilate == 0 for m in range(low, high + 1))
    return count
