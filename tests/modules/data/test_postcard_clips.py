"""Clips of postcards: the world's pictures and words, and which pixels are the traveller's."""

import pytest
import torch
from pack.modules.data.cache import EncodedClips
from pack.modules.data.postcard_clips import PostcardSettings, moving_postcards
from pack.modules.data.postcards import drawn

CLIPS = PostcardSettings(count=3, frames=4, stride=2, seed=5).clips()


def test_a_clip_is_the_world_s_with_its_words():
    card, clip = drawn(5, 1), CLIPS.clip(1)
    true = torch.stack([torch.tensor(card.draw(frame)) for frame in (0, 2, 4, 6)]).movedim(-1, 1) / 127.5 - 1
    torch.testing.assert_close(clip.pixels, true)
    assert clip.caption == card.prompt
    more = PostcardSettings(count=9, frames=4, stride=2, seed=5).clips()
    assert (
        more.sources[1].key
        == CLIPS.sources[1].key
        != PostcardSettings(count=9, frames=4, stride=2, seed=6).clips().sources[1].key
    )


def test_its_traveller_is_marked_where_it_is():
    card, clip = drawn(5, 2), CLIPS.clip(2)
    assert clip.marked.shape == (4, 1, 64, 64)
    for number, frame in enumerate((0, 2, 4, 6)):
        own = (card.draw(frame) != card.draw(frame, traveller=False)).any(-1)
        assert torch.equal(clip.marked[number, 0] == 1, torch.tensor(own))


def test_marks_go_the_way_of_the_pixels_and_are_kept_with_the_latents(tmp_path):
    mirrored = CLIPS.cut_anew(flip="always allowed", variants=40, width=32, height=32)
    takes = [mirrored.take(0, variant) for variant in range(40)]
    flipped, plain = (next(take for take in takes if take.flipped is way) for way in (True, False))
    torch.testing.assert_close(mirrored.read(flipped).marked, mirrored.read(plain).marked.flip(-1))
    assert mirrored.read(plain).marked.shape == (4, 1, 32, 32)
    encoded = lambda: EncodedClips(CLIPS, lambda pixels: pixels, lambda caption: {}, folder=tmp_path, video_key="v", text_key="t")  # noqa: E731
    first, again = encoded().batch(0, 2), encoded().batch(0, 2)
    wanted = torch.stack([CLIPS.read(take).marked for take in first.takes])
    assert torch.equal(first.marked, wanted) and torch.equal(again.marked, wanted)


def test_postcards_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="0 postcards of 4 frames cannot be"):
        moving_postcards(0, 4)
