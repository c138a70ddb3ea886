"""The text of a schedule as the strip in the editor reads and writes it: what the module reads, and a drag that moves one time alone."""

import random
import re

import pytest
import torch
from pack.modules.control.schedule import Schedule, ScheduleSettings
from pack.modules.control.schedule_text import read_entries

FRAMES, FPS = 16, 8
TEXTS = [
    "a forest",
    '"a; b"',
    "",
    "0: a forest, (snow:1.2); 12: b\n15: c",
    "0: a forest,\n(snow:1.2)\n12 = b",
    '{"0": "a, b", "12": "c \\"d\\"",}',
    '"0" :"a",\n"8" :"b",\n',
    '0 = "a", 12: = "b"',
    '0:4 = "a", 8 smooth: b; -1: c',
    "0 hold: a; 0.5s: b; 1.25s: c",
    "0: a; 50%: b; 0.75 = c; 100%: d",
    '"0": "a", "max_f/2+1": "b", "max_f-1": "c"',
    "-4: b; 0: a",
    "0: a; 40: b",
    "0:\n12: b",
    '"0":\n"a",\n"12":\n"b"',
]
BAD = [
    "0: a; 24 b",
    "a forest; 24: b",
    '0: "a\n12: b',
    '"0": "a" "12": "b"',
    "0: a\n-17: b",
    "0: a\n 1.5: b",
    "15: b; -1: c",
    '8:4 = "a"',
]
NUMBERS = ["0: 1, 4: 0.5; 8: 2\n12 hold: 0", '"0": max(1, 2), "4": 3', "0.8", "0: (1, 2)"]


def options(numbers=False, count=FRAMES):
    return {"numbers": numbers, "count": count, "fps": FPS, "interpolation": "linear"}


def read(text, numbers=False, count=FRAMES):
    return Schedule.read(text, ScheduleSettings("linear", count, float(FPS)), numbers=numbers)


def keys(schedule):
    return [(key.at, key.text, key.how) for key in schedule.keys]


@pytest.mark.parametrize(("text", "numbers"), [*((text, False) for text in TEXTS), *((text, True) for text in NUMBERS)])
def test_the_strip_reads_what_the_module_reads(js, text, numbers):
    entries = js("schedule_text", "readEntries", text, numbers)
    assert [(entry["time"], entry["text"], entry["how"], entry["until"]) for entry in entries] == [
        (entry.time, entry.text, entry.how, entry.until) for entry in read_entries(text, numbers)
    ]
    shown = js("schedule_text", "readKeys", text, options(numbers))
    assert [(key["at"], key["text"], key["how"]) for key in shown] == keys(read(text, numbers))


@pytest.mark.parametrize("text", BAD)
def test_what_the_module_refuses_is_said(js, text):
    with pytest.raises(ValueError) as ours:
        read(text)
    with pytest.raises(ValueError) as its:
        js("schedule_text", "readKeys", text, options())
    place = re.match(r"line \d+, column \d+(?=: (the quotation|something|.* no time|.* behind))", str(ours.value))
    assert place is None or str(its.value).startswith(place[0])


@pytest.mark.parametrize("how", ["hold", "linear", "smooth"])
def test_shares_are_the_module_s(js, how):
    text = f"2 {how}: a; 7 {how}: b; 1.25s {how}: c"
    shown = js("schedule_text", "readKeys", text, options())
    wanted = read(text).shares(torch.arange(FRAMES))
    for frame in range(FRAMES):
        change = js("schedule_text", "changeAt", shown, frame)
        row = torch.zeros(3)
        row[change["after"]] += change["late"]
        row[change["before"]] += 1 - change["late"]
        torch.testing.assert_close(row, wanted[frame])


@pytest.mark.parametrize(
    ("text", "key", "to", "then"),
    [
        ("0: a; 8: b", 1, 5, "0: a; 5: b"),
        ("0: a; -1: b", 1, 12, "0: a; -4: b"),
        ("0: a; 1s: b", 1, 12, "0: a; 1.5s: b"),
        ("0: a; 50%: b", 1, 12, "0: a; 12: b"),
        ('"0": "a", "8:": "b"', 1, 3, '"0": "a", "3:": "b"'),
        ('2:5 = "a", 9 = "b"', 0, 4, '4:7 = "a", 9 = "b"'),
        ('2:5 = "a", 9 = "b"', 1, 6, '4:7 = "a", 9 = "b"'),
        ("0: a; 8: b; 9: c", 1, 9, "0: a; 8: b; 9: c"),  # that frame is taken
        ("0: a; 8: b; 9: c", 2, 0, "0: a; 8: b; 1: c"),
        ("0: a; 8: b", 1, 99, "0: a; 15: b"),
        ("a forest", 0, 5, "a forest"),
    ],
)
def test_a_drag_changes_one_time_in_the_text(js, text, key, to, then):
    assert js("schedule_text", "moved", text, key, to, options()) == then


@pytest.mark.parametrize("text", TEXTS)
def test_whatever_is_dragged_added_or_removed_the_module_reads(js, text):
    draw = random.Random(text)
    for _ in range(25):
        before = read(text)
        moved = js("schedule_text", "moved", text, draw.randrange(len(before.keys)), draw.randrange(FRAMES), options())
        assert sorted(key.text for key in read(moved).keys) == sorted(key.text for key in before.keys)
        frame = draw.randrange(FRAMES)
        added = js("schedule_text", "added", text, frame, options())
        if added != text:
            more = read(added)
            assert len(more.keys) == len(before.keys) + 1 and frame in [key.at for key in more.keys]
            held = before.shares(torch.tensor([frame]))
            change = js("schedule_text", "changeAt", js("schedule_text", "readKeys", text, options()), frame)
            assert next(key.text for key in more.keys if key.at == frame) == before.keys[change["before"]].text, held
        removed = js("schedule_text", "removed", text, draw.randrange(len(before.keys)), options())
        assert removed == text or len(read_entries(removed)) == len(read_entries(text)) - 1


@pytest.mark.parametrize(("count", "length"), [(16, 16), (0, 21)])
def test_the_strip_is_as_long_as_the_clip_or_has_room(js, count, length):
    assert js("schedule_text", "stripLength", "0: a; 12: b", False, count, FPS) == length
