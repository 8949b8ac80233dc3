"""Time sequence: when can all of them meet? (SynLogic, arXiv:2505.19641, task `time_sequence`)

Each person's week (9:00 to 17:00 in steps of 5 minutes) is told day by day as busy or as free times, and a person may have one
rule. Asked: the longest common meeting in minutes that starts on the hour or half hour, and how many starts allow it.
Compact form: `meet A Mon free 3-20 40-60; B Mon busy 1-9 ?` (steps since 9:00) with the short answer `55,1`; the official answer
is the JSON list `[55, 1]`. The official verifier reads the LAST `[...]` of a text and compares its first two entries, so
`[55.0, 1, 7]` passes. The strict one wants two whole numbers and takes the short form as well (its one widening).
In the official generator times that touch leave gaps of length 0, which rules then widen; here listed times never touch, so the
story is all that is needed.
"""

import dataclasses
import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.synlogic import base, boards, parse
from data.synlogic.time_sequence_rules import LIMITS, RULES, SLOTS, Times, blocks, kind_of, rule_of
from framework.sample import Sample

__all__ = ["TimeSequence", "TimeSequenceParams"]

_GAPS = tuple(itertools.accumulate(1 / (i + 5) for i in range(1, 36)))
_DURATIONS = tuple(itertools.accumulate(1 / (i + 2) for i in range(1, 25)))
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_NAMES = (
    "Ada", "Ben", "Cleo", "Dan", "Ella", "Finn", "Gina", "Hugo", "Iris", "Jonas", "Kate", "Liam", "Mona", "Nils", "Olga",
    "Paul", "Rita", "Sam", "Tara", "Uwe", "Vera", "Will", "Yara", "Zeno",
)  # fmt: skip
_READING = (
    "Where only free times are listed, all else is busy; each gap between, before and after them is one busy time."
)
_ASK = (
    "The meeting starts on the hour or half hour and all of them take part. How many minutes can it last at most, and how many "
    "starts in the week allow that length? If they cannot meet, both numbers are 0.\n"
    "End your answer with the two numbers in square brackets, like this: [45, 3]"
)
_ENGLISH = (
    "{0} want to meet this week. All of them work from 9:00 to 17:00.\n\n{1}\n\n{2}" + _READING + " " + _ASK,
    "Find a time for a meeting of {0} between 9:00 and 17:00 of one day. Their calendars:\n\n{1}\n\n{2}"
    + _READING
    + " "
    + _ASK,
    "A meeting of {0} has to be planned. The office is open from 9:00 to 17:00. This is what their week looks like:\n\n{1}\n\n{2}"
    + _READING
    + " "
    + _ASK,
)
_SHORT = re.compile(r"([0-9]{1,4})(?: ?[,，] ?| )([0-9]{1,4})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeSequenceParams(base.Params):
    people: tuple[int, ...] = (3,)  # one is drawn
    rule_percent: tuple[int, ...] = (50,)  # one is drawn: chance of each person to have a rule
    days: int = 5
    times: tuple[int, int] = (2, 5)  # listed times a day


LEVELS: Mapping[str, TimeSequenceParams] = {
    "tiny": TimeSequenceParams(people=(2,), rule_percent=(0,), days=1, times=(1, 2)),
    "easy": TimeSequenceParams(),
    "normal": TimeSequenceParams(people=(2, 3, 4, 5), rule_percent=(0, 30, 60, 90, 100), times=(3, 5)),
    "hard": TimeSequenceParams(people=(5, 6), rule_percent=(90, 100), times=(4, 6)),
}


@dataclasses.dataclass(frozen=True)
class TimeSequence:
    name: str = "time_sequence"
    levels: Mapping[str, TimeSequenceParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)
    measure: str = "times listed, and rules"
    json_answer: bool = True

    def generate(self, seed: int, params: TimeSequenceParams, form: base.Form = "compact") -> Sample:
        return base.emit(self, lambda rng: _draft(rng, params), seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, *_best(_lengths(sample)))

    def worked(self, sample: Sample) -> str:
        """The minutes from each free start, `6:20 12:50 max 50`; of a whole week only the longest of each day."""
        lengths = _lengths(sample)
        if len(lengths) == 1:
            starts = " ".join(f"{start}:{minutes}" for start, minutes in lengths[0].items() if minutes)
            return f"{starts or 'none'} max {_best(lengths)[0]}"
        parts = []
        for day, of_day in zip(_DAYS, lengths, strict=False):
            longest = max(of_day.values())
            starts = " ".join(str(start) for start, minutes in of_day.items() if minutes == longest)
            parts.append(f"{day[:3]} {longest} at {starts}" if longest else f"{day[:3]} none")
        return "; ".join(parts)

    def perturb(self, sample: Sample, seed: int) -> str:
        rng = base.rng_for(self.name, "perturb", seed)
        longest, count = _best(_lengths(sample))
        wrong = [(longest + 5, count), (max(0, longest - 5), count), (longest, count + 1), (longest, max(0, count - 1))]
        rng.shuffle(wrong)
        return base.first_rejected(self, sample, (_in_form(sample, *pair) for pair in wrong))

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        truth = _truth(sample)
        if truth is None or parse.too_long(answer):
            return False
        text = _last_list(answer)
        if text is None:
            short = _SHORT.fullmatch(answer.strip()) if mode == "strict" else None
            return short is not None and (int(short[1]), int(short[2])) == truth
        try:
            values = parse.json_value(text.replace("，", ","))
        except parse.LiteralError:
            return False
        if mode == "strict" and (len(values) != 2 or any(type(value) is not int for value in values)):
            return False
        return len(values) >= 2 and (values[0], values[1]) == truth

    def difficulty(self, sample: Sample) -> float:
        records = sample.meta["records"]
        told = sum(len(times) for week in records["raw_schedule"].values() for _, times in week.values())
        return told + sum(1 for rule in records["rules"].values() if rule)

    def show(self, sample: Sample, solved: bool = False) -> str:
        records = sample.meta["records"]
        people = list(records["raw_schedule"])
        weeks = [list(records["raw_schedule"][name].values()) for name in people]
        rows = [
            (_DAYS[day], *(f"{kind_of(week[day][0])} {_clocks(week[day][1])}" for week in weeks))
            for day in range(len(weeks[0]))
        ]
        rules = [RULES[rule_of(rule)].format(name) for name, rule in records["rules"].items() if rule]
        text = boards.table(("", *people), rows) + "".join(f"\n\n- {rule}" for rule in rules)
        if not solved:
            return text
        lengths = _lengths(sample)
        longest, count = _best(lengths)
        starts = [
            f"{_DAYS[day]} {_clock(start)}"
            for day, of_day in enumerate(lengths)
            for start, minutes in of_day.items()
            if minutes == longest and longest
        ]
        return f"{text}\n\nAnswer: {longest} minutes; starts: {count} ({', '.join(starts) or 'none'})"


def _draft(rng: random.Random, params: TimeSequenceParams) -> base.Draft | None:
    people = rng.sample(_NAMES, rng.choice(params.people))
    percent = rng.choice(params.rule_percent)
    days = _DAYS[: params.days]
    schedule: dict[str, dict[str, list[Any]]] = {}
    rules: dict[str, str] = {}
    open_slots = [[True] * SLOTS for _ in days]
    limit = 480
    for name in people:
        schedule[name] = {day: [rng.choice(("free", "busy")), _day(rng, params.times)] for day in days}
        rules[name] = rng.choice(sorted(RULES)) if rng.random() * 100 < percent else ""
        for day, (kind, times) in enumerate(schedule[name].values()):
            for start, end in blocks(kind, times, rules[name], day):
                for slot in range(max(0, start), min(SLOTS, end)):
                    open_slots[day][slot] = False
        limit = min(limit, LIMITS.get(rules[name], (480,))[0])
    lengths = [
        5 * len(list(itertools.takewhile(bool, slots[start:]))) for slots in open_slots for start in range(0, SLOTS, 6)
    ]
    longest = min(limit, max(lengths))
    if longest == 0 and rng.random() > 0.05:  # few instances where nobody can meet
        return None
    count = sum(length >= longest for length in lengths) if longest else 0
    told = "\n\n".join(_told(name, week) for name, week in schedule.items())
    with_rule = "\n".join(RULES[rule].format(name) for name, rule in rules.items() if rule)
    listed = f"{', '.join(people[:-1])} and {people[-1]}"
    return base.Draft(
        compact=_compact(schedule, rules),
        english=tuple(text.format(listed, told, f"{with_rule}\n\n" if with_rule else "") for text in _ENGLISH),
        answer=f"[{longest}, {count}]",
        meta={
            "n": len(people),
            "rule_prob": percent / 100,
            "records": {
                "raw_schedule": schedule,
                "rules": rules,
                "answers": {"answer_maxLen": longest, "answer_nums": count},
            },
        },
    )


def _day(rng: random.Random, times: tuple[int, int]) -> list[list[int]]:
    """Listed times that do not touch each other, 9:00 or 17:00; short ones and small distances are likelier."""
    found: list[list[int]] = []
    end = 0
    for _ in range(rng.randint(*times)):
        start = end + rng.choices(range(1, 36), cum_weights=_GAPS)[0]
        stop = start + rng.choices(range(1, 25), cum_weights=_DURATIONS)[0]
        if stop >= SLOTS:
            break
        found.append([start, stop])
        end = stop
    return found  # the first always fits


def _lengths(sample: Sample) -> list[dict[int, int]]:
    """For each day, the minutes that a meeting can last from each start (in slots): up to the next block or limit."""
    records = sample.meta["records"]
    weeks = {name: list(week.values()) for name, week in records["raw_schedule"].items()}
    rules = {name: rule_of(records["rules"].get(name, "")) for name in weeks}
    limit = min([480, *(LIMITS[rule][0] for rule in rules.values() if rule in LIMITS)])
    lengths = []
    for day in range(len(next(iter(weeks.values())))):
        taken = [
            block
            for name, week in weeks.items()
            for block in blocks(kind_of(week[day][0]), week[day][1], rules[name], day)
            if block[0] < block[1]
        ]
        lengths.append({start: min(limit, 5 * _distance(start, taken)) for start in range(0, SLOTS, 6)})
    return lengths


def _distance(start: int, taken: Sequence[tuple[int, int]]) -> int:
    if any(a <= start < b for a, b in taken):
        return 0
    return min([SLOTS, *(a for a, _ in taken if a > start)]) - start


def _best(lengths: Sequence[Mapping[int, int]]) -> tuple[int, int]:
    every = [minutes for of_day in lengths for minutes in of_day.values()]
    longest = max(every)
    return longest, every.count(longest) if longest else 0


def _truth(sample: Sample) -> tuple[Any, Any] | None:
    try:
        answers = sample.meta["records"]["answers"]
        return answers["answer_maxLen"], answers["answer_nums"]
    except (KeyError, TypeError):
        return None


def _last_list(text: str) -> str | None:
    """The last `[...]` when brackets are paired from the left, each opening one with the next closing one."""
    found, at = None, text.find("[")
    while at >= 0 and (end := text.find("]", at)) >= 0:
        found, at = text[at : end + 1], text.find("[", end)
    return found


def _in_form(sample: Sample, longest: int, count: int) -> str:
    return f"{longest},{count}" if sample.meta.get("form") == "compact" else f"[{longest}, {count}]"


def _clock(slot: int) -> str:
    return f"{9 + slot // 12}:{slot % 12 * 5:02}"


def _clocks(times: Times) -> str:
    return ", ".join(f"{_clock(start)}-{_clock(end)}" for start, end in times)


def _told(name: str, week: Mapping[str, Sequence[Any]]) -> str:
    lines = [
        f"{day}: {'free only' if kind == 'free' else 'busy'} {_clocks(times)}" for day, (kind, times) in week.items()
    ]
    return f"{name}\n" + "\n".join(lines)


def _compact(schedule: Mapping[str, Mapping[str, Sequence[Any]]], rules: Mapping[str, str]) -> str:
    def lines() -> Iterator[str]:
        for letter, (name, week) in zip("ABCDEFGHIJ", schedule.items(), strict=False):
            days = (f"{day[:3]} {kind} {' '.join(f'{a}-{b}' for a, b in times)}" for day, (kind, times) in week.items())
            yield f"{letter} {', '.join(days)}{f', {rules[name]}' if rules[name] else ''}"

    return f"meet {'; '.join(lines())} ?"
