"""Image prompts without a host: files, numbering, projections beside diffusers', mixing, and what frames between keyframes see."""

from dataclasses import replace

import pytest
import torch
from pack.modules.checkpoints.image_prompt import check_base, load_image_prompt
from pack.modules.control.image_prompt import (
    KINDS,
    ImagePromptModel,
    KeyValue,
    Mixture,
    PromptShape,
    cross_layers,
    heads_apart,
    widths_of,
)
from pack.modules.control.keyframe_blend import BLENDS, blended
from pack.modules.control.keyframes import Keyframes
from pack.modules.control.prompt_settings import PromptSettings, parse_scales
from safetensors.torch import save_file
from tiny import unet
from tiny_motion import motion_file
from tiny_prompt import EXTRA, SmallVision, in_two_dictionaries, pictures, prompt_file, prompt_state

CONTEXT = 16


@pytest.fixture(scope="module")
def network():
    return unet(context_dim=CONTEXT)


# Files


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_layouts_are_read(kind, ending, network, tmp_path):
    state = prompt_state(network, kind)
    prompt = load_image_prompt(prompt_file(tmp_path, state, name=f"x.{ending}"))
    assert prompt.shape.kind == kind and prompt.shape.tokens == EXTRA[kind]["tokens"]
    assert prompt.state.keys() == state.keys()
    built = prompt.build().state_dict()
    assert all(torch.equal(built[key], value) for key, value in state.items())
    check_base(prompt, network)


def published(context, layers, *, kind="plain"):
    """The keys and shapes of a published file of a base model, as zeros of one stride, so that they take no memory."""
    widths = tuple([320] * layers)
    extra = {"plain": {"tokens": 4}, "plus": {"tokens": 16, "hidden": 768, "depth": 4, "heads": 12}, "full": {"tokens": 0}}[kind]
    with torch.device("meta"):
        model = ImagePromptModel(
            PromptShape(kind=kind, clip=1280 if kind != "plain" else 1024, context=context, widths=widths, **extra)
        )
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("plain", "proj.weight proj.bias norm.weight norm.bias"),
        ("full", "proj.0.weight proj.0.bias proj.2.weight proj.2.bias proj.3.weight proj.3.bias"),
        (
            "plus",
            "latents proj_in.weight layers.0.0.norm1.weight layers.3.0.norm2.bias layers.3.0.to_kv.weight layers.3.0.to_out.weight"
            " layers.0.1.0.bias layers.0.1.1.weight layers.0.1.3.weight proj_out.bias norm_out.weight",
        ),
    ],
)
def test_the_keys_are_those_of_the_published_files(kind, keys):
    shapes = published(768, 16, kind=kind)
    assert {f"image_proj.{key}" for key in keys.split()} <= set(shapes)
    numbers = [int(key.split(".")[1]) for key in shapes if key.endswith("to_k_ip.weight")]
    assert numbers == list(range(1, 32, 2)), "SD1.5's sixteen attentions to the text"
    if kind == "plain":
        assert shapes["image_proj.proj.weight"] == (4 * 768, 1024)
    if kind == "plus":
        assert shapes["image_proj.latents"] == (1, 16, 768)


FACES = {
    "a FaceID file": lambda state: state | {"ip_adapter.0.to_q_lora.down.weight": torch.zeros(4, 32)},
    "a FaceID Plus file": lambda state: state | {"image_proj.perceiver_resampler.latents": torch.zeros(1, 4, 8)},
    "an InstantID file": lambda state: (
        {key: value for key, value in state.items() if not key.startswith("image_proj.")}
        | {"image_proj.latents": torch.zeros(1, 4, 8), "image_proj.proj_in.weight": torch.zeros(8, 512)}
    ),
    "a Portrait file": lambda state: (
        {key: value for key, value in state.items() if not key.startswith("image_proj.")}
        | {"image_proj.proj.0.weight": torch.zeros(8, 512), "image_proj.norm.weight": torch.zeros(8)}
    ),
}


@pytest.mark.parametrize("name", FACES)
def test_files_that_take_a_face_are_refused_by_name(name, network, tmp_path):
    path = prompt_file(tmp_path, FACES[name](prompt_state(network)))
    with pytest.raises(ValueError, match=f"is {name}, which takes a face's embedding by InsightFace") as refusal:
        load_image_prompt(path)
    assert "\n" not in str(refusal.value)


def without(*keys):
    return lambda state: {key: value for key, value in state.items() if key not in keys}


BROKEN = {
    "a layer is missing": (
        without("ip_adapter.3.to_k_ip.weight", "ip_adapter.3.to_v_ip.weight"),
        "it has . layers and not number 3",
    ),
    "half a layer is missing": (without("ip_adapter.1.to_v_ip.weight"), r"1 weight is missing \(ip_adapter.1.to_v_ip.weight\)"),
    "no layers": (
        lambda state: {key: value for key, value in state.items() if key.startswith("image_proj")},
        "none of its keys is ip_adapter.1",
    ),
    "no norm": (without("image_proj.norm.weight"), "1 weight is missing"),
    "not finite": (
        lambda state: state | {"image_proj.norm.weight": torch.full((CONTEXT,), torch.nan)},
        "not made of finite floating-point numbers",
    ),
    "an unknown projection": (
        lambda state: {key.replace("image_proj.proj", "image_proj.magic"): value for key, value in state.items()},
        "has a projection of pictures that this pack does not know",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(name, network, tmp_path):
    change, sentence = BROKEN[name]
    with pytest.raises(ValueError, match=sentence):
        load_image_prompt(prompt_file(tmp_path, change(prompt_state(network))))


def test_other_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="cannot be loaded as an image prompt: it is a motion module, for Load Motion Module"):
        load_image_prompt(motion_file(tmp_path))
    save_file({"weights": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="its first keys are weights; use a plain, plus or full IP-Adapter"):
        load_image_prompt(tmp_path / "x.safetensors")


def test_another_base_is_refused_by_name(network, tmp_path):
    prompt = load_image_prompt(prompt_file(tmp_path, prompt_state(network)))
    sdxl = replace(prompt, shape=replace(prompt.shape, context=2048, widths=(640,) * 70))
    with pytest.raises(ValueError, match="is for SDXL .70 attentions .* and the model is a U-Net"):
        check_base(sdxl, network)
    with pytest.raises(ValueError, match="connect Load Image Prompt"):
        check_base("prompt", network)


# Numbering


def test_the_way_down_then_up_then_the_middle():
    network = unet(
        context_dim=CONTEXT, transformer_depth=(1, 2), transformer_depth_output=(1, 1, 2, 2), transformer_depth_middle=2
    )
    layers = cross_layers(network)
    assert [layer.block for layer in layers] == [
        *(("input", 1, 0), ("input", 3, 0), ("input", 3, 1)),
        *(("output", 0, 0), ("output", 0, 1), ("output", 1, 0), ("output", 1, 1), ("output", 2, 0), ("output", 3, 0)),
        *(("middle", 0, 0), ("middle", 0, 1)),
    ]
    assert layers[0].slot == "down_blocks.0.motion_modules.0" and layers[-1].slot == "mid_block.motion_modules.0"
    assert layers[3].slot == "up_blocks.0.motion_modules.0"
    assert widths_of(layers)[1] == CONTEXT


# Projections


@pytest.mark.parametrize("kind", KINDS)
def test_projections_equal_diffusers(kind, network):
    loaders = pytest.importorskip("diffusers.loaders.unet", reason="diffusers is not installed")
    state = in_two_dictionaries(prompt_state(network, kind))
    convert = loaders.UNet2DConditionLoadersMixin()._convert_ip_adapter_image_proj_to_diffusers
    theirs = convert(dict(state["image_proj"]), low_cpu_mem_usage=False)
    model = ImagePromptModel(
        PromptShape(kind=kind, clip=24, context=CONTEXT, widths=widths_of(cross_layers(network))[0], **EXTRA[kind])
    )
    model.load_state_dict(prompt_state(network, kind))
    seen = getattr(SmallVision().encode_image(pictures(3)), KINDS[kind])
    with torch.no_grad():
        torch.testing.assert_close(model.tokens(seen), theirs(seen), rtol=1e-5, atol=1e-5)


# Mixing


def test_rows_see_their_shares():
    """Beside a plain loop over rows, in float64."""
    generator = torch.Generator().manual_seed(1)
    layer = KeyValue(CONTEXT, 32).double().requires_grad_(False)
    tokens, q = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 4, CONTEXT), (5, 7, 32)))
    shares = torch.rand(5, 3, generator=generator, dtype=torch.float64)
    gain = torch.tensor([1.0, 0.0, 0.5, 2.0, -1.0], dtype=torch.float64)
    mixture = Mixture(tokens, shares, gain)
    out = mixture.attended(q, layer, 4, heads_apart)
    for row in range(5):
        mixed = sum(share * token for share, token in zip(shares[row], tokens, strict=True))
        parts = []
        for head in range(4):
            part = slice(8 * head, 8 * head + 8)
            logits = q[row, :, part] @ (mixed @ layer.to_k_ip.weight.T)[:, part].T / 8**0.5
            parts.append(logits.softmax(dim=-1) @ (mixed @ layer.to_v_ip.weight.T)[:, part])
        torch.testing.assert_close(out[row], gain[row] * torch.cat(parts, dim=-1))
    chosen = torch.tensor([4, 0])
    torch.testing.assert_close(mixture.rows(chosen).attended(q[chosen], layer, 4, heads_apart), out[chosen])


# Between keyframes


def keyframes(*frames, strengths=None, reach=0):
    return Keyframes(pictures(len(frames)), frames, strengths or (1.0,) * len(frames), (reach,) * len(frames))


@pytest.mark.parametrize("how", BLENDS)
@pytest.mark.parametrize("frames", [(0,), (0, -1), (5, 1), (-1, 0, 3)])
def test_every_blend_meets_its_keyframes(how, frames):
    given = keyframes(*frames, strengths=tuple(1.0 + place for place in range(len(frames))))
    shares, strength = blended(given, 8, how)
    assert shares.shape == (8, len(frames)) and strength.shape == (8,)
    total = shares.sum(dim=1)
    assert bool((((total - 1).abs() < 1e-6) | (total == 0)).all())
    for place, frame in enumerate(frames):
        assert shares[frame % 8, place] == 1 and strength[frame % 8] == 1 + place, "in the order in which they were given"


def test_interpolation_is_linear_in_time_and_held_outside():
    shares, strength = blended(keyframes(6, 2, strengths=(3.0, 1.0)), 9, "interpolate")
    assert shares[:, 0].tolist() == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert strength.tolist() == [1, 1, 1, 1.5, 2, 2.5, 3, 3, 3]


def test_nearest_and_reach():
    shares, _ = blended(keyframes(0, 4), 6, "nearest")
    assert shares[:, 1].tolist() == [0, 0, 0, 1, 1, 1]
    shares, strength = blended(keyframes(0, 4, reach=1), 7, "reach")
    assert strength.tolist() == [1, 0.5, 0, 0.5, 1, 0.5, 0]
    assert shares[2].tolist() == [0, 0] and shares[1].tolist() == [1, 0]


def test_an_unknown_blend_and_a_keyframe_outside_are_refused():
    with pytest.raises(ValueError, match="the blend 'mix' is not known: choose one of interpolate, nearest, reach"):
        blended(keyframes(0), 4, "mix")
    with pytest.raises(ValueError, match="a keyframe is at frame 4 and the clip has 4 frames"):
        blended(keyframes(4), 4, "nearest")


# Settings


def test_factors_by_block():
    settings = PromptSettings(blocks=parse_scales("down 0.5; up.1.2 0"))
    assert [
        settings.factor(f"{name}.motion_modules.{place}")
        for name, place in (("down_blocks.1", 0), ("up_blocks.1", 2), ("mid_block", 0))
    ] == [
        0.5,
        0,
        1,
    ]
    with pytest.raises(ValueError, match="write a factor alone"):
        parse_scales("up scale=2")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"scale": 11.0}, "scale is 11: it must lie between -10 and 10"),
        (
            {"start_percent": 0.5, "end_percent": 0.5},
            "start_percent is 0.5 and end_percent 0.5: the start must lie below the end",
        ),
        ({"blend": "mix"}, "blend is 'mix': choose one of interpolate, nearest"),
    ],
)
def test_settings_are_checked(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        PromptSettings(**given)
