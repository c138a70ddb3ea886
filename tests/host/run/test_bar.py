"""Progress for people: a bar on a terminal, a line every few seconds elsewhere."""

import io

import pytest
from pack.host.run import bar
from pack.host.run.bar import Bar, Report


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as the bar sees them."""
    now = [100.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: now[0])
    return now


def test_a_terminal_has_a_bar(clock):
    terminal = Terminal()
    draw = Bar(terminal)
    for done in (1, 2):
        draw(Report("node 5 (X)", done, 2))
        clock[0] += 3
    assert "node 5 (X) [############............] 1/2, 0 s" in terminal.getvalue()
    assert terminal.getvalue().endswith("2/2, 3 s\n")


def test_a_pipe_has_a_line_every_few_seconds(clock):
    pipe = io.StringIO()
    say = Bar(pipe)
    for done in range(1, 14):
        say(Report("node 5 (X)", done, 13))
        clock[0] += 1
    assert pipe.getvalue() == "node 5 (X) 6/13, 5 s\nnode 5 (X) 11/13, 10 s\n"


def test_what_is_quick_says_nothing_in_a_pipe(clock):
    pipe = io.StringIO()
    say = Bar(pipe)
    for task in "abc":
        for done in (1, 2, 3):
            say(Report(task, done, 3))
            clock[0] += 1.5
    assert pipe.getvalue() == ""


def test_what_has_no_end_is_counted(clock):
    pipe = io.StringIO()
    say = Bar(pipe, every=1)
    for done in (1, 2):
        say(Report("", done, 0))
        clock[0] += 2
    assert pipe.getvalue() == "2, 2 s\n"
