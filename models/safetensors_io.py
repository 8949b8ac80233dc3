"""Read and write .safetensors files a block of rows at a time, without torch.

The format is small: 8 bytes (the length n of a JSON object, little endian), n bytes of JSON (name -> dtype, shape, data_offsets),
the data. Reading goes straight into arrays that are already there, in any layout and in another type, so that nothing is held
twice: the `safetensors` package gives numpy whole tensors, and no bfloat16.
"""

import dataclasses
import functools
import json
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

import ml_dtypes
import numpy as np

from framework.errors import UserError

__all__ = ["DTYPES", "INDEX", "SINGLE", "Part", "Stored", "index_folder", "read_header", "read_into", "write_file"]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES: Mapping[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
"""Types that can be read and written, by their names in the format."""

_LONGEST_HEADER = 100_000_000  # bytes; the limit that the safetensors package has
_BLOCK = 1 << 20  # bytes read at a time: stays in a core's cache until it is turned and copied
_PIECE = 8192  # bytes; below two pages a part of a row is not cheaper to read than the row


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where a tensor lies."""

    file: Path
    name: str
    dtype: str  # name in the format, such as "BF16"; may be one that cannot be read
    shape: tuple[int, ...]
    start: int  # first byte in the file
    nbytes: int


@dataclasses.dataclass(frozen=True)
class Part:
    """A rectangle of a stored matrix and the array it goes to."""

    rows: tuple[int, int]  # first, behind the last
    columns: tuple[int, int]
    out: np.ndarray  # [rows, columns]; a transposed view turns the matrix, another type converts it


def read_header(file: Path) -> dict[str, Stored]:
    """The tensors of a file by name. Raises UserError for a file that is not whole."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
        if not 0 <= length <= min(size - 8, _LONGEST_HEADER):
            raise UserError(_damaged(file, f"it has {size} bytes and a header of {length}"))
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            found = {name: _stored(file, name, entry, 8 + length) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(_damaged(file, f"its header cannot be read: {error}")) from error
    end = max((stored.start + stored.nbytes for stored in found.values()), default=8 + length)
    if size < end:
        raise UserError(_damaged(file, f"it has {size} bytes of {end}"))
    return found


def _stored(file: Path, name: str, entry: Mapping, base: int) -> Stored:
    begin, end = (int(x) for x in entry["data_offsets"])
    shape = tuple(int(n) for n in entry["shape"])
    dtype = DTYPES.get(entry["dtype"])
    if begin < 0 or (dtype is not None and int(np.prod(shape)) * dtype.itemsize != end - begin):
        raise ValueError(f"{name} is {entry['dtype']}{list(shape)}, but has {end - begin} bytes")
    return Stored(file, name, entry["dtype"], shape, base + begin, end - begin)


def _damaged(file: Path, reason: str) -> str:
    return f"{file} is damaged or not fully downloaded: {reason}. Download it again."


def index_folder(folder: Path) -> dict[str, Stored]:
    """All tensors of a checkpoint, in one file or in those that its index names."""
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        return read_header(single)
    if not index.is_file():
        listed = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "nothing"
        raise UserError(
            f"{folder} has neither {SINGLE} nor {INDEX}. It has: {listed}. Only safetensors are read; a pytorch_model.bin "
            "(pickle) is not: open it once with transformers in a place you trust, and save_pretrained."
        )
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(files.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is damaged: {error!r}. Download it again.") from error
    if bad := [name for name in names if Path(name).name != name]:
        raise UserError(f"{index} names files outside of its folder: {', '.join(bad[:4])}. Download it again.")
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise UserError(
            f"{folder} lacks {len(absent)} of the {len(names)} files that {INDEX} names: {_some(absent)}. Download them again."
        )
    found = {name: stored for file in names for name, stored in read_header(folder / file).items()}
    if absent := [f"{name} ({file})" for name, file in files.items() if name not in found]:
        raise UserError(
            f"{len(absent)} tensors that {INDEX} names are not in their files: {_some(absent)}. The files of {folder} do not "
            "belong together: download them again."
        )
    return found


def _some(names: Sequence[str], shown: int = 8) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def read_into(stored: Stored, parts: Sequence[Part], pool: Executor | None = None, workers: int = 1) -> None:
    """Fill the arrays of `parts`. What several of them want is read once; a vector is a matrix of one row.

    Args:
        stored: one of `DTYPES`.
        parts: rectangles of the matrix.
        pool: blocks of rows are read by `workers` of its threads.
        workers: threads to use.
    """
    dtype = DTYPES[stored.dtype]
    width = stored.shape[-1] if stored.shape else 1
    groups: dict[tuple[int, int], list[Part]] = {}
    for part in parts:
        groups.setdefault(part.rows, []).append(part)
    fd = os.open(stored.file, os.O_RDONLY)
    try:
        for (first, last), group in groups.items():
            left, right = min(p.columns[0] for p in group), max(p.columns[1] for p in group)
            if (right - left) * dtype.itemsize < _PIECE:
                left, right = 0, width
            read = functools.partial(_read_rows, fd, stored, dtype, width, (left, right), group)
            step = max(16, _BLOCK // max((right - left) * dtype.itemsize, 1) // 16 * 16)
            blocks = [(a, min(a + step, last)) for a in range(first, last, step)]
            if pool is None or workers < 2 or len(blocks) < 2:
                read(blocks)
            else:
                list(pool.map(read, [blocks[i::workers] for i in range(workers)]))
    finally:
        os.close(fd)


def _read_rows(
    fd: int,
    stored: Stored,
    dtype: np.dtype,
    width: int,
    columns: tuple[int, int],
    parts: Sequence[Part],
    blocks: Sequence[tuple[int, int]],
) -> None:
    """Read blocks of rows, and copy to every part what it wants of them."""
    left, right = columns
    for a, b in blocks:
        direct = parts[0].out[a - parts[0].rows[0] : b - parts[0].rows[0]]
        if len(parts) == 1 and columns == (0, width) == parts[0].columns and _same(direct, dtype):
            _fill(fd, stored, direct, a * width * dtype.itemsize)
            continue
        raw = np.empty((b - a, right - left), dtype)
        if columns == (0, width):
            _fill(fd, stored, raw, a * width * dtype.itemsize)
        else:
            for i in range(b - a):
                _fill(fd, stored, raw[i], ((a + i) * width + left) * dtype.itemsize)
        for part in parts:
            out = part.out[a - part.rows[0] : b - part.rows[0]]
            _copy(raw[:, part.columns[0] - left : part.columns[1] - left], out)


def _same(out: np.ndarray, dtype: np.dtype) -> bool:
    return out.dtype == dtype and out.flags.c_contiguous


def _fill(fd: int, stored: Stored, out: np.ndarray, offset: int) -> None:
    """Read bytes of a tensor, `offset` into it, into a contiguous array."""
    if out.size == 0:
        return
    view = out.reshape(-1).view(np.uint8).data
    position = stored.start + offset
    while view:
        done = os.preadv(fd, [view], position)
        if done == 0:
            raise UserError(_damaged(stored.file, f"it ended while {stored.name} was read"))
        view, position = view[done:], position + done


def _copy(block: np.ndarray, out: np.ndarray) -> None:
    """out[...] = block, quick also when `out` is a transposed view."""
    if block.dtype != out.dtype or (out.ndim == 2 and abs(out.strides[0]) < abs(out.strides[1])):
        # Convert while contiguous, and away from rows a power of two apart, which all fall into the same cache lines.
        staged = np.empty((block.shape[0], block.shape[1] + 32), out.dtype)[:, : block.shape[1]]
        _bits(staged, block.dtype)[...] = _bits(block, out.dtype)
        block = staged
    _bits(out, block.dtype)[...] = _bits(block, out.dtype)


def _bits(x: np.ndarray, other: np.dtype) -> np.ndarray:
    """As plain integers if the types agree: numpy copies those several times faster than bfloat16."""
    return x.view(f"u{x.dtype.itemsize}") if x.dtype == other else x


def write_file(
    file: Path, tensors: Mapping[str, tuple[int, ...]], dtype: np.dtype, get: Callable[[str], np.ndarray]
) -> None:
    """Write tensors of these shapes; `get(name)` is called for one at a time and may give any layout and type."""
    label = next(name for name, known in DTYPES.items() if known == dtype)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}  # transformers refuses a file without it
    offset = 0
    for name, shape in tensors.items():
        size = int(np.prod(shape)) * dtype.itemsize
        header[name] = {"dtype": label, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb", buffering=0) as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors.items():
            value = get(name)
            if value.shape != shape:
                raise ValueError(f"{name} is {value.shape}, and {shape} was announced")
            for block in _contiguous_blocks(value, dtype):
                _write_all(stream, block)
        os.fsync(stream.fileno())


def _contiguous_blocks(value: np.ndarray, dtype: np.dtype) -> Iterable[memoryview]:
    matrix = value.reshape(1, -1) if value.ndim < 2 else value
    step = max(16, _BLOCK // (matrix.shape[1] * dtype.itemsize) // 16 * 16)
    for a in range(0, len(matrix), step):
        rows = matrix[a : a + step]
        if not _same(rows, dtype):
            if not rows.flags.c_contiguous:  # the narrow slab first, see `_copy`
                slab = np.empty((rows.shape[1], rows.shape[0] + 32), rows.dtype)[:, : rows.shape[0]]
                _bits(slab, rows.dtype)[...] = _bits(rows, rows.dtype).T
                rows = slab.T
            out = np.empty(rows.shape, dtype)
            _bits(out, rows.dtype)[...] = _bits(rows, dtype)
            rows = out
        yield rows.reshape(-1).view(np.uint8).data


def _write_all(stream: object, block: memoryview) -> None:
    while block:
        block = block[stream.write(block) :]  # pyright: ignore[reportAttributeAccessIssue]
