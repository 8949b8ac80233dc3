"""Web of lies: who tells the truth? (SynLogic, arXiv:2505.19641, task `web_of_lies`)

People at places always tell the truth or always lie, and talk about each other; the answer is yes or no for some of them. An
instance is kept only when these values are the same in all worlds that agree with the facts. Compact form: `A:B+ B:C- C+ ? AB`
(`A:B+` A says that B tells the truth, `C+` a fact, `A:BC+` at least one of both, `A:BC-` neither, `A=B+` the same kind) with the
short answer `YN`; the official answer ends with `The answer is **yes, no**.`

The official verifier reads the words for yes and no as substrings of one bold span (or of the text after "the answer is", or of
the last run of such words): "unknown" counts as no, and `**yes**, **no**` fails. The strict one reads whole words only, wants
nothing else beside them, reads the bold spans of the last line in order, and accepts the short form (its widenings). The official
generator words the negation of "at least one tells the truth" as "at least one lies"; ours says "neither of them".
"""

import dataclasses
import random
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.synlogic import base, boards, parse
from data.synlogic.web_of_lies_text import NAMES, PLACES, sentences
from data.synlogic.web_of_lies_worlds import deductions, truth
from framework.sample import Sample

__all__ = ["WebOfLies", "WebOfLiesParams"]

# What the official verifier looks for, in this order (`\Z`-like ends: a single last line break may follow).
_AT_END = (
    re.compile(r"答案是[：:]\s*\*\*([^*]+)\*\*[.。]*$"),
    re.compile(r"[Tt]he answer is[：:=]\s*\*\*([^*]+)\*\*[.。]*$"),
)
_BOLD = re.compile(r"\*\*([^*]+)\*\*")
_AFTER = re.compile(r"(?:答案是|[Tt]he answer is)[：:=]?\s*([^.。\n]*)")
_RUN = re.compile(r"(?:\b(?:yes|no|是|否)\b[,，\s]*)+")
_SUBSTRING = re.compile(r"(yes|true|truth|是|真话|真)|no|false|lie|否|假话|假|谎")
_WORD = re.compile(r"[^\W_]+")
_MEANS = {"yes": True, "true": True, "是": True, "no": False, "false": False, "否": False}
_SHORT = re.compile("[YN]+")
_ENGLISH = (
    "Everybody in this puzzle either always tells the truth or always lies.\n{0}\n\n{1}\n"
    "Reason step by step. The last line must read: The answer is **...**. Between the stars stands yes or no for each question, in "
    "order, such as: The answer is **yes, no, yes**.",
    "There are {2} people. Each of them is a truth-teller or a liar, and never changes.\nWhat is known: {0}\n\n{1}\n"
    'End with a line of this form: "The answer is **no, yes, no**." It has one bold word, yes or no, per question, all of them '
    "in one pair of double stars.",
    "Truth-tellers only say what is true; liars only say what is false. All {2} people below are one or the other.\n\n{0}\n\n{1}\n"
    "Give your result in the last line as a bold list of yes and no in the order of the questions: The answer is **yes, yes**.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WebOfLiesParams(base.Params):
    people: tuple[int, ...]  # one is drawn
    difficulty: int = 3  # 1 (many facts from the narrator) to 5 (at most one, and more irrelevant sentences)
    extended: float = 0.0  # chance of a statement about two people, or about being of the same kind


LEVELS: Mapping[str, WebOfLiesParams] = {
    "tiny": WebOfLiesParams(people=(4,)),
    "easy": WebOfLiesParams(people=(6, 7, 8)),
    "normal": WebOfLiesParams(people=(10, 12, 14, 16, 18), difficulty=5),
    "hard": WebOfLiesParams(people=(18, 19, 20), difficulty=5, extended=0.3),
}


@dataclasses.dataclass(frozen=True)
class WebOfLies:
    name: str = "web_of_lies"
    measure: str = "statements and facts to keep consistent"
    json_answer: bool = False
    levels: Mapping[str, WebOfLiesParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: WebOfLiesParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            count = rng.choice(params.people)
            facts = _draw_facts(rng, count, params)
            told = {fact["target_id"] for fact in facts if fact["type"] == "narration"}
            values = truth(facts, count)
            open_ones = [i for i in range(count) if values[i] is not None and i not in told]
            if len(open_ones) < count // 2:
                return None
            targets = rng.sample(open_ones, count // 2)
            people = [
                {"id": i, "name": name, "location": place}
                for i, (name, place) in enumerate(zip(rng.sample(NAMES, count), rng.sample(PLACES, count), strict=True))
            ]
            lines, questions = sentences(rng, people, facts, targets, noise=rng.randint(1, 2 + params.difficulty))
            rng.shuffle(facts)
            return base.Draft(
                compact=f"{' '.join(map(_short, facts))} ? {''.join(_letter(i) for i in targets)}",
                english=tuple(text.format(" ".join(lines), " ".join(questions), count) for text in _ENGLISH),
                answer=", ".join("yes" if values[i] else "no" for i in targets),
                meta={
                    "num_person": count,
                    "difficulty": params.difficulty,
                    "people": people,
                    "facts": facts,
                    "targets": targets,
                    "statements": lines,
                    "use_chinese": False,
                },
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _solution(sample))

    def worked(self, sample: Sample) -> str:
        """Everyone who is settled, in an order of deduction: `C+ B- A+`."""
        known = deductions(sample.meta["facts"], sample.meta["num_person"])
        return " ".join(f"{_letter(i)}{'+' if value else '-'}" for i, value in known)

    def perturb(self, sample: Sample, seed: int) -> str:
        """The values of one or more people turned around."""
        rng = base.rng_for(self.name, "perturb", seed)
        right = _solution(sample)

        def candidates() -> Iterator[str]:
            for _ in range(20):
                turned = rng.sample(range(len(right)), rng.randint(1, len(right)))
                yield _in_form(sample, [value != (i in turned) for i, value in enumerate(right)])

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        expected = _substrings(sample.answer.lower())
        if mode == "official":
            return _substrings(_official_part(answer).lower()) == expected
        return _strict_values(answer.strip()) == expected

    def difficulty(self, sample: Sample) -> float:
        return float(len(sample.meta["facts"]))

    def show(self, sample: Sample, solved: bool = False) -> str:
        meta = sample.meta
        names = [meta["people"][i]["name"] for i in meta["targets"]]
        shown = "\n".join(f"- {line}" for line in meta["statements"]) + f"\n\nWho tells the truth: {', '.join(names)}?"
        if not solved:
            return shown
        rows = [
            (meta["people"][i]["name"], meta["people"][i]["location"], "yes" if value else "no")
            for i, value in deductions(meta["facts"], meta["num_person"])
        ]
        return f"{shown}\n\n{boards.table(('in order of deduction', 'place', 'tells the truth'), rows)}"


def _official_part(text: str) -> str:
    """The part of the text in which the official verifier looks for yes and no."""
    for pattern in _AT_END:
        found = pattern.findall(text)
        if found:
            return found[-1].strip()
    last = text.strip().split("\n")[-1].strip()
    for pattern in (_BOLD, _AFTER):
        match = pattern.search(last)
        if match:
            return match[1].strip()
    runs = _RUN.findall(text.lower())
    return runs[-1].strip() if runs else ""


def _substrings(text: str) -> list[bool]:
    return [match[1] is not None for match in _SUBSTRING.finditer(text)]


def _strict_values(text: str) -> list[bool] | None:
    """The values of the last line: its bold spans in order, else what follows "the answer is", else the whole text."""
    if _SHORT.fullmatch(text):
        return [char == "Y" for char in text]
    last = text.split("\n")[-1].strip()
    spans, after = _BOLD.findall(last), _AFTER.search(last)
    part = ", ".join(spans) if spans else (after[1] if after else text)
    words = [word for word in _WORD.findall(part.lower()) if word != "and"]
    return [_MEANS[word] for word in words] if all(word in _MEANS for word in words) else None


def _solution(sample: Sample) -> list[bool]:
    values = truth(sample.meta["facts"], sample.meta["num_person"])
    wanted = [values[i] for i in sample.meta["targets"]]
    if any(value is None for value in wanted):
        raise ValueError("web_of_lies: the facts do not settle everyone who is asked for")
    return [bool(value) for value in wanted]


def _draw_facts(rng: random.Random, count: int, params: WebOfLiesParams) -> list[dict[str, Any]]:
    """Random truth, what people with this truth say, and some facts from the narrator; everyone is talked about."""
    tells = [rng.random() < 0.5 for _ in range(count)]
    facts: list[dict[str, Any]] = []

    def speak(speaker: int, target: int) -> None:
        fact: dict[str, Any] = {"type": "simple", "speaker_id": speaker, "target_id": target}
        said = tells[target]
        if rng.random() < params.extended:
            if rng.random() < 0.5:
                other = rng.choice([i for i in range(count) if i not in (speaker, target)])
                fact = {"type": "at_least_one", "speaker_id": speaker, "target_ids": [target, other]}
                said = tells[target] or tells[other]
            else:
                fact["type"] = "same_type"
                said = tells[speaker] == tells[target]
        facts.append({**fact, "claim": said == tells[speaker]})

    for speaker in range(count):
        chance = rng.random()
        number = sum(chance >= limit for limit in (0.1, 0.8, 0.95))  # 0 to 3 statements: 0.1, 0.7, 0.15, 0.05
        for target in rng.sample([i for i in range(count) if i != speaker], number):
            speak(speaker, target)
    most = max(1, int(count // 2 * (6 - params.difficulty) / 5))
    narrated = rng.sample(range(count), rng.randint(0, most))
    facts += [{"type": "narration", "target_id": i, "claim": tells[i]} for i in narrated]
    for person in range(count):
        if not any(person == fact.get("target_id") or person in fact.get("target_ids", ()) for fact in facts):
            speak(rng.choice([i for i in range(count) if i != person]), person)
    return facts


def _letter(person: int) -> str:
    return string.ascii_uppercase[person]


def _short(fact: Mapping[str, Any]) -> str:
    targets = "".join(_letter(i) for i in fact.get("target_ids", [fact.get("target_id", 0)]))
    link = {"narration": "", "same_type": "="}.get(fact["type"], ":")
    speaker = "" if fact["type"] == "narration" else _letter(fact["speaker_id"])
    return f"{speaker}{link}{targets}{'+' if fact['claim'] else '-'}"


def _in_form(sample: Sample, values: Sequence[bool]) -> str:
    if sample.meta.get("form") == "compact":
        return "".join("Y" if value else "N" for value in values)
    return f"The answer is **{', '.join('yes' if value else 'no' for value in values)}**."
