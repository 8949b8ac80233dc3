"""What must be true of every SynLogic task, as functions of a task: used by the test over all of them, and by one task's own."""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from data.synlogic.base import Task

THOROUGH = bool(os.environ.get("THOROUGH"))  # set by `make test-slow`


def examples(count: int) -> int:
    """Examples of a hypothesis test: an eighth, and 20 at least, unless the slow tests run."""
    return count if THOROUGH else min(count, max(count // 8, 20))


LEVELS = ("tiny", "easy", "normal", "hard")
BOMB = "10**10**10"
HOSTILE = {
    "brackets": "(" * 100_000,
    "square brackets": "[" * 100_000,
    "nested": "(" * 5_000 + "1" + ")" * 5_000,
    "square": "[" * 19_000,
    "closed squares": "[" * 9_000 + "]" * 9_000,
    "rows": '[["X"],' * 2_500,
    "spaces": "[" + " " * 9_000 + "[" + " " * 9_000,
    "commas": "[[" + "," * 19_000,
    "pairs": "[(1,2)," * 2_500,
    "open pairs": "[(1,2" * 3_500,
    "boxes": "\\boxed{" * 2_500,
    "texts": "\\boxed{" + "\\text{" * 2_500,
    "fences": "```python" * 2_000,
    "fences with lines": "```python\n" * 1_900,
    "bold": "**" * 9_900,
    "the answer is": "the answer is **" * 1_200,
    "braces": "{" * 19_000,
    "json": '```json\n{"a":' * 1_400,
    "equations": "1+1=" * 4_900,
    "plus": "1+" * 9_900,
    "long number": "[" + "1" * 300 + " x]",
    "numbers, then prose": "[" + ", ".join("1" * 40) + "] done",
    "floats": "[[" + "86.0, " * 100 + "].0,]]",
    "fenced floats": "```python\n[[" + "86.0, " * 100 + "].0,]]\n```",
    "escaped quotes": '\\"' * 9_900,
    "escaped quotes in braces": "```python\n{" + '\\"' * 9_900 + "}\n```",
    "power": BOMB,
    "fenced power": f"```python\n{BOMB}\n```",
    "boxed power": f"[[{BOMB}=1]]",
    "latex power": "\\boxed{10^{10^{10}}}",
    "power tower": "```python\n9**9**9**9**9\n```",
    "factorial": "\\boxed{99999999!}",
    "minus signs": "-" * 19_000 + "1",
    "fenced minus signs": f"```python\n{'-' * 900}1\n```",
    "import": "```python\n__import__('os').system('true')\n```",
    "lines": "```python\nimport os\nos.abort()\n```",
    "null": "\x00" * 100,
    "null in the middle": "([\x00])",
    "unicode digits": "[[١+٢*٣=٧]]",
    "superscripts": "²³",
    "surrogate": "\ud800",
    "digits": "9" * 19_999,
    "letters": "ab " * 6_600,
    "tags": "</answer><answer>" * 900,
    "empty": "",
}
HOSTILE_S = 0.25  # of CPU time; 50 ms on an idle machine, and tests run on busy ones


def check_oracle(task: Task[Any], level: str, seeds: range) -> None:
    """The oracle is accepted by both modes, a plausible wrong answer by neither-or-official; both forms are one instance."""
    for seed in seeds:
        compact = task.generate(seed, task.levels[level], "compact")
        english = task.generate(seed, task.levels[level], "english")
        assert (compact.task, compact.level, compact.seed, compact.meta["form"]) == (task.name, level, seed, "compact")
        assert {**compact.meta, "form": ""} == {**english.meta, "form": ""}, seed
        assert compact.question != english.question
        assert json.loads(json.dumps(english.meta)) == english.meta, "meta must be made of JSON types"
        if task.json_answer:
            json.loads(english.answer)
        assert task.verify(compact, task.solve(compact), "strict"), seed
        official = task.solve(english)
        assert task.verify(english, official, "strict"), seed
        assert task.verify(english, official, "official"), seed
        for sample in (compact, english):
            wrong = task.perturb(sample, seed)
            assert wrong != task.solve(sample)
            assert not task.verify(sample, wrong, "strict"), (seed, wrong)


def check_tiny(task: Task[Any], chars: int = 160) -> None:
    """Tiny compact questions and their worked answers are short, and there are many of them."""
    samples = [task.generate(seed, task.levels["tiny"]) for seed in range(400)]
    assert max(len(sample.question) for sample in samples) <= chars
    assert max(len(task.worked(sample)) + len(task.solve(sample)) for sample in samples) <= chars
    assert len({sample.question for sample in samples}) > 150
    assert all(tag not in task.worked(sample) for sample in samples for tag in ("<think", "</think", "<answer"))


def check_wordings(task: Task[Any], prompt_chars: int = 8_000) -> None:
    """At least three wordings; no template left unfilled; a prompt of at most about 2,048 tokens."""
    questions = [task.generate(seed, task.levels["easy"], "english").question for seed in range(60)]
    assert len({question[:12] for question in questions}) >= 3
    for level in LEVELS:
        for seed in range(20):
            assert len(task.generate(seed, task.levels[level], "english").question) <= prompt_chars


def check_difficulty(task: Task[Any], seeds: int = 40) -> None:
    """The median of the measure rises from level to level."""
    assert task.measure
    medians = []
    for level in LEVELS:
        params = task.levels[level]
        medians.append(statistics.median(task.difficulty(task.generate(seed, params)) for seed in range(seeds)))
    assert medians == sorted(set(medians)), medians


def check_show(task: Task[Any]) -> None:
    for level in ("tiny", "easy", "normal", "hard"):
        sample = task.generate(3, task.levels[level], "english")
        plain, solved = task.show(sample), task.show(sample, solved=True)
        assert plain.strip()
        assert solved != plain


def check_oracles(name: str, level: str, count: int) -> None:
    """As `check_oracle` for the English form alone, over all cores: for very many seeds."""
    parts = [range(start, min(start + 50, count)) for start in range(0, count, 50)]
    with concurrent.futures.ProcessPoolExecutor() as pool:
        for _ in pool.map(_oracles, [name] * len(parts), [level] * len(parts), parts):
            pass


def _oracles(name: str, level: str, seeds: range) -> None:
    from data.synlogic import TASKS

    task = TASKS[name]
    for seed in seeds:
        sample = task.generate(seed, task.levels[level], "english")
        answer, wrong = task.solve(sample), task.perturb(sample, seed)
        assert task.verify(sample, answer, "strict"), (seed, answer)
        assert task.verify(sample, answer, "official"), (seed, answer)
        assert not task.verify(sample, wrong, "strict"), (seed, wrong)


def digest(task: Task[Any], level: str, seeds: int = 8) -> str:
    """Of everything that a task says about its first samples of a level."""
    made = hashlib.sha256()
    for seed in range(seeds):
        for form in ("compact", "english"):
            sample = task.generate(seed, task.levels[level], form)
            said = (task.solve(sample), task.worked(sample), task.perturb(sample, seed), task.difficulty(sample))
            made.update(json.dumps([dataclasses.asdict(sample), said], sort_keys=True).encode())
    return made.hexdigest()[:16]


def check_hostile(task: Any, sample: Any, kind: str) -> None:
    """Both modes say False to a hostile text, in time."""
    task.verify(sample, "\\boxed{2^{3}}", "official")  # a verifier may import a library with its first odd text
    for mode in ("strict", "official"):
        start = time.process_time()
        assert task.verify(sample, HOSTILE[kind], mode) is False
        assert time.process_time() - start < HOSTILE_S


def check_all(task: Task[Any], seeds: int = 60, tiny_chars: int = 160) -> None:
    """Everything above for one task: what a task's author runs."""
    assert tuple(task.levels) == LEVELS
    for level in LEVELS:
        check_oracle(task, level, range(seeds))
    check_tiny(task, tiny_chars)
    check_wordings(task)
    check_difficulty(task)
    check_show(task)
    sample = task.generate(0, task.levels["easy"], "english")
    for kind in HOSTILE:
        check_hostile(task, sample, kind)


def speeds(task: Task[Any], level: str = "easy", seeds: int = 50) -> tuple[float, float]:
    """(instances/s, verdicts/s) on this core: to look at, not to assert."""
    start = time.perf_counter()
    samples = [task.generate(seed, task.levels[level], "english") for seed in range(1_000_000, 1_000_000 + seeds)]
    made = time.perf_counter() - start
    answers = [task.solve(sample) for sample in samples]
    start = time.perf_counter()
    for sample, answer in zip(samples, answers, strict=True):
        task.verify(sample, answer, "strict")
        task.verify(sample, answer, "official")
    return seeds / made, 2 * seeds / (time.perf_counter() - start)


def main() -> None:
    """Write the digests of all tasks beside this file: to be done after a generator was changed on purpose."""
    from data.synlogic import TASKS

    digests = {name: {level: digest(task, level) for level in LEVELS} for name, task in TASKS.items()}
    (Path(__file__).parent / "digests.json").write_text(json.dumps(digests, indent=1) + "\n")


if __name__ == "__main__":
    main()
