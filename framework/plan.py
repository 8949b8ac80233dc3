"""The plan before the launch: compile the real steps of an experiment for a pod that is not there, and add up what they need.

An experiment says which programs it runs (`Plannable`); this file compiles them for the devices of a topology and gives, for one
device: memory by kind, the largest buffers, FLOPs, traffic, and the time the chip's figures allow at best.
"""

import contextlib
import dataclasses
import hashlib
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh

from framework import state as state_lib
from framework.chips import Chip, Topology
from framework.errors import UserError
from framework.mesh import MeshConfig
from framework.plan_buffers import Buffer, shards, temporaries
from framework.plan_compile import InProcess, InThread, Job, Outcome, written
from framework.plan_cost import Cost, program_cost
from framework.plan_hlo import Module, arrays_of
from framework.plan_kernels import kernel_flops, xla_name
from framework.plan_topology import build_mesh
from framework.state import PyTree, TrainState

__all__ = ["Memory", "Plan", "Plannable", "Planner", "Program", "ProgramPlan", "lower"]

Status = Callable[[str], AbstractContextManager[None]]
_SHOWN_BUFFERS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One compiled call of a run."""

    name: str
    """What the table calls it: "policy step", "decode"."""
    fn: Callable[..., Any]
    """To be jitted; static things are bound already."""
    args: tuple[PyTree, ...]
    """Abstract arrays with their shardings on the mesh: `framework.mesh.abstract_tree` makes them."""
    kinds: tuple[str, ...]
    """What each argument holds: "parameters", "optimizer", "cache", "batch". A TrainState is taken apart by itself."""
    donate: tuple[int, ...] = ()
    """Arguments whose memory the results may take over."""
    resident: tuple[tuple[str, PyTree], ...] = ()
    """(kind, arrays) that are on the devices during the call without being its arguments."""
    inside: tuple[tuple[str, PyTree], ...] = ()
    """(kind, abstract arrays) that the program makes for itself, such as a cache: told apart from other temporaries."""
    calls: int = 1
    """Times a training step of the run makes this call; 0 for a program outside of it, such as a warm start."""
    role: str = ""
    """Programs of one role take turns, like the arms of an experiment: a step makes the calls of one of them."""
    tokens: int
    """Tokens that one call trains on or generates."""
    model_flops: float
    """FLOPs of one call as the formulas count them, for MFU: 6 N a trained token and 2 N a generated one, and attention."""


@runtime_checkable
class Plannable(Protocol):
    """What an experiment needs to be planned."""

    @property
    def mesh(self) -> MeshConfig: ...

    def programs(self, mesh: Mesh) -> Sequence[Program]:
        """The compiled calls of a run on this mesh. Nothing is allocated, no data is read."""
        ...

    def remedies(self, failing: Sequence[str]) -> Sequence[Sequence[str]]:
        """Overrides to try, one set after the other, when the programs of these names do not fit:
        `[["--rollout.microbatches", "32"], ["--model.remat", "full"]]`."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one device."""

    arguments: Mapping[str, int]
    """By kind, from shapes and shardings."""
    padding: int
    """What the layout of the chip adds to the arguments."""
    temporaries: int
    """Activations, gradients and everything else the program allocates while it runs."""
    inside: Mapping[str, int]
    """Parts of the temporaries with a name of their own, such as the cache."""
    outputs: int
    """Results that do not take over the memory of an argument."""
    code: int
    resident: Mapping[str, int]
    """By kind: on the device meanwhile, but not arguments."""

    @property
    def total(self) -> int:
        own = sum(self.arguments.values()) + self.padding + self.temporaries + self.outputs + self.code
        return own + sum(self.resident.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramPlan:
    """What one program needs on each device, and how fast it can be at best."""

    name: str
    role: str
    calls: int
    tokens: int
    model_flops: float
    memory: Memory
    usable: int  # bytes of a device that programs may use
    buffers: Sequence[Buffer]
    cost: Cost | None  # None: not compiled, because the arguments alone do not fit
    xla_flops: float | None  # XLA's own count, in which a loop turns once
    compile_s: float
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.usable

    def bounds(self, chip: Chip) -> dict[str, float]:
        """Seconds that each resource alone would take at its peak: the call takes at least the largest."""
        if self.cost is None:
            return {}
        return {
            "compute": self.cost.flops / chip.flops,
            "memory": self.cost.hbm_bytes / chip.hbm_bandwidth,
            "network": self.cost.bytes_sent / chip.network,
        }

    def roofline_s(self, chip: Chip) -> float:
        return max(self.bounds(chip).values(), default=math.nan)

    def mfu(self, chip: Chip, devices: int) -> float:
        """Model FLOPs utilisation if the call took its roofline time: no run can have more."""
        return self.model_flops / (devices * chip.flops * self.roofline_s(chip))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All programs of an experiment on a topology."""

    topology: Topology
    mesh: Mapping[str, int]
    programs: Sequence[ProgramPlan]

    @property
    def fits(self) -> bool:
        return all(program.fits for program in self.programs)

    @property
    def step_s(self) -> float:
        """Seconds of a training step at best: its compiled calls one after the other, and nothing between them."""
        seconds: dict[str, float] = {}
        for p in self.programs:
            if p.calls and p.cost is not None:
                seconds[p.role] = max(seconds.get(p.role, 0.0), p.calls * p.roofline_s(self.topology.chip))
        return sum(seconds.values())


def lower(program: Program, mesh: Mesh) -> tuple[Any, Any]:
    """The program traced and lowered under its mesh, ready to be compiled."""
    with jax.set_mesh(mesh):
        # Arguments that a program does not read stay on the device all the same: keep_unused counts them.
        traced = jax.jit(program.fn, donate_argnums=program.donate, keep_unused=True).trace(*program.args)
        return traced, traced.lower()


class Planner:
    """Compiles for one topology and remembers what it has compiled."""

    def __init__(
        self,
        topology: Topology,
        status: Status = lambda text: nullcontext(),
        dump: Path | None = None,
        at_once: int | None = None,
    ):
        """Prepare to compile.

        Args:
            topology: what for.
            status: called with what is going on, such as `Console.status`.
            dump: a folder to keep what the compiler writes in.
            at_once: compilations side by side; None: one a core, at most four (each takes one or two GiB of memory).
        """
        self.topology, self.status, self.dump = topology, status, dump
        self.at_once = at_once or min(os.cpu_count() or 1, 4)
        self._known: dict[str, ProgramPlan] = {}
        self._folders = 0

    def plan(
        self,
        config: object,
        *,
        only: Sequence[str] = (),
        first: Sequence[str] = (),
        quick: bool = False,
        child: Callable[[str], Sequence[str]] | None = None,
    ) -> Plan:
        """Compile the programs of an experiment.

        Args:
            config: the experiment.
            only: names of programs, or the beginnings of names; the others are left out.
            first: names of programs to begin with.
            quick: stop when the programs of `first` do not fit.
            child: the command that compiles the program of a name in a process, which is ended before it makes machine code;
                None: compile to the end, in this process.

        Raises:
            UserError: the experiment has no programs, its mesh is not that of the topology, or `only` matches nothing.
        """
        if not isinstance(config, Plannable):
            raise UserError(
                f"{type(config).__name__} cannot be planned: it has no field mesh with methods programs(mesh) and "
                "remedies(failing). Write them as rl/programs.py does: a Program for each compiled call, with abstract arguments."
            )
        mesh = build_mesh(config.mesh, self.topology)
        with self.status("describing the programs"):
            programs = list(config.programs(mesh))
        chosen = [p for p in programs if not only or any(p.name.startswith(word) for word in only)]
        if not chosen:
            names = ", ".join(repr(p.name) for p in programs)
            raise UserError(f"--only {' '.join(only)}: no program is called so. There are: {names}.")
        rounds = [[p for p in chosen if p.name in first], [p for p in chosen if p.name not in first]]
        plans: dict[str, ProgramPlan] = {}
        for programs in filter(None, rounds):
            plans |= self._plan_all(programs, mesh, child)
            if quick and not all(plan.fits for plan in plans.values()):
                break
        in_order = [plans[p.name] for p in chosen if p.name in plans]
        return Plan(topology=self.topology, mesh=dict(mesh.shape), programs=in_order)

    def _plan_all(
        self, programs: Sequence[Program], mesh: Mesh, child: Callable[[str], Sequence[str]] | None
    ) -> dict[str, ProgramPlan]:
        def make(program: Program, lowered: Any) -> Job:
            return InThread(lowered) if child is None else InProcess(child(program.name))

        keys: dict[str, str] = {}
        jobs: dict[str, _Job] = {}
        for program in programs:
            arguments = _by_kind(zip(program.kinds, program.args, strict=True))
            resident = _by_kind(program.resident)
            if sum(arguments.values()) + sum(resident.values()) > self.topology.chip.usable_hbm:
                key = program.name
                self._known[key] = self._too_large(program, arguments, resident)
            else:
                with self.status(f"tracing {program.name}"):
                    traced, lowered = lower(program, mesh)
                text = f"{lowered.as_text()}{arguments}{resident}{program.role}{program.calls}"
                key = hashlib.sha256(text.encode()).hexdigest()
                if key not in self._known and key not in jobs:
                    jobs[key] = _Job(program, traced, make(program, lowered), arguments, resident)
            keys[program.name] = key
        self._compile(jobs)
        return {name: dataclasses.replace(self._known[key], name=name) for name, key in keys.items()}

    def _compile(self, jobs: "dict[str, _Job]") -> None:
        """Several at a time: a compilation keeps one core busy for most of its time."""
        waiting, running = list(jobs), []
        with contextlib.ExitStack() as cleanup:
            while waiting or running:
                while waiting and len(running) < self.at_once:
                    key = waiting.pop(0)
                    folder = cleanup.enter_context(self._folder(jobs[key].program.name))
                    cleanup.callback(jobs[key].compile.stop)  # before its folder goes
                    jobs[key].compile.start(folder)
                    running.append(key)
                names = " and ".join(jobs[key].program.name for key in running)
                left = f", {len(waiting)} more to come" if waiting else ""
                with self.status(f"compiling {names}{left}"):
                    while all(jobs[key].compile.runs for key in running):
                        time.sleep(0.05)  # here Ctrl-C is heard, which a compilation does not
                for key in [key for key in running if not jobs[key].compile.runs]:
                    running.remove(key)
                    with self.status(f"reading the program of {jobs[key].program.name}"):
                        self._known[key] = self._read(jobs[key])

    def _read(self, job: "_Job") -> ProgramPlan:
        program, outcome = job.program, job.compile.result()
        # libtpu's own text: jaxlib reads a compiled program only if it knows every instruction of libtpu's XLA.
        module = Module(written(job.compile.folder, "after_optimizations.txt"))
        assignment = written(job.compile.folder, "buffer-assignment.txt")
        found = temporaries(assignment, module)
        kernels = kernel_flops(job.traced.jaxpr)
        cost = program_cost(module, kernels) if module.entry else None
        notes = [*(cost.notes if cost else ())]
        if kernels:
            notes.append("kernels count at their full grid, causal attention up to twice what it computes")
        if outcome.refused:
            notes.append(f"the compiler refused it: {outcome.refused.message}")
        if not assignment or not module.entry:
            notes.append("this libtpu does not write its program down: largest buffers and times are missing")
        return ProgramPlan(
            name=program.name,
            role=program.role or program.name,
            calls=program.calls,
            tokens=program.tokens,
            model_flops=program.model_flops,
            memory=_memory(job, outcome, assignment),
            usable=outcome.refused.usable if outcome.refused else self.topology.chip.usable_hbm,
            buffers=_largest([*found, *_argument_buffers(program)]),
            cost=cost,
            xla_flops=outcome.xla_flops,
            compile_s=job.compile.seconds,
            notes=tuple(notes),
        )

    def _folder(self, name: str) -> AbstractContextManager[str]:
        if self.dump is None:
            return tempfile.TemporaryDirectory(prefix="maypole-plan-", ignore_cleanup_errors=True)
        self._folders += 1
        folder = self.dump / f"{self._folders}-{re.sub(r'[^A-Za-z0-9]+', '-', name)}"
        folder.mkdir(parents=True, exist_ok=True)
        return nullcontext(str(folder))

    def _too_large(self, program: Program, arguments: dict[str, int], resident: dict[str, int]) -> ProgramPlan:
        memory = Memory(
            arguments=arguments, padding=0, temporaries=0, inside={}, outputs=0, code=0, resident=resident
        )  # fmt: skip
        return ProgramPlan(
            name=program.name,
            role=program.role or program.name,
            calls=program.calls,
            tokens=program.tokens,
            model_flops=program.model_flops,
            memory=memory,
            usable=self.topology.chip.usable_hbm,
            buffers=_largest(_argument_buffers(program)),
            cost=None,
            xla_flops=None,
            compile_s=0.0,
            notes=("not compiled: what is on the device before it starts does not fit",),
        )


@dataclasses.dataclass(frozen=True)
class _Job:
    """A program on its way through the compiler."""

    program: Program
    traced: Any
    compile: Job
    arguments: dict[str, int]  # bytes on a device by kind
    resident: dict[str, int]


# --- adding up ---


def _memory(job: _Job, outcome: Outcome, assignment: str) -> Memory:
    arguments, resident = job.arguments, job.resident
    inside = {}
    for kind, tree in job.program.inside:
        shapes = [f"{xla_name(x.dtype)}[{','.join(map(str, x.shape))}]" for x in jax.tree.leaves(tree) if x.ndim > 2]
        inside[kind] = shards(assignment, [arrays_of(shape)[0] for shape in shapes])
    own = sum(arguments.values())
    refused = outcome.refused
    return Memory(
        arguments=arguments,
        padding=max(outcome.arguments - own, 0),
        temporaries=outcome.temporaries if refused is None else max(refused.total - own, 0),
        inside=inside,
        outputs=outcome.outputs,
        code=outcome.code or 0,
        resident=resident,
    )


def _parts(kind: str, tree: PyTree) -> Iterator[tuple[str, PyTree]]:
    if isinstance(tree, TrainState):
        yield "parameters", tree.params
        yield "optimizer", (tree.opt_state, tree.step)
    else:
        yield kind, tree


def _by_kind(pairs: Any) -> dict[str, int]:
    """Bytes on one device by kind."""
    total: dict[str, int] = {}
    for kind, tree in pairs:
        for part, subtree in _parts(kind, tree):
            total[part] = total.get(part, 0) + sum(_leaf_bytes(leaf) for leaf in jax.tree.leaves(subtree))
    return total


def _leaf_bytes(leaf: Any) -> int:
    return math.prod(_local_shape(leaf)) * leaf.dtype.itemsize


def _local_shape(leaf: Any) -> tuple[int, ...]:
    sharding = getattr(leaf, "sharding", None)
    return tuple(leaf.shape if sharding is None else sharding.shard_shape(leaf.shape))


def _argument_buffers(program: Program) -> list[Buffer]:
    found = []
    for kind, tree in (*zip(program.kinds, program.args, strict=True), *program.resident):
        for part, subtree in _parts(kind, tree):
            for leaf in state_lib.leaves(subtree):
                shape = f"{xla_name(leaf.value.dtype)}[{','.join(map(str, _local_shape(leaf.value)))}]"  # pyright: ignore[reportAttributeAccessIssue]
                found.append(Buffer(_leaf_bytes(leaf.value), part, shape, leaf.name, ""))
    return found


def _largest(buffers: Sequence[Buffer]) -> list[Buffer]:
    return sorted(buffers, key=lambda b: -b.bytes)[:_SHOWN_BUFFERS]
