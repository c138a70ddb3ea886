"""A video model as a file: what is written comes back, and what is broken is refused in a sentence."""

import json

import pytest
import tiny
import torch
from full_disk import largest_file
from pack.modules.checkpoints.video_model import (
    VideoModelInfo,
    clean_prediction,
    fold,
    load_video_model,
    slot_subset,
    unfold,
    with_training,
)
from pack.modules.noise.levels import NOISE_SCHEDULES, PREDICTIONS, NoiseSchedule
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_round_trip(tiny_video_model, tiny_video_file):
    again = load_video_model(tiny_video_file)
    assert again.info == tiny_video_model.info
    assert same(again.unet, tiny_video_model.unet)
    assert same(again.temporal, tiny_video_model.temporal)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(tiny_video_model, tmp_path, dtype):
    path = tmp_path / "half.safetensors"
    tiny_video_model.save(path, dtype)
    assert {value.dtype for value in load_file(path).values()} == {dtype}
    again = load_video_model(path)
    assert {value.dtype for value in [*again.unet.values(), *again.temporal.values()]} == {torch.float32}
    for key, value in tiny_video_model.unet.items():
        assert torch.equal(again.unet[key], value.to(dtype).float())


def test_the_file_is_an_ordinary_checkpoint(tiny_video_file):
    """Others find the U-Net where they look for it, and read the description without this pack."""
    with safe_open(tiny_video_file, framework="pt") as file:
        keys, metadata = set(file.keys()), file.metadata()
    assert "model.diffusion_model.input_blocks.0.0.weight" in keys
    assert "temporal.mid_block.motion_modules.0.temporal_transformer.proj_out.weight" in keys
    assert json.loads(metadata["longtake"])["labels"] == list(tiny.LABELS)


def test_the_built_networks_are_joined(tiny_video_model):
    unet, motion = tiny_video_model.build()
    g = torch.Generator().manual_seed(0)
    x, t, y = torch.randn(5, 48, 4, 4, generator=g), torch.full((5,), 300.0), torch.rand(5, 4, generator=g)
    assert not unet.training
    assert not any(p.requires_grad for p in [*unet.parameters(), *motion.parameters()])
    bare = unet(x, t, y=y)
    with motion.during(motion.frames_for(torch.arange(5))):
        moving = unet(x, t, y=y)
    assert (moving - bare).abs().max() > 1e-3
    assert torch.equal(unet(x, t, y=y), bare)


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("schedule", NOISE_SCHEDULES)
def test_descriptions_round_trip(name, schedule):
    info = with_training(tiny.info(prediction=name, noise_schedule=schedule, patch=2, size=(8, 24)), steps=7)
    assert VideoModelInfo.parse(info.json()) == info
    assert info.trained == {"data": "none: random weights", "steps": 7}


# What cannot be read


def refused(path, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        load_video_model(path)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    refused(tmp_path / "none.safetensors", "there is no file .*none.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_a_truncated_file(tiny_video_file, kept):
    data = tiny_video_file.read_bytes()
    tiny_video_file.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    refused(tiny_video_file, "tiny.safetensors cannot be read: it is cut short or no safetensors file")


def test_something_else_under_the_name(tmp_path):
    path = tmp_path / "text.safetensors"
    path.write_text("This is no model. " * 100, encoding="utf-8")
    refused(path, "it is cut short or no safetensors file")


def test_another_kind_of_model(tmp_path):
    path = tmp_path / "lora.safetensors"
    save_file({"lora_unet_down.weight": torch.zeros(2)}, path)
    refused(path, "lora.safetensors is no LongTake video model: it is a LoRA of an image model")


def rewritten(path, change):
    """The file with ``change(state, about)`` done to its weights and description."""
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["longtake"])
    state = load_file(path)
    change(state, about)
    save_file(state, path, metadata={"longtake": about if isinstance(about, str) else json.dumps(about)})
    return path


SPATIAL = "model.diffusion_model.input_blocks.0.0.weight"
TEMPORAL = "temporal.mid_block.motion_modules.0.temporal_transformer.proj_out.weight"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state, about: state.pop(SPATIAL), f"is not complete: 1 weight is missing .{SPATIAL}"),
        (lambda state, about: state.pop(TEMPORAL), f"is not complete: 1 weight is missing .{TEMPORAL}"),
        (lambda state, about: state.update({SPATIAL: torch.zeros(1)}), f"unknown or of another shape .{SPATIAL}"),
        (lambda state, about: state.update({"temporal.more": torch.zeros(1)}), "unknown or of another shape .temporal.more"),
        (lambda state, about: state.update({"more": torch.zeros(1)}), "unknown or of another shape .more"),
        (
            lambda state, about: about.update(version=99),
            "written by a later version of this pack .format 99, this one reads 5.: update it",
        ),
        (lambda state, about: about.pop("unet"), "the description of the video model is broken: unet is missing"),
        (
            lambda state, about: about.update(colour="red"),
            "the description of the video model says 'colour', which this version of the pack does not know",
        ),
        (lambda state, about: about.update(version="two"), "the description of the video model is broken"),
        (lambda state, about: about.update(prediction="score"), "prediction is 'score': this pack knows eps, v, x0"),
        (lambda state, about: about.update(labels=["one"]), "1 labels are named and the U-Net takes 4"),
        (lambda state, about: about.update(slots=["down_blocks.7.motion_modules.0"]), "down_blocks.7.motion_modules.0"),
        (lambda state, about: about["temporal"].update(mask="mirror"), "mask is 'mirror'"),
    ],
)
def test_files_that_do_not_fit_together(tiny_video_file, change, sentence):
    refused(rewritten(tiny_video_file, change), sentence)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"version": 1}'])
def test_descriptions_that_are_none(text):
    with pytest.raises(ValueError, match="the description of the video model is broken"):
        VideoModelInfo.parse(text)


# Labels


@pytest.mark.parametrize(
    ("prompt", "vector"),
    [
        ("", [0, 0, 0, 0]),
        ("red disc", [1, 0, 1, 0]),
        ("Red, DISC", [1, 0, 1, 0]),
        ("square:0.5 blue:-2", [0, 0.5, 0, -2]),
        ("disc:0", [0, 0, 0, 0]),
    ],
)
def test_label_vectors(prompt, vector):
    assert tiny.info().label_vector(prompt).tolist() == vector


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("a red disc", "does not know the word 'a': it knows disc, square, red, blue"),
        ("red:much", "the weight in 'red:much' is not a number: write it as red:0.5"),
    ],
)
def test_prompts_that_cannot_be_read(prompt, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny.info().label_vector(prompt)


@pytest.mark.parametrize("prompt", ["red:nan", "red:inf"])
def test_weights_are_finite(prompt):
    with pytest.raises(ValueError, match=f"the weight in '{prompt}' is not a number"):
        tiny.info().label_vector(prompt)


# Saving


def test_a_failing_save_leaves_the_old_file(tiny_video_model, tiny_video_file):
    before = tiny_video_file.read_bytes()

    with largest_file(len(before) // 2), pytest.raises(ValueError, match="what was there before is kept: make room"):
        tiny_video_model.save(tiny_video_file)
    assert tiny_video_file.read_bytes() == before
    assert list(tiny_video_file.parent.iterdir()) == [tiny_video_file]


def test_saving_makes_the_folder_and_leaves_one_file(tiny_video_model, tmp_path):
    path = tmp_path / "new" / "model.safetensors"
    for _ in range(2):
        tiny_video_model.save(path)
    assert list(path.parent.iterdir()) == [path]


# Pixels


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_unfold_is_the_inverse_of_fold(patch):
    pictures = torch.rand(3, 8, 12, 3, generator=torch.Generator().manual_seed(0))
    latents = fold(pictures, patch)
    assert latents.shape == (3, 3 * patch * patch, 8 // patch, 12 // patch)
    assert latents.min() >= -1
    assert latents.max() <= 1
    torch.testing.assert_close(unfold(latents, patch), pictures)


def test_fold_keeps_patches_together():
    """Channels come first, then the rows of the patch, then its columns: files depend on it."""
    pictures = torch.arange(4 * 6 * 3).reshape(1, 4, 6, 3) / 100
    latents = (fold(pictures, 2) + 1) / 2
    for c, dy, dx, row, column in [(0, 0, 0, 0, 0), (2, 1, 0, 1, 2), (1, 0, 1, 0, 1)]:
        torch.testing.assert_close(latents[0, c * 4 + dy * 2 + dx, row, column], pictures[0, row * 2 + dy, column * 2 + dx, c])


def test_unfold_stays_in_range():
    assert unfold(torch.full((1, 3, 2, 2), 7.0), 1).max() == 1
    assert unfold(torch.full((1, 3, 2, 2), -7.0), 1).min() == 0


def test_sides_must_be_multiples_of_the_patch():
    with pytest.raises(ValueError, match="pictures are 10x8: this model needs sides that are multiples of 4"):
        fold(torch.zeros(1, 8, 10, 3), 4)


# Use


def test_clean_prediction_scales_the_input_and_finds_the_timestep():
    """A network that knows the answer: the noisy frames are exactly the clean ones plus noise."""
    schedule, g = NoiseSchedule.named("cosine"), torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(4, 3, 2, 2, generator=g) for _ in range(2))
    sigma = torch.cat([torch.zeros(1), schedule.sigmas[[10, 500, 990]]])
    s = sigma[:, None, None, None]
    seen = {}

    def network(x, t, **conditions):
        seen.update(conditions, t=t, x=x)
        return PREDICTIONS["v"].target(clean, noise, s)

    got = clean_prediction(network, clean + s * noise, sigma, schedule, "v", y=None)
    torch.testing.assert_close(got, clean, atol=1e-4, rtol=1e-4)
    assert seen["t"].tolist() == [0, 10, 500, 990]
    assert seen["x"].std(dim=(1, 2, 3)).max() < 2
    assert seen["y"] is None


def test_slot_subset():
    everything = slot_subset(tiny.config())
    assert len(everything) == 7
    assert slot_subset(tiny.config(), ["mid_block.motion_modules.0"]) == tuple(n for n in everything if not n.startswith("mid"))
