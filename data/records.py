"""Records of JSONL and Parquet files and of hub data sets, one at a time, each with the place it came from.

for where, row in rows("chats/*.jsonl"):                     # ("chats/a.jsonl:1", {...})
"""

import glob
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data.lines import parse_line, read_text
from framework.errors import UserError

__all__ = ["rows"]

_FILES = (".jsonl", ".json", ".parquet")


def rows(path: str, split: str = "train") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where, record) of a file, of all files of a pattern or a folder in the order of their names, or of a hub data set.

    `where` is file:line of a JSONL file, file:row of a Parquet file. `split` is for hub data sets.

    Raises:
        UserError: nothing at the path, or a file that cannot be read, with the place.
    """
    local = Path(path).expanduser()
    if local.is_dir():
        files = sorted(p for p in local.rglob("*") if p.suffix in _FILES)
        if not files:
            found = ", ".join(sorted(p.name for p in local.iterdir())[:20]) or "nothing"
            raise UserError(
                f"The folder {path} holds no {', '.join(_FILES[:-1])} or {_FILES[-1]} file. Found: {found}."
            )
    elif local.is_file():
        files = [local]
    else:
        files = sorted(Path(p) for p in glob.glob(str(local), recursive=True))
    if files:
        for file in files:
            yield from _parquet(file) if file.suffix == ".parquet" else _jsonl(file)
    elif re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", path) and local.suffix not in _FILES:
        yield from _hub(path, split)
    else:
        raise UserError(f"data.source.path={path!r}: there is no such file in {Path.cwd()}. Check the path.")


def _jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(io.StringIO(read_text(path), newline=None), start=1):
        if line.strip():
            yield f"{path}:{number}", parse_line(line, f"{path}:{number}")


def _parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow  # only for those who have such files
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except pyarrow.ArrowException as error:
        raise UserError(
            f"{path} is not a Parquet file that can be read ({error}). Write it again, or name another."
        ) from error


def _hub(path: str, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import datasets  # slow to import, and needed for the hub only

    try:
        dataset = datasets.load_dataset(path, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"data.source.path={path!r} is no file or folder in {Path.cwd()}, and as a data set of the Hugging Face hub it cannot "
            f"be read (split {split!r}): {first} Check the path; for the hub, the name, data.source.split= and the network."
        ) from error
    for number, row in enumerate(dataset, start=1):
        yield f"{path}[{split}]:{number}", row  # pyright: ignore[reportReturnType]  # a split holds dictionaries
