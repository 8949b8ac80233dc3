"""The JSONL file that answers go to: written as they come, continued after any stop, in the order of the prompts at the end.

A line is the prompt's own object with two more keys: "responses", the texts, and "generation", how they were made: the line of
the prompt, the settings, counts of tokens. So a file can say whether the same command made it, and if not, what differs.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from framework.config_text import Json
from framework.errors import UserError
from framework.prompts import Prompt, parse_line

__all__ = ["ANSWER_KEYS", "AnswersFile"]

ANSWER_KEYS = ("responses", "generation")


class AnswersFile:
    """Open one with `with`: it is locked until the end of the block. `done` are the lines of the prompts that have an answer."""

    def __init__(self, path: Path, prompts: Sequence[Prompt], settings: Mapping[str, Json], *, overwrite: bool = False):
        """
        Raises:
            UserError: the file is there and was made with other prompts or settings, or by something else; is no regular
                file; or another process writes it.
        """
        if path.is_symlink():  # the sorted file takes the place of the target, not of the link
            path = path.resolve()
        self.path, self.cut_bytes = path, 0
        self._settings, self._prompts = dict(settings), {prompt.line: prompt for prompt in prompts}
        if path.exists() and not path.is_file():
            raise UserError(f"--out {path} is no regular file. Leave --out out to print the answers.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_locked(path)
        except OSError as error:
            raise UserError(f"--out {path} cannot be written: {error.strerror}. Give another one.") from error
        try:
            if overwrite and os.fstat(self._file.fileno()).st_size:
                path.rename(_aside(path))
                self._file.close()
                self._file = _open_locked(path)
            self._places = self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "AnswersFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def done(self) -> set[int]:
        """Lines of the prompts that have an answer."""
        return set(self._places)

    def add(self, prompt: Prompt, responses: Sequence[str], generation: Mapping[str, Any]) -> None:
        """Append an answer; it is in the file when this returns."""
        made = {"line": prompt.line, **generation, "settings": self._settings}
        line = _dumps({**prompt.record, "responses": list(responses), "generation": made}) + b"\n"
        start = self._file.seek(0, os.SEEK_END)
        with self._said_when_full():
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
        self._places[prompt.line] = (start, len(line) - 1)

    def finish(self) -> None:
        """Put the lines in the order of the prompts. The file is the old one or the new one at any time."""
        order = sorted(self._places)
        starts = [self._places[line][0] for line in order]
        if starts == sorted(starts):
            return
        temporary = self.path.with_name(f".{self.path.name}.sorting")  # the lock keeps it ours, also one left by a kill
        with self._said_when_full(), self.path.open("rb") as answers, temporary.open("wb") as out:
            for line in order:
                start, size = self._places[line]
                answers.seek(start)
                out.write(answers.read(size) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, self.path)

    @contextlib.contextmanager
    def _said_when_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}. What is there is kept: make room, and the same command "
                "continues."
            ) from error

    def _read(self) -> dict[int, tuple[int, int]]:
        """Where the answers are, (start, size) by line of the prompt. A half-written last line is cut off."""
        places: dict[int, tuple[int, int]] = {}
        start = 0
        with self.path.open("rb") as reader:
            for number, raw in enumerate(reader, start=1):
                answer = _parse(raw)
                if answer is None and not raw.endswith(b"\n") and self._is_beginning(raw):  # killed while it wrote this
                    self.cut_bytes = len(raw)
                    self._file.truncate(start)
                    break
                if raw.strip():
                    line = self._check(answer, number)
                    places.setdefault(line, (start, len(raw.rstrip(b"\r\n"))))
                start += len(raw)
                if not raw.endswith(b"\n"):  # an editor took the end of the last line away
                    self._file.seek(0, os.SEEK_END)
                    self._file.write(b"\n")
        return places

    def _is_beginning(self, raw: bytes) -> bool:
        """Whether this can be the beginning of an answer: nothing else is ever cut off."""
        begins = (_dumps(prompt.record)[:-1] for prompt in self._prompts.values())
        return any(begin.startswith(raw) or raw.startswith(begin) for begin in begins)

    def _check(self, answer: Mapping[str, Any] | None, number: int) -> int:
        """The line of the prompt that this answers; a UserError if the command that made it was another one."""
        again = f"Give another --out, or --overwrite, which first moves {self.path} to {_aside(self.path)}."
        made = answer.get("generation") if answer is not None else None
        line = made.get("line") if isinstance(made, dict) else None
        if answer is None or not isinstance(made, dict) or not isinstance(line, int):
            raise UserError(f"Line {number} of {self.path} is no answer of maypole generate --model. {again}")
        if changes := _changes(made.get("settings"), self._settings):
            listed = "\n".join(f"  {change}" for change in changes)
            raise UserError(
                f"{self.path} was made with other settings (there -> now):\n{listed}\n"
                f"To continue it, use those. To begin again: {again[0].lower()}{again[1:]}"
            )
        prompt = self._prompts.get(line)
        if prompt is None:
            raise UserError(f"{self.path} answers line {line}, which is not among the prompts any more. {again}")
        record = {key: value for key, value in answer.items() if key not in ANSWER_KEYS}
        if _dumps(record, sort=True) != _dumps(prompt.record, sort=True):
            keys = [key for key in {**record, **prompt.record} if record.get(key) != prompt.record.get(key)]
            key = keys[0] if keys else "?"
            raise UserError(
                f"{self.path} answers another line {line} of the prompts (there -> now):\n"
                f'  "{key}": {record.get(key)!r:.60} -> {prompt.record.get(key)!r:.60}\n'
                f"To continue it, use the same prompts. To begin again: {again[0].lower()}{again[1:]}"
            )
        return line


def _changes(there: Any, now: Mapping[str, Json]) -> list[str]:
    there = there if isinstance(there, dict) else {}
    keys = [*there, *(key for key in now if key not in there)]
    pairs = [(key, there.get(key), now.get(key)) for key in keys]
    return [f"{key}: {_shown(a)} -> {_shown(b)}" for key, a, b in pairs if a != b]


def _shown(value: Json) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _dumps(record: Mapping[str, Any], *, sort: bool = False) -> bytes:
    try:
        return json.dumps(record, ensure_ascii=False, sort_keys=sort).encode()
    except UnicodeEncodeError:  # half of a character in a key that is only carried along
        return json.dumps(record, sort_keys=sort).encode()


def _parse(raw: bytes) -> Mapping[str, Any] | None:
    try:
        answer = parse_line(raw)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _open_locked(path: Path) -> FileIO:
    """The file for reading and writing without a buffer, and a lock on it that ends with this process."""
    while True:
        file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise UserError(
                f"{path} is being written by another process. Wait for it, stop it, or give another --out."
            ) from None
        there = path.stat() if path.exists() else None
        if there is not None and os.path.samestat(os.fstat(file.fileno()), there):
            return file
        file.close()  # the other process put its sorted file in this place just now


def _aside(path: Path) -> Path:
    taken = 1
    while (aside := path.with_name(f"{path.name}.old-{taken}")).exists():
        taken += 1
    return aside
