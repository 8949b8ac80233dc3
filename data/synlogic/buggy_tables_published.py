"""Published records of `buggy_tables` (SynLogic, arXiv:2505.19641): the table before the bug and the query, from their metadata."""

import re
from collections.abc import Mapping
from typing import Any

from data.synlogic.buggy_tables_bugs import Row

__all__ = ["columns_of", "query_of", "rows_of"]

_CONDITION = re.compile(r"(\w+) (between|[<>=!]+) \[?(\d+)(?:, (\d+)\])?")
_PLACE = re.compile(r"\((\d+), (\d+)\)")


def columns_of(meta: Mapping[str, Any]) -> list[str]:
    return list(meta["original_table"][0])


def rows_of(meta: Mapping[str, Any]) -> list[Row]:
    """The original table; with empty cells for `null`, where the published answer is that of the damaged table."""
    rows: list[Row] = [[None if cell is None else str(cell) for cell in row.values()] for row in meta["original_table"]]
    if meta["bug_type"] == "null":
        for i, j in _PLACE.findall(meta["bug_description"]):  # the header is not counted, whatever the prompt says
            rows[int(i)][int(j)] = None
    return rows


def query_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    result = meta["query_result"]
    conditions = {}
    for text in result["conditions"]:
        condition = _CONDITION.fullmatch(text)
        if condition is None:
            raise ValueError(f"buggy_tables: the condition {text!r} of a published record cannot be read.")
        column, op, low, high = condition.groups()
        conditions[column] = {"op": op, "value": [int(low), int(high)] if op == "between" else int(low)}
    return {"cols_to_compare": result["columns_compared"], "stat_type": result["statistic"], "conditions": conditions}
