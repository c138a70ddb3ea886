"""Context windows: what every schedule and every fuse method promises, the lists and weights of ComfyUI's own, seams as numbers, and
the picture and the text of a plan."""

import inspect
import math
import re
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pack
import pytest
import torch
from pack.modules.draw.window_picture import LARGEST, LEFT, TOP, draw_plan
from pack.modules.draw.window_text import costs, describe, ranges, rows_of
from pack.modules.temporal.window_schedules import FUSES, LOOPING, SCHEDULES, radical_inverse
from pack.modules.temporal.windows import FUSE_AT, MODES, WindowPlan, frames_of, fused_at

LENGTHS = ((2, 0), (2, 1), (4, 1), (5, 2), (8, 6), (16, 0), (16, 4), (16, 12), (16, 15))
FRAMES = (1, 2, 3, 5, 8, 15, 16, 17, 20, 24, 31, 32, 33, 48, 65, 100)


def plans(schedules=SCHEDULES, fuses=("pyramid",), strides=(1, 2, 4)):
    """Every schedule with many settings."""
    for schedule in schedules:
        for length, overlap in LENGTHS:
            for stride in strides if schedule.endswith("uniform") else (1,):
                for loop in (False, True) if schedule in LOOPING else (False,):
                    for fuse in fuses:
                        yield WindowPlan(schedule, length, overlap, stride, loop, fuse)


def matrix(plan, frames, step=0):
    """The weights as a table, ``windows frames``, float64."""
    groups = plan.windows(frames, step).groups
    return torch.cat([torch.zeros(len(index), frames).scatter_(1, index, weight) for index, weight in groups]).double()


def seam(weights):
    """The largest change from one frame to the next when windows disagree by independent values of variance 1: its deviation."""
    return float((weights.diff(dim=1) ** 2).sum(0).sqrt().max())


# Schedules


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_frame_is_seen_by_windows_that_can_be_used(schedule):
    for plan in plans([schedule]):
        for frames in FRAMES:
            for step in (0, 1, 2, 3, 7, 12):
                windows = plan.plan(frames, step)
                assert set().union(*windows) == set(range(frames)), (plan, frames, step)
                assert all(len(set(window)) == len(window) <= plan.length for window in windows), (plan, frames, step)
                if frames > plan.length:
                    short = [window for window in windows if len(window) < plan.length]
                    assert short in ([], windows[-1:]) if schedule == "batched" else not short, (plan, frames, step)
                if schedule not in LOOPING:
                    assert all(a < b for window in windows for a, b in pairwise(window)), (plan, frames, step)


@pytest.mark.parametrize(("frames", "step"), [(38, 2), (37, 2), (35, 12)])
def test_frames_that_strides_leave_out_get_a_window(frames, step):
    """ComfyUI's and AnimateDiff-Evolved's lists leave some out here, which then get no result."""
    windows = WindowPlan("standard_uniform", stride=2).plan(frames, step)
    assert set().union(*windows) == set(range(frames))
    assert windows[-1] == list(range(windows[-1][0], windows[-1][0] + 16))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_clip_that_fits_is_one_window(schedule):
    plan = WindowPlan(schedule)
    assert plan.plan(15) == [list(range(15))]
    assert plan.windows(15) is plan.windows(16) is None
    assert plan.windows(17) is not None


LISTS = {
    ("standard_static", 16, 4, 1, False, 40, 3): "0-15, 12-27, 24-39",
    ("standard_static", 16, 4, 1, False, 42, 0): "0-15, 12-27, 24-39, 26-41",
    ("standard_static", 8, 0, 1, False, 20, 0): "0-7, 8-15, 12-19",
    ("batched", 16, 4, 1, False, 40, 3): "0-15, 16-31, 32-39",
    ("looped_uniform", 16, 4, 1, True, 48, 0): "0-15, 12-27, 24-39, 36-47+0-3",
    ("looped_uniform", 16, 4, 1, True, 48, 2): "12-27, 24-39, 36-47+0-3, 0-15",
    ("looped_uniform", 16, 4, 1, True, 40, 0): "0-15, 12-27, 24-39, 36-39+0-11",
    ("looped_uniform", 16, 4, 1, False, 40, 0): "0-15, 12-27, 24-39",
    ("looped_uniform", 16, 4, 1, False, 40, 1): "20-35, 32-39+0-7, 4-19",
    ("looped_uniform", 16, 4, 2, True, 48, 1): "24-39, 36-47+0-3, 0-15, 12-27, 25-47 by 2+1-7 by 2, 5-35 by 2",
    ("standard_uniform", 16, 4, 1, False, 40, 1): "20-35, 24-39, 0-15, 4-19",
    ("standard_uniform", 8, 2, 2, False, 20, 0): "0-7, 6-13, 12-19, 0-14 by 2, 5-19 by 2",
    ("standard_uniform", 8, 2, 2, False, 20, 3): "12-19, 0-7, 1-8, 7-14, 5-19 by 2",
    ("standard_uniform", 16, 4, 1, False, 100, 1): "50-65, 62-77, 74-89, 84-99, 0-15, 10-25, 22-37, 34-49",
}


@pytest.mark.parametrize("settings", LISTS, ids=str)
def test_published_lists(settings):
    *plan, frames, step = settings
    assert ", ".join(map(ranges, WindowPlan(*plan).plan(frames, step))) == LISTS[settings]


def test_a_loop_is_the_same_wherever_it_is_cut():
    """Pairs of neighbours in a window: every one occurs, that of the last and the first frame included, equally often when all fits."""
    windows = WindowPlan("looped_uniform", 16, 4, closed_loop=True).plan(48)
    pairs = {pair for window in windows for pair in pairwise(window)}
    assert pairs == {(frame, (frame + 1) % 48) for frame in range(48)}
    straight = WindowPlan("standard_uniform", 16, 4).plan(48)
    assert (47, 0) not in {pair for window in straight for pair in pairwise(window)}


def test_shifts_fill_the_clip_evenly():
    for step in (0, 1, 2, 3, 10, 1000, 2**40 + 1):
        assert radical_inverse(step) == int(f"{step:064b}"[::-1], 2) / 2**64
    starts = sorted(WindowPlan("looped_uniform", closed_loop=True).plan(64, step)[0][0] for step in range(8))
    assert starts == list(range(0, 64, 8))


def test_a_stride_that_is_too_wide_for_the_clip_is_left_out():
    """ComfyUI's and AnimateDiff-Evolved's lists then hold frames twice, or frames beyond the end."""
    wide = WindowPlan("standard_uniform", 16, 4, 4)
    assert wide.plan(20, 1) == WindowPlan("standard_uniform", 16, 4, 1).plan(20, 1)
    assert wide.plan(40, 1) == WindowPlan("standard_uniform", 16, 4, 2).plan(40, 1) != WindowPlan("standard_uniform").plan(40, 1)
    assert WindowPlan("looped_uniform", 16, 4, 2).plan(20) == WindowPlan("looped_uniform", 16, 4, 1).plan(20)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ten_thousand_frames_are_planned_at_once(schedule):
    plan = WindowPlan(schedule, stride=3 if schedule.endswith("uniform") else 1)
    start = time.process_time()
    plan.windows(10_000, 5)
    assert time.process_time() - start < 1
    assert plan.plan(10_000, 5) == plan.plan(10_000, 5)


# Weights


@pytest.mark.parametrize("fuse", FUSES)
def test_the_weights_of_a_frame_sum_to_one(fuse):
    for plan in plans(fuses=[fuse]):
        for frames in (17, 20, 33, 48, 100):
            windows = plan.windows(frames, 3)
            assert windows.fuse_at == "attention"
            assert len({index.shape[1] for index, _ in windows.groups}) == len(windows.groups)
            total = torch.zeros(frames, dtype=torch.float64)
            for index, weight in windows.groups:
                assert (index.dtype, weight.dtype) == (torch.int64, torch.float32)
                assert bool(((weight >= 0) & (weight <= 1)).all())
                total.index_add_(0, index.flatten(), weight.double().flatten())
            torch.testing.assert_close(total, torch.ones(frames, dtype=torch.float64), rtol=0, atol=1e-6)


def overlap_by_hand(window, frames, plan):
    weights, last = [1.0] * len(window), plan.overlap - 1
    for place in range(plan.overlap):
        ramp = place / last if last else 0
        if window[0] > 0:
            weights[place] = max(ramp, 1e-37)
        if window[-1] < frames - 1:
            weights[-1 - place] = max(ramp, 1e-37)
    return weights


def relative_by_hand(window, frames, plan):
    middle = (window[0] + window[-1]) / 2
    return [max(0.01, 1 - abs(frame - middle) / ((window[-1] - window[0] + 0.01) / 2)) for frame in window]


# the formulas, a frame at a time: a new fuse method gets its own here
BY_HAND = {
    "flat": lambda window, frames, plan: [1.0] * len(window),
    "pyramid": lambda window, frames, plan: [float(min(place + 1, len(window) - place)) for place in range(len(window))],
    "relative": relative_by_hand,
    "overlap-linear": overlap_by_hand,
}


def by_hand(fuse, window, frames, plan):
    """The published formula of a fuse method."""
    assert fuse in BY_HAND, f"write the formula of {fuse} into BY_HAND"
    return BY_HAND[fuse](window, frames, plan)


@pytest.mark.parametrize("fuse", FUSES)
@pytest.mark.parametrize(
    ("length", "overlap", "frames"), [(16, 4, 42), (16, 8, 64), (16, 1, 31), (16, 0, 40), (7, 3, 30), (4, 2, 9)]
)
def test_weights_are_the_published_ones(fuse, length, overlap, frames):
    for plan in (
        WindowPlan("standard_static", length, overlap, fuse=fuse),
        WindowPlan("standard_uniform", length, overlap, 2, fuse=fuse),
    ):
        total = [0.0] * frames
        windows = sorted(plan.plan(frames, 1))
        raw = [by_hand(fuse, window, frames, plan) for window in windows]
        for window, weights in zip(windows, raw, strict=True):
            for frame, weight in zip(window, weights, strict=True):
                total[frame] += weight
        ((index, weight),) = plan.windows(frames, 1).groups
        order = sorted(range(len(index)), key=lambda i: index[i].tolist())
        expected = [
            [w / total[f] for f, w in zip(window, weights, strict=True)] for window, weights in zip(windows, raw, strict=True)
        ]
        torch.testing.assert_close(weight[order], torch.tensor(expected), rtol=1e-5, atol=1e-7)


def test_a_loop_has_no_seam_where_the_clip_is_cut():
    """Turned by the distance between windows, a loop's weights are the same table in another order."""
    for fuse in FUSES:
        for step in (0, 1):  # at step 0 a window begins at the cut, at step 1 one ends there
            weights = matrix(WindowPlan("looped_uniform", 12, 4, 1, True, fuse), 40, step)
            torch.testing.assert_close(weights.roll(8, dims=1), weights.roll(-1, dims=0))


def test_only_the_ends_of_a_clip_that_is_no_loop_have_no_ramp():
    """Windows at two scales begin at frame 0 together: neither gives way there."""
    weights = matrix(WindowPlan("standard_uniform", 8, 2, 2, fuse="overlap-linear"), 32)
    assert weights[:, 0].max() == 0.5


# Seams


@pytest.mark.parametrize(("overlap", "frames"), [(1, 61), (4, 64), (6, 66), (8, 64)])
def test_no_weights_have_a_softer_seam_than_the_pyramid(overlap, frames):
    """Over an overlap one window's weight must fall from 1 to 0 in ``overlap + 1`` changes, the largest at least their mean."""
    seams = {fuse: seam(matrix(WindowPlan(length=16, overlap=overlap, fuse=fuse), frames)) for fuse in FUSES}
    assert seams["pyramid"] == pytest.approx(math.sqrt(2) / (overlap + 1), rel=1e-5)
    assert seams["pyramid"] == min(seams.values())
    assert seams["flat"] == max(seams.values())


def test_the_seams_that_the_help_page_tells():
    """The page's table has a column for each fuse method, and every figure in it is right."""
    page = (Path(pack.__file__).parent / "web" / "docs" / "LongTakeContextWindows.md").read_text(encoding="utf-8")
    head, _, *rows = re.search(r"(\| overlap of 16 .*?)\n\n", page, re.DOTALL)[1].splitlines()
    fuses = [cell.strip() for cell in head.strip("|").split("|")][1:]
    assert set(fuses) == set(FUSES), "the page has a column for each"
    for row in rows:
        overlap, *told = [cell.strip() for cell in row.strip("|").split("|")]
        assert [f"{seam(matrix(WindowPlan(length=16, overlap=int(overlap), fuse=fuse), 64)):.2f}" for fuse in fuses] == told


# Choosing, and refusing


def test_automatic_takes_the_trained_length_and_a_quarter():
    auto = WindowPlan(length=0, schedule="looped_uniform", closed_loop=True, fuse="flat", fuse_at="module")
    assert auto.resolved(16, 32) == WindowPlan("looped_uniform", 16, 4, 1, True, "flat", "module")
    assert auto.resolved(8, None).length == 8
    assert auto.resolved(32, 24).length == 24
    assert auto.resolved(1, None) == WindowPlan("looped_uniform", 2, 0, 1, True, "flat", "module")
    given = WindowPlan(length=24, overlap=3)
    assert given.resolved(16, 32) is given.resolved(16, None) is given.resolved(None, None) is given


def test_modes_say_where_to_fuse():
    assert {fused_at(mode) for mode in MODES} == set(FUSE_AT)
    assert (fused_at("temporal"), fused_at("views")) == ("attention", "module")


def test_the_length_of_latents():
    assert frames_of(torch.zeros(7, 4, 2, 3)) == 7
    assert frames_of(torch.zeros(1, 16, 5, 2, 3)) == 5


BAD = {
    "overlap as long as the window": (
        lambda: WindowPlan(overlap=16),
        "16 frames cannot overlap by 16: use an overlap of at most 15",
    ),
    "overlap longer": (lambda: WindowPlan(length=8, overlap=20), "windows of 8 frames cannot overlap by 20"),
    "negative overlap": (lambda: WindowPlan(overlap=-1), "overlap is -1: it must lie between 0 and 4095"),
    "one frame": (lambda: WindowPlan(length=1, overlap=0), "length is 1: a window needs at least 2 frames, or 0 for automatic"),
    "negative length": (lambda: WindowPlan(length=-4), "length is -4: it must lie between 0 and 4096"),
    "no stride": (lambda: WindowPlan(stride=0), "stride is 0: it must lie between 1 and 16"),
    "schedule": (
        lambda: WindowPlan("uniform"),
        "schedule is 'uniform': choose one of standard_static, standard_uniform",
    ),
    "fuse": (lambda: WindowPlan(fuse="random"), "fuse is 'random': choose one of pyramid, flat"),
    "fuse at": (lambda: WindowPlan(fuse_at="output"), "place to fuse 'output' is not known"),
    "mode": (lambda: fused_at("fast"), "mode 'fast' is not known: choose one of temporal, views, whole"),
    "loop of static windows": (
        lambda: WindowPlan(closed_loop=True),
        "standard_static cannot close a loop: choose looped_uniform, or switch closed_loop off",
    ),
    "longer than the positions": (
        lambda: WindowPlan(length=48).resolved(16, 32),
        "windows of 48 frames are longer than the 32 frames",
    ),
    "automatic without a motion module": (
        lambda: WindowPlan(length=0).resolved(None, None),
        "no motion module to take it from",
    ),
    "automatic never resolved": (lambda: WindowPlan(length=0).plan(16), "length is 0, automatic: ask resolved"),
    "no frames": (lambda: WindowPlan().plan(0), "frames is 0: it must be at least 1"),
    "negative step": (lambda: WindowPlan().plan(64, -1), "step is -1: it must be at least 0"),
    "picture of no steps": (lambda: draw_plan(WindowPlan(), 64, 0), "steps is 0: it must be at least 1"),
    "text of no frames": (lambda: describe(WindowPlan(), 0, 20), "frames is 0: it must be at least 1"),
    "latents with three axes": (lambda: frames_of(torch.zeros(4, 8, 8)), "4 axes, or 5 for video models"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_refused_in_a_sentence(case):
    call, sentence = BAD[case]
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    assert "\n" not in str(error.value)


# ComfyUI's


def usable(windows, frames):
    """Whether ComfyUI's list can be used: no frame twice in a window, none outside the clip, every frame in some window."""
    inside = all(len(set(window)) == len(window) and min(window) >= 0 and max(window) < frames for window in windows)
    return inside and set().union(*windows) == set(range(frames))


@pytest.mark.comfy
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_frames_are_comfyuis(schedule):
    from comfy.context_windows import get_matching_context_schedule

    theirs, same, unusable = get_matching_context_schedule(schedule).func, 0, 0
    for plan in plans([schedule], strides=(1, 2, 3, 4)):
        for frames in FRAMES:
            for step in range(9):
                settings = SimpleNamespace(
                    context_length=plan.length,
                    context_overlap=plan.overlap,
                    context_stride=plan.stride,
                    closed_loop=plan.closed_loop,
                    _step=step,
                )
                expected = theirs(frames, settings, {})
                if usable(expected, frames):
                    assert plan.plan(frames, step) == expected, (plan, frames, step)
                    same += 1
                else:
                    assert plan.stride > 1
                    unusable += 1
    assert same > 5 * unusable


def comparable(schedule, fuse):
    """Theirs measure from the clip's ends along a loop too, and overlap-linear fails on a short last window."""
    if schedule in LOOPING:
        return fuse in ("pyramid", "flat")
    return (schedule, fuse) != ("batched", "overlap-linear")


FUSED = [(schedule, fuse) for schedule in SCHEDULES for fuse in FUSES if comparable(schedule, fuse)]


@pytest.mark.comfy
@pytest.mark.parametrize(("schedule", "fuse"), FUSED)
def test_fused_values_are_comfyuis(schedule, fuse):
    """Their handler averages what windows give; here each frame of each window gives a number of its own."""
    import comfy.context_windows as core

    if fuse not in core.FUSE_MAPPING:
        pytest.skip(f"{fuse} is not among ComfyUI's")
    handler = core.IndexListContextHandler(
        context_schedule=core.get_matching_context_schedule(schedule),
        fuse_method=core.get_matching_fuse_method(fuse),
        context_length=16,
        context_overlap=4,
        context_stride=2,
    )
    plan, frames = WindowPlan(schedule, 16, 4, 2, fuse=fuse), 50
    newer = "total_frames" in inspect.signature(core.IndexListContextWindow).parameters
    more = {"total_frames": frames, "context_overlap": 4} if newer else {}
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        ours = torch.zeros(frames, dtype=torch.float64)
        final, counts, biases = [torch.zeros(frames, 1, 1, 1).double()], [torch.zeros(frames, 1, 1, 1).double()], [[0.0] * frames]
        weight_of = {
            tuple(i.tolist()): w
            for index, weight in plan.windows(frames, step).groups
            for i, w in zip(index, weight, strict=True)
        }
        for number, window in enumerate(plan.plan(frames, step)):
            value = torch.randn(len(window), 1, 1, 1, generator=generator, dtype=torch.float64)
            theirs = core.IndexListContextWindow(window, dim=0, **more)
            handler.combine_context_window_results(final[0], [value], None, theirs, number, 9, None, final, counts, biases)
            ours[window] += weight_of[tuple(window)] * value.flatten()
        expected = final[0] if fuse == "relative" else final[0] / counts[0]
        torch.testing.assert_close(ours, expected.flatten(), rtol=1e-5, atol=1e-6)


# Picture and text


@pytest.mark.parametrize("frames", [16, 48, 200, 2000])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_picture_has_bars_at_the_windows_and_only_there(schedule, frames):
    plan = WindowPlan(schedule, fuse="flat")
    image = draw_plan(plan, frames, 3)
    assert image.shape[0] == 1
    assert max(image.shape[1:3]) <= LARGEST
    rows = rows_of(plan, frames, 3)
    width = image.shape[2] - LEFT - 20
    line = image[0, TOP + 5, LEFT : LEFT + width]  # through the first lane, where the first window lies
    bright = line.amax(-1) > 0.25
    frame_of = torch.arange(width) * frames // width
    first = rows[0].windows[0]
    assert bool(bright[torch.isin(frame_of, torch.tensor(first))].all())
    after = first[-1] + 1
    if frames > 100 and schedule == "standard_static":
        assert not bool(bright[(frame_of >= after) & (frame_of < after + 5)].any())


def test_brightness_is_the_weight():
    image = draw_plan(WindowPlan(), 28, 1)  # 32 pixels a frame; the first bar ends in an overlap of 4
    line = image[0, TOP + 5, LEFT + 16 :: 32].amax(-1)
    overlap = line[11:16]
    steps = overlap.diff()
    assert (steps < 0).all()
    torch.testing.assert_close(steps, steps.mean().expand(4), rtol=0.1, atol=0)
    assert line[:12].std() == 0
    empty = image[0, TOP + 24 + 5, LEFT + 16]  # the second lane, before its window begins
    torch.testing.assert_close(empty * 255, torch.tensor([44.0, 47.0, 54.0]))


def test_a_picture_that_would_be_too_long_says_what_it_leaves_out():
    plan = WindowPlan("looped_uniform", 16, 4, 3, True)
    assert draw_plan(plan, 200, 1000).shape[1] <= LARGEST
    assert draw_plan(plan, 20_000, 2).shape[2] <= LARGEST
    assert draw_plan(None, 16, 1000).shape == draw_plan(WindowPlan(), 16, 20).shape


def test_equal_steps_share_a_row():
    assert [(row.first, row.last) for row in rows_of(WindowPlan(), 64, 20)] == [(0, 19)]
    assert len(rows_of(WindowPlan("standard_uniform"), 64, 4)) == 4
    assert [row.name for row in rows_of(None, 64, 1)] == ["step 0"]


def test_the_text_counts():
    text = describe(WindowPlan(), 64, 20, mode="views", trained=16, most=32).splitlines()
    assert text[0] == "64 frames: standard_static, windows of 16, overlap 4, pyramid; mode views"
    assert text[1] == "windows per step: 5"
    assert text[2] == "windows per frame: least 1, mean 1.25, most 2"
    assert text[3] == "frames in more than one window: 16 of 64: 12-15, 24-27, 36-39, 48-51"
    assert "temporal 1.00, views 1.07 (this model), whole 1.25" in text[4]
    assert text[5:] == ["steps 0-19: 0-15, 12-27, 24-39, 36-51, 48-63"]


def test_the_text_agrees_with_the_lists():
    for plan in plans(strides=(2,)):
        counts = torch.stack(
            [torch.bincount(torch.tensor([frame for window in plan.plan(48, step) for frame in window])) for step in range(6)]
        )
        text = describe(plan, 48, 6)
        assert f"least {counts.min()}, mean {counts.double().mean():.2f}, most {counts.max()}" in text
        assert f"whole {costs(float(counts.double().mean()))['whole']:.2f}" in text


@pytest.mark.parametrize(
    ("plan", "frames", "told", "sentence"),
    [
        (None, 64, (16, 32), "too many: the motion module knows times for 32 frames, so add context windows of at most 32"),
        (None, 8, (16, 32), "trained on 16 frames at once and sees 8"),
        (None, 16, (None, None), "16 frames in one pass: the model has no context windows"),
        (WindowPlan(), 16, (16, 32), "16 frames in one pass: they fit one window of 16"),
        (WindowPlan("looped_uniform", closed_loop=True), 12, (16, 32), "one window crosses none: use a length below the clip's"),
        (WindowPlan("batched"), 40, (16, 32), "frames in more than one window: none"),
        (WindowPlan(length=24), 40, (16, 32), "trained on 16 frames at once and sees 24"),
        (WindowPlan("standard_uniform"), 100, (16, 32), "... and 16 more steps"),
        (WindowPlan(), 2000, (16, 32), "(167 in all)"),
    ],
)
def test_the_text_warns(plan, frames, told, sentence):
    assert sentence in describe(plan, frames, 20, trained=told[0], most=told[1])


@pytest.mark.parametrize("written", LISTS.values())
def test_ranges_are_read_as_they_are_written(written):
    frames = []
    for part in written.split(", ")[-1].split("+"):
        span, _, apart = part.partition(" by ")
        first, _, last = span.partition("-")
        frames += range(int(first), int(last or first) + 1, int(apart or 1))
    assert ranges(frames) == written.split(", ")[-1]
