"""Prompts and numbers with times, as users write them: ``0: a forest; 24: the same in snow``.

Three ways of writing are understood, also mixed:

- an entry a line, or between semicolons: ``0: a forest; 24: the same in snow``;
- JSON, as FizzNodes and Deforum have it, with or without braces: ``"0": "a forest", "24": "the same in snow"``;
- Python's, as AnimateDiff-Evolved has it: ``0 = "a forest", 24 = "the same in snow"``.

A time is a frame (``24``; ``-1`` is the last one), seconds (``1.5s``), a share of the clip (``0.5`` or ``50%``), or FizzNodes'
``max_f/2``, where ``max_f`` is the number of frames. A word behind it says how the change to the next one goes: ``24 hold: snow``;
AnimateDiff-Evolved's ``"24:"`` is the same, and its ``"0:12"`` holds from frame 0 to 11.
"""

import math
import re
from dataclasses import dataclass

from .arithmetic import evaluate

HOLD = "hold"
HOWS = (HOLD, "linear", "smooth")
NUMBER = r"-?(?:\d+(?:\.\d*)?|\.\d+)"
TIME = rf"(?:{NUMBER}\s*[s%]?|max_f(?:\s*[-+*/]\s*\d+(?:\.\d+)?)*)"
HOW = rf"(?:\s+(?P<how>{'|'.join(HOWS)}))?"
BARE = re.compile(rf"(?P<time>{TIME}){HOW}\s*(?:(?P<range>:\s*(?:{NUMBER})?)\s*=|[:=])")
QUOTED = re.compile(rf"\"\s*(?P<time>{TIME}){HOW}\s*(?P<range>:\s*(?:{NUMBER})?)?\s*\"\s*[:=]")
CLOSED = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"', re.DOTALL)
BETWEEN = re.compile(r"[\s,;]*")
EXAMPLE = "0: a forest; 24: the same in snow"


@dataclass(frozen=True)
class Place:
    """Where something stands in a text, counted from 1."""

    line: int
    column: int

    @classmethod
    def of(cls, text: str, position: int) -> "Place":
        """The place of a character."""
        before = text[:position]
        return cls(before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


@dataclass(frozen=True)
class Entry:
    """What is to hold from some time on.

    Attributes:
        time: as it was written.
        text: a prompt, or a number or term.
        how: one of ``HOWS``, for the change to the next entry; empty for the schedule's own.
        until: of a range, the end as it was written, which is not in it; empty for none.
        place: where it stands in the text.
    """

    time: str
    text: str
    how: str
    until: str
    place: Place

    def frame(self, count: int, fps: float, written: str | None = None) -> float:
        """The frame of the time: real, since seconds may fall between two.

        Args:
            count: frames of the clip; 0 where it is not known or has no end.
            fps: frames per second.
            written: another time in the same way, such as ``until``; None for ``time``.

        Raises:
            ValueError: it needs a length that is not known, or lies before the clip.
        """
        time = self.time if written is None else written
        seconds, share = time.endswith("s"), time.endswith("%") or "." in time
        if seconds:
            number = float(time[:-1]) * fps
        elif time.startswith("max_f"):
            number = math.floor(evaluate(time, {"max_f": self._length(count, time)}))
        elif share:
            number = float(time.rstrip("% ")) / (100 if time.endswith("%") else 1)
            if not 0 <= number <= 1:
                raise ValueError(
                    f"{self.place}: {time} is a share of the clip and must lie between 0 and {'100%' if time.endswith('%') else '1.0'}:"
                    " write frames as whole numbers, or seconds with an s, such as 1.5s"
                )
            number = min(math.floor(number * self._length(count, time)), count - 1)
        else:
            number = int(time)
            number += self._length(count, time) if number < 0 else 0
        if number < 0:
            raise ValueError(
                f"{self.place}: the time {time} lies before the clip's first frame"
                f"{f', which has {count}' if count else ''}: choose 0 or more"
            )
        return number

    def _length(self, count: int, time: str) -> int:
        if not count:
            raise ValueError(
                f"{self.place}: the time {time} needs the clip's length, which is not known: set frames, or write the frame's number"
            )
        return count


def read_entries(text: str, numbers: bool = False) -> tuple[Entry, ...]:
    """The entries of a schedule, in the order in which they were written.

    >>> [(entry.time, entry.text) for entry in read_entries("0: a forest; 24: the same in snow")]
    [('0', 'a forest'), ('24', 'the same in snow')]
    >>> [(entry.time, entry.text) for entry in read_entries('{"0": "a forest", "2s": "the same in snow",}')]
    [('0', 'a forest'), ('2s', 'the same in snow')]
    >>> [(entry.time, entry.text) for entry in read_entries("0: 1, 24: 0.5", numbers=True)]
    [('0', '1'), ('24', '0.5')]

    Args:
        text: the schedule. Without any time it is one prompt, or one number, from frame 0 on.
        numbers: whether it holds numbers, between which commas are as good as semicolons.

    Raises:
        ValueError: it does not read so; the sentence says where.
    """
    start, end = _inside_braces(text)
    position = _next(text, start, end)
    if _key(text, position, end) is None and not any(_key(text, place, end) for place in _starts(text, position, end, numbers)):
        whole = CLOSED.fullmatch(text[start:end].strip())
        return (Entry("0", _plain(whole["text"]) if whole else text[start:end].strip(), "", "", Place.of(text, position)),)
    entries = []
    while position < end:
        place, key = Place.of(text, position), _key(text, position, end)
        if key is None:
            raise ValueError(
                f"{place}: {_shown(text, position, end)} has no time before it: write {EXAMPLE}, and a prompt with a semicolon in"
                ' quotes, 0: "one; two"'
            )
        value, position = _value(text, key.end(), end, numbers)
        until = (key["range"] or "").lstrip(": \t\n")
        how = key["how"] or (HOLD if key["range"] and not until else "")
        entries.append(Entry(key["time"].strip(), value, how, until, place))
        position = _next(text, position, end)
    return tuple(entries)


def _inside_braces(text: str) -> tuple[int, int]:
    body = text.strip()
    start = text.find(body) if body else 0
    braces = body.startswith("{") and body.endswith("}")
    return start + braces, start + len(body) - braces


def _next(text: str, position: int, end: int) -> int:
    """Behind what separates entries."""
    found = BETWEEN.match(text, position, end)
    return found.end() if found else position


def _key(text: str, position: int, end: int) -> re.Match[str] | None:
    return QUOTED.match(text, position, end) or BARE.match(text, position, end)


def _starts(text: str, position: int, end: int, numbers: bool) -> list[int]:
    """Where an entry may start behind the first."""
    return [
        _next(text, found.start(), end)
        for found in re.finditer(r"[\n;,]" if numbers else r"[\n;]", text)
        if found.start() >= position
    ]


def _value(text: str, position: int, end: int, numbers: bool) -> tuple[str, int]:
    """What an entry says, and where it ends."""
    ahead = position + len(text[position:end]) - len(text[position:end].lstrip())
    if ahead < end and text[ahead] == '"' and _key(text, ahead, end) is None:
        position = ahead
        found = CLOSED.match(text, position, end)
        if found is None:
            raise ValueError(f'{Place.of(text, position)}: the quotation mark is not closed: write " at the end of the prompt')
        rest = re.compile(r"[ \t]*(?=[,;\n]|$)").match(text, found.end(), end)
        if rest is None:
            raise ValueError(
                f"{Place.of(text, found.end())}: {_shown(text, found.end(), end)} stands behind a closed quotation mark: put a comma"
                ' between entries, and \\" for a mark inside a prompt'
            )
        return _plain(found["text"]), rest.end()
    stop, depth = position, 0
    while stop < end:
        letter = text[stop]
        depth += (letter in "([") - (letter in ")]") if numbers else 0
        if letter == ";" or (numbers and letter == "," and depth <= 0):
            break
        if letter == "\n" and (numbers or _key(text, _next(text, stop, end), end)):
            break
        stop += 1
    value = text[position:stop].strip()
    return " ".join(value.split()) if "\n" in value else value, stop


def _plain(quoted: str) -> str:
    """What stands between quotation marks, as JSON escapes it; other backslashes, as prompts have them, stay."""
    return re.sub(r'\\(["\\/n])', lambda found: "\n" if found[1] == "n" else found[1], quoted).strip()


def _shown(text: str, position: int, end: int) -> str:
    line = text[position:end].split("\n")[0].split(";")[0].strip()
    return repr(line if len(line) <= 24 else line[:24].rstrip() + "...")
