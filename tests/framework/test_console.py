"""The console never floods a log and is never silent for long."""

import io
import itertools
import re
import threading
import time

import pytest

from framework.console import Console
from framework.pace import Pace, show_time


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def plain(clock=None, **kwargs):
    """A console that writes to a string. The heartbeat is called by hand when there is a fake clock."""
    out = io.StringIO()
    console = Console(file=out, live=False, **({"clock": clock} if clock else {}), **kwargs)
    if clock:
        console._beat = lambda: None  # type: ignore[method-assign]
    return console, out


def test_plain_lines_come_at_once_then_about_every_five_seconds_and_at_the_end():
    clock = Clock()
    console, out = plain(clock)
    with console, console.stage("clip_cov", 100):
        for step in range(1, 101):
            clock.now += 0.5
            console.step(step, {"reward/mean": step / 100, "throughput/tokens_per_s": 2100.0, "grad/norm": 9.0})
    lines = out.getvalue().splitlines()
    assert lines[0] == "clip_cov: 100 steps"
    assert lines[1].startswith("clip_cov 1/100  reward 0.01  2,100 tokens/s")
    assert [int(re.findall(r"(\d+)/100", line)[0]) for line in lines[1:]] == [
        1,
        11,
        21,
        31,
        41,
        51,
        61,
        71,
        81,
        91,
        100,
    ]
    assert lines[2] == "clip_cov 11/100  reward 0.11  2,100 tokens/s  44 s left"
    assert "left" not in lines[-1]


def test_a_resumed_stage_says_where_it_continues():
    console, out = plain(Clock())
    with console, console.stage("clip_cov", 100, start=40):
        pass
    assert out.getvalue() == "clip_cov: continuing after step 40 of 100\n"


def test_an_evaluation_stays_on_the_line():
    clock = Clock()
    console, out = plain(clock, every_s=0.0)
    with console, console.stage("s", 2):
        console.step(1, {"eval/accuracy": 0.25})
        console.step(2, {"reward/mean": 1})
    assert "accuracy 0.25" in out.getvalue().splitlines()[-1]


def test_the_time_left_counts_planned_stages_and_no_compilation():
    clock = Clock()
    console, _ = plain(clock, stages=[("warm_start", 10), ("clip_cov", 100), ("kl_cov", 50)])
    with console, console.stage("clip_cov", 100):
        assert console.seconds_left() is None
        clock.now += 60.0  # the first step compiles
        console.step(1)
        assert console.seconds_left() is None
        for step in (2, 3):
            clock.now += 2.0
            if step == 3:
                with console.status("compiling evaluation"):
                    clock.now += 30.0
            console.step(step)
        assert console.seconds_left() == pytest.approx(2.0 * (97 + 50))


def test_recurring_work_is_part_of_the_pace():
    clock = Clock()
    console, _ = plain(clock)
    with console, console.stage("s", 10):
        console.step(1)
        with console.status("evaluating", one_off=False):
            clock.now += 4.0
        console.step(2)
        assert console.seconds_left() == pytest.approx(4.0 * 8)


def test_the_pace_follows_recent_steps():
    clock = Clock()
    pace = Pace(clock)
    for seconds in [9.0, *[1.0] * 30, *[3.0] * 20]:
        clock.now += seconds
        pace.step()
    assert pace.seconds_per_step() == 3.0


def test_the_heartbeat_names_what_takes_long():
    clock = Clock()
    console, out = plain(clock)
    with console, console.stage("s", 5):
        with console.status("compiling decode"):
            for _ in range(25):
                clock.now += 1.0
                console.heartbeat()
        clock.now += 9.5
        console.heartbeat()
    lines = out.getvalue().splitlines()
    assert lines[:4] == [
        "s: 5 steps",
        "... compiling decode",
        "... compiling decode, 9 s",
        "... compiling decode, 18 s",
    ]
    assert lines[4].startswith("... s, step 1 of 5, ")
    console.heartbeat()
    assert out.getvalue().splitlines() == lines, "nothing is going on any more"


def test_a_busy_main_thread_is_never_silent_for_longer_than_the_heartbeat():
    class Stamped(io.StringIO):
        def write(self, text):
            stamps.append(time.monotonic())
            return super().write(text)

    stamps: list[float] = []
    console = Console(file=Stamped(), live=False, heartbeat_s=0.2)
    with console, console.status("compiling"):
        time.sleep(0.9)
        stamps.append(time.monotonic())
    assert max(b - a for a, b in itertools.pairwise(stamps)) < 0.6  # 0.2 s, and a busy machine
    assert not [t for t in threading.enumerate() if t.name == "console heartbeat"]


def test_a_terminal_shows_one_live_line():
    out = io.StringIO()
    console = Console(file=out, live=True)
    console._rich._force_terminal = True
    console._rich.width = 100
    with console:
        with console.status("loading"):
            pass
        with console.stage("clip_cov", 3):
            for step in (1, 2, 3):
                console.step(step, {"policy/entropy": 1.25})
            console.print("a note above the line")
    text = out.getvalue()
    assert "clip_cov 3/3" in text
    assert "entropy 1.25" in text
    assert "a note above the line" in text
    assert console._live is None


def test_an_error_in_a_stage_leaves_no_live_line_and_no_status():
    console, out = plain(Clock())
    with pytest.raises(RuntimeError), console.stage("s", 5), console.status("compiling"):
        raise RuntimeError
    console.heartbeat()
    assert out.getvalue().splitlines() == ["s: 5 steps", "... compiling"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")]
)
def test_durations_read_well(seconds, text):
    assert show_time(seconds) == text
