"""One compilation in a process of its own, which `maypole plan --quick` ends when memory is laid out.

python -m framework.plan_child TOPOLOGY EXPERIMENT PROGRAM [--field.sub value ...] FOLDER
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from framework.chips import Topology
from framework.cli_plan import prepare_planning
from framework.config import load_experiment
from framework.overrides import apply_overrides

__all__ = ["main"]


def main(argv: Sequence[str]) -> None:
    """Compile the program and leave what the compiler writes, or its refusal, in the folder."""
    topology, spec, name, *overrides, folder = argv
    prepare_planning()
    from framework.plan import lower
    from framework.plan_compile import REFUSAL, compile_into
    from framework.plan_topology import build_mesh

    config = apply_overrides(load_experiment(spec).config, overrides)
    mesh = build_mesh(config.mesh, Topology.parse(topology))  # pyright: ignore[reportAttributeAccessIssue]
    program = next(p for p in config.programs(mesh) if p.name == name)  # pyright: ignore[reportAttributeAccessIssue]
    outcome = compile_into(lower(program, mesh)[1], folder)
    if outcome.refused is not None:
        Path(folder, REFUSAL).write_text(json.dumps(dataclasses.asdict(outcome.refused)))


if __name__ == "__main__":
    main(sys.argv[1:])
