"""Verifiers for the benchmarks that SynLogic (arXiv:2505.19641) is evaluated on: GPQA-Diamond, BBEH and BBH.

Their questions exist already, so nothing is generated here: `EVALUATION` maps each key of the published registry to an object
that judges the text inside the answer tags against `Sample.answer`. Both modes are the published accept set: it is loose about
form, but no answer that is plainly wrong is known to pass. What these verifiers read:

- `gpqa_diamond`: the last box up to its first `}`.
- `bbeh_*` (23 tasks): a quoted Python text, bare or in a python fence. An unquoted answer is wrong, whatever it says.
- `bbh_*` (27 tasks): a search in the whole text, see `evaluation_bbh.py`.
"""

import ast
import dataclasses
import re
import warnings
from collections.abc import Callable

from data.synlogic import base, parse
from data.synlogic.evaluation_bbh import BBH
from framework.sample import Sample

__all__ = ["EVALUATION", "Benchmark"]

_BBEH = (
    "boardgame_qa",
    "boolean_expressions",
    "buggy_tables",
    "causal_understanding",
    "disambiguation_qa",
    "dyck_languages",
    "geometric_shapes",
    "hyperbaton",
    "linguini",
    "movie_recommendation",
    "multistep_arithmetic",
    "nycc",
    "object_counting",
    "object_properties",
    "sarc_triples",
    "shuffled_objects",
    "spatial_reasoning",
    "sportqa",
    "temporal_sequence",
    "time_arithmetic",
    "web_of_lies",
    "word_sorting",
    "zebra_puzzles",
)
_MAX_PIECES = 200  # parentheses and quoted texts; Python's own limit of nesting is 200
# One token of a text that can only be a quoted string: triple-quoted texts come before the empty text they begin with.
_TOKEN = re.compile(
    r"(?:\s|#[^\n]*|\\\n)++|[()]"
    r'|(?:[uf]|r|rf|fr)?+(?:"""(?:[^\\"]++|\\.|"(?!""))*+"""|"(?:[^"\\\n]++|\\.)*+")'
    r"|(?:[uf]|r|rf|fr)?+(?:'''(?:[^\\']++|\\.|'(?!''))*+'''|'(?:[^'\\\n]++|\\.)*+')",
    re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One evaluation task. `judge(sample, text)` gets a text that is not too long."""

    name: str
    judge: Callable[[Sample, str], bool] = dataclasses.field(repr=False)

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        return not parse.too_long(answer) and self.judge(sample, answer)


def _gpqa(sample: Sample, text: str) -> bool:
    box = parse.last_box(text.lower())
    return _matches_gpqa((box or "").strip(), sample.answer.strip().lower())


def _bbeh(sample: Sample, text: str) -> bool:
    truth = sample.answer.strip().lower()
    text = text.strip().lower().split("```python")[-1].split("```")[0]
    quoted = _quoted_text(text)
    if quoted is None:  # the published verifier goes on with an empty text
        return _matches_bbeh("", truth)
    line = quoted.replace(", ", ",").replace("**", "").split("\n")[0]
    return _matches_bbeh(line.removesuffix(".").strip(), truth)


def _quoted_text(text: str) -> str | None:
    """The value of a Python expression made of quoted texts, parentheses and comments alone, or None."""
    at = pieces = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return None
        pieces += token[0] == "(" or token[0][-1] in "'\""
        at = token.end()
    if pieces > _MAX_PIECES:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes
            node = ast.parse(text.lstrip(" \t"), mode="eval").body
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]  # an f-text without anything to fill in
    values = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return "".join(values) if len(values) == len(parts) else None


def _matches_gpqa(given: str, truth: str) -> bool:
    """Equal up to the parentheses of a choice, the notation of a number, single quotes, brackets, a question mark."""
    if given == truth:
        return True
    if _is_choice(given):
        return given[1] == truth
    if _is_choice(truth):
        return truth[1] == given
    return _same_number(given, truth) or _nearly(given, truth)


def _matches_bbeh(given: str, truth: str) -> bool:
    """As for GPQA, and up to spaces; a choice is also compared with the second character of a longer text, as published."""
    if given == truth:
        return True
    for choice, other in ((given, truth), (truth, given)):
        if _is_choice(choice):
            return choice[1] == (other if len(other) == 1 else other[1:2])
    if truth.startswith("[") and truth.endswith("]"):
        inner = given[1:-1] if given.startswith("[") and given.endswith("]") else given
        return _without(truth[1:-1], " '\"") == _without(inner, " '\"")
    return _same_number(given, truth) or _without(given, " ") == _without(truth, " ") or _nearly(given, truth)


def _nearly(given: str, truth: str) -> bool:
    return (
        _without(given, "'") == _without(truth, "'")
        or f"[{truth}]" == given
        or f"[{given}]" == truth
        or given == f"{truth}?"
    )


def _is_choice(text: str) -> bool:
    return len(text) == 3 and text[0] == "(" and text[2] == ")"


def _same_number(given: str, truth: str) -> bool:
    try:
        return float(given) == float(truth)
    except ValueError:
        return False


def _without(text: str, chars: str) -> str:
    return text.translate({ord(char): None for char in chars})


EVALUATION: dict[str, base.Verifier] = {
    "gpqa_diamond": Benchmark("gpqa_diamond", _gpqa),
    **{f"bbeh_{task}": Benchmark(f"bbeh_{task}", _bbeh) for task in _BBEH},
    **{f"bbh_{task}": Benchmark(f"bbh_{task}", judge) for task, judge in BBH.items()},
}
