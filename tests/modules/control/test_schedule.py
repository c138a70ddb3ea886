"""Schedules: three ways of writing the same, times, changes, terms, what is refused and where."""

import json
import math
import random

import pytest
import torch
from pack.modules.control.arithmetic import evaluate
from pack.modules.control.schedule import INTERPOLATIONS, Schedule, ScheduleSettings
from pack.modules.control.schedule_text import read_entries

WANTED = [("0", "a forest, (snow:1.2)"), ("12", 'b "quoted"; c'), ("24", "")]


def read(text, *, numbers=False, **changes):
    return Schedule.read(text, ScheduleSettings(**changes), numbers=numbers)


def frames(count):
    return torch.arange(count)


@pytest.mark.parametrize(
    "text",
    [
        '0: a forest, (snow:1.2); 12: "b \\"quoted\\"; c"; 24: ""',
        '0: a forest,\n(snow:1.2)\n12 = "b \\"quoted\\"; c"\n\n24:',
        json.dumps(dict(WANTED)),
        '"0" :"a forest, (snow:1.2)",\n"12" :"b \\"quoted\\"; c",\n"24" :"",\n',
        '0 = "a forest, (snow:1.2)", 12 = "b \\"quoted\\"; c", 24 = ""',
        '  { "0":"a forest, (snow:1.2)" ; 12: "b \\"quoted\\"; c" , "24" = "" }  ',
    ],
)
def test_every_way_of_writing_reads_the_same(text):
    assert [(entry.time, entry.text) for entry in read_entries(text)] == WANTED


def test_whatever_json_writes_is_read_back():
    draw = random.Random(0)
    for _ in range(300):
        given = {
            str(draw.randrange(100)): "".join(draw.choices('ab ,;:"\\\n(1.2){}=`', k=draw.randrange(12)))
            for _ in range(draw.randrange(1, 5))
        }
        assert {entry.time: entry.text for entry in read_entries(json.dumps(given))} == {
            time: text.strip() for time, text in given.items()
        }


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a forest", [(0, "a forest", "linear")]),
        ('"a; b"', [(0, "a; b", "linear")]),
        ("", [(0, "", "linear")]),
        ("-1: b; 0: a", [(0, "a", "linear"), (15, "b", "linear")]),
        ("0: a; 1.5s: b", [(0, "a", "linear"), (12, "b", "linear")]),
        ("0: a; 0.5 = b; 100%: c", [(0, "a", "linear"), (8, "b", "linear"), (15, "c", "linear")]),
        ('"0": "a", "max_f/2": "b"', [(0, "a", "linear"), (8, "b", "linear")]),
        ("0 hold: a; 4 smooth: b", [(0, "a", "hold"), (4, "b", "smooth")]),
        ('"0:": "a", "4": "b"', [(0, "a", "hold"), (4, "b", "linear")]),
        ('0:4 = "a", 8: = "b"', [(0, "a", "hold"), (3, "a", "linear"), (8, "b", "hold")]),
        ('0:1 = "a"', [(0, "a", "linear")]),
        ("0: a; 40: b", [(0, "a", "linear"), (40, "b", "linear")]),
        ("0:\n12: b", [(0, "", "linear"), (12, "b", "linear")]),
        ('"0":\n"a",\n"12":\n"b"', [(0, "a", "linear"), (12, "b", "linear")]),
    ],
)
def test_times(text, keys):
    assert [(key.at, key.text, key.how) for key in read(text).keys] == keys


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0: a; 24 b", r"^line 1, column 7: '24 b' has no time before it"),
        ("a forest; 24: b", r"^line 1, column 1: 'a forest' has no time"),
        ('0: "a\n12: b', r"^line 1, column 4: the quotation mark is not closed"),
        ('"0": "a" "12": "b"', r"^line 1, column 9: .* behind a closed quotation mark"),
        ("0: a\n-17: b", r"^line 2, column 1: the time -17 lies before .* has 16"),
        ("0: a\n 1.5: b", r"^line 2, column 2: 1\.5 is a share .* such as 1\.5s"),
        ("0: a\n15: b; -1: c", r"^line 2, column 8: there are two entries for frame 15"),
        ('8:4 = "a"', r"^line 1, column 1: the range 8:4 ends at frame 4, before it begins: write 4:8"),
    ],
)
def test_what_does_not_read_is_refused_with_its_place(text, words):
    with pytest.raises(ValueError, match=words):
        read(text)


@pytest.mark.parametrize("time", ["-1", "0.5", "50%", "max_f/2"])
def test_times_from_the_end_want_a_length(time):
    with pytest.raises(ValueError, match=r"line 1, column 7: the time .* needs the clip's length"):
        read(f"0: a; {time}: b", frames=0)


@pytest.mark.parametrize("how", list(INTERPOLATIONS))
def test_shares_are_whole_at_keys_sum_to_one_and_never_turn_back(how):
    draw = random.Random(how)
    for _ in range(40):
        times = sorted(draw.sample(range(-0, 60), draw.randrange(1, 6)))
        schedule = read("; ".join(f"{time}: {time}" for time in times), interpolation=how, frames=64)
        shares = schedule.shares(frames(64))
        assert torch.allclose(shares.sum(1), torch.ones(64)) and bool((shares >= 0).all())
        assert int((shares > 0).sum(1).max()) <= 2
        assert torch.equal(shares[times], torch.eye(len(times)))
        assert torch.equal(shares[: times[0]], shares[times[0]].expand(times[0], -1))
        assert torch.equal(shares[times[-1] :], shares[times[-1]].expand(64 - times[-1], -1))
        values = read("; ".join(f"{time}: {time}" for time in times), interpolation=how, numbers=True).values(frames(64))
        assert bool((values.diff() >= -1e-4).all())


def test_the_three_changes_are_their_formulas():
    part = torch.arange(9) / 8
    for how, wanted in (("hold", (part == 1).float()), ("linear", part), ("smooth", 3 * part**2 - 2 * part**3)):
        assert torch.allclose(read("0: a; 8: b", interpolation=how).shares(frames(9))[:, 1], wanted)


def test_frames_of_a_take_without_an_end_are_asked_for_by_number():
    schedule = read("0: a; 10: b", frames=0)
    assert schedule.shares(torch.tensor([5, 10, 10**8])).tolist() == [[0.5, 0.5], [0, 1], [0, 1]]
    assert schedule.least == 11


def test_prompts_have_what_stands_before_and_behind_and_each_is_there_once():
    mixture = read("0: a; 4: b,; 8: a").prompts(frames(9), "x,", " y")
    assert mixture.texts == ("x, a, y", "x, b, y")
    assert mixture.shares[:, 1].tolist() == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0]


def test_terms_in_backticks_change_from_frame_to_frame():
    mixture = read("0: (tree:`0.5+t/max_f`); 2 hold: b", frames=3, interpolation="hold").prompts(frames(3))
    assert mixture.texts == ("(tree:0.5)", "(tree:1)", "b") and torch.equal(mixture.shares, torch.eye(3))


def test_the_negative_of_an_entry_stands_behind_its_word():
    positive, negative = read('"0": "a --neg b", "4": "c"').split()
    assert [key.text for key in positive.keys] == ["a", "c"] and [key.text for key in negative.keys] == ["b", ""]


def test_values():
    assert read("0: 1, 4: (0.5+0.5)*2; 6 hold: 0\n8: t", numbers=True).values(frames(10)).tolist() == [
        *(1, 1.25, 1.5, 1.75, 2, 1, 0, 0, 8, 9),
    ]
    assert read("0.8", numbers=True).values(frames(2)).tolist() == pytest.approx([0.8, 0.8])
    assert read('"0": min(1, 2), "2": 3', numbers=True).values(frames(3)).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0: 1\n4: x", r"^line 2, column 1: 'x' holds 'x', which is not known here: known are .*t, max_f"),
        ("0: 1, 4:", r"^line 1, column 7: '' is neither a number nor a term"),
        ("0: 1/0", r"^line 1, column 1: '1/0' has no value at frame 0"),
        ("0: sqrt(t-1)", r"^line 1, column 1: .* at frame 0"),
        ("0: 9**9**9**9", "has no value"),
        ("0: __import__('os')", "which is not known"),
        ("0: (1).real", "which is not known"),
        ("0: exp(t=1)", "which is not known"),
        ("0: " + "(" * 150, "neither a number"),
        ("0: 1e999", "must be finite"),
    ],
)
def test_what_is_no_number_is_refused_with_its_place(text, words):
    with pytest.raises(ValueError, match=words):
        read(text, numbers=True).values(frames(5))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", 1 + 2 * 3),
        ("-2**2", -(2**2)),
        ("7%4", 7 % 4),
        ("(1<2)*3", (1 < 2) * 3),
        ("where(t>2, 1, 0)", 1),
        ("max(t, 1)", 3),
        ("abs(-pi)", math.pi),
        ("floor(2.7)/2", math.floor(2.7) / 2),
    ],
)
def test_arithmetic_is_pythons(text, value):
    assert evaluate(text, {"t": 3.0}) == pytest.approx(value)
