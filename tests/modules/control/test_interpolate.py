"""Hint latents: the article's expression, its variants, recursion, and times."""

import re
from fractions import Fraction

import pytest
import torch
from article import by_the_article
from einops import rearrange
from pack.modules.control.hint_tables import HINTS, MASKS
from pack.modules.control.hints import (
    LAYOUTS,
    Hints,
    Layout,
    beside,
    every,
    grown,
    layout_named,
    length,
    mixed,
    told,
)
from pack.modules.control.retiming import at_times, mixtures, retimed


def latents(frames, seed=0):
    return torch.randn(frames, 4, 3, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("frames", [5, 17, 65])
@pytest.mark.parametrize("k", [2, 4, 5])
def test_hints_are_the_articles_bit_for_bit(frames, k):
    clip = latents(frames)
    places = tuple(range(0, frames, k))
    hints = LAYOUTS["article"].hints(clip[list(places)], places, frames)
    assert torch.equal(hints.joined(), by_the_article(clip, k))
    assert hints.known.nonzero().flatten().tolist() == list(places)


def test_five_frames_become_17_and_those_65():
    """Whatever a sampler makes of the other frames, the first five are there to the bit in the end."""
    keys, now = latents(5), latents(5)
    for number in range(2):
        at = every(len(now), 4)
        given = told(now, at, grown(len(now), 4), LAYOUTS["article"])
        assert torch.equal(given.hints.joined(), by_the_article(given.clip, 4))
        assert given.made is not None and torch.equal(given.made[:, 0, 0, 0] == 0, given.hints.known)
        sampled = latents(len(given.clip), seed=1 + number) * 1e3  # something else everywhere
        now = given.hints.pinned(sampled)
        assert torch.equal(now[~given.hints.known], sampled[~given.hints.known])
    assert len(now) == 65
    assert torch.equal(now[::16], keys)


@pytest.mark.parametrize("hint", HINTS)
@pytest.mark.parametrize("places", [(0, 4, 8), (0, 1, 8), (2, 5), (3,)], ids=str)
def test_a_keyframe_stands_beside_itself(hint, places):
    keys = latents(len(places))
    hints = Layout(hint).hints(keys, places, 9)
    assert torch.equal(hints.latents[list(places)], keys)


def test_hints_by_hand():
    """Two keyframes of one number each, 10 at frame 1 and 50 at frame 5, of 7."""
    keys = torch.tensor([10.0, 50.0]).view(2, 1, 1, 1)
    made = {name: Layout(name).hints(keys, (1, 5), 7).latents.flatten().tolist() for name in HINTS}
    assert made == {
        "hold": [10, 10, 10, 10, 10, 50, 50],
        "nearest": [10, 10, 10, 10, 50, 50, 50],
        "linear": [10, 10, 20, 30, 40, 50, 50],
        "blank": [0, 10, 0, 0, 0, 50, 0],
    }
    masks = {name: Layout("hold", name).hints(keys, (1, 5), 7).mask.flatten().tolist() for name in MASKS}
    assert masks == {"zeros": [0] * 7, "between": [1, 0, 1, 1, 1, 0, 1], "keyframes": [0, 1, 0, 0, 0, 1, 0]}


def test_tempofunk_goes_on_from_a_keyframe_that_is_no_part_of_the_clip():
    """As its trainer has it for clips of 22: ``latents[:, :, 0::21]`` held beside frames 1 to 21."""
    clip = latents(22)
    hints = LAYOUTS["tempofunk"].hints(clip[:1], (0,), 22)
    video = rearrange(clip, "f c h w -> 1 c f h w")
    theirs = video[:, :, 0::21].repeat_interleave(21, 2)[:, :, : 22 - 1]
    assert torch.equal(hints.latents, rearrange(theirs, "1 c f h w -> f c h w"))
    assert not hints.mask.any() and not hints.known.any()
    assert length(1, 4, 0, LAYOUTS["tempofunk"]) == 22
    assert told(clip[:1], (0,), 22, LAYOUTS["tempofunk"]).made is None


def test_a_conditioning_gives_back_what_stands_beside_the_frames():
    hints = Layout("linear", "between").hints(latents(2), (0, 4), 5)
    assert torch.equal(beside(hints.latents, hints.mask, (5, 4, 3, 5)), hints.joined())
    assert torch.equal(beside(hints.latents, hints.mask[:, 0], (5, 4, 3, 5)), hints.joined()), "ComfyUI's masks have no channel"
    one = beside(hints.latents[:1], hints.mask[:1], (5, 4, 3, 5))
    assert torch.equal(one, hints.joined()[:1].expand(5, -1, -1, -1))


RATES = [(8, 8), (8, 16), (8, 24), (16, 24), (16, 30), (24, 16), (24, 8), (23.976, 24), (24, 25), (7.5, 60), (30, 29.97), (1, 90)]


@pytest.mark.parametrize(("before", "after"), RATES)
@pytest.mark.parametrize("frames", [1, 2, 5, 16, 100])
def test_every_frame_is_at_its_time(frames, before, after):
    """A clip whose frames show their own number: what is made must show the time at which it is, and only what is kept is made."""
    times = retimed(frames, before, after)
    clip, asked = torch.arange(frames, dtype=torch.float64)[:, None], []

    def between(pair, late):
        asked.append((pair, len(late)))
        assert all(0 < share < 1 for share in late)
        return mixtures(clip)(pair, late)

    made = at_times(clip, times, between)[:, 0]
    torch.testing.assert_close(made / before, torch.arange(len(made), dtype=torch.float64) / after, rtol=0, atol=1e-9)
    exact = (frames - 1) * Fraction(str(after)) / Fraction(str(before))
    assert len(made) == exact.numerator // exact.denominator + 1, "as many frames as fit into the same time, the first included"
    assert sum(count for _, count in asked) == sum(time.denominator > 1 for time in times)
    assert [pair for pair, _ in asked] == sorted({int(time) for time in times if time.denominator > 1}), "each pair is asked once"


def test_frames_that_there_are_stay_as_they_are():
    images = torch.rand(4, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    made = at_times(images, retimed(4, 8, 24), mixtures(images))
    assert torch.equal(made[::3], images)
    torch.testing.assert_close(made[1], images[0] + (images[1] - images[0]) / 3)


BAD = [
    (lambda: grown(1, 4), "the clip has 1 frame: filling in between needs at least 2"),
    (lambda: grown(5, 1), "factor is 1: it must be at least 2"),
    (lambda: grown(5, 2, -1), "passes is -1"),
    (lambda: Layout("middle"), "hint is 'middle': choose one of hold, nearest, linear, blank"),
    (lambda: Layout("hold", "all"), "mask is 'all': choose one of zeros, between, keyframes"),
    (lambda: layout_named("blog"), "the layout 'blog' is not known: choose one of article"),
    (lambda: told(latents(2), (0,), 5, Layout()), "2 keyframes and 1 frame numbers were given"),
    (lambda: told(latents(2), (4, 0), 5, Layout()), "4, 0 are not in order"),
    (lambda: told(latents(2), (0, 5), 5, Layout()), "a keyframe is at frame 5 and the clip has 5 frames: choose 0 to 4"),
    (lambda: told(latents(2)[None], (0, 4), 5, Layout()), "the shape [1, 2, 4, 3, 5]"),
    (lambda: told(latents(1) * float("nan"), (0,), 5, Layout()), "not finite"),
    (lambda: told(latents(2), (0, 4), 5, LAYOUTS["tempofunk"]), "this layout goes on from one keyframe, at frame 0"),
    (lambda: told(latents(1), (0,), 1, LAYOUTS["tempofunk"]), "the clip has 1 frame, which is the keyframe"),
    (lambda: length(5, 4, 16, Layout()), "5 keyframes 4 frames apart take 17 frames and the clip has 16"),
    (lambda: length(1, 4, 0, Layout()), "one keyframe, which says nothing of the clip's length: set frames"),
    (lambda: beside(None, None, (5, 4, 3, 5)), "put Hint Latents between the prompt and the sampler"),
    (lambda: beside(latents(4), torch.zeros(4, 1, 3, 5), (5, 4, 3, 5)), "the hints are 4 frames"),
    (lambda: beside(latents(5), torch.zeros(5, 1, 2, 5), (5, 4, 3, 5)), "the hint mask are 5 frames"),
    (lambda: retimed(5, 0, 8), "from_fps is 0: it must be above 0"),
    (lambda: retimed(5, 8, float("inf")), "to_fps is inf"),
    (lambda: retimed(0, 8, 16), "there are no frames"),
]


@pytest.mark.parametrize(("call", "sentence"), BAD, ids=[sentence[:40] for _, sentence in BAD])
def test_bad_input_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_shares_that_are_one_keyframe_copy_it():
    keys = latents(2) * 1e30  # a sum with 0 times the other would still be the same, a sum with infinity would not
    keys[1, 0, 0, 0] = float("inf")
    assert torch.equal(mixed(keys, torch.tensor([[1.0, 0.0], [0.0, 1.0]])), keys)
    assert isinstance(Layout().hints(latents(2), (0, 1), 2), Hints)
