"""The records and the responses that `maypole data verify` is given, from files, folders and the hub."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.synlogic.published import sample_of, sample_of_row, task_of
from framework.errors import UserError
from framework.rundata import RunDataError, read_jsonl
from framework.sample import Sample

__all__ = ["Record", "Response", "json_lines", "read_records", "read_responses"]

_FILES = (".parquet", ".jsonl", ".json")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    where: str  # file:row
    id: str  # what the file calls it, "" where it has no name
    sample: Sample


@dataclasses.dataclass(frozen=True, kw_only=True)
class Response:
    where: str
    record: int  # number of the record, from 0
    text: str


def read_records(path: str, *, split: str | None, config: str | None, task: str | None) -> list[Record]:
    """The records of a file, of a data set folder, or of a hub data set; `task` is for Data records that do not name theirs.

    Raises:
        UserError: nothing there, or a record that cannot be read, with its place.
    """
    records = [_record(row, where, task) for where, row in _rows(path, split, config)]
    if not records:
        raise UserError(
            f"{path} holds no records. Name a file of `maypole data synlogic`, of MiniMaxAI/SynLogic, or of Data."
        )
    return records


def _record(row: Mapping[str, Any], where: str, task: str | None) -> Record:
    extra = row.get("extra_info")
    if extra is not None or ("data_source" in row and "question" not in row):
        sample = sample_of_row(row, where)
        name = extra.get("id", row.get("id", extra.get("index"))) if isinstance(extra, Mapping) else row.get("id")
    else:
        given = task or row.get("task") or row.get("data_source")
        if not isinstance(given, str):
            raise UserError(
                f"{where} does not say which task it is of. Found: {', '.join(map(str, row)) or 'nothing'}. "
                "Type --task NAME, or write a field 'task' into each record."
            )
        sample, name = sample_of(task_of(given, where), row, where=where), row.get("id")
    return Record(where=where, id="" if name is None else str(name), sample=sample)


def _rows(path: str, split: str | None, config: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    local = Path(path).expanduser()
    if local.is_dir():
        for file in _files_of(local, split):
            yield from _rows(str(file), None, None)
    elif local.is_file() and local.suffix not in _FILES:
        raise UserError(f"{path} is not a {', '.join(_FILES[:-1])} or {_FILES[-1]} file. Give one of these.")
    elif local.is_file() and local.suffix == ".parquet":
        yield from _parquet(local)
    elif local.is_file():
        yield from ((f"{path}:{number}", row) for number, row in enumerate(json_lines(local), start=1))
    elif _HUB_ID.fullmatch(path) and local.suffix not in _FILES:
        yield from _hub(path, split or "validation", config)
    else:
        raise UserError(f"There is no file, folder or hub data set {path!r} in {Path.cwd()}. Check the path.")


def _files_of(folder: Path, split: str | None) -> list[Path]:
    """The files of one split. Where a data set was written in two formats, those in Parquet."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*")) or []:
        name = re.fullmatch(r"(train|validation|test)(-\d+-of-\d+)?", file.stem)
        if name and file.suffix in _FILES:
            found.setdefault(name[1], []).append(file)
    if not found:
        inner = next((folder / kind for kind in ("parquet", "jsonl") if (folder / kind).is_dir()), None)
        if inner is not None:
            return _files_of(inner, split)
        raise UserError(
            f"The folder {folder} holds no train or validation files. Give a file, or a folder with a data set."
        )
    if split is None and len(found) > 1:
        raise UserError(f"{folder} has {' and '.join(found)} records. Say which: --split {next(iter(found))}")
    chosen = split or next(iter(found))
    if chosen not in found:
        raise UserError(f"{folder} has no split {chosen!r}. It has: {', '.join(found)}.")
    return found[chosen]


def _parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is not a Parquet file that can be read ({error}). Write it again.") from error


def json_lines(path: Path) -> list[dict[str, Any]]:
    try:
        rows, cut = read_jsonl(path)
    except (RunDataError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}. Write one JSON object a line.") from error
    if cut:
        raise UserError(f"The last line of {path} is not a JSON object. Write one JSON object a line.")
    return rows


def _hub(name: str, split: str, config: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import datasets  # slow to import, and needed for the hub only

    try:
        rows = datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{name!r} is no file or folder in {Path.cwd()}, and as a data set of the Hugging Face hub it cannot be read: "
            f"{said[0]} Check the name and the network; --config names a configuration (easy, hard), --split a split ({split})."
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{name}[{split}]:{number}", row  # pyright: ignore[reportReturnType]  # a split holds dictionaries


def read_responses(path: Path, records: Sequence[Record]) -> list[Response]:
    """Responses with the numbers of their records: named by "index" or "id", or line by line in the order of the records.

    Raises:
        UserError: a line that names no record, or as many lines as there are not records.
    """
    if not path.is_file():
        raise UserError(f"--responses {path}: there is no such file. Give a JSONL file, one response a line.")
    if path.suffix not in (".jsonl", ".json"):
        # Not splitlines(): a response may hold a form feed or a Unicode line separator.
        lines = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
        _check_aligned(path, len(lines), records)
        return [
            Response(where=f"{path}:{i + 1}", record=i, text=line.removesuffix("\r")) for i, line in enumerate(lines)
        ]
    rows = json_lines(path)
    named = [row for row in rows if "index" in row or "id" in row]
    if named and len(named) < len(rows):
        raise UserError(f"{path}: {len(named)} of {len(rows)} lines have 'index' or 'id'. Give it to all, or to none.")
    if not named:
        _check_aligned(path, len(rows), records)
    names = Counter(record.id for record in records)
    numbers = {record.id: number for number, record in enumerate(records) if names[record.id] == 1 and record.id}
    found = []
    for line, row in enumerate(rows, start=1):
        where = f"{path}:{line}"
        number = _number(row, where, numbers, len(records)) if named else line - 1
        found += [Response(where=where, record=number, text=text) for text in _texts(row, where)]
    return found


def _number(row: Mapping[str, Any], where: str, numbers: Mapping[str, int], count: int) -> int:
    if "id" in row:
        if str(row["id"]) not in numbers:
            raise UserError(
                f"{where}: no record, or more than one, has the id {row['id']!r:.80}. Use 'index' instead, from 0."
            )
        return numbers[str(row["id"])]
    index = row["index"]
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
        raise UserError(f"{where}: index {index!r:.80} is not the number of a record. They go from 0 to {count - 1}.")
    return index


def _texts(row: Mapping[str, Any], where: str) -> list[str]:
    """One response, or several to one record as `maypole generate` writes them."""
    value = row.get("response", row.get("responses"))
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(
            f"{where} has no text 'response' and no list 'responses'. Found: {', '.join(row) or 'nothing'}. "
            f"A line looks like {json.dumps({'index': 0, 'response': '<think>..</think><answer>..</answer>'})}"
        )
    return texts


def _check_aligned(path: Path, lines: int, records: Sequence[Record]) -> None:
    if lines != len(records):
        raise UserError(
            f"{path} has {lines} lines for {len(records)} records, and they do not say which they answer. Write JSONL lines with "
            "'index', the number of the record from 0, or one line a record."
        )
