"""SparseCtrl's encoder: equal to diffusers', deaf to everything but its condition, read from both layouts, refused in one sentence."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from pack.modules.checkpoints.sparsectrl import SparseControlFile, load_sparse_control, released_state
from pack.modules.control.keyframes import Keyframes
from pack.modules.control.sparse_pictures import SparseSettings, at_size
from pack.modules.control.sparsectrl import SparseConfig, SparseControl, output_widths
from pack.modules.temporal.frames import Frames
from safetensors.torch import save_file
from tiny_motion import UNET, image_encoder_state, motion_state, randomized
from tiny_sparse import A1111, CONTROLNET, PIXELS, RGB, in_diffusers_sparse, in_ldm_names, network, sparse_file, sparse_state

try:  # here, where no profiler runs: it is a large import
    pytest.importorskip("diffusers")
    from diffusers import SparseControlNetModel
except ImportError:
    SparseControlNetModel = None

F = 5
KINDS = {"latents": RGB, "pixels": PIXELS}


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def condition(config, keyed=(0, 3), frames=F, side=4, seed=5):
    """``n c h w`` with a mask: something in the keyframes, zeros elsewhere."""
    mask = torch.zeros(frames, 1, 1, 1)
    mask[list(keyed)] = 1
    pixels = drawn(frames, config.condition, side * config.shrink, side * config.shrink, seed=seed)
    return torch.cat([pixels * mask, mask.expand(-1, -1, *pixels.shape[-2:])], dim=1)


def told(frames=F):
    """Timesteps and text."""
    return torch.full((frames,), 500.0), drawn(1, 4, 16, seed=7).expand(frames, 4, 16)


# The network


@pytest.mark.skipif(SparseControlNetModel is None, reason="diffusers is not installed")
@pytest.mark.parametrize("kind", KINDS)
def test_residuals_are_diffusers(kind, tmp_path):
    """Its motion modules' norms see the whole clip, so the norm scope is switched for this one comparison."""
    config = KINDS[kind]
    assert SparseControlNetModel is not None
    theirs = SparseControlNetModel(
        block_out_channels=(32, 64, 64),
        down_block_types=("CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion", "DownBlockMotion"),
        cross_attention_dim=16,
        conditioning_channels=config.condition,
        use_simplified_condition_embedding=not config.stem,
    )
    randomized(theirs.eval(), 11)
    save_file({key: value.clone() for key, value in theirs.state_dict().items()}, tmp_path / "sparse.safetensors")
    file = load_sparse_control(tmp_path / "sparse.safetensors")
    assert file.layout == "diffusers"
    ours = SparseControl(replace(file.config, temporal=replace(file.config.temporal, clip_norm=True)))
    ours.load_state_dict(file.state)
    clips = [condition(file.config, keyed, side=8, seed=seed) for keyed, seed in (((0, 3), 5), ((1,), 6))]
    t, text = torch.tensor([800, 300]), drawn(2, 4, 16)
    with torch.no_grad():
        shown = torch.stack(clips).transpose(1, 2)
        down, middle = theirs(
            drawn(2, 4, F, 8, 8, seed=20) * 1e3,
            t,
            text.repeat_interleave(F, 0),
            shown[:, :-1],
            conditioning_mask=shown[:, -1:],
            return_dict=False,
        )
        made = ours(torch.cat(clips), t.repeat_interleave(F), text.repeat_interleave(F, 0), frames=Frames.of(F))
    assert len(made) == len(down) + 1 == 10
    for ours_, theirs_ in zip(made, [*down, middle], strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=0, atol=1e-5 * float(theirs_.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_without_motion_only_keyframes_are_affected_and_with_it_all_are(kind):
    config = KINDS[kind]
    made, t_text = network(config), told()
    with torch.no_grad():
        for frames, reached in ((None, {0, 3}), (Frames.of(F), set(range(F)))):
            some, none = (made(condition(config, keyed), *t_text, frames=frames) for keyed in ((0, 3), ()))
            differs = [
                {frame for frame in range(F) if (one[frame] - other[frame]).abs().max() > 1e-6}
                for one, other in zip(some, none, strict=True)
            ]
            assert differs[0] == {0, 3}, "the first skip lies before any temporal module"
            assert all(frames_reached == reached for frames_reached in differs[1:])


def test_strength_blends_a_keyframe_with_none():
    made, t_text, frames = network(), told(), Frames.of(F)

    def residuals(keyed, strength=None):
        with torch.no_grad():
            return made(condition(RGB, keyed), *t_text, frames=frames, strength=strength)

    off = residuals((0, 3), torch.tensor([1.0, 1, 1, 0, 1]))
    for one, other, full in zip(off, residuals((0,)), residuals((0, 3)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)
        assert (one - full).abs().max() > 1e-4
    for one, other in zip(residuals((0, 3), torch.ones(F)), residuals((0, 3)), strict=True):
        assert torch.equal(one, other)


def test_frames_in_parts_give_the_same():
    made, t_text, frames = network(), told(), Frames.of(F)
    with torch.no_grad():
        whole, parts = (made(condition(RGB), *t_text, frames=frames, chunk=size) for size in (0, 2))
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


def test_training_starts_with_no_effect():
    made = network().zero()
    with torch.no_grad():
        assert all(not residual.any() for residual in made(condition(RGB), *told(), frames=Frames.of(F)))


def test_outputs_are_the_unets_skips():
    assert output_widths(UNET) == [32, 32, 32, 32, 64, 64]
    sizes = [tuple(residual.shape[1:]) for residual in network()(condition(RGB), *told())]
    assert sizes == [(32, 4, 4)] * 3 + [(32, 2, 2)] + [(64, 2, 2)] * 3


# Files


LAYOUTS = {
    "authors": dict,
    "diffusers": in_diffusers_sparse,
    "A1111": in_ldm_names,
    "A1111, prefixed": partial(in_ldm_names, prefix="control_model."),
    "ControlNet's own": partial(in_ldm_names, entrance=CONTROLNET),
    "ControlNet's own, prefixed": partial(in_ldm_names, entrance=CONTROLNET, prefix="control_model."),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_holds_the_same(kind, layout, tmp_path):
    save_file(layout(sparse_state(KINDS[kind], frames=24)), tmp_path / "x.safetensors")
    file = load_sparse_control(tmp_path / "x.safetensors")
    assert (file.pictures, file.max_frames) == ("scribble" if KINDS[kind].stem else "rgb", 24)
    assert replace(file.config.unet, transformer_depth_output=UNET.transformer_depth_output) == replace(UNET, num_heads=8)
    read, meant = file.build().state_dict(), network(KINDS[kind]).state_dict()
    assert read.keys() == meant.keys() and all(torch.equal(read[key], meant[key]) for key in meant)


@pytest.mark.comfy
@pytest.mark.parametrize("entrance", [A1111, CONTROLNET], ids=["latents", "pixels"])
def test_the_names_are_those_of_comfyuis_controlnet(entrance):
    """Whose code, as sd-webui-controlnet's, is that of Stable Diffusion's ControlNet; latents replace its entrance by one layer."""
    from comfy.cldm.cldm import ControlNet

    settings = UNET.comfyui() | {"hint_channels": 4, "device": "meta"}
    settings["transformer_depth"], settings["transformer_depth_middle"] = list(UNET.transformer_depth), 1
    for name in ("out_channels", "transformer_depth_output"):
        settings.pop(name)
    theirs = {key: tuple(value.shape) for key, value in ControlNet(**settings).state_dict().items()}
    config = RGB if entrance is A1111 else PIXELS
    ours = {
        key: tuple(value.shape)
        for key, value in in_ldm_names(sparse_state(config), entrance).items()
        if "motion_modules" not in key
    }
    entering = {key for key in {**ours, **theirs} if key.startswith("input_hint_block.")}
    if entrance is A1111:
        assert {key: shape for key, shape in ours.items() if key not in entering} == {
            key: shape for key, shape in theirs.items() if key not in entering
        }
    else:
        assert ours == theirs


def test_the_authors_checkpoint_is_unwrapped(tmp_path):
    state = {key: value for key, value in sparse_state().items() if not key.endswith(".pe")}
    torch.save({"controlnet": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, tmp_path / "rgb.ckpt")
    assert load_sparse_control(tmp_path / "rgb.ckpt").max_frames == 32
    state["animatediff_config"] = "text"
    torch.save(state, tmp_path / "flat.ckpt")
    assert load_sparse_control(tmp_path / "flat.ckpt").pictures == "rgb"


def test_it_is_written_as_it_was_read(tmp_path):
    file = load_sparse_control(sparse_file(tmp_path))
    again = released_state(file.build())
    assert all(torch.equal(again[key], value) for key, value in sparse_state().items() if not key.endswith(".pe"))
    with pytest.raises(ValueError, match="no keys for labels"):
        released_state(network(SparseConfig(replace(UNET, label_channels=4))))


def test_pictures_are_asked_for_or_told_by_the_file(tmp_path):
    depth = sparse_file(tmp_path, "my_depth.safetensors", PIXELS)
    assert load_sparse_control(depth).pictures == "depth"
    assert load_sparse_control(depth, "scribble").pictures == "scribble"


def without(state, word):
    return {key: value for key, value in state.items() if word not in key}


BAD = {
    "rgb on scribble": (sparse_state(), "scribble", "takes latents of colour pictures, and scribble was asked for: choose rgb"),
    "scribble on rgb": (sparse_state(PIXELS), "rgb", "takes pixels of scribbles or depth maps, and rgb was asked for"),
    "no such pictures": (sparse_state(), "canny", "pictures is 'canny': choose one of rgb, scribble, depth"),
    "differences": (
        in_ldm_names(sparse_state(), prefix="control_model.") | {"difference": torch.zeros(1)},
        "",
        "holds differences to the weights of an image model: use a file that holds the encoder itself",
    ),
    "two spellings": (sparse_state() | in_ldm_names(sparse_state()), "", "holds the same weights in two spellings"),
    "a motion module": (motion_state(), "", "is no SparseCtrl encoder: it is a motion module, for Load Motion Module"),
    "a ControlNet": (without(sparse_state(), "motion_modules"), "", "it is a ControlNet, for Load ControlNet Model"),
    "something": (image_encoder_state(), "", "is no SparseCtrl encoder: its first keys are body.0"),
    "a hole": (without(sparse_state(), "resnets.1.conv1"), "", "is not complete: .* missing"),
    "no first layer": (
        without(sparse_state(), "conv_in"),
        "",
        r"is not complete: 1 weight is missing \(input_blocks.0.0.weight\)",
    ),
    "a strange key": (sparse_state() | {"class_embedding.weight": torch.zeros(3)}, "", "unknown or of another shape .class_emb"),
    "nan": (sparse_state() | {"conv_in.bias": torch.full((32,), torch.nan)}, "", "not made of finite"),
    "7 channels": (
        sparse_state() | {"controlnet_cond_embedding.weight": torch.zeros(32, 7, 3, 3)},
        "",
        r"a condition of the shape \[32, 7, 3, 3\]: 4 channels of a latent or 3 of a picture",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_in_one_sentence(case, tmp_path):
    state, pictures, sentence = BAD[case]
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match=sentence) as caught:
        load_sparse_control(tmp_path / "bad.safetensors", pictures)
    assert "\n" not in str(caught.value)


# What it is shown


def keyed(*frames, strengths=None, clip=8, side=6):
    images = torch.rand(len(frames), side, side + 2, 3, generator=torch.Generator().manual_seed(2))
    return Keyframes(images, frames, strengths or (1.0,) * len(frames), (0,) * len(frames)).at(clip)


def test_conditions_stand_in_their_frames_whatever_the_window():
    settings = SparseSettings(keyed(-1, 2, strengths=(0.5, 1.0)), hint_multiplier=0.25, other_multiplier=2.0)
    hints = drawn(2, 4, 3, 3)
    whole, strength = settings.conditions(hints, torch.arange(8), masked=True)
    assert torch.equal(whole[2, :4], hints[0]) and torch.equal(whole[7, :4], hints[1])
    assert whole[:, 4].amax(dim=(1, 2)).tolist() == [0, 0, 1, 0, 0, 0, 0, 1]
    assert strength is not None and strength.tolist() == [1, 1, 1, 1, 1, 1, 1, 0.5]
    assert settings.gains(torch.arange(8)).tolist() == [2, 2, 0.25, 2, 2, 2, 2, 0.25]
    window = torch.tensor([6, 7, 0, 2])
    part, _ = settings.conditions(hints, window, masked=True)
    assert torch.equal(part, whole[window]) and torch.equal(settings.gains(window), settings.gains(torch.arange(8))[window])
    assert settings.conditions(hints, window, masked=False)[0].shape == (4, 4, 3, 3)


def test_pictures_are_cut_to_shape_and_scribbles_stretched():
    image = torch.full((1, 8, 12, 3), 0.5)
    image[:, :, 4:8, 0] = 0.8  # the middle third
    rgb, scribble = (at_size(image, 4, 2, kind) for kind in ("rgb", "scribble"))
    assert rgb.shape == (1, 3, 4, 2) and rgb[0, 0].min() > 0.7, "only the middle is left"
    wide = at_size(image, 8, 12, "scribble")
    assert torch.equal(wide[:, 0], wide[:, 1]) and wide.min() == 0 and wide.max() == 1
    assert scribble.abs().max() <= 1 and not at_size(torch.zeros(1, 4, 4, 3), 4, 4, "scribble").isnan().any()
    assert torch.equal(at_size(image, 8, 12, "depth"), image.movedim(-1, 1))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"strength": -1.0}, "strength is -1: it must lie between 0 and 10"),
        ({"hint_multiplier": 11.0}, "hint_multiplier is 11"),
        ({"other_multiplier": float("nan")}, "other_multiplier is nan"),
        ({"start_percent": 0.5, "end_percent": 0.4}, "start_percent is 0.5 and end_percent 0.4"),
        ({"end_percent": 1.5}, "end_percent is 1.5"),
    ],
)
def test_bad_settings_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        SparseSettings(keyed(0), **changes)


def test_a_file_says_what_it_is():
    assert SparseControlFile("x", "AnimateDiff", RGB, {}, "rgb").trained_frames == 16
