"""Known Frames: keyframes that a take keeps, and the small copies that the editor shows."""

from types import SimpleNamespace

import pytest
import torch
from einops import rearrange, reduce
from pack import host
from pack.modules.control.keyframes import Keyframes
from pack.modules.draw.thumbnails import thumbnails
from pack.nodes.forcing.forcing import LongTakeNoiseLevels, LongTakeRollout
from pack.nodes.keyframes.known_frames import LongTakeKnownFrames
from tiny import video_model

SIDE = 16


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(3, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0))


def keyframes(pictures, *frames, clip=0):
    count = len(frames)
    return Keyframes(pictures[:count], frames, (1.0,) * count, (0,) * count, clip)


def known(keyframes, frames=8, vae=None):
    video = video_model()
    return LongTakeKnownFrames.execute(keyframes=keyframes, vae=vae or host.vae(video.info), frames=frames).args


def test_frames_come_in_order_of_time(pictures):
    latent, text = known(keyframes(pictures, -1, 0, 3))
    assert text == "0, 3, 7"
    alone = [known(keyframes(pictures[[which]], 0))[0]["samples"] for which in (1, 2, 0)]
    assert torch.equal(latent["samples"], torch.cat(alone))


def test_a_take_keeps_them_where_they_are_said_to_be(pictures):
    model = host.video_model(video_model())
    latent, text = known(keyframes(pictures, -1, 0, 3))
    levels = LongTakeNoiseLevels.execute(frames=8, schedule="trapezoid", steps=2, lag=1.0, known_at=text).args[0]
    clip = LongTakeRollout.execute(model=model, noise_levels=levels, known_frames=latent).args[0]["samples"]
    assert torch.equal(clip[[0, 3, 7]], latent["samples"])
    assert not torch.isclose(clip[[1, 2, 4, 5, 6]], torch.zeros(())).all()


def test_latents_of_video_models_are_joined_in_time(pictures):
    vae = SimpleNamespace(encode=lambda images: reduce(images, "b (h p) (w q) c -> b c 1 h w", "mean", p=8, q=8))
    latent, text = known(keyframes(pictures, 3, 0), vae=vae)
    assert (text, latent["samples"].shape) == ("0, 3", (1, 3, 2, 2, 2))
    assert torch.equal(latent["samples"][:, :, 0], vae.encode(pictures[[1]])[:, :, 0])


@pytest.mark.parametrize(
    ("frames", "clip", "length", "words"),
    [
        ((0, 8), 0, 8, "frame 8 and the clip has 8 frames"),
        ((0, -8), 0, 8, "two images are keyframes of frame 0"),
        ((0, 4), 16, 8, "laid out for a clip of 16 frames and this one has 8"),
        ((0, 1), 0, 2, "all 2 frames of the clip are keyframes"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_encoded(pictures, frames, clip, length, words):
    def encode(_):
        raise AssertionError("encoded")

    with pytest.raises(ValueError, match=words):
        known(keyframes(pictures, *frames, clip=clip), length, SimpleNamespace(encode=encode))


@pytest.mark.parametrize(("height", "width", "small"), [(200, 100, (50, 25)), (60, 300, (10, 50)), (2, 1000, (1, 50))])
def test_thumbnails_keep_the_form_and_the_colours(height, width, small):
    half = torch.zeros(2, height, width, 3)
    half[:, :, width // 2 :, 0] = 1
    made = thumbnails(half, 50)
    assert made.shape == (2, *small, 3)
    assert made.mean().item() == pytest.approx(half.mean().item(), abs=1e-2)
    assert torch.equal(made[:, :, 0], torch.zeros(2, small[0], 3))
    assert torch.allclose(made[:, :, -1], rearrange(torch.tensor([1.0, 0, 0]), "c -> 1 1 c"))


def test_small_pictures_stay_as_they_are(pictures):
    assert thumbnails(pictures) is pictures
