"""Noise on what a clip is conditioned on: how much, which, and what models are told of it."""

import logging
from types import SimpleNamespace

import pytest
import torch
from pack import host
from pack.modules.noise.augment import FORMS, augmented, augmented_pictures, fitted, tell
from pack.modules.noise.seeded import frame_noise
from pack.nodes.noise.augment import LongTakeNoiseAugment


def images(frames=3, height=16, width=24, seed=0):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))


def latent(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def augment(**given):
    return LongTakeNoiseAugment.execute(**given).args


class Pixels:
    """A VAE that only makes pictures smaller, and remembers what it was given."""

    def encode(self, pixels):
        self.given = pixels
        small = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)
        return torch.cat([small, small.mean(1, keepdim=True)], dim=1)


# How much noise


@pytest.mark.parametrize("level", [0.02, 0.3])
def test_pictures_get_the_level_in_minus_1_to_1(level):
    """Stable Video Diffusion was trained with ``image + level * noise`` on pictures in -1..1; in 0..1 it is half."""
    given = images(4, 128, 128)
    noise = (augmented_pictures(given, level, "additive", 0) * 2 - 1) - (given * 2 - 1)
    assert noise.std().item() == pytest.approx(level, rel=0.01)
    assert abs(noise.mean().item()) < level / 50


def test_the_schedule_keeps_the_variance():
    given = latent(4, 4, 64, 64)
    for level in (0.0, 0.3, 0.9, 1.0):
        made = augmented(given, level, "schedule", 0)
        assert made.std().item() == pytest.approx(1, rel=0.02)
        torch.testing.assert_close(made, (1 - level**2) ** 0.5 * given + level * noise_of(4, given))
    assert torch.equal(augmented(given, 1.0, "schedule", 0), noise_of(4, given))


def noise_of(frames, like, seed=0, first=0):
    return frame_noise(like.shape[1:], seed, range(first, first + frames), "augment")


@pytest.mark.parametrize("form", FORMS)
def test_level_0_is_the_same_bit_for_bit(form):
    samples, pictures = latent(3, 4, 8, 8), images()
    out = augment(level=0.0, form=form, latent={"samples": samples, "noise_mask": 1}, image=pictures)
    assert torch.equal(out[0]["samples"], samples)
    assert out[0]["noise_mask"] == 1
    assert torch.equal(out[1], pictures)


def test_noise_belongs_to_the_seed_and_the_frame():
    samples = latent(5, 4, 8, 8)
    whole = augment(level=0.5, latent={"samples": samples})[0]["samples"]
    assert torch.equal(whole, augment(level=0.5, latent={"samples": samples})[0]["samples"])
    part = augment(level=0.5, latent={"samples": samples[2:4], "batch_index": [2, 3]})[0]
    assert torch.equal(part["samples"], whole[2:4])
    assert part["batch_index"] == [2, 3]
    other = augment(level=0.5, seed=1, latent={"samples": samples})[0]["samples"]
    assert (other - whole).abs().min() > 0
    assert (whole[0] - samples[0] - (whole[1] - samples[1])).abs().max() > 0.1, "frames have noise of their own"


def test_a_video_gets_noise_per_frame():
    samples = latent(2, 16, 5, 4, 6)
    made = augmented(samples, 0.5, "additive", 3)
    assert made.shape == samples.shape
    noise = frame_noise((2, 16, 4, 6), 3, range(5), "augment")
    torch.testing.assert_close(made, samples + 0.5 * noise.permute(1, 2, 0, 3, 4))
    torch.testing.assert_close(augmented(samples[:, :, :2], 0.5, "additive", 3), made[:, :, :2])


def test_inputs_are_not_changed():
    samples, pictures, facts = latent(3, 4, 8, 8), images(), svd_facts()
    copies = samples.clone(), pictures.clone(), dict(facts)
    augment(level=0.5, latent={"samples": samples}, image=pictures, positive=[[torch.zeros(1, 1, 4), facts]], vae=Pixels())
    assert torch.equal(samples, copies[0])
    assert torch.equal(pictures, copies[1])
    assert facts.keys() == copies[2].keys()
    assert all(facts[name] is copies[2][name] for name in facts)


# What models are told


def svd_facts(**changes):
    """As SVD_img2vid_Conditioning makes them of a picture of 16 by 24 pixels."""
    return {"motion_bucket_id": 127, "fps": 6, "augmentation_level": 0.0, "concat_latent_image": latent(1, 4, 2, 3)} | changes


def test_the_picture_of_stable_video_diffusion_is_encoded_with_its_noise():
    vae, picture = Pixels(), images(1)
    positive = [[torch.ones(1, 1, 4), svd_facts()]]
    negative = [[torch.zeros(1, 1, 4), svd_facts(concat_latent_image=torch.zeros(1, 4, 2, 3))]]
    _, noisy, told, against = augment(level=0.1, seed=5, image=picture, positive=positive, negative=negative, vae=vae)
    torch.testing.assert_close(vae.given * 2 - 1, picture * 2 - 1 + 0.1 * frame_noise((16, 24, 3), 5, [0], "augment"))
    torch.testing.assert_close(noisy, vae.given)
    ((tokens, facts),) = told
    assert tokens is positive[0][0]
    assert facts["augmentation_level"] == 0.1
    assert torch.equal(facts["concat_latent_image"], vae.encode(vae.given))
    assert {name: facts[name] for name in ("motion_bucket_id", "fps")} == {"motion_bucket_id": 127, "fps": 6}
    assert against[0][1]["augmentation_level"] == 0.1
    assert not against[0][1]["concat_latent_image"].any(), "guidance moves away from no picture"


def test_level_0_leaves_the_conditioning_as_it_is():
    facts = svd_facts(augmentation_level=0.3)
    (_, made), untold = tell([[None, facts]], 0.0)[0][0], tell([[None, facts]], 0.0)[1]
    assert made["augmentation_level"] == 0.0
    assert made["concat_latent_image"] is facts["concat_latent_image"]
    assert untold == 0


def test_models_that_add_the_noise_themselves_are_told_only():
    upscaler = {"concat_image": latent(1, 3, 8, 8), "noise_augmentation": 0.0}
    unclip = {"unclip_conditioning": [{"strength": 1.0, "noise_augmentation": 0.0}, {"strength": 0.5, "noise_augmentation": 0.7}]}
    made, untold = tell([[None, upscaler], [None, unclip]], 0.25)
    assert made[0][1]["noise_augmentation"] == 0.25
    assert made[0][1]["concat_image"] is upscaler["concat_image"]
    assert [one["noise_augmentation"] for one in made[1][1]["unclip_conditioning"]] == [0.25, 0.25]
    assert [one["strength"] for one in made[1][1]["unclip_conditioning"]] == [1.0, 0.5]
    assert unclip["unclip_conditioning"][1]["noise_augmentation"] == 0.7
    assert untold == 0


def test_a_conditioning_without_an_input_for_it_is_left_alone_with_a_warning(caplog):
    positive = [[torch.ones(1, 4, 4), {"pooled_output": torch.ones(1, 4)}]]
    with caplog.at_level(logging.WARNING, logger="longtake"):
        told = augment(level=0.1, positive=positive)[2]
        assert "no input for the level" in caplog.text
        caplog.clear()
        augment(level=0.0, positive=positive)
        augment(level=0.1, positive=[[None, {"noise_augmentation": 0.0}]])
        assert not caplog.text
    assert told[0][0] is positive[0][0]
    assert told[0][1] is positive[0][1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, "nothing is connected"),
        ({"level": -0.1, "image": images()}, "level is -0.1"),
        ({"level": float("nan"), "image": images()}, "level is nan"),
        ({"level": float("inf"), "image": images()}, "level is inf"),
        ({"level": 1.5, "form": "schedule", "image": images()}, "at most 1"),
        ({"form": "blur", "image": images()}, "choose one of additive, schedule"),
        ({"image": images() / 0}, "image is not finite"),
        ({"latent": {"samples": torch.full((2, 4, 8, 8), float("nan"))}}, "latent is not finite"),
        ({"latent": {"samples": torch.zeros(4, 8, 8)}}, r"shape \[4, 8, 8\]"),
        ({"positive": [[None, svd_facts()]]}, "connect the image and the VAE"),
        ({"positive": [[None, svd_facts()]], "image": images()}, "connect the image and the VAE"),
        ({"level": 2.0, "positive": [[None, {"noise_augmentation": 0.0}]]}, "takes a level from 0 to 1"),
    ],
)
def test_bad_input_is_one_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        augment(**({"level": 0.1} | change))


# On ComfyUI


@pytest.mark.comfy
@pytest.mark.parametrize(("height", "width"), [(16, 24), (30, 20), (33, 57), (57, 33), (100, 25)])
@pytest.mark.parametrize("wanted", [(16, 24), (24, 16), (8, 40)])
def test_pictures_are_fitted_as_comfyui_does(height, width, wanted):
    import comfy.utils

    given = images(2, height, width)
    theirs = comfy.utils.common_upscale(given.movedim(-1, 1), wanted[1], wanted[0], "bilinear", "center").movedim(1, -1)
    assert torch.equal(fitted(given, *wanted), theirs)


@pytest.mark.comfy
def test_the_conditioning_is_that_of_comfyui_s_own_node():
    """At level 0 all of it; at another the noise is half of theirs, since theirs lies in 0..1."""
    from comfy_extras.nodes_video_model import SVD_img2vid_Conditioning

    class Vision:
        def encode_image(self, image):
            return SimpleNamespace(image_embeds=image.mean((1, 2)))

    vae, picture, level = Pixels(), images(1, 40, 40), 0.2
    node = SVD_img2vid_Conditioning()
    clean = node.encode(Vision(), picture.clone(), vae, 24, 16, 5, 127, 6, 0.0)
    _, _, *same = augment(level=0.0, image=picture, positive=clean[0], negative=clean[1], vae=vae)
    for made, theirs in zip(same, clean[:2], strict=True):
        assert made[0][1].keys() == theirs[0][1].keys()
        assert torch.equal(made[0][0], theirs[0][0])
        assert torch.equal(made[0][1]["concat_latent_image"], theirs[0][1]["concat_latent_image"])
        assert {k: v for k, v in made[0][1].items() if not torch.is_tensor(v)} == {
            k: v for k, v in theirs[0][1].items() if not torch.is_tensor(v)
        }
    _, _, told, _ = augment(level=level, seed=3, image=picture, positive=clean[0], negative=clean[1], vae=vae)
    noise = frame_noise((16, 24, 3), 3, [0], "augment")
    torch.testing.assert_close(told[0][1]["concat_latent_image"], vae.encode(fitted(picture, 16, 24) + level / 2 * noise))
    torch.manual_seed(0)
    theirs = node.encode(Vision(), picture.clone(), vae, 24, 16, 5, 127, 6, level)[0][0][1]
    torch.manual_seed(0)
    doubled = vae.encode(fitted(picture, 16, 24) + level * torch.randn(1, 16, 24, 3))
    torch.testing.assert_close(
        theirs["concat_latent_image"], doubled, msg="ComfyUI adds it in -1..1 now: say so in the help page"
    )
    assert theirs["augmentation_level"] == told[0][1]["augmentation_level"] == level


@pytest.mark.comfy
def test_the_level_reaches_the_vector_that_the_networks_take():
    import comfy.model_base
    from comfy.ldm.modules.diffusionmodules.openaimodel import Timestep

    embedder = Timestep(256)
    (facts,) = (
        item[1] for item in augment(level=0.1, positive=[[None, svd_facts(concat_latent_image=torch.zeros(1, 4, 2, 3))]])[2]
    )
    vector = comfy.model_base.SVD_img2vid.encode_adm(SimpleNamespace(embedder=embedder), **facts)
    expected = torch.cat([embedder(torch.tensor([float(value)]))[0] for value in (6 - 1, 127, 0.1)])
    torch.testing.assert_close(vector[0], expected)


@pytest.mark.comfy
def test_the_level_is_in_the_model_s_numbers_where_one_is_connected():
    from tiny_motion import image_model

    model, samples = image_model(), 5 * latent(3, 4, 8, 8)
    factor = model.model.latent_format.scale_factor
    made = augment(level=0.5, latent={"samples": samples}, model=model)[0]["samples"]
    torch.testing.assert_close((made - samples) * factor, 0.5 * noise_of(3, samples), rtol=1e-4, atol=1e-5)
    assert torch.equal(augment(level=0.0, latent={"samples": samples}, model=model)[0]["samples"], samples)


def test_a_video_model_of_this_pack_has_plain_numbers():
    from tiny import video_model

    samples = latent(3, 48, 4, 4)
    made = augment(level=0.5, latent={"samples": samples}, model=host.video_model(video_model()))[0]["samples"]
    torch.testing.assert_close(made, samples + 0.5 * noise_of(3, samples), rtol=1e-4, atol=1e-5)
