"""Generation by several peers in turns: what generate.py and generate_ragged.py share."""

import statistics
import sys
from collections.abc import Callable, Mapping
from typing import Any

from _peer import Answer, Peer, in_turns

__all__ = ["compare"]

_OCCUPANCY = ("slot_occupancy", "slot_occupancy_while_requests_wait", "decode_steps", "compiled_calls")


def compare(
    job: Mapping[str, Any], rounds: int, cache: str, *, tunix_python: str | None = None, arrival: bool = False
) -> dict[str, Any]:
    """Tokens per second of each peer on the same prompts, and how many times as quick ours is.

    Args:
        job: sizes, threads, layout, slots, prompts, new (tokens wanted of each prompt).
        rounds: turns of every peer.
        cache: folder for compiled programs.
        tunix_python: interpreter with google-tunix; None: it is not measured.
        arrival: measure ours also with requests handed in one by one, in the order of the list.
    """
    maypole = Peer("_maypole_generate_peer.py", sys.executable, job, cache)
    torch = Peer("_torch_generate_peer.py", sys.executable, job, cache)
    peers = {"maypole": maypole, "transformers, dynamic cache": torch, "transformers, static cache": torch}
    turns: dict[str, Callable[[int], Answer]] = {
        "maypole": lambda number: maypole.ask({"seed": number}),
        "transformers, dynamic cache": lambda number: torch.ask({"seed": number, "cache": "dynamic"}),
        "transformers, static cache": lambda number: torch.ask({"seed": number, "cache": "static"}),
    }
    if arrival:
        peers["maypole, order of arrival"] = maypole
        turns["maypole, order of arrival"] = lambda number: maypole.ask({"seed": number, "arrival": True})
    if tunix_python:
        tunix = peers["tunix"] = Peer("_tunix_generate_peer.py", tunix_python, job, cache)
        turns["tunix"] = lambda number: tunix.ask({"seed": number})
    found = in_turns(turns, rounds)
    for peer in set(peers.values()):
        peer.close()
    tokens = sum(job["new"])
    speed = {name: tokens / statistics.median(a["wall_s"] for a in answers) for name, answers in found.items()}
    report: dict[str, Any] = {"peers": {}}
    for name, answers in found.items():
        wall = [round(answer["wall_s"], 4) for answer in answers]
        figures = {
            "tokens_per_s": round(speed[name], 1),
            "tokens_per_s_best": round(tokens / min(wall), 1),
            "wall_s": wall,
            "cpu_s_median": round(statistics.median(answer["cpu_s"] for answer in answers), 4),
        }
        occupancy = {key: round(answers[-1][key], 4) for key in _OCCUPANCY if key in answers[-1]}
        report["peers"][name] = peers[name].about | figures | occupancy
    others = {name: value for name, value in speed.items() if not name.startswith("maypole")}
    report["speed_of_maypole_against"] = {name: round(speed["maypole"] / value, 3) for name, value in others.items()}
    for name in ("maypole", "maypole, order of arrival"):
        if name in speed:
            report[f"speed_of_{name.replace(', ', '_').replace(' ', '_')}_against_the_best"] = round(
                speed[name] / max(others.values()), 3
            )
    return report
