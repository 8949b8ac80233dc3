"""Progress of generation: speed, what is left, and silence for nobody."""

import io
import os
import pty
import time

from framework.cli_progress import TokenProgress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_has_what_is_done_the_recent_speed_and_the_time_left():
    clock = Clock()
    progress = TokenProgress("answers", total=1100, done=100, file=io.StringIO(), clock=clock)
    assert progress.line() == "answers 100/1,100"
    clock.now = 60.0
    progress.update(100, 0)  # a slow start, while programs compile
    for second in range(61, 101):
        clock.now = float(second)
        progress.update(100 + 5 * (second - 60), 2000 * (second - 60))
    # 200 answers in 100 s, 800 to go; the speed is that of the last ten seconds.
    assert progress.line() == "answers 300/1,100  2,000 tokens/s  6 min 40 s left"


def test_when_all_is_done_no_time_is_left():
    clock = Clock()
    progress = TokenProgress("answers", total=2, file=io.StringIO(), clock=clock)
    clock.now = 2.0
    progress.update(2, 50)
    assert progress.line() == "answers 2/2  25 tokens/s"


def test_without_a_terminal_plain_lines_come_even_while_nothing_moves():
    file = io.StringIO()
    with TokenProgress("answers", total=3, file=file, every_s=0.05):
        time.sleep(0.4)
    lines = file.getvalue().splitlines()
    assert len(lines) >= 2
    assert set(lines) == {"answers 0/3"}
    time.sleep(0.1)
    assert file.getvalue().splitlines() == lines  # and no more of them afterwards


def test_a_terminal_gets_a_bar():
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        with TokenProgress("answers", total=4, file=terminal) as progress:
            progress.update(1, 10)
            time.sleep(0.2)  # the bar is drawn ten times a second
        terminal.flush()
        shown = os.read(master, 100_000).decode()
    os.close(master)
    assert "answers" in shown
    assert "1/4" in shown
    assert "━" in shown
