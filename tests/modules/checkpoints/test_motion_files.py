"""Every file that is a motion module, and every file that is none: layouts, families, wrappings, and what is said of the others."""

import re
from pathlib import Path

import pytest
import torch
from pack.modules.checkpoints import motion as motion_files
from pack.modules.checkpoints.files import KINDS, MOTION_MODULE, kind
from pack.modules.checkpoints.formats import FORMATS
from pack.modules.checkpoints.motion import check_base, load_motion_module
from pack.modules.nets.unet import UNet
from pack.modules.temporal.positions import sinusoid
from tiny_motion import (
    FAMILY_SHAPES,
    LAYOUTS,
    PUBLISHED,
    SDXL_LEVELS,
    SDXL_UNET,
    UNET,
    camera_state,
    in_diffusers_layout,
    motion_file,
    motion_state,
    pia_conv_in,
)
from weight_files import one_sentence, same_weights, saved, weights_of, without, without_slot

PREFIX = "down_blocks.0.motion_modules.0.temporal_transformer."


# Layouts and wrappings


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [*FAMILY_SHAPES.values(), {"levels": SDXL_LEVELS}], ids=str)
def test_every_layout_gives_the_same_weights_bit_for_bit(tmp_path, shape, layout):
    state = motion_state(**shape)
    motion = load_motion_module(saved(tmp_path / "module.safetensors", LAYOUTS[layout](state)))
    same_weights(motion.state, weights_of(state))
    assert motion.max_frames == shape.get("frames", 32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_precision_is_kept(tmp_path, dtype, layout):
    state = {key: value.to(dtype) for key, value in motion_state().items()}
    motion = load_motion_module(saved(tmp_path / "module.safetensors", LAYOUTS[layout](state)))
    same_weights(motion.state, weights_of(state))
    built = motion.build()
    assert {value.dtype for value in built.state_dict().values()} == {dtype}
    assert not any(parameter.requires_grad for parameter in built.parameters())


def test_a_table_that_animatelcms_trainer_saved_is_known(tmp_path):
    state = {key.replace(".pe", ".pos_encoding"): value for key, value in motion_state(middle=True, frames=64).items()}
    motion = load_motion_module(saved(tmp_path / "lcm.ckpt", state))
    assert (motion.family, motion.max_frames, motion.lcm_steps) == ("AnimateLCM", 64, 100)


def test_the_diffusers_layout_is_diffusers(tmp_path):
    """Every key that diffusers' own adapter saves is read, and lands on the weight that its own conversion took it from."""
    diffusers = pytest.importorskip("diffusers")
    adapter = diffusers.MotionAdapter(block_out_channels=(32, 64), motion_norm_num_groups=32, use_motion_mid_block=True)
    theirs = adapter.state_dict()
    ours = in_diffusers_layout(motion_state(middle=True))
    assert {key: value.shape for key, value in theirs.items()} == {key: value.shape for key, value in ours.items()}
    from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers

    adapter.save_pretrained(tmp_path)
    motion = load_motion_module(tmp_path / "diffusion_pytorch_model.safetensors")
    assert motion.family == "v2"
    same_weights(
        convert_animatediff_checkpoint_to_diffusers(dict(motion.state)),
        {key: value for key, value in theirs.items() if not key.endswith(".pe")},
    )


def test_diffusers_adapter_with_an_input_layer_is_pia(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    adapter = diffusers.MotionAdapter(
        block_out_channels=(32, 64), motion_norm_num_groups=32, use_motion_mid_block=False, conv_in_channels=9
    )
    adapter.save_pretrained(tmp_path)
    motion = load_motion_module(tmp_path / "diffusion_pytorch_model.safetensors")
    assert motion.family == "PIA"
    same_weights(motion.conv_in, {name: adapter.state_dict()[f"conv_in.{name}"] for name in ("weight", "bias")})


def _plain(state):
    return state


def _wrapped(state):
    return {"state_dict": state, "epoch": 3, "global_step": 7}


def _prefixed(state):
    return {f"module.{key}": value for key, value in state.items()}


def _with_facts(state):
    return {**state, "animatediff_config": {"use_motion_module": True}, "note": "by hand"}


def _with_the_unet(state):
    """What trainers save: the whole U-Net along, PIA's with its own input layer."""
    unet = {
        "conv_in.weight": torch.zeros(32, 4, 3, 3),
        "conv_in.bias": torch.zeros(32),
        "conv_out.weight": torch.zeros(4, 32, 3, 3),
        "down_blocks.0.resnets.0.norm1.weight": torch.ones(32),
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight": torch.ones(32, 32),
        "up_blocks.0.attentions.0.norm.weight": torch.ones(32),
    }
    return unet | state


WRAPPINGS = {
    "plain": _plain,
    "wrapped": _wrapped,
    "wrapped by CameraCtrl's trainer": lambda state: {"motion_module_state_dict": state},
    "prefixed": _prefixed,
    "wrapped and prefixed": lambda state: _wrapped(_prefixed(state)),
    "other keys": _with_facts,
    "whole U-Net": _with_the_unet,
    "whole U-Net, wrapped and prefixed": lambda state: _wrapped(_prefixed(_with_the_unet(state))),
}


@pytest.mark.parametrize(
    ("wrapping", "family"),
    [(wrapping, "v3") for wrapping in WRAPPINGS] + [("whole U-Net, wrapped and prefixed", family) for family in PUBLISHED],
)
def test_every_wrapping_gives_the_same_module(tmp_path, wrapping, family):
    torch.save(WRAPPINGS[wrapping](PUBLISHED[family]()), tmp_path / "module.ckpt")
    wanted, given = load_motion_module(motion_file(tmp_path, family)), load_motion_module(tmp_path / "module.ckpt")
    for name in ("state", "conv_in", "image_encoder"):
        same_weights(getattr(given, name) or {}, getattr(wanted, name) or {})
    for name in ("family", "widths", "max_frames", "clip_norms"):
        assert getattr(given, name) == getattr(wanted, name)


@pytest.mark.parametrize("ending", ["ckpt", "pt", "pth", "bin"])
def test_every_ending_of_pytorchs_is_read(tmp_path, ending):
    torch.save(motion_state(), tmp_path / f"module.{ending}")
    same_weights(load_motion_module(tmp_path / f"module.{ending}").state, weights_of(motion_state()))


def test_prefixed_safetensors_are_read(tmp_path):
    path = saved(tmp_path / "module.safetensors", _prefixed(_with_the_unet(motion_state())))
    same_weights(load_motion_module(path).state, weights_of(motion_state()))


def test_positions_of_the_file_are_the_ones_computed():
    table = motion_state(frames=24)[
        "up_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
    ]
    torch.testing.assert_close(table[0], sinusoid(torch.arange(24), 64), rtol=0, atol=0)


# What a file is when it is no motion module: example keys by what is said of them

ATTENTION = PREFIX + "transformer_blocks.0.attention_blocks.0."
SPATIAL = "down_blocks.0.attentions.0.transformer_blocks.0.attn1."
SPARSE = (*motion_state(), "conv_in.weight", "controlnet_down_blocks.0.weight", "controlnet_mid_block.weight")
OTHERS = {
    "a MotionLoRA, for Apply Motion LoRA": [
        (f"{ATTENTION}processor.to_q_lora.down.weight",),
        (f"{ATTENTION}to_out.processor.0_lora.up.weight", f"{PREFIX}transformer_blocks.0.ff.net.0.processor.proj_lora.up.weight"),
        ("unet.down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",),
        ("unet.down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q.lora_A.weight",),
        (f"{ATTENTION}processor.to_q_lora.down.weight", f"{SPATIAL}processor.to_q_lora.down.weight"),
    ],
    "a LoRA of an image model, for Apply Motion LoRA": [
        (f"{SPATIAL}processor.to_q_lora.down.weight",),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"),
        (f"unet.{SPATIAL}to_q.lora_A.weight",),
        ("text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",),
    ],
    "a CameraCtrl camera module, which is grafted onto a motion module such as v3": [
        tuple(camera_state()),
        tuple(key for key in camera_state() if key.startswith("encoder_")),
        tuple(key for key in camera_state() if "qkv_merge" in key),
    ],
    "a MotionCtrl camera module": [(*motion_state(), f"{PREFIX}transformer_blocks.0.cc_projection.weight")],
    "a FancyVideo module": [(*motion_state(), "conv_in.weight", "fps_embedding.linear.weight", "motion_embedding.linear.bias")],
    "a SparseCtrl encoder": [
        (*SPARSE, "controlnet_cond_embedding.weight"),
        (*SPARSE, "controlnet_cond_embedding.conv_in.weight"),
        (*in_diffusers_layout(motion_state()), "controlnet_cond_embedding.conv_in.weight"),
    ],
    "a ControlNet, for Load ControlNet Model": [
        ("control_model.input_blocks.0.0.weight", "control_model.input_hint_block.0.weight"),
        ("input_blocks.1.0.in_layers.0.weight", "input_hint_block.0.weight"),
        ("down_blocks.0.resnets.0.norm1.weight", "controlnet_cond_embedding.conv_in.weight", "controlnet_mid_block.weight"),
    ],
    "a whole checkpoint of an image model, for Load Checkpoint": [
        (
            "model.diffusion_model.input_blocks.1.0.in_layers.0.weight",
            "first_stage_model.encoder.conv_in.weight",
            "cond_stage_model.transformer.text_model.embeddings.position_ids",
        ),
        ("model.diffusion_model.out.0.weight", "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight"),
    ],
    "the U-Net of an image model, for Load Diffusion Model": [
        ("input_blocks.1.0.in_layers.0.weight", "out.0.weight"),
        ("conv_in.weight", "down_blocks.0.resnets.0.norm1.weight", f"{SPATIAL}to_q.weight"),
    ],
    "a VAE, for Load VAE": [
        ("encoder.conv_in.weight", "encoder.down.0.block.0.norm1.weight", "decoder.up.0.block.0.norm1.weight"),
        ("first_stage_model.encoder.conv_in.weight",),
        ("decoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.norm1.weight", "quant_conv.weight"),
    ],
    "a text encoder, for Load CLIP": [
        ("text_model.embeddings.token_embedding.weight",),
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias",),
    ],
    "an image encoder, for Load CLIP Vision": [
        ("vision_model.embeddings.class_embedding", "visual_projection.weight"),
        ("vision_model.embeddings.class_embedding", "text_model.embeddings.token_embedding.weight"),
        ("visual.class_embedding",),
    ],
    "an IP-Adapter, for Load Image Prompt": [("image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight")],
}
MODULES = {
    **{family: tuple(make()) for family, make in PUBLISHED.items()},
    **{f"{layout} layout": tuple(spell(motion_state(middle=True))) for layout, spell in LAYOUTS.items()},
    "whole U-Net": tuple(_with_the_unet(motion_state())),
    "diffusers' U-Net": tuple(in_diffusers_layout(_with_the_unet(motion_state()))),
}
EXAMPLES = [(words, keys) for words, examples in OTHERS.items() for keys in examples] + [
    (MOTION_MODULE, keys) for keys in MODULES.values()
]


def test_every_kind_has_an_example():
    assert all(any(words.startswith(said) for said, _ in EXAMPLES) for words, _ in KINDS)


@pytest.mark.parametrize(("said", "keys"), EXAMPLES, ids=[f"{said.split(',')[0]}-{keys[-1]}" for said, keys in EXAMPLES])
def test_no_example_is_of_two_kinds(said, keys):
    """So the order of the table's rows does not matter."""
    matching = [words for words, signature in KINDS if signature.matches(keys)]
    assert len(matching) == 1 and matching[0].startswith(said)
    assert kind(reversed(keys), {}) == matching[0]


@pytest.mark.parametrize("name", MODULES)
def test_no_motion_module_is_of_two_layouts(name):
    assert len([layout.name for layout in FORMATS if layout.signature.matches(MODULES[name])]) == 1


@pytest.mark.parametrize(("said", "keys"), [example for example in EXAMPLES if example[0] != MOTION_MODULE])
def test_a_file_of_another_kind_is_refused_with_the_node_that_takes_it(tmp_path, said, keys):
    path = saved(tmp_path / "other.safetensors", dict.fromkeys(keys, torch.zeros(2)))
    with pytest.raises(ValueError, match=f"^other.safetensors cannot be loaded as a motion module: it is {said}") as error:
        load_motion_module(path)
    one_sentence(error)


CORE = {"Load ControlNet Model", "Load Checkpoint", "Load Diffusion Model", "Load VAE", "Load CLIP", "Load CLIP Vision"}


def test_messages_name_these_nodes():
    ours = {"Load Motion Module", "Apply Motion LoRA", "Load Image Prompt", "Load Sparse Control"}
    named = {
        found[1]
        for found in (re.search(r", for (?!the )(.+?)( or ComfyUI's LoRA loader)?$", words) for words, _ in KINDS)
        if found
    }
    assert named == CORE | ours


@pytest.mark.comfy
def test_comfyuis_nodes_have_the_names_that_messages_give():
    import nodes

    assert set(nodes.NODE_DISPLAY_NAME_MAPPINGS.values()) >= CORE


def test_a_video_model_of_ours_is_named(tiny_video_file):
    with pytest.raises(ValueError, match="it is a LongTake video model, for Load Video Model"):
        load_motion_module(tiny_video_file)


# Bad files


def _shorter(state):
    key = next(key for key in state if key.endswith(".pe"))
    return {**state, key: state[key][:, :8]}


def _family(name, spoil):
    return lambda _: spoil(PUBLISHED[name]())


HOTSHOT = "down_blocks.0.temporal_attentions.0.proj_in.weight"
BAD = {
    "anything": (lambda state: {"weights": torch.zeros(2)}, "its first keys are weights"),
    "nothing": (lambda state: {}, "its first keys are none"),
    "a missing weight": (without(PREFIX + "proj_in.bias"), PREFIX + "proj_in.bias"),
    "a missing norm": (without(PREFIX + "norm.weight"), PREFIX + "norm.weight"),
    "a missing module": (
        without_slot("up_blocks.1.motion_modules.1."),
        "1 of 10 modules are missing, first up_blocks.1.motion_modules.1",
    ),
    "a missing level": (without_slot("down_blocks.0."), "down_blocks.0.motion_modules.0"),
    "a missing side": (without_slot("up_blocks."), "up_blocks.0.motion_modules.0"),
    "another shape": (lambda state: {**state, PREFIX + "proj_in.bias": torch.zeros(3)}, PREFIX + "proj_in.bias"),
    "a stranger inside": (lambda state: {**state, PREFIX + "extra.weight": torch.zeros(3)}, PREFIX + "extra.weight"),
    "a second block": (
        lambda state: {**state, PREFIX + "transformer_blocks.1.ff_norm.bias": torch.zeros(32)},
        PREFIX + "transformer_blocks.1.ff_norm.bias",
    ),
    "tables of two lengths": (_shorter, "different shapes"),
    "HotshotXL, a missing weight": (_family("HotshotXL", without(HOTSHOT)), PREFIX + "proj_in.weight"),
    "diffusers, a missing weight": (
        lambda state: without(PREFIX.replace("temporal_transformer.", "proj_in.bias"))(in_diffusers_layout(state)),
        PREFIX + "proj_in.bias",
    ),
    "PIA, half an input layer": (_family("PIA", without("conv_in.bias")), "the conv_in of bad"),
    "PIA, an input layer of another width": (
        lambda state: {**state, **pia_conv_in((64, 64))},
        "the conv_in of bad",
    ),
    "AnimateLCM-I2V, half an encoder": (
        _family("AnimateLCM-I2V", without("img_encoder.body.2.in_conv.weight")),
        "body.2.in_conv.weight",
    ),
    "AnimateLCM-I2V, a stranger in the encoder": (
        _family("AnimateLCM-I2V", lambda state: {**state, "img_encoder.skep.weight": torch.zeros(2)}),
        "skep.weight",
    ),
    "PIA and AnimateLCM-I2V at once": (_family("AnimateLCM-I2V", lambda state: {**state, **pia_conv_in()}), "both"),
}


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD)
def test_a_file_that_cannot_work_is_refused_in_one_sentence(tmp_path, spoil, said, ending):
    path = saved(tmp_path / f"bad.{ending}", spoil(motion_state()))
    with pytest.raises(ValueError) as error:
        load_motion_module(path)
    assert said in one_sentence(error) and path.name in str(error.value)


@pytest.mark.parametrize("family", ["v2", "HotshotXL", "AnimateLCM-I2V", "PIA"])
def test_every_single_weight_is_missed(monkeypatch, family):
    """Whichever key a file lacks, it is refused and the key is named, in AnimateDiff's spelling."""
    whole = PUBLISHED[family]()
    lost = [key for key in whole if not key.endswith((".pe", ".positional_encoding")) and key != "conv_in.weight"]
    for key in lost[::41] + [key for key in lost if not key.startswith(("down_blocks", "mid_block", "up_blocks"))]:
        monkeypatch.setattr(motion_files, "read_state", lambda path, key=key: (without(key)(whole), {}))
        named = re.sub(r"temporal_attentions\.(\d+)", r"motion_modules.\1.temporal_transformer", key)
        named = {"conv_in.bias": "bias"}.get(named, named.removeprefix("img_encoder."))
        with pytest.raises(ValueError, match=re.escape(f"({named})")):
            load_motion_module(Path("less.safetensors"))


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
@pytest.mark.parametrize("kept", [0, 3, 40, 0.5, 0.999])
def test_a_file_cut_short_is_refused_in_one_sentence(tmp_path, ending, kept):
    path = saved(tmp_path / f"cut.{ending}", motion_state())
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


# The base model

SHAPES = {family: SDXL_UNET if family in {"SDXL-beta", "HotshotXL"} else UNET for family in PUBLISHED}


@pytest.mark.parametrize("family", SHAPES)
def test_a_unet_of_the_same_shape_is_accepted(tmp_path, family):
    with torch.device("meta"):
        right, wrong = UNet(SHAPES[family]), UNet(UNET if SHAPES[family] is SDXL_UNET else SDXL_UNET)
    motion = load_motion_module(motion_file(tmp_path, family))
    check_base(motion, right)
    with pytest.raises(ValueError, match=r"is for a U-Net with levels of 32, 64"):
        check_base(motion, wrong)


def test_another_base_is_refused_and_both_are_named(tmp_path):
    with torch.device("meta"):
        unet = UNet(UNET)
    motion = load_motion_module(motion_file(tmp_path, levels=(32, 64, 64)))
    with pytest.raises(
        ValueError, match=r"levels of 32, 64, 64 channels and the model is a U-Net with levels of 32, 64 channels"
    ) as error:
        check_base(motion, unet)
    one_sentence(error)
