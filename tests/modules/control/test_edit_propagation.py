"""An edit of one frame, in all frames: in a world where the right answer is known, and what is refused."""

import pytest
import torch
from einops import rearrange
from pack import host
from pack.modules.control.edit_propagation import EditPropagation
from pack.modules.control.keyframes import Keyframes
from pack.modules.data.shapes import COLOURS, clips
from pack.nodes.keyframes.propagate import LongTakePropagateEdit

FRAMES = 16


@pytest.fixture(scope="module")
def worlds():
    """Clips and the same with other colours: ``b f h w c`` each, in 0..1."""
    truth = clips(4, FRAMES, 4)
    palette = torch.tensor(list(COLOURS.values()))
    ground = truth.background[:, None, None]
    old, new = (palette[(truth.colour + more) % 4][:, None, :, None, None] for more in (0, 1))
    cover = ((truth.frames - ground) / (old - ground)).mean(2, keepdim=True).clamp(0, 1)
    pictures = (truth.frames, ground * (1 - cover) + new * cover)
    return tuple(rearrange(frames, "b f c h w -> b f h w c") / 2 + 0.5 for frames in pictures)


def keyframes(images, *frames):
    return Keyframes(images, frames, (1.0,) * len(frames), (0,) * len(frames))


def test_every_frame_gets_the_edit_and_nothing_else_changes(worlds):
    for clip, wanted in zip(*worlds, strict=True):
        found, changed = EditPropagation().carried(clip, wanted[:1], [0])
        inside = (wanted - clip).abs().amax(-1) > 0.2
        before = [(clip - wanted)[frame][inside[frame]].abs().mean() for frame in range(FRAMES)]
        after = [(found - wanted)[frame][inside[frame]].abs().mean() for frame in range(FRAMES)]
        assert all(now < 0.2 * then for now, then in zip(after, before, strict=True)), (
            "of the edit, four fifths are there at least"
        )
        near = torch.nn.functional.max_pool2d((wanted - clip).abs().amax(-1)[:, None], 5, 1, 2)[:, 0]
        assert (found - clip)[near < 1e-4].abs().max() < 0.02, "two pixels away from the object nothing changes"
        assert (changed > 0).all()


def test_edited_frames_come_back_as_they_are_and_a_frame_that_is_not_edited_changes_nothing(worlds):
    clip, wanted = (frames[0] for frames in worlds)
    found, _ = EditPropagation().carried(clip, wanted[[3, 9]], [3, 9])
    assert torch.equal(found[[3, 9]], wanted[[3, 9]])
    found, changed = EditPropagation().carried(clip, clip[[3]], [3])
    assert torch.equal(found, clip) and not changed.any()


def test_a_place_that_shows_nothing_of_the_edited_frame_stays(worlds):
    clip, wanted = (frames[0] for frames in worlds)
    strange = clip.clone()
    strange[5, :8, :8] = torch.tensor([0.7, 0.2, 0.7])
    found, _ = EditPropagation().carried(strange, wanted[:1], [0])
    torch.testing.assert_close(found[5, 1:7, 1:7], strange[5, 1:7, 1:7], atol=1e-3, rtol=0)
    anything, _ = EditPropagation(tolerance=2.0, sharpness=0.5).carried(strange, wanted[:1], [0])
    assert (anything[5, 1:7, 1:7] - strange[5, 1:7, 1:7]).abs().max() > 0.01


def test_look_alikes_are_told_apart_by_where_they_are():
    clip = torch.zeros(2, 32, 32, 3)
    clip[:, 4:12, 4:12] = clip[:, 20:28, 20:28] = 1.0
    edited = clip[:1].clone()
    edited[:, 4:12, 4:12] = torch.tensor([1.0, 0.0, 0.0])
    near, far = (EditPropagation(nearness=nearness).carried(clip, edited, [0])[0][1] for nearness in (0.5, 0.0))
    assert near[8, 8, 1] < 0.1 and near[24, 24, 1] > 0.9
    torch.testing.assert_close(far[8, 8], far[24, 24])


@pytest.mark.parametrize("size", [(48, 80), (80, 48), (7, 5)])
def test_any_size_and_a_channel_of_opacity(size):
    clip = torch.rand(3, *size, 4, generator=torch.Generator().manual_seed(0))
    found, _ = EditPropagation(cells=16).carried(clip, 1 - clip[:1], [0])
    assert found.shape == clip.shape and found.isfinite().all() and found.min() >= 0 and found.max() <= 1


def test_the_node_says_how_much_it_changes_and_counts_frames_from_the_end(worlds):
    clip, wanted = (frames[1] for frames in worlds)
    made, report = LongTakePropagateEdit.execute(images=clip, keyframes=keyframes(wanted[-1:], -1)).args
    assert torch.equal(made, EditPropagation().carried(clip, wanted[-1:], [FRAMES - 1])[0])
    assert "of the 15 others" in report


def test_cancel_ends_it(worlds, monkeypatch):
    done = []

    class Cancelled(Exception):
        pass

    def update(self, count, preview=None):
        done.append(count)
        if count == 2:
            raise Cancelled

    monkeypatch.setattr(host.Progress, "update", update)
    with pytest.raises(Cancelled):
        LongTakePropagateEdit.execute(images=worlds[0][0], keyframes=keyframes(worlds[1][0][:1], 0))
    assert done == [1, 2]


def test_what_does_not_fit_is_refused_in_one_sentence(worlds):
    clip = worlds[0][0]
    cases = [
        (
            lambda: LongTakePropagateEdit.execute(images=clip, keyframes=keyframes(clip[:1, :16], 0)),
            "32x16 with 3 channels and the",
        ),
        (lambda: LongTakePropagateEdit.execute(images=clip[:2], keyframes=keyframes(clip[:2], 0, 1)), "all 2 frames are edited"),
        (lambda: LongTakePropagateEdit.execute(images=clip, keyframes=keyframes(clip[:1], 16)), "16"),
        (lambda: EditPropagation(sharpness=0.0), "sharpness is 0"),
    ]
    for call, said in cases:
        with pytest.raises(ValueError, match=said) as error:
            call()
        assert "\n" not in str(error.value)
