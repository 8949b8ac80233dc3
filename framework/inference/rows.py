"""Arrays of the host for the compiled calls: what it says of each row, and the shape of a flat prefill."""

import numpy as np

from framework.inference.decode import Rows
from framework.inference.sampling import Sampling

__all__ = ["as_rows", "flat_arrays", "row_table"]

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "minimum")


def row_table(rows: int, stops: int) -> dict[str, np.ndarray]:
    """Rows of which none is live, by the names of `decode.Rows` and `sampling.Sampling`."""
    integers = ("token", "place", "count", "limit", "top_k", "minimum", "watch")
    table: dict[str, np.ndarray] = {name: np.zeros(rows, np.int32) for name in integers}
    table |= {name: np.zeros(rows, np.uint32) for name in ("request", "sample")}
    table |= {name: np.ones(rows, np.float32) for name in ("temperature", "top_p")}
    table |= {name: np.zeros(rows, bool) for name in ("live", "top")}
    table["min_p"] = np.zeros(rows, np.float32)
    table["base"] = np.zeros((rows, 2), np.uint32)
    table["stops"] = np.full((rows, stops), -1, np.int32)
    return table


def as_rows(table: dict[str, np.ndarray]) -> Rows:
    """A copy for the device: a call may still read what the next one would write."""
    fields = {name: value.copy() for name, value in table.items()}
    sampling = Sampling(**{name: fields.pop(name) for name in _SAMPLING})  # pyright: ignore[reportArgumentType]
    return Rows(**fields, sampling=sampling)  # pyright: ignore[reportArgumentType]


def flat_arrays(shards: int, size: int, pad: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, positions, segments and rows of nothing, each [R, N]."""
    shape = (shards, size)
    tokens, positions, segments, rows = (np.full(shape, fill, np.int32) for fill in (pad, 0, 0, -1))
    return tokens, positions, segments, rows
