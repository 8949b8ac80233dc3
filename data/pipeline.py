"""Grain pipelines whose batch is a function of (seed, step): a resumed run sees exactly the batches it would have seen.

    questions = question_stream(mixture, batch_size=16, seed=0)
    questions[1000]                                   # list[Sample], no matter which steps were read before

The only file of this package that imports grain, and with it jax; reward workers never import it.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import grain

from data.mixture import Mixture, demonstration
from data.synlogic.base import stable_int
from framework.sample import Sample

__all__ = ["demonstration_stream", "from_jsonl", "question_stream", "records_stream"]

_STEPS = 2**31  # the length of a generated stream: no run reaches its end

Fields = Mapping[str, str]
DEFAULT_FIELDS: Fields = {"question": "question", "answer": "answer"}


def question_stream(mixture: Mixture, batch_size: int, seed: int) -> grain.MapDataset[list[Sample]]:
    """`ds[step]` is a batch of training samples."""
    _check_batch(batch_size)
    indices = grain.MapDataset.range(_STEPS * batch_size)
    return indices.map(functools.partial(mixture.train_sample, seed)).batch(batch_size, batch_fn=list)


def demonstration_stream(
    mixture: Mixture, batch_size: int, seed: int, noise: float = 0.0
) -> grain.MapDataset[list[tuple[Sample, str]]]:
    """`ds[step]` is a batch of (sample, demonstration); a share `noise` of the demonstrations has a wrong answer."""
    _check_batch(batch_size)
    if not 0.0 <= noise <= 1.0:
        raise ValueError(f"noise={noise} is not a probability. Use a value from 0 to 1.")

    def make(index: int) -> tuple[Sample, str]:
        sample = mixture.train_sample(seed, index)
        return sample, demonstration(sample, stable_int("noise", seed, index), noise)

    return grain.MapDataset.range(_STEPS * batch_size).map(make).batch(batch_size, batch_fn=list)


def records_stream(samples: Sequence[Sample], batch_size: int, seed: int) -> grain.MapDataset[list[Sample]]:
    """`ds[step]` is a batch of your own samples: endless, a new order every epoch. A batch may be larger than the data."""
    _check_batch(batch_size)
    if not samples:
        raise ValueError("no samples: an empty list cannot fill a batch. Give at least one sample.")
    order = grain.MapDataset.source(samples).shuffle(seed=stable_int("records", seed) % 2**32).repeat(None)
    return order.batch(batch_size, batch_fn=list)


def from_jsonl(path: str | Path, fields: Fields = DEFAULT_FIELDS, task: str = "jsonl") -> list[Sample]:
    """Read a JSONL file, one object a line, into samples.

    `fields` maps `question` (required) and `answer` (optional) to the names your file uses. The other columns are
    kept in `meta` for your reward function. Blank lines are skipped.
    """
    unknown = set(fields) - {"question", "answer"}
    if unknown or "question" not in fields:
        raise ValueError(
            f"fields={dict(fields)} must map 'question', and may map 'answer', to a column of the file; "
            "other columns go to meta by themselves. For example fields={'question': 'prompt', 'answer': 'label'}."
        )
    samples = []
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                samples.append(_to_sample(_parse(line, f"{path}:{number}"), f"{path}:{number}", fields, task, number))
    if not samples:
        raise ValueError(
            f"{path} holds no records. Write one JSON object a line, such as {{'question': '..', 'answer': '..'}}."
        )
    return samples


def _parse(line: str, where: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON ({error}). Write one JSON object a line.") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} is a {type(row).__name__}, not a JSON object. Write one JSON object a line.")
    return row


def _to_sample(row: dict[str, object], where: str, fields: Fields, task: str, number: int) -> Sample:
    missing = [column for column in fields.values() if column not in row]
    if missing:
        raise ValueError(
            f"{where} has no field {', '.join(map(repr, missing))}. Found: {', '.join(map(repr, row)) or 'nothing'}. "
            "Name your columns with fields={'question': .., 'answer': ..}."
        )
    values = {name: row[column] for name, column in fields.items()}
    meta = {column: value for column, value in row.items() if column not in fields.values()}
    # A number is a fine answer in a file (42); anything else would be turned into text that no reward expects.
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{where}: {fields[name]!r} is {value!r}, but the {name} must be a text or a number.")
    return Sample(
        task=task, question=str(values["question"]), answer=str(values.get("answer", "")), meta=meta, seed=number
    )


def _check_batch(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} makes no batch. Use 1 or more.")
