"""What a motion module was trained as: by what the authors' files have, by what a file of ours says, and by what a user says."""

import itertools

import pytest
import torch
from pack.modules.checkpoints.families import FAMILIES, FAMILY, Contents, family_of
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.noise.levels import NOISE_SCHEDULES
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.slot_names import BASES
from pack.modules.temporal.transformer import TemporalConfig
from pack.modules.temporal.windows import WindowPlan
from tiny_motion import (
    LAYOUTS,
    PUBLISHED,
    image_encoder_state,
    in_diffusers_layout,
    motion_file,
    motion_state,
    pia_conv_in,
    slot_widths,
    without_tables,
)
from weight_files import one_sentence, same_weights, saved

# Families: the authors' numbers (noise schedule, norms over the clip: the U-Net's, the module's own; trained frames, most frames, steps)

NUMBERS = {
    "v1": ("linear", True, False, 16, 24, None),
    "v2": ("linear", False, False, 16, 32, None),
    "v3": ("linear", False, False, 16, 32, None),
    "AnimateLCM": ("linear", False, False, 16, 64, 100),
    "AnimateLCM-I2V": ("animatelcm_i2v", False, False, 16, 64, 200),
    "PIA": ("linear", True, False, 16, 32, None),
    "SDXL-beta": ("animatediff_sdxl", False, True, 16, 32, None),
    "HotshotXL": ("scaled_linear", True, False, 8, 24, None),
}
EXTRAS = {"AnimateLCM-I2V": {"image_encoder"}, "PIA": {"conv_in"}}


def test_every_family_has_a_file_and_numbers_here():
    assert set(NUMBERS) == set(PUBLISHED) == {family.name for family in FAMILIES}


@pytest.mark.parametrize("family", NUMBERS)
def test_each_family_is_known_by_its_contents(tmp_path, family):
    motion = load_motion_module(motion_file(tmp_path, family, name=f"{family}.safetensors"))
    assert motion.family == family
    numbers = (motion.noise_schedule, motion.clip_norms, motion.module_norms)
    assert (*numbers, motion.trained_frames, motion.max_frames, motion.lcm_steps) == NUMBERS[family]
    assert motion.noise_schedule in NOISE_SCHEDULES
    assert ("mid_block.motion_modules.0" in motion.widths) is (family in {"v2", "AnimateLCM", "AnimateLCM-I2V"})
    assert motion.config == TemporalConfig()
    assert {name for name in ("conv_in", "image_encoder", "camera") if getattr(motion, name) is not None} == EXTRAS.get(
        family, set()
    )


def test_what_comes_with_a_module_is_kept_as_it_is(tmp_path):
    same_weights(load_motion_module(motion_file(tmp_path, "AnimateLCM-I2V")).image_encoder, image_encoder_state())
    pia = {key.removeprefix("conv_in."): value for key, value in pia_conv_in().items()}
    same_weights(load_motion_module(motion_file(tmp_path, "PIA")).conv_in, pia)


SEEN = list(
    itertools.product(LAYOUTS, (2, 3, 4), (False, True), (None, 8, 24, 32, 64), (False, True), (False, True), (False, True))
)


def test_no_contents_are_of_two_families():
    for contents in (Contents(*values) for values in SEEN):
        fitting = [family.name for family in FAMILIES if family.could(contents) and family.fits(contents)]
        undecided = contents.plain and not contents.middle and contents.frames not in (24, 32)
        assert len(fitting) == (0 if undecided or (contents.conv_in and contents.image_encoder) else 1), (contents, fitting)


def test_what_is_said_is_taken_where_it_can_be_and_refused_where_not():
    """A said family is one that the message names, and the message names all that are taken."""
    for contents in (Contents(*values) for values in SEEN):
        if contents.conv_in and contents.image_encoder:
            continue
        taken = []
        for family in NUMBERS:
            try:
                taken.append(family_of(contents, "x", family).name)
            except ValueError as error:
                offered = str(error).split("it is one of ")[1].split("; choose")[0].split(", ")
                assert family not in offered and "\n" not in str(error)
                assert all(family_of(contents, "x", name).name == name for name in offered)
        assert taken and set(taken) == {family.name for family in FAMILIES if family.could(contents)}


# the file, what it is taken for, and for how many frames: the authors' releases, and what others made of them
RELEASES = {
    "LongAnimateDiff for 32 frames": (lambda: motion_state(middle=True, frames=64), "lt_long_mm_32_frames.ckpt", "v2", 64),
    "LongAnimateDiff for 16 to 64": (lambda: motion_state(middle=True, frames=64), "lt_long_mm_16_64_frames_v1.1.ckpt", "v2", 64),
    "AnimateLCM": (lambda: without_tables(motion_state(middle=True)), "AnimateLCM_sd15_t2v.ckpt", "AnimateLCM", 64),
    "AnimateLCM under any name": (lambda: without_tables(motion_state(middle=True)), "sd15_t2v_beta.ckpt", "AnimateLCM", 64),
    "AnimateLCM of diffusers": (
        lambda: in_diffusers_layout(motion_state(middle=True)),
        "AnimateLCM/diffusion_pytorch_model.safetensors",
        "AnimateLCM",
        32,
    ),
    "AnimateLCM of diffusers, renamed": (
        lambda: in_diffusers_layout(motion_state(middle=True)),
        "animatelcm_diffusers.safetensors",
        "AnimateLCM",
        32,
    ),
    "v2 of diffusers": (
        lambda: in_diffusers_layout(motion_state(middle=True)),
        "animatediff-motion-adapter-v1-5-2/diffusion_pytorch_model.safetensors",
        "v2",
        32,
    ),
    "v2 that is called lcm and has v2's tables": (lambda: motion_state(middle=True), "v2_with_lcm_lora.ckpt", "v2", 32),
    "a v1 of others": (lambda: motion_state(frames=24), "temporaldiff-v1-animatediff.ckpt", "v1", 24),
}


@pytest.mark.parametrize("release", RELEASES)
def test_releases_are_taken_for_what_they_are(tmp_path, release):
    state, name, family, frames = RELEASES[release]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    motion = load_motion_module(saved(path, state()))
    assert (motion.family, motion.max_frames) == (family, frames)
    assert motion.lcm_steps == (100 if family == "AnimateLCM" else None)


@pytest.mark.parametrize(("frames", "said"), [(None, "no position tables"), (16, "of 16 frames"), (40, "of 40 frames")])
def test_a_file_that_is_like_no_release_asks_for_its_family(tmp_path, frames, said):
    state = motion_state(frames=frames or 24)
    path = saved(tmp_path / "mine.safetensors", state if frames else without_tables(state))
    with pytest.raises(
        ValueError, match=rf"mine.safetensors has .*{said}.* set family to what .* one of v1, v2, v3, AnimateLCM$"
    ) as error:
        load_motion_module(path)
    one_sentence(error)
    for family in ("v1", "v2", "v3", "AnimateLCM"):
        motion = load_motion_module(path, family)
        numbers = (motion.noise_schedule, motion.clip_norms, motion.module_norms, motion.trained_frames)
        assert numbers == NUMBERS[family][:4]
        assert motion.max_frames == (frames or NUMBERS[family][4])


def test_a_file_of_ours_says_its_family(tmp_path):
    path = saved(tmp_path / "mine.safetensors", motion_state(frames=40), {FAMILY: "v3"})
    assert load_motion_module(path).family == "v3"
    assert load_motion_module(path, "v1").family == "v1", "a user knows better"
    path = saved(tmp_path / "wrong.safetensors", motion_state(frames=40), {FAMILY: "PIA"})
    with pytest.raises(ValueError, match="cannot be a module of PIA: by what it holds it is one of v1, v2, v3"):
        load_motion_module(path)


# Position tables


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_rounded_sinusoid_is_the_sinusoid(tmp_path, layout, dtype):
    state = {key: value.to(dtype) for key, value in LAYOUTS[layout](motion_state()).items()}
    motion = load_motion_module(saved(tmp_path / "x.safetensors", state))
    assert motion.config == TemporalConfig() and not any("pos_encoder" in key for key in motion.state)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_table_that_was_trained_is_used_as_it_is(tmp_path, layout):
    """The module works with it as the formula has it, in whole clips and in windows, and another table changes what it does."""
    state, frames = motion_state(frames=24), 5
    for place, key in enumerate(key for key in state if key.endswith(".pe")):
        drawn = torch.randn(1, 24, state[key].shape[2], generator=torch.Generator().manual_seed(place // 2))
        state[key] = state[key] + 0.3 * drawn  # diffusers has one table for both attentions
    motion = load_motion_module(
        saved(tmp_path / "x.safetensors", LAYOUTS[layout](state)), "HotshotXL" if layout == "HotshotXL" else "v1"
    )
    assert (motion.config.table, motion.max_frames) == (24, 24)
    tables = {key: value for key, value in state.items() if key.endswith(".pe")}
    same_weights({key: value for key, value in motion.state.items() if key.endswith(".pe")}, tables)
    network = motion.build()
    slot = "down_blocks.0.motion_modules.0"
    attention = network.at(slot).transformer_blocks[0].attention_blocks[1]
    x, times = torch.randn(7, frames, 32), torch.tensor([0.0, 0.5, 2, 3.25, 23])
    rows = tables[f"{slot}.temporal_transformer.transformer_blocks.0.attention_blocks.1.pos_encoder.pe"][0]
    wanted = torch.stack([rows[0], (rows[0] + rows[1]) / 2, rows[2], 0.75 * rows[3] + 0.25 * rows[4], rows[23]])
    torch.testing.assert_close(attention.pos_encoder.add(x, times), x + wanted)


def test_a_module_with_a_table_of_its_own_refuses_times_beyond_it_and_stretches():
    with torch.no_grad():
        network = MotionModel(slot_widths(), TemporalConfig(table=8)).zero()
    ids = torch.arange(12)
    for positions in ("trained", "extend"):
        with pytest.raises(
            ValueError, match="a table of its own with 8 times and sees 12 frames at once: set positions to stretch"
        ):
            network.frames_for(ids, positions=positions, most=8)
    assert float(network.frames_for(ids, positions="stretch", most=8).positions.max()) == 7
    plan = WindowPlan(length=8, overlap=4).resolved(8, 8)
    windowed = network.frames_for(ids, windows=plan.windows(12, 0), most=8)
    assert all(float(group.positions.max()) <= 7 for group in windowed.groups)


# Parameters without tables of the published files
COUNTS = {"v1": ("SD1.5", False, 417_137_600), "v2": ("SD1.5", True, 453_209_280), "SDXL-beta": ("SDXL", False, 236_779_200)}


@pytest.mark.parametrize("family", COUNTS)
def test_the_published_modules_have_as_many_parameters_as_ours(family):
    base, middle, count = COUNTS[family]
    with torch.device("meta"):
        model = MotionModel(slot_widths(BASES[base], middle=middle), TemporalConfig())
    assert sum(value.numel() for value in model.state_dict().values()) == count
