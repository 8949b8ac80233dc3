"""The rules of people in `time_sequence` (SynLogic, arXiv:2505.19641), and when a person cannot meet."""

import itertools
from collections.abc import Mapping, Sequence

__all__ = ["LIMITS", "RULES", "SLOTS", "Times", "blocks", "kind_of", "rule_of"]

SLOTS = 96  # of 5 minutes, from 9:00 to 17:00
RULES: Mapping[str, str] = {
    "free_before": "{0} needs at least 10 free minutes between a busy time and a meeting after it.",
    "free_after": "{0} needs at least 10 free minutes between a meeting and the next busy time.",
    "early_end": "{0} is tired in the evening: meetings must be over by 16:00.",
    "wednesday_lunch": "{0} has lunch on Wednesday from 12:30 to 13:00.",
    "drop_morning": "{0} gives up every busy time that starts before 9:45 and is over by 9:45.",
    "time_zone": "{0} works in another time zone and goes home when it is 16:00 in the times given here.",
    "tuesday_thursday": "{0} meets only on Tuesday and Thursday, for 60 minutes at most.",
    "tuesday_friday": "{0} meets only on Tuesday and Friday, for 30 minutes at most.",
    "drop_30": "{0} gives up every busy time that lasts 30 minutes or less.",
    "drop_10": "{0} gives up every busy time that lasts 10 minutes or less.",
}
LIMITS = {"tuesday_thursday": (60, (1, 3)), "tuesday_friday": (30, (1, 4))}
# How published records name the free days and the rules.
_PUBLISHED = {
    "空闲": "free",
    "会议前的空闲时间限制": "free_before",
    "会议后的空闲时间限制": "free_after",
    "结束时间限制": "early_end",
    "星期三午饭时间": "wednesday_lunch",
    "清空早上日程": "drop_morning",
    "时区差异": "time_zone",
    "时间偏好二四": "tuesday_thursday",
    "时间偏好二五": "tuesday_friday",
    "30分钟短会议清除": "drop_30",
    "10分钟短会议清除": "drop_10",
}

Times = Sequence[Sequence[int]]  # [start, end) in slots


def blocks(kind: str, times: Times, rule: str, day: int) -> list[tuple[int, int]]:
    """When one person cannot meet on one day, in slots (possibly beyond the day)."""
    edges = [0, *itertools.chain.from_iterable(times), SLOTS]
    busy = [(edges[i], edges[i + 1]) for i in range(0, len(edges), 2)] if kind == "free" else [(a, b) for a, b in times]
    if rule in ("early_end", "time_zone"):
        return [*busy, (84, SLOTS)]
    if rule == "wednesday_lunch":
        return [*busy, (42, 48)] if day == 2 else busy
    if rule in LIMITS:
        return busy if day in LIMITS[rule][1] else [(0, SLOTS)]
    if rule == "drop_morning":
        return [(a, b) for a, b in busy if not (a < 9 and b <= 9)]
    if rule in ("drop_30", "drop_10"):
        return [(a, b) for a, b in busy if b - a > (6 if rule == "drop_30" else 2)]
    before, after = 2 * (rule == "free_after"), 2 * (rule == "free_before")
    return [(a - before, b + after) for a, b in busy]


def kind_of(kind: str) -> str:
    return _PUBLISHED.get(kind, kind if kind == "free" else "busy")


def rule_of(rule: str) -> str:
    return _PUBLISHED.get(rule, rule)
