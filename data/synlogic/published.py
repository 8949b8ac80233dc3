"""The record layouts of SynLogic (arXiv:2505.19641), read and written: Data records and the rows of `MiniMaxAI/SynLogic`.

    data = data_of(sample)                            # {"question", "answer", "difficulty", "metadata", "gpt_response"}
    row = row_of(sample, index=0, split="train")      # the layout that verl reads
    sample = sample_of_row(row)                       # ours and the published ones alike
    judge("kukurasu", data, "[[...]]", "official")    # the text inside the answer tags
    compute_score(**columns, solution_str=response)   # verl's custom reward function

Imports no jax, so reward workers may import it.
"""

import dataclasses
import difflib
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

from data import synlogic
from data.synlogic.base import Mode, Verifier
from framework.errors import UserError
from framework.sample import Sample

__all__ = [
    "INSTRUCTION",
    "compute_score",
    "data_of",
    "judge",
    "known_tasks",
    "row_of",
    "sample_of",
    "sample_of_row",
    "task_of",
    "verdict",
]

INSTRUCTION = (
    "Work through the problem below one step at a time. Put all of your reasoning between <think> and </think>. After that, put "
    "the final answer, in the form the problem asks for, between <answer> and </answer>, and write nothing else."
)
_ALIASES = {"game_of_24": "mathador", "arc_agi_2": "arc_agi"}  # folder names and second keys of the same verifier
_EVALUATION = re.compile(r"(bbh|bbeh|kor)(_|$)")  # other benchmarks with tasks of the same names and other rules


def known_tasks() -> Mapping[str, Verifier]:
    """Everything that can judge a record: the generated tasks, and those whose data exist already."""
    return {**getattr(synlogic, "VERIFIERS", {}), **synlogic.TASKS}


def task_of(data_source: str, where: str = "this row") -> str:
    """ "synlogic/kukurasu" -> "kukurasu": the registry key that a `data_source` ends with.

    Raises:
        UserError: no task of this name, naming the nearest.
    """
    known = known_tasks()
    parts = re.split(r"[/:.]", re.sub(r"[\s-]+", "_", data_source.strip().lower()))
    name = parts[-1] if parts[-1] in known else _ALIASES.get(parts[-1], parts[-1])
    other = any(_EVALUATION.match(part) for part in parts)
    if name in known and (not other or _EVALUATION.match(name)):
        return name
    ends = [] if other else [key for key in (*known, *_ALIASES) if name.endswith(f"_{key}")]
    if ends:
        longest = max(ends, key=len)
        return longest if longest in known else _ALIASES[longest]
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    raise UserError(
        f"{where}: there is no SynLogic task {data_source!r:.80}. Did you mean {near[0]!r}? "
        "All tasks: maypole data tasks"
    )


def sample_of(
    task: str, data: Mapping[str, Any], *, level: str = "", seed: int = 0, where: str = "this record"
) -> Sample:
    """The sample of a Data record of the official repository.

    Raises:
        UserError: a field is missing or of another kind; names it and `where`.
    """
    if not isinstance(data.get("question"), str):
        found = ", ".join(map(str, data)) or "nothing"
        raise UserError(
            f"{where} has no text 'question'. Found: {found}. A Data record has question, answer, metadata."
        )
    meta = data.get("metadata")
    if isinstance(meta, str):
        meta = _parsed(meta, f"{where}: metadata")
    if meta is not None and not isinstance(meta, Mapping):
        raise UserError(
            f"{where}: metadata is a {type(meta).__name__}, not an object. Write the fields the verifier reads."
        )
    return Sample(
        task=task,
        question=data["question"],
        answer=_answer_text(task, data.get("answer")),
        meta=dict(meta or {}),
        level=level,
        seed=seed,
    )


def data_of(sample: Sample) -> dict[str, Any]:
    """The Data record of a sample; `difficulty` is the number of its level, from 1, and 1 for settings of your own."""
    task = synlogic.TASKS.get(sample.task)
    levels = list(task.levels) if task is not None else []
    answer: Any = json.loads(sample.answer) if _is_json(sample.task) else sample.answer
    return {
        "question": sample.question,
        "answer": answer,
        "difficulty": levels.index(sample.level) + 1 if sample.level in levels else 1,
        "metadata": dict(sample.meta),
        "gpt_response": "",
    }


def row_of(sample: Sample, *, index: int, split: str, instruction: str = INSTRUCTION) -> dict[str, Any]:
    """The row of a sample in the published layout, which verl reads. `instruction` comes before the question, if any."""
    prompt = f"{instruction}\n\n{sample.question}" if instruction else sample.question
    return {
        "data_source": f"synlogic/{sample.task}",
        "prompt": [{"role": "user", "content": prompt}],
        "ability": "logic",
        "reward_model": {"style": "rule", "ground_truth": sample.answer},
        "extra_info": {
            "index": index,
            "split": split,
            "task": sample.task,
            "level": sample.level,
            "seed": sample.seed,
            "game_data_str": json.dumps(data_of(sample), ensure_ascii=False),
        },
    }


def sample_of_row(row: Mapping[str, Any], where: str = "this row") -> Sample:
    """The sample of a row of `MiniMaxAI/SynLogic`, or of one of ours.

    Raises:
        UserError: an unknown task, or a field that is missing or cannot be read; names it and `where`.
    """
    for field in ("data_source", "extra_info"):
        if field not in row:
            raise UserError(f"{where} has no field {field!r}. Found: {', '.join(map(str, row)) or 'nothing'}.")
    extra = row["extra_info"]
    if isinstance(extra, str):
        extra = _parsed(extra, f"{where}: extra_info")
    if not isinstance(extra, Mapping) or "game_data_str" not in extra:
        found = ", ".join(map(str, extra)) if isinstance(extra, Mapping) else type(extra).__name__
        raise UserError(f"{where}: extra_info has no field 'game_data_str'. Found: {found or 'nothing'}.")
    data = extra["game_data_str"]
    if isinstance(data, str):
        data = _parsed(data, f"{where}: game_data_str")
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: game_data_str is a {type(data).__name__}, not the JSON text of an object.")
    level, seed = extra.get("level"), extra.get("seed")
    return sample_of(
        task_of(str(row["data_source"]), where),
        data,
        level=level if isinstance(level, str) else "",
        seed=seed if isinstance(seed, int) else 0,
        where=where,
    )


def judge(task: str, data: Mapping[str, Any], answer: str, mode: Mode = "official") -> bool:
    """Whether the verifier of `task` accepts `answer`, the text inside the answer tags, for an official Data record.

    Raises:
        UserError: an unknown task, or metadata that the verifier cannot read, such as without one of its fields.
    """
    return verdict(sample_of(task_of(task), data), answer, mode)


def verdict(sample: Sample, answer: str, mode: Mode, where: str = "this record") -> bool:
    """As the `verify` of its task, but metadata that it cannot read are a UserError, which names a field that is missing."""
    meta = _Watched(sample.meta)
    try:
        if known_tasks()[sample.task].verify(dataclasses.replace(sample, meta=meta), answer, mode):
            return True
        problem = None
    except KeyError as error:  # also of a field inside of another
        problem = error
        meta.missing.append(str(error.args[0]) if error.args else "")
    except Exception as error:  # no verifier raises on a text: it is the record that is broken
        raise UserError(
            f"{where}: the verifier of {sample.task} cannot read the metadata: {error!r:.200}. "
            "Check that it is a record of this task."
        ) from error
    if meta.missing:  # official verifiers call this False; here somebody would train on it
        raise UserError(
            f"{where}: the metadata has no field {meta.missing[0]!r}, which the verifier of {sample.task} reads. "
            f"Found: {', '.join(sorted(sample.meta)) or 'nothing'}. Check that it is a record of this task."
        ) from problem
    return False


class _Watched(dict[str, Any]):
    """Metadata that remember which fields were asked for and not there, for verifiers that catch what is raised in them."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.missing: list[str] = []

    def __missing__(self, field: str) -> Any:
        self.missing.append(field)
        raise KeyError(field)


def compute_score(
    data_source: str, solution_str: str, ground_truth: object, extra_info: Mapping[str, Any], mode: Mode = "strict"
) -> float:
    """The reward of a whole model response in the signature of verl's `custom_reward_function`: format and verdict.

    A record that cannot be judged gets 0.0 and a warning, since one of thousands must not end a run; an unknown task is a
    UserError, since nothing of it could ever be judged.
    """
    del ground_truth  # the truth is in extra_info["game_data_str"]
    task_of(data_source)
    if not synlogic.has_format(solution_str):
        return 0.0
    try:
        sample = sample_of_row({"data_source": data_source, "extra_info": extra_info})
        return float(verdict(sample, synlogic.extract_answer(solution_str), mode))
    except UserError as error:
        warnings.warn(f"reward 0.0: {error}", stacklevel=2)
        return 0.0


def _answer_text(task: str, answer: object) -> str:
    if isinstance(answer, str):
        return answer
    return "" if answer is None and not _is_json(task) else json.dumps(answer, ensure_ascii=False)


def _is_json(task: str) -> bool:
    return getattr(known_tasks().get(task), "json_answer", False)  # what only judges need not say


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}). It begins: {text[:60]!r}. Write the record again.") from error
