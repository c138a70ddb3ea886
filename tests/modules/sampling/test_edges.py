"""Edges that no other test touched: each fails where the line that it is about is a little wrong."""

from dataclasses import replace

import pytest
import torch
from pack.modules.guidance.reconstruction import SHRINKS, Small
from pack.modules.noise.clip_noise import Clip, Layer
from pack.modules.sampling.model_view import View
from pack.modules.sampling.plan import Row, unseen
from pack.modules.temporal import memory_moments as memory
from pack.modules.temporal.memory_moments import Call
from pack.modules.temporal.slots import widths
from tiny import unet


class AllKnown:
    def is_known(self, ids):
        return torch.ones(len(ids), dtype=torch.bool)


@pytest.mark.parametrize(
    ("ids", "following", "shown"),
    [([0, 1, 6], 3, [3, 4, 5]), ([0, 4, 5], 2, [2, 3]), ([0, 5], 1, [1, 2, 3, 4]), ([3, 4, 5], 1, [1, 2])],
)
def test_known_frames_before_a_window_are_shown_however_short_it_is(ids, following, shown):
    """A window of one frame behind sink frames has its gap before the last frame."""
    row = Row(torch.tensor(ids), torch.zeros(len(ids)), torch.zeros(len(ids)))
    assert [list(item.ids) for item in unseen(row, following, AllKnown(), 8)] == [shown]


@pytest.mark.parametrize("shrink", SHRINKS)
def test_a_small_clip_is_compared_with_guesses_of_videos_as_with_those_of_frames(shrink):
    """``f b c h w``, as hosts of video models have them: each row by itself."""
    g = torch.Generator().manual_seed(0)
    clean, small = torch.randn(3, 2, 4, 8, 8, generator=g), torch.randn(3, 2, 4, 4, 4, generator=g)
    view = View(clean, torch.ones(3), torch.arange(3), torch.zeros(3, dtype=torch.bool))
    made, wanted = Small(small, shrink).of(view, clean)
    assert made.shape == wanted.shape == small.shape and torch.equal(wanted, small)
    for row in range(2):
        frames = View(clean[:, row], torch.ones(3), torch.arange(3), torch.zeros(3, dtype=torch.bool))
        torch.testing.assert_close(made[:, row], Small(small[:, row], shrink).of(frames, clean[:, row])[0])


@pytest.mark.parametrize("kind", ["repeated", "freenoise"])
@pytest.mark.parametrize("source", ["comfyui", "per_frame"])
def test_noise_that_comes_again_after_one_frame_is_one_noise(kind, source):
    clip = Clip(torch.randn(5, 4, 2, 2, generator=torch.Generator().manual_seed(0)), 7, range(5))
    noise = Layer(kind=kind, source=source, length=1, overlap=0).noise(clip, 0)
    assert noise.shape == clip.own.shape and all(torch.equal(frame, noise[0]) for frame in noise)
    assert torch.equal(noise, Layer(kind="constant", source=source).noise(clip, 0))


def test_a_controlnet_s_outputs_are_held_from_the_start_and_let_go_one_by_one():
    """On the way down all of them; what is left at the end is less by each skip and the output beside it."""
    network = unet()
    call = Call(8, 16, 16, channels=network.input_blocks[0][0].in_channels)
    found = {
        controlled: list(memory.moments_of(network, widths(network), replace(call, controlled=controlled)))
        for controlled in (False, True)
    }
    more = [with_it.between - without.between for without, with_it in zip(found[False], found[True], strict=True)]
    skips = [skip.size for skip in memory._skips(network, memory.Map(call.channels, 16, 16))]
    places = [moment.place for moment in found[True]]
    assert more[0] == sum(skips) + skips[-1] and more[places.index("middle block")] == more[0]
    left = [more[places.index(f"output block {number}")] for number in range(len(skips))]
    assert left == [more[0] - sum(skips[-1 - number :]) for number in range(len(skips))]
