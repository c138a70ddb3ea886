"""What a network is told of given pictures, and the encoder of AnimateLCM-I2V beside a plain spelling of its definition."""

import pytest
import torch
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.control.first_frame import (
    AFFINITIES,
    CHANNELS,
    MODES,
    FirstFrameSettings,
    PictureEncoder,
    affinity,
    channels_of,
    given_pictures,
    slots_of,
)
from pack.modules.control.keyframes import Keyframes
from pack.modules.temporal.positions import sinusoid
from pack.modules.temporal.slots import empty, fill, slots
from tiny import unet
from tiny_motion import image_encoder_state, motion_file
from torch.nn import functional

COUNT = 7


def keyframes(*frames, strengths=None, reach=0):
    images = torch.rand(len(frames), 16, 16, 3, generator=torch.Generator().manual_seed(1))
    return Keyframes(images, frames, strengths or (1.0,) * len(frames), (reach,) * len(frames)).at(COUNT)


def latents(count):
    return torch.arange(1.0, count + 1).view(-1, 1, 1, 1).expand(-1, 4, 2, 3)


def told(mode, at, **settings):
    channels = channels_of(latents(len(at)), at, COUNT, FirstFrameSettings(mode, **settings))
    assert channels.shape == (COUNT, 5, 2, 3)
    assert torch.equal(channels[:, :1], channels[:, :1, :1, :1].expand(-1, 1, 2, 3)), "a mask is the same everywhere in a frame"
    return channels[:, 0, 0, 0], channels[:, 1, 0, 0]


# Masks and latents


def test_every_mode_is_tested():
    assert set(CHANNELS) | {"auto", "pia", "animatelcm_i2v"} == set(MODES)


@pytest.mark.parametrize(
    ("mode", "mask"), [("inpaint", [0, 1, 1, 1, 1, 1, 1]), ("moonshot", [1, 0, 0, 0, 0, 0, 0]), ("tempofunk", [0] * COUNT)]
)
def test_the_first_frame_in_either_polarity(mode, mask):
    said, shown = told(mode, keyframes(0))
    assert said.tolist() == mask
    assert shown.tolist() == [1] * COUNT, "MoonShot: the latent of the first frame in all frames"


def test_several_keyframes_are_held_to_the_middle_between_them():
    said, shown = told("inpaint", keyframes(0, -1))
    assert said.tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert shown.tolist() == [1, 1, 1, 1, 2, 2, 2]


def test_strength_and_reach_soften_the_mask():
    said, _ = told("moonshot", keyframes(2, strengths=(0.5,), reach=1))
    assert said.tolist() == [0, 0.25, 0.5, 0.25, 0, 0, 0]
    said, _ = told("moonshot", keyframes(2, strengths=(0.5,)), strength=2.0)
    assert said.tolist() == [0, 0, 1, 0, 0, 0, 0]
    said, _ = told("inpaint", keyframes(2, strengths=(4.0,)))
    assert said.tolist() == [1, 1, 0, 1, 1, 1, 1], "a mask stays in 0..1"


# PIA


@pytest.mark.parametrize("motion", AFFINITIES)
@pytest.mark.parametrize(("count", "frame"), [(16, 0), (16, 5), (16, 15), (24, 0), (8, 3)])
def test_resemblance_is_the_authors(motion, count, frame):
    pia = pytest.importorskip("diffusers.pipelines.deprecated.pia.pipeline_pia", reason="diffusers is not installed")
    number = list(AFFINITIES).index(motion)
    expected = torch.tensor(pia.prepare_mask_coef_by_statistics(count, frame, number))
    if motion.endswith("loop") and count != 16:
        assert affinity(motion, count)[[0, -1]].tolist() == [1, 1], "ours closes the loop at any length"
    else:
        torch.testing.assert_close(affinity(motion, count, frame), expected, rtol=0, atol=1e-7)


def test_pias_mask_is_the_resemblance_to_the_nearest_picture():
    said, shown = told("pia", keyframes(0, -1), motion="moderate")
    torch.testing.assert_close(said, torch.tensor([1.0, 0.8, 0.8, 0.8, 0.8, 0.8, 1.0]))
    assert shown.tolist() == [1, 1, 1, 1, 2, 2, 2]
    said, _ = told("pia", keyframes(0), motion="large restyling", strength=0.5)
    torch.testing.assert_close(said, torch.tensor([0.25, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]))


def test_pias_condition_equals_diffusers():
    """``PIAPipeline.prepare_masked_condition`` itself, with a small VAE's stand-in."""
    pia = pytest.importorskip("diffusers.pipelines.deprecated.pia.pipeline_pia", reason="diffusers is not installed")
    image = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(3))

    class Drawn:
        def sample(self, generator):
            return functional.avg_pool2d(image, 8)[:, [0, 1, 2, 0]] * 2 - 1

    class Pipe:
        class vae:  # noqa: N801
            class config:  # noqa: N801
                scaling_factor = 0.18215

            encode = staticmethod(lambda pixels: type("Out", (), {"latent_dist": Drawn()}))

        class unet:  # noqa: N801
            dtype = torch.float32

        class video_processor:  # noqa: N801
            preprocess = staticmethod(lambda pixels: pixels * 2 - 1)

        vae_scale_factor, do_classifier_free_guidance = 8, True

    masks, pictures = pia.PIAPipeline.prepare_masked_condition(Pipe, image, 1, 4, COUNT, 16, 24, torch.float32, "cpu", None, 2)
    held = Drawn().sample(None) * 0.18215
    one = Keyframes(image.movedim(1, -1), (0,), (1.0,), (0,)).at(COUNT)
    ours = channels_of(held, one, COUNT, FirstFrameSettings("pia", motion="large"))
    expected = torch.cat([masks, pictures], dim=1)
    assert torch.equal(expected[0], expected[1]), "with and without text alike"
    torch.testing.assert_close(ours, expected[0].movedim(1, 0), rtol=1e-6, atol=1e-7)


def test_pias_input_layer_takes_latents_mask_and_picture(tmp_path):
    model = load_motion_module(motion_file(tmp_path, "PIA")).build()
    x, channels = torch.randn(2 * COUNT, 4, 4, 4), torch.randn(COUNT, 5, 4, 4)
    layer = model.input_layer.conv_in
    nine = torch.cat([x, channels.repeat(2, 1, 1, 1)], dim=1)
    assert torch.equal(model.input_layer(x, channels), functional.conv2d(nine, layer.weight, layer.bias, padding=1))


def test_the_input_layer_stands_in_for_the_unets_while_there_is_a_picture(tmp_path):
    model = load_motion_module(motion_file(tmp_path, "PIA")).build()
    network = unet()
    fill(network, {})
    model.join(network)
    x = torch.randn(COUNT, 4, 4, 4)
    before = network.input_blocks[0][0](x)
    with model.pictured(torch.randn(COUNT, 5, 4, 4), {}):
        assert not torch.equal(network.input_blocks[0][0](x), before)
    assert torch.equal(network.input_blocks[0][0](x), before)
    empty(network)
    assert "forward" not in network.input_blocks[0][0].__dict__


# AnimateLCM-I2V


def spelt_out(x, weights, drift, levels=2):
    """AnimateLCM's ``Adapter.forward``, by the names of its weights."""

    def conv(name, value, padding=0):
        return functional.conv2d(value, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)

    x = conv("conv_in", x, 1)
    x = x + drift * sinusoid(torch.arange(len(x)), x.shape[1])[:, :, None, None]
    features = []
    for place in range(2 * levels):
        if place and place % 2 == 0:
            height, width = x.shape[-2:]
            x = functional.avg_pool2d(functional.pad(x, (0, width % 2, 0, height % 2), mode="replicate"), 2)
        if f"body.{place}.in_conv.weight" in weights:
            x = conv(f"body.{place}.in_conv", x)
        x = x + conv(f"body.{place}.block2", conv(f"body.{place}.block1", x, 1).relu())
        features += [x] if place % 2 else []
    return features


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_the_encoder_is_the_authors(size):
    weights = image_encoder_state()
    encoder = PictureEncoder((32, 64))
    encoder.load_state_dict(weights)
    x = torch.randn(COUNT, 4, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours = encoder(x, 0.8)
    for mine, theirs in zip(ours, spelt_out(x, weights, 0.8), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_features_go_before_the_second_module_of_each_level():
    network = unet(num_res_blocks=(2, 2), transformer_depth=(0, 0, 1, 1), transformer_depth_output=(0, 0, 0, 1, 1, 1))
    places = slots_of([torch.zeros(1), torch.ones(1)])
    assert list(places) == ["down_blocks.0.motion_modules.1", "down_blocks.1.motion_modules.1"]
    assert set(places) <= set(slots(network))


def test_a_module_sees_its_feature_as_far_as_it_acts(tmp_path):
    from pack.modules.temporal.frames import Frames, Gain

    model = load_motion_module(motion_file(tmp_path, "AnimateLCM-I2V")).build()
    slot = "down_blocks.0.motion_modules.1"
    run, module = model.slot_functions()[slot], model.at(slot)
    x, feature = torch.randn(2 * COUNT, 32, 4, 4), torch.randn(COUNT, 32, 4, 4)
    frames = Frames.of(COUNT)
    with torch.no_grad():
        with model.during(frames), model.pictured(None, {slot: feature}):
            torch.testing.assert_close(run(x), module(x + feature.repeat(2, 1, 1, 1), frames))
        with model.during(frames, {slot: Gain(torch.zeros(COUNT))}), model.pictured(None, {slot: feature}):
            assert torch.equal(run(x), x)
        with model.during(frames, {slot: None}), model.pictured(None, {slot: feature}):
            assert torch.equal(run(x), x)
        with model.during(frames):
            torch.testing.assert_close(run(x), module(x, frames))


# What is refused


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"mode": "svd"}, "mode is 'svd': choose one of auto"),
        ({"motion": "huge"}, "motion is 'huge': choose one of"),
        ({"strength": 3.0}, "strength is 3: it must lie between 0 and 2; 1 is usual"),
        ({"drift": -1.0}, "drift is -1: it must lie between 0 and 10"),
    ],
)
def test_settings_are_checked(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        FirstFrameSettings(**given)


def test_pictures_without_times_are_refused():
    image, at = torch.rand(1, 8, 8, 3), keyframes(0)
    assert given_pictures(None, at) is at and given_pictures(image, None).frames == (0,)
    with pytest.raises(ValueError, match="neither image nor keyframes is connected"):
        given_pictures(None, None)
    with pytest.raises(ValueError, match="image and keyframes are both connected"):
        given_pictures(image, at)
    with pytest.raises(ValueError, match="image holds 2 pictures and a clip has one first frame"):
        given_pictures(image.repeat(2, 1, 1, 1), None)
