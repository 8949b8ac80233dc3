"""Seven verifiable reasoning tasks of SynLogic (arXiv:2505.19641) and the rewards made of their verifiers.

`verifier_reward` is what training should use. `official_reward` keeps the defects of the published verifiers (see
`mathador.py`): it exists to compare, and to show what a policy does with them. Both want the same response format, so they
differ only in the verifier.
"""

from typing import Any

from data.synlogic.base import Mode, Task
from data.synlogic.boolean_expressions import BooleanExpressions
from data.synlogic.dyck_language import DyckLanguage
from data.synlogic.dyck_language_errors import DyckLanguageErrors
from data.synlogic.kukurasu import Kukurasu
from data.synlogic.math_path import MathPath
from data.synlogic.mathador import Mathador
from data.synlogic.parse import extract_answer, has_format
from data.synlogic.word_sorting import WordSorting
from framework.sample import Sample

__all__ = ["TASKS", "extract_answer", "has_format", "official_reward", "verifier_reward"]

# Any: each task has its own kind of parameters, and a table over all of them has no narrower type.
TASKS: dict[str, Task[Any]] = {
    task.name: task
    for task in (
        DyckLanguage(),
        DyckLanguageErrors(),
        BooleanExpressions(),
        MathPath(),
        WordSorting(),
        Kukurasu(),
        Mathador(),
    )
}


def verifier_reward(sample: Sample, response: str) -> float:
    """1.0 iff the response is one think block, then one answer block that the strict verifier accepts (paper, section 3)."""
    return _reward(sample, response, "strict")


def official_reward(sample: Sample, response: str) -> float:
    """As `verifier_reward`, but judged with the accept set of the published verifier, defects included."""
    return _reward(sample, response, "official")


def _reward(sample: Sample, response: str, mode: Mode) -> float:
    if sample.task not in TASKS:
        raise ValueError(f"no SynLogic task {sample.task!r} judges this sample. Tasks: {', '.join(TASKS)}.")
    if not has_format(response):
        return 0.0
    return float(TASKS[sample.task].verify(sample, extract_answer(response), mode))
