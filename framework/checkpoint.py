"""Save and restore a training state with Orbax: whole or not at all, onto any mesh, bit for bit.

A checkpoint is the folder `<path>/<step>/` with two items: `state`, the arrays under flat names such as
"params/blocks/0/kernel", and `extra`, a small JSON object. Flat names mean that the containers (an
nnx.State, optax tuples) may change between versions without making old checkpoints unreadable.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from framework import state as state_lib
from framework.distributed import agree, is_main
from framework.errors import UserError

Tree = TypeVar("Tree")
Json = Mapping[str, object]

_MARKER = "commit_success.txt"  # Orbax writes it last, then renames the temporary folder to <step>
_SHOWN = 8  # differences listed in full


class CheckpointError(UserError):
    """A checkpoint exists but cannot be used. The message says which one and what to do."""


class Checkpoints:
    """The checkpoints of one stage. Reading never changes a file, so others may read while a run writes.

    On many hosts every process makes the same calls and writes its own part of the arrays into the same folder. How many
    processes wrote a checkpoint is nothing to those who read it.
    """

    def __init__(self, path: str | Path, *, keep: int = 3) -> None:
        """`keep`: how many of the newest checkpoints stay on disk."""
        if keep < 1:
            raise ValueError(f"keep={keep} would delete every checkpoint. Use keep=1 or more.")
        self.path = Path(path).absolute()
        self._keep = keep
        self._writer: ocp.AsyncCheckpointer | None = None
        self._writing: int | None = None

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first. Half-written ones are not among them."""
        if not self.path.is_dir():
            return []
        return sorted(int(p.name) for p in self.path.iterdir() if p.name.isdecimal() and (p / _MARKER).is_file())

    def folder(self, step: int) -> Path:
        return self.path / str(step)

    def save(self, step: int, state: object, extra: Json | None = None) -> None:
        """Start writing; the arrays are copied before this returns, so the caller may donate them.

        The files are written in the background: `wait` (or leaving the `with` block) makes them final.
        """
        self.wait()
        if self._writer is None:
            self._writer = ocp.AsyncCheckpointer(_handler())
            self._sweep()
        arrays = {leaf.name: leaf.value for leaf in state_lib.leaves(state)}
        self._writing = step
        self._writer.save(
            self.folder(step),
            args=ocp.args.Composite(state=ocp.args.StandardSave(arrays), extra=ocp.args.JsonSave(dict(extra or {}))),
            force=True,  # a leftover without the marker may have the name
        )

    def wait(self) -> None:
        """Return once the last `save` is on disk, then drop checkpoints beyond `keep`."""
        if self._writer is None or self._writing is None:
            return
        step, self._writing = self._writing, None
        self._writer.wait_until_finished()  # on many hosts: until all parts are there
        if not is_main():
            return
        if step not in self.steps():
            raise CheckpointError(
                f"Orbax reported checkpoint {self.folder(step)} as saved, but it has no {_MARKER}. The installed "
                "orbax-checkpoint may mark commits in another way: install the version in constraints.txt."
            )
        for old in self.steps()[: -self._keep]:
            _delete(self.folder(old))

    def close(self) -> None:
        self.wait()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def restore_latest(self, abstract_state: Tree) -> tuple[int, Tree, dict[str, object]] | None:
        """(step, state, extra) of the newest finished checkpoint, None if there is none.

        `abstract_state` gives names, shapes, dtypes and shardings: arrays, or jax.ShapeDtypeStruct with a
        sharding (`framework.mesh.abstract_tree`). It need not be the sharding that was saved.
        """
        self.wait()
        steps = agree(self.steps())  # a shared file system may show a new folder to one host before another
        if not steps:
            return None
        try:
            state, extra = self.restore(steps[-1], abstract_state)
        except CheckpointError as error:
            if not isinstance(error.__cause__, Exception):
                raise  # the files are sound and the state is another one: older checkpoints would not fit either
            raise CheckpointError(self._advice(steps, error.__cause__, abstract_state)) from error.__cause__
        return steps[-1], state, extra

    def restore(self, step: int, abstract_state: Tree) -> tuple[Tree, dict[str, object]]:
        """(state, extra) of the checkpoint of this step."""
        want = {leaf.name: _abstract(leaf.value) for leaf in state_lib.leaves(abstract_state)}
        try:
            with ocp.Checkpointer(_handler()) as reader:
                saved = reader.metadata(self.folder(step)).item_metadata["state"]  # pyright: ignore[reportOptionalSubscript, reportArgumentType]
                differences = _differences(dict(saved.tree), want)
                args = ocp.args.Composite(state=ocp.args.StandardRestore(want), extra=ocp.args.JsonRestore())
                found = None if differences else reader.restore(self.folder(step), args=args)
        except Exception as error:  # Orbax and TensorStore raise many types for a damaged file
            raise CheckpointError(f"checkpoint {self.folder(step)} cannot be read: {_first_line(error)}") from error
        if found is None:
            more = len(differences) - _SHOWN
            listed = "\n".join([*differences[:_SHOWN], *([f"  ... and {more} more"] if more > 0 else [])])
            raise CheckpointError(
                f"checkpoint {self.folder(step)} holds another state than this run builds:\n{listed}\n"
                "Use the model and optimizer config it was saved with, or start a run with another name."
            )
        values = [found["state"][name] for name in want]
        return state_lib.rebuild(abstract_state, values), dict(found["extra"])

    def _advice(self, steps: list[int], error: BaseException, abstract_state: object) -> str:
        """What to do about a damaged newest checkpoint: finds the newest older one that reads back whole."""
        intact = next((step for step in reversed(steps[:-1]) if self._reads_back(step, abstract_state)), None)
        todo = (
            f"Checkpoint {intact} is intact: delete {self.folder(steps[-1])} and resume, and the run continues from "
            f"step {intact}."
            if intact is not None
            else f"No older checkpoint is intact: move {self.path} away and resume, and the run starts from step 0."
        )
        return f"checkpoint {self.folder(steps[-1])} is damaged ({_first_line(error)}). {todo}"

    def _reads_back(self, step: int, abstract_state: object) -> bool:
        try:
            self.restore(step, abstract_state)
        except CheckpointError:
            return False
        return True

    def _sweep(self) -> None:
        """Remove what killed writers left behind: temporary folders and step folders without the marker."""
        if not is_main() or not self.path.is_dir():
            return
        for folder in self.path.iterdir():
            unfinished = folder.name.isdecimal() and not (folder / _MARKER).is_file()
            if folder.is_dir() and (unfinished or "-tmp-" in folder.name or folder.name.endswith(".deleted")):
                shutil.rmtree(folder, ignore_errors=True)


def _handler() -> ocp.CompositeCheckpointHandler:
    return ocp.CompositeCheckpointHandler(state=ocp.StandardCheckpointHandler(), extra=ocp.JsonCheckpointHandler())


def _delete(folder: Path) -> None:
    """Rename first: a deletion that is killed half-way must not leave a folder that looks like a checkpoint."""
    hidden = folder.with_name(f"{folder.name}.deleted")
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _abstract(value) -> jax.ShapeDtypeStruct:
    sharding = getattr(value, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)


def _differences(saved, want: Mapping[str, jax.ShapeDtypeStruct]) -> list[str]:
    """Lines such as "  params/w: checkpoint float32[3, 4], this run float32[3, 8]"."""

    def show(x) -> str:
        if x is None:
            return "nothing"
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):  # Orbax stores the words a random key is made of
            x = jax.eval_shape(jax.random.key_data, x)
        return f"{x.dtype}{list(x.shape)}"

    names = [*want, *(name for name in saved if name not in want)]
    return [
        f"  {name}: checkpoint {show(saved.get(name))}, this run {show(want.get(name))}"
        for name in names
        if show(saved.get(name)) != show(want.get(name))
    ]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    # TensorStore puts a dump of its own settings behind this.
    text = lines[0].split(". See full TensorStore")[0][:200] if lines else ""
    return f"{type(error).__name__}: {text}"
