"""The samples a report carries: chosen evenly over the steps, small enough for one page, safe inside a script tag."""

import json
import math
from collections.abc import Sequence
from typing import Any

from framework.rundata import StageData

__all__ = ["COLUMNS", "choose_evenly", "json_for_html", "samples_payload"]

COLUMNS = ("stage", "split", "step", "task", "question", "response", "answer", "reward")
_LONGEST_TEXT = 12_000  # characters; what a page can show
_MAX_BYTES = 2_500_000


def samples_payload(
    stages: Sequence[tuple[str, StageData]], *, limit: int = 3000, max_bytes: int = _MAX_BYTES
) -> dict[str, Any] | None:
    """{"columns", "rows", "total", "clipped"} of labelled stages, or None without samples."""
    buckets: dict[tuple[str, str, float], list[list[Any]]] = {}
    for label, stage in stages:
        for sample in stage.samples:
            row = [label, *(_clean(sample.get(column)) for column in COLUMNS[1:])]
            step = row[2] if isinstance(row[2], int | float) else -1.0
            buckets.setdefault((label, str(row[1]), step), []).append(row)
    total = sum(map(len, buckets.values()))
    if not total:
        return None
    while True:
        rows = choose_evenly(list(buckets.values()), limit)
        size = len(json_for_html(rows))
        if size <= max_bytes or len(rows) <= 1:
            break
        limit = max(1, int(len(rows) * min(0.95, 0.97 * max_bytes / size)))
    clipped = sum(any(isinstance(cell, str) and cell.endswith(_CUT) for cell in row) for row in rows)
    return {"columns": list(COLUMNS), "rows": rows, "total": total, "clipped": clipped}


def choose_evenly(buckets: Sequence[Sequence[Any]], limit: int) -> list[Any]:
    """At most `limit` items: the same number from every bucket as far as it has them, evenly spaced within it.

    With more buckets than items, evenly spaced buckets give one item each.
    """
    if len(buckets) > limit:
        buckets = [buckets[i] for i in _spaced(len(buckets), limit)]
    quota, spare, left = 0, limit, sorted(map(len, buckets))
    while left:  # raise the quota until the next bucket is exhausted, or the items are
        if (left[0] - quota) * len(left) > spare:
            quota += spare // len(left)
            break
        spare -= (left[0] - quota) * len(left)
        quota = left[0]
        left = [n for n in left if n > quota]
    return [bucket[i] for bucket in buckets for i in _spaced(len(bucket), min(quota, len(bucket)))]


def json_for_html(value: Any) -> str:
    """JSON that cannot end the script tag it stands in, nor start a comment or a tag; JSON.parse gives the same value."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char, escape in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(char, escape)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # a lone surrogate becomes its JSON escape


_CUT = " characters not shown]"


def _clean(value: Any) -> Any:
    """JSON types a table cell can hold."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"{value[:_LONGEST_TEXT]} … [{len(value) - _LONGEST_TEXT}{_CUT}"
    return value


def _spaced(size: int, count: int) -> list[int]:
    """`count` indices of `size`, evenly spaced, first and last included."""
    if count >= size:
        return list(range(size))
    return [0] if count == 1 else [round(i * (size - 1) / (count - 1)) for i in range(count)] if count else []
