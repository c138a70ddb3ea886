"""What is written for other programs is read back as the same numbers, here and by their own loaders."""

import json

import pytest
import torch
from full_disk import largest_file
from pack.modules.checkpoints.export import (
    LORA_LAYOUTS,
    MOTION_LAYOUTS,
    adapter_config,
    adapter_state,
    lora_state,
    motion_state,
    save,
    save_diffusers_adapter,
)
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.checkpoints.motion_lora import LowRank, load_motion_lora
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.transformer import TemporalConfig
from tiny import seeded
from tiny_lora import ATTENTION, weight_key
from tiny_motion import slot_widths

LEVELS = (32, 64, 128, 128)


def network(middle=False):
    with seeded(0):
        return MotionModel(slot_widths(LEVELS, middle=middle), TemporalConfig())


def deltas(model, rank=4):
    g = torch.Generator().manual_seed(1)
    keys = [key for key in model.state_dict() if ".to_" in key and key.endswith(".weight")]
    shapes = {key: model.state_dict()[key].shape for key in keys}
    return {
        k: LowRank(torch.randn(s[0], rank, generator=g), torch.randn(rank, s[1], generator=g), 0.5) for k, s in shapes.items()
    }


@pytest.mark.parametrize("layout", MOTION_LAYOUTS)
@pytest.mark.parametrize("middle", [False, True])
def test_a_motion_module_comes_back(tmp_path, layout, middle):
    model = network(middle)
    path = tmp_path / "motion.safetensors"
    save(path, motion_state(model.state_dict(), 32, layout))
    read = load_motion_module(path)
    assert (
        read.max_frames == 32
        and read.family == ("v2" if middle else "v3")
        and dict(read.widths) == slot_widths(LEVELS, middle=middle)
    )
    assert all(torch.equal(value, read.state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("layout", LORA_LAYOUTS)
def test_a_motion_lora_comes_back(tmp_path, layout):
    given = deltas(network())
    path = tmp_path / "lora.safetensors"
    save(path, *lora_state(given, layout))
    read = load_motion_lora(path)
    assert read.deltas.keys() == given.keys() and not read.spatial
    for key, delta in given.items():
        other = read.deltas[key]
        torch.testing.assert_close(other.factor * other.up @ other.down, delta.factor * delta.up @ delta.down)


def test_names_are_the_releases_own():
    key = weight_key("down_blocks.0.motion_modules.1", 1, "to_out")
    one = {key: LowRank(torch.ones(2, 1), torch.ones(1, 2), 3.0)}
    inside = "down_blocks.0.motion_modules.1.temporal_transformer.transformer_blocks.0.attention_blocks.1.processor.to_out_lora"
    state, _ = lora_state(one, "AnimateDiff")
    assert sorted(state) == [f"{inside}.down.weight", f"{inside}.up.weight"] and state[f"{inside}.up.weight"].tolist() == [
        [3.0],
        [3.0],
    ]
    state, metadata = lora_state(one, "PEFT")
    assert sorted(state)[0] == "unet.down_blocks.0.motion_modules.1.transformer_blocks.0.attn2.to_out.0.lora_A.weight"
    assert json.loads(metadata["lora_adapter_metadata"])["unet.r"] == 1
    state = adapter_state({"mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0": one[key]})
    assert sorted(state)[1] == "mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora.up.weight"


def test_feed_forwards_have_no_name_in_a_motion_lora():
    key = weight_key("down_blocks.0.motion_modules.0", None, "ff.net.2")
    with pytest.raises(ValueError, match=r"no attention's weight"):
        lora_state({key: LowRank(torch.ones(2, 1), torch.ones(1, 2), 1.0)}, "AnimateDiff")


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be written .*make room"), largest_file(100):
        save(tmp_path / "x.safetensors", {"a": torch.ones(100)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [lambda: motion_state({}, 16, "other"), lambda: lora_state({}, "other")])
def test_an_unknown_layout_is_one_sentence(write):
    with pytest.raises(ValueError, match="choose one of AnimateDiff"):
        write()


@pytest.mark.comfy
@pytest.mark.parametrize("middle", [False, True])
def test_diffusers_opens_the_folder(tmp_path, middle):
    diffusers = pytest.importorskip("diffusers")
    model = network(middle)
    widths = slot_widths(LEVELS, middle=middle)
    save_diffusers_adapter(tmp_path, motion_state(model.state_dict(), 32, "diffusers"), adapter_config(widths, 32, 8, 32))
    adapter = diffusers.MotionAdapter.from_pretrained(tmp_path)
    theirs = adapter.state_dict()
    ours = motion_state(model.state_dict(), 32, "diffusers")
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(value, ours[key]) for key, value in theirs.items())


@pytest.mark.comfy
def test_comfyui_s_lora_loader_reads_an_adapter():
    import comfy.lora
    from tiny_motion import image_model

    model = image_model()
    g = torch.Generator().manual_seed(3)
    block = "down_blocks.0.attentions.1.transformer_blocks.0."
    widths = {"attn1": (32, 32), "attn2": (32, 16)}
    given = {}
    for attention, (width, context) in widths.items():
        for part in ATTENTION:
            into = context if part in ("to_k", "to_v") else width
            name = f"{block}{attention}.{part}{'.0' if part == 'to_out' else ''}"
            given[name] = LowRank(torch.randn(width, 4, generator=g), torch.randn(4, into, generator=g), 1.0)
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    loaded = comfy.lora.load_lora(adapter_state(given), keys)
    assert len(loaded) == len(given)
    assert len(model.clone().add_patches(loaded, 1.0)) == len(given)
