"""Given pictures on ComfyUI's MODELs: what comes to the network in each frame, whole and in windows, and what is refused."""

import copy

import pytest
import torch
from custom import advanced, forcing, scheduler_sigmas, theirs
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.control.first_frame import FirstFrameSettings, affinity
from pack.modules.control.keyframes import Keyframes
from pack.modules.temporal.settings import MotionSettings
from pack.modules.temporal.windows import WindowPlan
from small_workflows import Pixels
from tiny_motion import image_model, ksample, motion_file, text
from tiny_prompt import pictures
from wrapped_models import loaded, wrapped

pytestmark = pytest.mark.comfy
FRAMES, SIZE = 6, 4
LATENT = {"samples": torch.zeros(FRAMES, 4, SIZE, SIZE)}
SCALE = 0.18215  # of SD1.5's latents


def keyframes(*frames):
    return Keyframes(pictures(len(frames)), frames, (1.0,) * len(frames), (0,) * len(frames))


def told(model, at=None, latent=LATENT, **settings):
    from pack import host

    return host.apply_first_frame(model, Pixels(), latent, at or keyframes(0), FirstFrameSettings(**settings))


def sampled(model, *, frames=FRAMES, steps=2, cfg=2.0):
    return ksample(model, frames=frames, steps=steps, cfg=cfg, size=SIZE)


def with_motion(base, folder, family, effect=1.0):
    from pack import host

    module = load_motion_module(motion_file(folder, family, name=f"{family}.safetensors"))
    return host.apply_motion(base, module, MotionSettings(effect=effect), "model")


@pytest.fixture(scope="module")
def base(comfyui):
    return image_model()


@pytest.fixture(scope="module")
def nine(comfyui):
    """An inpainting checkpoint, small."""
    model = image_model(in_channels=9)
    model.model.set_inpaint()
    return model


@pytest.fixture(scope="module")
def pia(base, tmp_path_factory):
    return with_motion(base, tmp_path_factory.mktemp("pia"), "PIA")


@pytest.fixture(scope="module")
def i2v(base, tmp_path_factory):
    return with_motion(base, tmp_path_factory.mktemp("i2v"), "AnimateLCM-I2V")


def inputs_of(model, run, layer=lambda unet: unet.input_blocks[0][0]):
    """What comes to a layer of the U-Net while ``run`` samples."""
    found = []
    hook = layer(model.model.diffusion_model).register_forward_pre_hook(lambda module, args: found.append(args[0].clone()))
    try:
        run()
    finally:
        hook.remove()
    return found


# Nine channels


@pytest.mark.parametrize(
    ("mode", "mask"),
    [("inpaint", [0, 1, 1, 1, 1, 1]), ("auto", [0, 1, 1, 1, 1, 1]), ("moonshot", [1, 0, 0, 0, 0, 0]), ("tempofunk", [0] * 6)],
)
def test_channels_beside_the_latents(mode, mask, nine):
    model = told(nine, mode=mode)
    first, *_ = inputs_of(model, lambda: sampled(model, steps=1))
    assert first.shape == (2 * FRAMES, 9, SIZE, SIZE), "positive and negative condition together"
    held = Pixels().encode(pictures(1, size=8 * SIZE))
    for half in first.chunk(2):
        assert half[:, 4].flatten(1).unique(dim=1).flatten().tolist() == mask
        torch.testing.assert_close(half[:, 5:], (held * SCALE).expand(FRAMES, -1, -1, -1), rtol=1e-4, atol=1e-5)


def test_windows_get_the_channels_of_their_frames(nine):
    from pack import host

    model = told(nine, keyframes(0, 3, -1), mode="moonshot")
    whole = sampled(model)
    windowed = host.context_windows(model, WindowPlan(length=4, overlap=2), "whole")
    torch.testing.assert_close(sampled(windowed), whole, rtol=0, atol=1e-4 * float(whole.abs().max()))
    assert (whole - sampled(told(nine, keyframes(0, 2, -1), mode="moonshot")))[3].abs().max() > 1e-3


def test_a_rolling_window_gets_the_channels_of_its_frames(nine):
    """With a noise level per frame: without motion the same frames as all at once."""
    model = told(nine, keyframes(0, 3, -1), mode="moonshot")
    sigmas, latent = scheduler_sigmas(model, 4), LATENT["samples"]
    expected = advanced(model, theirs("euler"), latent, sigmas, positive=text(3))
    rolled = advanced(model, forcing("pyramid", FRAMES, 4, window=5), latent, sigmas, positive=text(3))
    torch.testing.assert_close(rolled, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_the_model_stays_as_it_was(nine):
    plain = sampled(nine, frames=2)
    latent = {"samples": torch.zeros(2, 4, SIZE, SIZE)}
    assert (sampled(told(nine, latent=latent), frames=2) - plain).abs().max() > 1e-3
    assert torch.equal(sampled(nine, frames=2), plain)


# PIA


def test_pia_is_its_own_checkpoint_with_nine_channels(pia, base, tmp_path):
    """A second model, whose own first layer is PIA's: the same prediction where mask and picture are concatenated by hand."""
    twin = image_model(in_channels=9)
    state = base.model.diffusion_model.state_dict()
    layer = pia.get_additional_models_with_key("longtake_motion")[0].model.input_layer.conv_in
    state |= {f"input_blocks.0.0.{key}": value for key, value in layer.state_dict().items()}
    twin.model.diffusion_model.load_state_dict(state)
    other = with_motion(twin, tmp_path, "PIA")
    generator = torch.Generator().manual_seed(0)
    x, context = 10 * torch.randn(FRAMES, 4, SIZE, SIZE, generator=generator), text()[0][0].repeat(FRAMES, 1, 1)
    sigma = torch.full((FRAMES,), 7.0)
    held = SCALE * Pixels().encode(pictures(1, size=8 * SIZE))
    mask = affinity("large", FRAMES).view(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE)
    results = []
    for model, given in (
        (told(pia, motion="large"), {}),
        (other, {"c_concat": torch.cat([mask, held.expand(FRAMES, -1, -1, -1)], dim=1)}),
    ):
        with loaded(model) as inner, torch.no_grad():
            results.append(inner.apply_model(x, sigma, c_crossattn=context, transformer_options=wrapped(model), **given))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_a_clip_follows_the_picture_and_the_motion(pia):
    plain, small, large, other = (
        sampled(model)
        for model in (pia, told(pia, motion="small"), told(pia, motion="large"), told(pia, keyframes(2), motion="large"))
    )
    results = [plain, small, large, other]
    assert all((one - two).abs().max() > 1e-3 for place, one in enumerate(results) for two in results[:place])
    assert torch.equal(sampled(pia), plain)


def test_pias_windows_get_their_own_frames(base, tmp_path):
    from pack import host

    still = with_motion(base, tmp_path, "PIA", effect=0.0)
    assert still.get_additional_models_with_key("longtake_motion")[0].get_attachment("longtake_motion").clip_norms
    model = told(still, keyframes(0, -1))
    windowed = host.context_windows(model, WindowPlan(length=4, overlap=2), "whole")
    given = [channels[:, 4] for channels in picture_inputs(windowed)]
    assert sorted({len(channels) for channels in given}) == [4]
    first = [[round(float(frame.mean()), 3) for frame in channels] for channels in given]
    near = [
        max(a, b)
        for a, b in zip(affinity("moderate", FRAMES, 0).tolist(), affinity("moderate", FRAMES, FRAMES - 1).tolist(), strict=True)
    ]
    wanted = [[round(value, 3) for value in near[start : start + 4]] for start in (0, 2)]
    assert all(row in wanted for row in first) and all(row in first for row in wanted)


def picture_inputs(model):
    """What PIA's layer gets, one cond's share of each call."""
    found = []
    layer = model.get_additional_models_with_key("longtake_motion")[0].model.input_layer.conv_in
    hook = layer.register_forward_pre_hook(lambda module, args: found.append(args[0].clone()))
    try:
        sampled(model, steps=1, cfg=1.0)
    finally:
        hook.remove()
    return found


# AnimateLCM-I2V


def test_features_come_before_the_second_motion_module(base, tmp_path):
    """With motion modules that do nothing, the next layer gets what it got and the feature."""
    from pack import host
    from safetensors.torch import save_file
    from tiny_motion import PUBLISHED

    state = PUBLISHED["AnimateLCM-I2V"]()
    state |= {key: torch.zeros_like(value) for key, value in state.items() if ".temporal_transformer.proj_out." in key}
    save_file(state, tmp_path / "zero.safetensors")
    model = host.apply_motion(base, load_motion_module(tmp_path / "zero.safetensors"), noise_schedule="model")
    asked = told(model, drift=0.5)
    next_layer = lambda unet: unet.input_blocks[3][0]  # noqa: E731
    before, after = (inputs_of(one, lambda one=one: sampled(one, steps=1), next_layer)[0] for one in (model, asked))
    part = asked.get_additional_models_with_key("longtake_motion")[0]
    held = part.get_attachment("longtake_motion").picture.frames
    feature, _ = part.model.picture_encoder(held, 0.5)
    torch.testing.assert_close(after - before, feature.repeat(2, 1, 1, 1), rtol=1e-3, atol=1e-4)
    assert feature.abs().max() > 1e-2


def test_strength_and_drift_reach_the_clip(i2v):
    plain = sampled(i2v)
    assert torch.equal(sampled(told(i2v, strength=0.0)), plain)
    full, calm = (sampled(told(i2v, **settings)) for settings in ({}, {"drift": 0.0}))
    assert min((one - two).abs().max() for one, two in ((plain, full), (full, calm))) > 1e-3


# What is refused, and what is left behind


@pytest.mark.parametrize(
    ("which", "settings", "sentence"),
    [
        ("base", {}, "the model has no input for a picture: load an inpainting checkpoint"),
        ("base", {"mode": "moonshot"}, "the mode moonshot needs an inpainting checkpoint with 9 input channels"),
        ("nine", {"mode": "pia"}, "the mode pia needs a motion module of PIA"),
        ("pia", {"mode": "animatelcm_i2v"}, "needs a motion module of AnimateLCM-I2V"),
    ],
)
def test_a_model_without_such_an_input_is_refused(which, settings, sentence, request):
    with pytest.raises(ValueError, match=sentence):
        told(request.getfixturevalue(which), **settings)


def test_a_keyframe_outside_the_clip_and_a_video_latent_are_refused(nine):
    with pytest.raises(ValueError, match="a keyframe is at frame 6 and the clip has 6 frames"):
        told(nine, keyframes(0, 6))
    with pytest.raises(ValueError, match="the latent has the shape"):
        told(nine, latent={"samples": torch.zeros(1, 4, 6, 8, 8)})


def test_another_latent_is_refused_before_sampling(nine, pia, monkeypatch):
    monkeypatch.setattr("comfy.model_base.BaseModel.apply_model", lambda *args, **kwargs: pytest.fail("the model was called"))
    for model in (told(nine), told(pia)):
        with pytest.raises(ValueError, match="a latent of 6 frames of 32x32 and the sampler has 5 frames of 32x32"):
            sampled(model, frames=5)


def test_after_an_error_everything_is_as_before(pia, monkeypatch):
    plain, model = sampled(pia), told(pia)
    options = copy.copy(model.model_options["transformer_options"])

    def failing(*args, **kwargs):
        raise RuntimeError("no more")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="no more"):
        patch.setattr(type(pia.model.diffusion_model), "forward", failing)
        sampled(model)
    assert model.model_options["transformer_options"].keys() == options.keys()
    part = model.get_additional_models_with_key("longtake_motion")[0].model
    assert part.channels is None and not part.features
    assert torch.equal(sampled(pia), plain)
