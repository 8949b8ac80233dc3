"""The folder of a build: whose it is, what of it is done, and the shards of one that is under way.

OUT/train-00000-of-00002.parquet ...   the data        OUT/manifest.json   written last: what was made, from what
OUT/.parts/settings.json, *.shard      while it is under way
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data.synlogic.build.selection import Group
from data.synlogic.build.shard import Candidate, Shard, ShardError, read_shard
from framework.errors import UserError

__all__ = ["MANIFEST", "Parts", "file_digest", "finished", "opened", "write_atomically"]

MANIFEST = "manifest.json"
_PARTS, _SETTINGS, _LOCK = ".parts", "settings.json", "lock"
_OURS = ("train-*", "validation-*", MANIFEST)
_LAYOUTS = ("", "parquet", "jsonl")  # the folder itself, or one a format where there are several


class Parts:
    """Finished shards on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def candidates(self, group: Group) -> dict[int, tuple[Candidate, ...]]:
        """What the shards that are there say, by number. One that cannot be read is made again."""
        found = {}
        for path in self.folder.glob(f"{group.task}.{group.level}.*.shard"):
            with contextlib.suppress(ShardError):
                shard = read_shard(path.read_bytes())
                if len(shard.candidates) == group.shard_size:
                    found[int(path.name.split(".")[-2])] = shard.candidates
        return found

    def add(self, group: Group, number: int, raw: bytes) -> tuple[Candidate, ...]:
        write_atomically(self._path(group, number), raw)
        return read_shard(raw).candidates

    def read(self, group: Group, number: int) -> Shard:
        return read_shard(self._path(group, number).read_bytes())

    def _path(self, group: Group, number: int) -> Path:
        return self.folder / f"{group.task}.{group.level}.{number:06}.shard"


@contextlib.contextmanager
def opened(out: Path, settings: Mapping[str, Any], *, force: bool) -> Iterator[Parts]:
    """The shards of a build with these settings in `out`, for one process at a time.

    Raises:
        UserError: the folder holds something else, or another process builds there.
    """
    parts = out / _PARTS
    known = _known_settings(out)
    if known is None and out.is_dir() and any(path.name != _PARTS for path in out.iterdir()):
        raise UserError(f"--out {out} is not empty and holds no data set of this command. Give a folder of its own.")
    if known is not None and not force and known != settings:
        differences = "; ".join(_differences(known, settings))
        raise UserError(
            f"--out {out} holds a data set that was made with other settings ({differences}). Give another folder, type the "
            "options of that one to continue it, or add --force to make it anew."
        )
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be made: {error.strerror}. Give another folder.") from error
    with _locked(parts / _LOCK, out):
        if force:
            _clear(out)
        write_atomically(parts / _SETTINGS, json.dumps(settings, ensure_ascii=False).encode())
        yield Parts(parts)


def finished(out: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest, if all of its files are there and as they were."""
    manifest = _read_json(out / MANIFEST)
    if manifest is None or manifest.get("settings") != settings:
        return None
    files = manifest["files"].items()
    same = all((out / name).is_file() and file_digest(out / name) == entry["sha256"] for name, entry in files)
    return manifest if same else None


def write_atomically(path: Path, content: bytes) -> None:
    """A process that is killed leaves the old file, or none."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError as error:
        raise UserError(
            f"{path} could not be written: {error.strerror}. What is done is kept: make room, and run the command again."
        ) from error


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _known_settings(out: Path) -> dict[str, Any] | None:
    manifest = _read_json(out / MANIFEST)
    if manifest is not None and "settings" in manifest and "files" in manifest:
        return manifest["settings"]
    return _read_json(out / _PARTS / _SETTINGS)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if key == "groups":
            yield "other tasks, levels, weights or parameters"
        elif key == "code":
            changed = [
                task for task in new["code"] if old.get("code", {}).get(task, new["code"][task]) != new["code"][task]
            ]
            if changed:
                yield f"the code has changed for {', '.join(changed[:5])}{' and others' if len(changed) > 5 else ''}"
        else:
            yield f"{key} {before!r:.40} there, {after!r:.40} now"


def _clear(out: Path) -> None:
    for layout in _LAYOUTS:
        for pattern in _OURS:
            for path in (out / layout).glob(pattern):
                path.unlink()
    for path in (out / _PARTS).glob("*.shard*"):
        path.unlink()


@contextlib.contextmanager
def _locked(path: Path, out: Path) -> Iterator[None]:
    try:
        import fcntl
    except (
        ImportError
    ):  # Windows: two builds into one folder write the same bytes, but the first to end removes the shards
        yield
        return
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--out {out}: another process is making this data set. Wait for it, or give another folder."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
