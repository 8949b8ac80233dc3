"""Grain pipelines whose batch is a function of (seed, step): a resumed run sees exactly the batches it would have seen.

    questions = question_stream(mixture, batch_size=16, seed=0)
    questions[1000]                                   # list[Sample], no matter which steps were read before

The only file of this package that imports grain, and with it jax; reward workers never import it.
"""

import functools
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import grain

from data.lines import parse_line, read_text
from data.mixture import Mixture, demonstration
from data.synlogic.base import stable_int
from framework.errors import UserError
from framework.sample import Sample

__all__ = [
    "as_text",
    "demonstration_stream",
    "from_jsonl",
    "question_stream",
    "records_stream",
]

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
    kept in `meta` for your reward function. Blank lines are skipped; `Sample.seed` is the number of the line.

    Raises:
        UserError: a file or a line that cannot be used, with the name of the file and the number of the line.
    """
    unknown = set(fields) - {"question", "answer"}
    if unknown or "question" not in fields:
        raise ValueError(
            f"fields={dict(fields)} must map 'question', and may map 'answer', to a column of the file; "
            "other columns go to meta by themselves. For example fields={'question': 'prompt', 'answer': 'label'}."
        )
    samples = []
    for number, line in enumerate(io.StringIO(read_text(Path(path)), newline=None), start=1):
        if line.strip():
            samples.append(_to_sample(parse_line(line, f"{path}:{number}"), f"{path}:{number}", fields, task, number))
    if not samples:
        raise UserError(
            f"{path} holds no records. Write one JSON object a line, such as {{'question': '..', 'answer': '..'}}."
        )
    return samples


def as_text(value: object, where: str, column: str, what: str) -> str:
    """The text of one value of a file. Raises UserError for what would become a text that nobody wrote, such as "None"."""
    # A number is a fine answer in a file (42); anything else would be turned into text that no reward expects.
    known = isinstance(value, str | int | float) and not isinstance(value, bool)
    if not known or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(
            f"{where}: {column!r} is {value!r:.80}, but the {what} must be a text or a number. "
            "Write one there, or remove the line."
        )
    return str(value)


def _to_sample(row: dict[str, object], where: str, fields: Fields, task: str, number: int) -> Sample:
    missing = [column for column in fields.values() if column not in row]
    if missing:
        raise UserError(
            f"{where} has no field {', '.join(map(repr, missing))}. Found: {', '.join(map(repr, row)) or 'nothing'}. "
            "Name your columns with fields={'question': .., 'answer': ..}."
        )
    values = {name: as_text(row[column], where, column, name) for name, column in fields.items()}
    if not values["question"]:
        raise UserError(
            f"{where}: {fields['question']!r} is empty, so there is nothing to answer. Write a question, or remove the line."
        )
    meta = {column: value for column, value in row.items() if column not in fields.values()}
    return Sample(task=task, question=values["question"], answer=values.get("answer", ""), meta=meta, seed=number)


def _check_batch(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} makes no batch. Use 1 or more.")
