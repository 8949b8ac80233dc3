"""The 35 verifiable reasoning tasks of SynLogic (arXiv:2505.19641) and the rewards made of their verifiers.

`verifier_reward` is what training should use. `official_reward` keeps the defects of the published verifiers (see
`mathador.py`): it exists to compare, and to show what a policy does with them. Both want the same response format, so they
differ only in the verifier. `VERIFIERS` also judges the records of benchmarks that have no generator.
"""

from typing import Any

from data.synlogic.arc_agi import ArcAgi
from data.synlogic.arrow_maze import ArrowMaze
from data.synlogic.base import Mode, Task, Verifier
from data.synlogic.boolean_expressions import BooleanExpressions
from data.synlogic.buggy_tables import BuggyTables
from data.synlogic.calcudoko import Calcudoko
from data.synlogic.campsite import Campsite
from data.synlogic.cipher import Cipher
from data.synlogic.cryptarithm import Cryptarithm
from data.synlogic.dyck_language import DyckLanguage
from data.synlogic.dyck_language_errors import DyckLanguageErrors
from data.synlogic.dyck_language_reasoning_errors import DyckLanguageReasoningErrors
from data.synlogic.evaluation import EVALUATION
from data.synlogic.futoshiki import Futoshiki
from data.synlogic.goods_exchange import GoodsExchange
from data.synlogic.kukurasu import Kukurasu
from data.synlogic.math_path import MathPath
from data.synlogic.mathador import Mathador
from data.synlogic.minesweeper import Minesweeper
from data.synlogic.norinori import Norinori
from data.synlogic.number_wall import NumberWall
from data.synlogic.numbrix import Numbrix
from data.synlogic.object_counting import ObjectCounting
from data.synlogic.object_properties import ObjectProperties
from data.synlogic.operation import Operation
from data.synlogic.parse import extract_answer, has_format
from data.synlogic.skyscraper_puzzle import SkyscraperPuzzle
from data.synlogic.space_reasoning import SpaceReasoning
from data.synlogic.space_reasoning_tree import SpaceReasoningTree
from data.synlogic.star_placement_puzzle import StarPlacementPuzzle
from data.synlogic.sudoku import Sudoku
from data.synlogic.survo import Survo
from data.synlogic.time_sequence import TimeSequence
from data.synlogic.web_of_lies import WebOfLies
from data.synlogic.word_sorting import WordSorting
from data.synlogic.word_sorting_mistake import WordSortingMistake
from data.synlogic.wordscapes import Wordscapes
from data.synlogic.zebra_puzzle import ZebraPuzzle
from framework.sample import Sample

__all__ = ["TASKS", "VERIFIERS", "extract_answer", "has_format", "official_reward", "verifier_reward"]

# Any: each task has its own kind of parameters, and a table over all of them has no narrower type.
TASKS: dict[str, Task[Any]] = {
    task.name: task
    for task in (
        ArcAgi(),
        ArrowMaze(),
        BooleanExpressions(),
        BuggyTables(),
        Calcudoko(),
        Campsite(),
        Cipher(),
        Cryptarithm(),
        DyckLanguage(),
        DyckLanguageErrors(),
        DyckLanguageReasoningErrors(),
        Futoshiki(),
        GoodsExchange(),
        Kukurasu(),
        Mathador(),
        MathPath(),
        Minesweeper(),
        Norinori(),
        NumberWall(),
        Numbrix(),
        ObjectCounting(),
        ObjectProperties(),
        Operation(),
        SkyscraperPuzzle(),
        SpaceReasoning(),
        SpaceReasoningTree(),
        StarPlacementPuzzle(),
        Sudoku(),
        Survo(),
        TimeSequence(),
        WebOfLies(),
        WordSorting(),
        WordSortingMistake(),
        Wordscapes(),
        ZebraPuzzle(),
    )
}

VERIFIERS: dict[str, Verifier] = {**TASKS, "arc_agi_2": ArcAgi(name="arc_agi_2"), **EVALUATION}


def verifier_reward(sample: Sample, response: str) -> float:
    """1.0 iff the response is one think block, then one answer block that the strict verifier accepts (paper, section 3)."""
    return _reward(sample, response, "strict")


def official_reward(sample: Sample, response: str) -> float:
    """As `verifier_reward`, but judged with the accept set of the published verifier, defects included."""
    return _reward(sample, response, "official")


def _reward(sample: Sample, response: str, mode: Mode) -> float:
    if sample.task not in VERIFIERS:
        raise ValueError(f"no SynLogic task {sample.task!r} judges this sample. Tasks: {', '.join(TASKS)}.")
    if not has_format(response):
        return 0.0
    return float(VERIFIERS[sample.task].verify(sample, extract_answer(response), mode))
