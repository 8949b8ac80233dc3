"""A plan as tables for the console, and as JSON for a file."""

import dataclasses
import datetime
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

from rich.console import RenderableType
from rich.table import Table

from framework.plan import Plan, ProgramPlan

__all__ = ["plan_json", "tables", "verdict"]

_MIB, _GIB = 2**20, 2**30


@dataclasses.dataclass(frozen=True)
class _Unit:
    """One for all tables of a plan, so that figures can be compared."""

    name: str
    size: int

    def show(self, value: float | None) -> str:
        if not value:
            return "-"
        return f"{value / self.size:,.2f}" if value >= self.size / 200 else "<0.01"


def _unit(plan: Plan) -> _Unit:
    largest = max(p.memory.total for p in plan.programs)
    return _Unit("GiB", _GIB) if largest >= _GIB else _Unit("MiB", _MIB)


def tables(plan: Plan) -> list[RenderableType]:
    """Memory, time, and the largest buffers of the program that needs most memory."""
    largest, unit = max(plan.programs, key=lambda p: p.memory.total), _unit(plan)
    return [_memory_table(plan, unit), _time_table(plan, unit), _buffer_table(largest, unit)]


def _columns(title: str, plan: Plan) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for program in plan.programs:
        table.add_column(program.name, justify="right")
    return table


def _memory_table(plan: Plan, unit: _Unit) -> Table:
    table = _columns(f"Memory of one device, {unit.name}", plan)

    def row(name: str, value: Callable[[ProgramPlan], int | None]) -> None:
        values = [value(p) for p in plan.programs]
        if any(values):
            table.add_row(name, *map(unit.show, values))

    kinds = [kind for p in plan.programs for kind in p.memory.arguments]
    for kind in dict.fromkeys(("parameters", "optimizer", "cache", *kinds)):
        row(kind, lambda p, kind=kind: p.memory.arguments.get(kind))
    row("padding of their layout", lambda p: p.memory.padding)
    row("temporaries: activations, gradients", lambda p: p.memory.temporaries)
    for kind in dict.fromkeys(kind for p in plan.programs for kind in p.memory.inside):
        row(f"  of these: {kind}", lambda p, kind=kind: p.memory.inside.get(kind))
    row("results", lambda p: p.memory.outputs)
    row("code", lambda p: p.memory.code)
    for kind in dict.fromkeys(kind for p in plan.programs for kind in p.memory.resident):
        row(f"there meanwhile: {kind}", lambda p, kind=kind: p.memory.resident.get(kind))
    table.add_section()
    table.add_row("all of it", *(unit.show(p.memory.total) for p in plan.programs), style="bold")
    table.add_row("of usable", *(unit.show(p.usable) for p in plan.programs))
    table.add_row("fits", *("yes" if p.fits else "NO" for p in plan.programs), style="bold")
    return table


def _time_table(plan: Plan, unit: _Unit) -> Table:
    chip, devices = plan.topology.chip, plan.topology.chips
    table = _columns("One call on one device, at the chip's peak rates", plan)

    def row(name: str, value: Callable[[ProgramPlan], str]) -> None:
        values = [value(p) if p.cost is not None else "-" for p in plan.programs]
        if any(shown != "-" for shown in values):
            table.add_row(name, *values)

    row("calls in a training step", lambda p: str(p.calls))
    row("matrix TFLOPs, loops counted", lambda p: _number(p.cost.flops / 1e12))  # pyright: ignore[reportOptionalMemberAccess]
    row("  of the formulas (for MFU)", lambda p: _number(p.model_flops / devices / 1e12))
    row("  by XLA, which counts a loop once", lambda p: "-" if p.xla_flops is None else _number(p.xla_flops / 1e12))
    row(f"HBM traffic, {unit.name}", lambda p: _number(p.cost.hbm_bytes / unit.size))  # pyright: ignore[reportOptionalMemberAccess]
    row(f"sent to other devices, {unit.name}", lambda p: _number(p.cost.bytes_sent / unit.size))  # pyright: ignore[reportOptionalMemberAccess]
    table.add_section()
    for what in ("compute", "memory", "network"):
        row(f"{what}, s", lambda p, what=what: _number(p.bounds(chip)[what]))
    row("at best (the largest), s", lambda p: _number(p.roofline_s(chip)))
    row("MFU at most, %", lambda p: f"{100 * p.mfu(chip, devices):.1f}")
    row("tokens/s at most, whole pod", lambda p: f"{p.tokens / p.roofline_s(chip):,.0f}")
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _buffer_table(program: ProgramPlan, unit: _Unit) -> Table:
    table = Table(
        title=f"Largest buffers of {program.name}, on one device",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column(unit.name, justify="right", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("shape", overflow="fold")
    table.add_column("what", overflow="fold")
    for buffer in program.buffers:
        table.add_row(unit.show(buffer.bytes), buffer.kind, buffer.shape, _what(buffer.what, buffer.source))
    return table


def _what(name: str, source: str) -> str:
    """The end of an operation's path, which says what it does, and the line of Python."""
    noise = ("closed_call", "body", "while", "jvp()", "checkpoint", "rematted_computation", "transpose(jvp())")
    parts = [part for part in name.split("/") if part not in noise]
    return f"{'/'.join(parts[-2:])}  {'/'.join(source.split('/')[-2:])}".rstrip()


def verdict(plan: Plan) -> list[str]:
    """What it comes to, in sentences."""
    chip, lines = plan.topology.chip, []
    for program in plan.programs:
        lines += [f"{program.name}: {note}." for note in program.notes]
    worst = max(plan.programs, key=lambda p: p.memory.total - p.usable)
    total, usable = worst.memory.total / _GIB, worst.usable / _GIB
    if not plan.fits:
        lines.append(f"Does not fit: {worst.name} needs {total:.2f} GiB on each device, {usable:.2f} can be used.")
        return lines
    lines.append(f"Fits: {worst.name} needs most, {total:.2f} of {usable:.2f} GiB on each device.")
    if plan.step_s > 0:
        lines.append(
            f"A training step takes at least {_number(plan.step_s)} s in these calls on {plan.topology.chips} {chip.title} chips. "
            "Real runs take longer: this assumes peak rates, perfect overlap, and nothing in between."
        )
    return lines


def plan_json(plan: Plan, *, experiment: str, overrides: Sequence[str]) -> dict[str, object]:
    """Everything in the tables and more, JSON types only; bytes and seconds, unless a name says otherwise."""
    chip = plan.topology.chip
    return {
        "experiment": experiment,
        "overrides": list(overrides),
        "topology": str(plan.topology),
        "devices": plan.topology.chips,
        "mesh": dict(plan.mesh),
        "chip": dataclasses.asdict(chip),
        "fits": plan.fits,
        "step_s_at_best": plan.step_s if plan.fits and plan.step_s > 0 else None,
        "programs": [_program_json(program, plan) for program in plan.programs],
        "versions": {name: _version(name) for name in ("maypole", "jax", "jaxlib", "libtpu")},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _program_json(p: ProgramPlan, plan: Plan) -> dict[str, object]:
    chip, devices = plan.topology.chip, plan.topology.chips
    times: dict[str, object] = {}
    if p.cost is not None:
        times = {
            "flops": p.cost.flops,
            "hbm_bytes": p.cost.hbm_bytes,
            "bytes_sent": p.cost.bytes_sent,
            "collectives": {kind: dataclasses.asdict(c) for kind, c in p.cost.collectives.items()},
            "seconds": p.bounds(chip),
            "roofline_s": p.roofline_s(chip),
            "mfu_at_most": p.mfu(chip, devices),
            "tokens_per_s_at_most": p.tokens / p.roofline_s(chip),
        }
    return {
        "name": p.name,
        "fits": p.fits,
        "calls_per_step": p.calls,
        "tokens": p.tokens,
        "model_flops": p.model_flops,
        "memory": dataclasses.asdict(p.memory) | {"total": p.memory.total, "usable": p.usable},
        "largest_buffers": [dataclasses.asdict(b) for b in p.buffers],
        "xla_flops_loops_once": p.xla_flops,
        **times,
        "compile_s": round(p.compile_s, 1),
        "notes": list(p.notes),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
