"""The files of a finished build: rows in an order that mixes the tasks evenly, and the manifest."""

import collections
import hashlib
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.synlogic.base import rng_for
from data.synlogic.build.folder import MANIFEST, Parts, write_atomically
from data.synlogic.build.selection import Group, Outcome
from data.synlogic.build.shard import Shard
from data.synlogic.published import row_of
from framework.sample import Sample

if TYPE_CHECKING:
    from data.synlogic.build import BuildConfig, Progress

__all__ = ["write"]

_MEASURED = ("drawn", "duplicates", "too_long", "failed", "oracle_rejected", "redrawn")


def write(
    config: "BuildConfig",
    groups: Sequence[Group],
    outcomes: Sequence[Outcome],
    parts: Parts,
    out: Path,
    settings: dict[str, Any],
    progress: "Progress",
) -> dict[str, Any]:
    """Write the files, then the manifest, and return it."""
    pairs = list(zip(groups, outcomes, strict=True))
    sides = {
        "validation": [(group, outcome.picked[: group.validation]) for group, outcome in pairs],
        "train": [(group, outcome.picked[group.validation :]) for group, outcome in pairs],
    }
    files: dict[str, dict[str, Any]] = {}
    digest = hashlib.sha256()
    total = sum(len(outcome.picked) for outcome in outcomes)
    done = 0
    for split, chosen in sides.items():
        for name, rows in _files(config, split, chosen, parts):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
            digest.update(text)
            for kind in config.formats:
                content = text if kind == "jsonl" else _parquet(rows)
                path = (out / kind if len(config.formats) > 1 else out) / f"{name}.{kind}"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, content)
                entry = {"rows": len(rows), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                files[path.relative_to(out).as_posix()] = entry
            done += len(rows)
            progress(done, total, f"writing {split}")
    described = [_described(group, outcome) for group, outcome in pairs]
    manifest = {
        "settings": settings,
        "train": sum(len(picked) for _, picked in sides["train"]),
        "validation": sum(len(picked) for _, picked in sides["validation"]),
        **{key: sum(entry[key] for entry in described) for key in _MEASURED},
        "groups": described,
        "warnings": [warning for group, outcome in pairs for warning in _warnings(group, outcome, parts)],
        "files": files,
        "digest": digest.hexdigest(),  # of the rows in order as JSON lines, whatever the format of the files
    }
    write_atomically(out / MANIFEST, (json.dumps(manifest, ensure_ascii=False, indent=1) + "\n").encode())
    return manifest


def _files(
    config: "BuildConfig", split: str, chosen: Sequence[tuple[Group, list[int]]], parts: Parts
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(name, rows) of each file of a split: every file has its share of each group, in an order drawn from the seed."""
    total = sum(len(picked) for _, picked in chosen)
    count = math.ceil(total / config.rows_per_file)
    index = 0
    for number in range(count):
        samples: list[Sample] = []
        for group, picked in chosen:
            samples += _samples(
                parts, group, picked[len(picked) * number // count : len(picked) * (number + 1) // count]
            )
        rng_for("synlogic order", config.seed, split, number).shuffle(samples)
        rows = [
            row_of(sample, index=index + place, split=split, instruction=config.prefix)
            for place, sample in enumerate(samples)
        ]
        index += len(rows)
        yield f"{split}-{number:05}-of-{count:05}", rows


def _samples(parts: Parts, group: Group, picked: Sequence[int]) -> Iterator[Sample]:
    shard: tuple[int, Shard] | None = None
    for candidate in picked:
        number, place = divmod(candidate, group.shard_size)
        if shard is None or shard[0] != number:
            shard = number, parts.read(group, number)
        yield shard[1].sample(place)


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    texts = {"index": pa.int64(), "split": pa.string(), "task": pa.string(), "level": pa.string(), "seed": pa.int64()}
    schema = pa.schema(
        {
            "data_source": pa.string(),
            "prompt": pa.list_(message),
            "ability": pa.string(),
            "reward_model": pa.struct([("style", pa.string()), ("ground_truth", pa.string())]),
            "extra_info": pa.struct([*texts.items(), ("game_data_str", pa.string())]),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd", row_group_size=10_000)
    return buffer.getvalue()


def _described(group: Group, outcome: Outcome) -> dict[str, Any]:
    validation = min(group.validation, len(outcome.picked))
    made = {"train": len(outcome.picked) - validation, "validation": validation}
    counts = {key: getattr(outcome, key) for key in _MEASURED}
    dropped = outcome.drawn - len(outcome.picked)
    rejected = outcome.oracle_rejected + outcome.redrawn
    draws = outcome.drawn - outcome.failed + rejected  # a candidate without an instance is nothing but rejected draws
    rates = {"dropped_frac": _share(dropped, outcome.drawn), "rejected_frac": _share(rejected, draws)}
    return {"task": group.task, "level": group.level, **made, **counts, **rates}


def _share(part: int, total: int) -> float:
    return round(part / total, 4) if total else 0.0


def _warnings(group: Group, outcome: Outcome, parts: Parts) -> Iterator[str]:
    name, made = f"{group.task}/{group.level}", len(outcome.picked)
    if made < group.wanted:
        reasons = collections.Counter(
            {
                "were duplicates": outcome.duplicates,
                "were too long": outcome.too_long,
                "had no instance": outcome.failed,
            }
        )
        found = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common() if count)
        advice = "raise --max-prompt-chars" if reasons.most_common(1)[0][0] == "were too long" else "use a harder level"
        yield (
            f"{name} has only {made:,} of {group.wanted:,} records: of {outcome.drawn:,} candidates {found}. "
            f"Ask for fewer, or {advice}."
        )
    if outcome.failed:
        yield (
            f"{name}: {outcome.failed:,} of {outcome.drawn:,} candidates gave no instance; the first: "
            f"{_problem(group, outcome, parts)}"
        )


def _problem(group: Group, outcome: Outcome, parts: Parts) -> str:
    for number in range(math.ceil(outcome.drawn / group.shard_size)):
        if problem := parts.read(group, number).problem:
            return problem
    return ""
