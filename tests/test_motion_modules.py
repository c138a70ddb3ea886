"""Motion modules: the arithmetic of one, and every file that is one or is not."""

import math

import pytest
import torch
from pack.modules.checkpoints.motion import FAMILIES, FORMATS, check_base, load_motion_module
from pack.modules.temporal.positions import sinusoid
from pack.modules.temporal.transformer import Frames, TemporalConfig, TemporalTransformer
from pack.modules.unet import UNet
from safetensors.torch import save_file
from tiny_motion import FAMILY_SHAPES, UNET, motion_file, motion_state, randomized, slot_widths

CHANNELS, FRAMES = 32, 5


def definition(state, x, frames, *, norm_over_clip=False):
    """AnimateDiff's motion module in float64 with loops, from the paper's appendix and the published key names alone.

    x: (clips * frames, channels, height, width).
    """
    p = {key: value.double() for key, value in state.items()}
    x = x.double()
    total, channels, height, width = x.shape
    clips, heads, groups = total // frames, 8, 32

    def linear(name, value):
        out = torch.einsum("ij,...j->...i", p[name + ".weight"], value)
        return out + p[name + ".bias"] if name + ".bias" in p else out

    def layer_norm(name, value):
        mean = value.mean(-1, keepdim=True)
        variance = (value - mean).pow(2).mean(-1, keepdim=True)
        return (value - mean) / (variance + 1e-5).sqrt() * p[name + ".weight"] + p[name + ".bias"]

    pe = torch.zeros(frames, channels, dtype=torch.float64)
    for position in range(frames):
        for pair in range(channels // 2):
            angle = position * math.exp(-2 * pair * math.log(10000.0) / channels)
            pe[position, 2 * pair], pe[position, 2 * pair + 1] = math.sin(angle), math.cos(angle)

    normed = torch.empty_like(x)
    size = channels // groups
    for clip in range(clips):
        mine = x[clip * frames : (clip + 1) * frames]
        for frame in range(frames):
            for group in range(groups):
                part = slice(group * size, (group + 1) * size)
                seen = mine[:, part] if norm_over_clip else mine[frame, part]
                scaled = (mine[frame, part] - seen.mean()) / (seen.var(unbiased=False) + 1e-6).sqrt()
                weight, bias = p["norm.weight"][part, None, None], p["norm.bias"][part, None, None]
                normed[clip * frames + frame, part] = scaled * weight + bias

    out = x.clone()
    for clip in range(clips):
        for row in range(height):
            for column in range(width):
                tokens = linear("proj_in", normed[clip * frames : (clip + 1) * frames, :, row, column])
                block = "transformer_blocks.0."
                for index in range(2):
                    name = f"{block}attention_blocks.{index}."
                    told = layer_norm(f"{block}norms.{index}", tokens) + pe
                    q, k, v = (linear(name + part, told) for part in ("to_q", "to_k", "to_v"))
                    mixed = torch.zeros_like(tokens)
                    wide = channels // heads
                    for head in range(heads):
                        mine = slice(head * wide, (head + 1) * wide)
                        logits = q[:, mine] @ k[:, mine].T / math.sqrt(wide)
                        weights = (logits - logits.amax(1, keepdim=True)).exp()
                        mixed[:, mine] = weights / weights.sum(1, keepdim=True) @ v[:, mine]
                    tokens = tokens + linear(name + "to_out.0", mixed)
                hidden, gate = linear(f"{block}ff.net.0.proj", layer_norm(f"{block}ff_norm", tokens)).chunk(2, -1)
                gelu = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
                tokens = tokens + linear(f"{block}ff.net.2", hidden * gelu)
                out[clip * frames : (clip + 1) * frames, :, row, column] += linear("proj_out", tokens)
    return out


@pytest.fixture
def module():
    return randomized(TemporalTransformer(CHANNELS, TemporalConfig()), seed=1).eval()


@pytest.fixture
def clips():
    """Two clips whose frames differ in brightness, so that the scope of a norm shows."""
    generator = torch.Generator().manual_seed(2)
    brightness = torch.linspace(-2, 2, 2 * FRAMES)[:, None, None, None]
    return torch.randn(2 * FRAMES, CHANNELS, 3, 2, generator=generator) * (1 + brightness.abs()) + brightness


def test_a_module_is_what_the_paper_defines(module, clips):
    wanted = definition(module.state_dict(), clips, FRAMES)
    with torch.no_grad():
        given = module(clips, Frames.of(FRAMES))
    torch.testing.assert_close(given.double(), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_a_module_is_diffusers_when_its_norm_sees_one_frame(module, clips):
    """diffusers takes the module's norm over all frames of a clip, the original over one; with that switched they are the same."""
    unet_motion_model = pytest.importorskip("diffusers.models.unets.unet_motion_model")
    theirs = unet_motion_model.AnimateDiffTransformer3D(
        num_attention_heads=8,
        attention_head_dim=CHANNELS // 8,
        in_channels=CHANNELS,
        norm_num_groups=32,
        cross_attention_dim=None,
        attention_bias=False,
        activation_fn="geglu",
        num_layers=1,
        double_self_attention=True,
        positional_embeddings="sinusoidal",
        num_positional_embeddings=32,
    ).eval()
    renames = (
        (".norms.0", ".norm1"),
        (".norms.1", ".norm2"),
        (".ff_norm", ".norm3"),
        ("attention_blocks.0", "attn1"),
        ("attention_blocks.1", "attn2"),
    )

    def theirs_name(key):
        for old, new in renames:
            key = key.replace(old, new)
        return key

    missing, extra = theirs.load_state_dict({theirs_name(key): value for key, value in module.state_dict().items()}, strict=False)
    assert not extra and all("pos_embed" in key for key in missing)

    over_clip = definition(module.state_dict(), clips, FRAMES, norm_over_clip=True)
    with torch.no_grad():
        out = theirs(clips, num_frames=FRAMES)
    torch.testing.assert_close(out.double(), over_clip, rtol=0, atol=1e-5 * float(over_clip.abs().max()))

    class OneFrame(torch.nn.Module):
        """Their norm, given one frame at a time."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            b, c, f, h, w = x.shape
            flat = self.inner(x.permute(0, 2, 1, 3, 4).reshape(b * f, c, h, w))
            return flat.reshape(b, f, c, h, w).permute(0, 2, 1, 3, 4)

    theirs.norm = OneFrame(theirs.norm)
    with torch.no_grad():
        switched, ours = theirs(clips, num_frames=FRAMES), module(clips, Frames.of(FRAMES))
    torch.testing.assert_close(ours, switched, rtol=0, atol=1e-5 * float(ours.abs().max()))
    assert (out - ours).abs().max() > 1e-2, "the two scopes must differ on this clip, or this test says nothing"


@pytest.mark.parametrize("family", FAMILY_SHAPES)
def test_each_family_is_known_by_its_contents(tmp_path, family):
    motion = load_motion_module(motion_file(tmp_path, family, name=f"{family}.safetensors"))
    assert motion.family == family
    assert motion.max_frames == FAMILY_SHAPES[family]["frames"]
    assert motion.clip_norms is (family == "v1")
    assert motion.noise_schedule == "linear"
    assert ("mid_block.motion_modules.0" in motion.widths) is (family == "v2")
    assert motion.config == TemporalConfig()


def _plain(state):
    return state


def _wrapped(state):
    return {"state_dict": state, "epoch": 3, "global_step": 7}


def _prefixed(state):
    return {f"module.{key}": value for key, value in state.items()}


def _with_facts(state):
    return {**state, "animatediff_config": {"use_motion_module": True}, "note": "by hand"}


def _with_the_unet(state):
    return {**state, "conv_in.weight": torch.zeros(32, 4, 3, 3), "conv_out.weight": torch.zeros(4, 32, 3, 3)}


WRAPPINGS = {
    "plain": _plain,
    "wrapped": _wrapped,
    "prefixed": _prefixed,
    "wrapped and prefixed": lambda state: _wrapped(_prefixed(state)),
    "other keys": _with_facts,
    "whole U-Net": _with_the_unet,
}


@pytest.mark.parametrize("ending", ["ckpt", "pt", "pth", "bin"])
@pytest.mark.parametrize("wrapping", WRAPPINGS.values(), ids=WRAPPINGS)
def test_every_wrapping_gives_the_same_module(tmp_path, wrapping, ending):
    state = motion_state()
    path = tmp_path / f"module.{ending}"
    torch.save(wrapping(state), path)
    wanted = load_motion_module(motion_file(tmp_path))
    given = load_motion_module(path)
    assert given.state.keys() == wanted.state.keys() and given.widths == wanted.widths
    assert all(torch.equal(given.state[key], wanted.state[key]) for key in wanted.state)


def test_half_precision_files_stay_half_and_build(tmp_path):
    path = tmp_path / "half.safetensors"
    save_file({key: value.half() for key, value in motion_state().items()}, path)
    motion = load_motion_module(path)
    built = motion.build()
    assert {value.dtype for value in built.state_dict().values()} == {torch.float16}
    assert not any(parameter.requires_grad for parameter in built.parameters())


def test_positions_of_the_file_are_the_ones_computed():
    table = motion_state(frames=24)[
        "up_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
    ]
    torch.testing.assert_close(table[0], sinusoid(torch.arange(24), 64), rtol=0, atol=0)


PREFIX = "down_blocks.0.motion_modules.0.temporal_transformer."


def _without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


def _without_slot(slot):
    return lambda state: {name: value for name, value in state.items() if not name.startswith(slot)}


def _other_positions(state):
    return {key: value + 0.5 if key.endswith(".pe") else value for key, value in state.items()}


def _lora(state):
    return {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight": torch.zeros(2, 2)}


def _sdxl(state):
    """As much of one as tells what it is: the whole would be a gigabyte."""
    slots = slot_widths((320, 640, 1280))
    table = f"{next(iter(slots))}.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
    return {f"{slot}.temporal_transformer.norm.weight": torch.ones(width) for slot, width in slots.items()} | {
        table: sinusoid(torch.arange(32), 320)[None]
    }


BAD = {
    "a LoRA": (_lora, "a LoRA of an image model"),
    "a MotionLoRA": (
        lambda state: {PREFIX + "transformer_blocks.0.attention_blocks.0.processor.to_q_lora.down.weight": torch.zeros(2, 2)},
        "a MotionLoRA",
    ),
    "a ControlNet": (lambda state: {"control_model.input_blocks.0.0.weight": torch.zeros(2)}, "a ControlNet"),
    "SparseCtrl": (lambda state: {**state, "controlnet_cond_embedding.conv_in.weight": torch.zeros(2)}, "SparseCtrl"),
    "a checkpoint": (
        lambda state: {"model.diffusion_model.out.0.weight": torch.zeros(2)},
        "a whole checkpoint of an image model",
    ),
    "anything": (lambda state: {"weights": torch.zeros(2)}, "first keys are weights"),
    "nothing": (lambda state: {}, "first keys are none"),
    "SDXL": (_sdxl, "for SDXL"),
    "HotshotXL": (lambda state: {"down_blocks.0.temporal_attentions.0.proj_in.weight": torch.zeros(2)}, "HotshotXL"),
    "diffusers": (
        lambda state: {key.replace("temporal_transformer.", ""): value for key, value in state.items()},
        "diffusers' layout",
    ),
    "PIA": (lambda state: {**state, "conv_in.weight": torch.zeros(32, 9, 3, 3)}, "a PIA module"),
    "AnimateLCM": (lambda state: {key: value for key, value in state.items() if not key.endswith(".pe")}, "AnimateLCM"),
    "a missing weight": (_without(PREFIX + "proj_in.bias"), PREFIX + "proj_in.bias"),
    "a missing module": (_without_slot("up_blocks.1.motion_modules.1."), "up_blocks.1.motion_modules.1"),
    "a missing level": (_without_slot("down_blocks.0."), "down_blocks.0.motion_modules.0"),
    "a missing side": (_without_slot("up_blocks."), "up_blocks.0.motion_modules.0"),
    "another shape": (lambda state: {**state, PREFIX + "proj_in.bias": torch.zeros(3)}, PREFIX + "proj_in.bias"),
    "a stranger inside": (lambda state: {**state, PREFIX + "extra.weight": torch.zeros(3)}, PREFIX + "extra.weight"),
    "other positions": (_other_positions, "not AnimateDiff's sinusoid"),
}


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 400 and "Traceback" not in text, text
    return text


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD)
def test_a_file_that_cannot_work_is_refused_in_one_sentence(tmp_path, spoil, said, ending):
    path = tmp_path / f"bad.{ending}"
    state = {key: value.clone() for key, value in spoil(motion_state()).items()}
    torch.save(state, path) if ending == "ckpt" else save_file(state, path)
    with pytest.raises(ValueError) as error:
        load_motion_module(path)
    assert said in one_sentence(error) and path.name in str(error.value)


def test_a_video_model_of_ours_is_named(tiny_video_file):
    with pytest.raises(ValueError, match="LongTake video model"):
        load_motion_module(tiny_video_file)


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
@pytest.mark.parametrize("kept", [0, 3, 40, 0.5, 0.999])
def test_a_file_cut_short_is_refused_in_one_sentence(tmp_path, ending, kept):
    path = tmp_path / f"cut.{ending}"
    torch.save(motion_state(), path) if ending == "ckpt" else save_file(motion_state(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept >= 1 or kept == 0 else kept * len(content))])
    with pytest.raises(ValueError, match=f"cut.{ending}") as error:
        load_motion_module(path)
    assert "download it again" in one_sentence(error) or "damaged" in str(error.value)


class Hostile:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_file_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path, capsys):
    path = tmp_path / "hostile.ckpt"
    torch.save({"state_dict": motion_state(), "config": Hostile()}, path)
    with pytest.raises(ValueError, match="use a safetensors file") as error:
        load_motion_module(path)
    one_sentence(error)
    assert "code ran" not in capsys.readouterr().out


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        load_motion_module(tmp_path / "none.safetensors")


@pytest.mark.parametrize("family", FAMILY_SHAPES)
def test_a_unet_of_the_same_shape_is_accepted(tmp_path, family):
    with torch.device("meta"):
        unet = UNet(UNET)
    check_base(load_motion_module(motion_file(tmp_path, family)), unet)


def test_another_base_is_refused_and_both_are_named(tmp_path):
    with torch.device("meta"):
        unet = UNet(UNET)
    motion = load_motion_module(motion_file(tmp_path, levels=(32, 64, 64)))
    with pytest.raises(
        ValueError, match=r"levels of 32, 64, 64 channels and the model is a U-Net with levels of 32, 64 channels"
    ) as error:
        check_base(motion, unet)
    one_sentence(error)


def test_every_format_and_family_is_distinct():
    assert len({layout.name for layout in FORMATS}) == len(FORMATS)
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert all(any(family.fits(middle, frames) for family in FAMILIES) for middle in (True, False) for frames in (8, 24, 32, 64))
