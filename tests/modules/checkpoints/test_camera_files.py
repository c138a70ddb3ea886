"""CameraCtrl's files: one camera whatever wrote it, grafted onto a motion module of its base."""

import pytest
import torch
from pack.modules.checkpoints.camera import load_camera
from pack.modules.checkpoints.motion import graft_camera, graft_picture, load_motion_module
from tiny_motion import (
    camera_file,
    camera_state,
    motion_file,
    motion_state,
    without_tables,
)
from weight_files import one_sentence, other_positions, same_weights, saved, without, without_slot

ATTENTION = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0."


@pytest.mark.parametrize("family", ["v3", "v2", "v1", "PIA"])
def test_a_camera_is_grafted_onto_a_module(tmp_path, family):
    motion = load_motion_module(motion_file(tmp_path, family))
    camera = load_camera(camera_file(tmp_path))
    grafted = graft_camera(motion, camera)
    assert grafted.camera is camera and motion.camera is None
    assert grafted.state is motion.state and grafted.name == motion.name
    assert camera.max_frames == 16
    assert set(camera.merges) == {slot for slot in motion.widths if not slot.startswith("mid")}
    whole = camera_state()
    same_weights(
        dict(camera.encoder),
        {key: value for key, value in whole.items() if key.startswith("encoder_") and not key.endswith(".pe")},
    )
    merges = {
        f"{slot}.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.qkv_merge.{part}": value
        for slot, merge in camera.merges.items()
        for part, value in merge.items()
    }
    same_weights(merges, {key: value for key, value in whole.items() if "qkv_merge" in key})


def test_the_file_of_cameractrls_trainer_is_the_same_camera(tmp_path):
    whole = camera_state()
    encoder = {key: value for key, value in whole.items() if key.startswith("encoder_")}
    content = {
        "epoch": 1,
        "global_step": 2,
        "pose_encoder_state_dict": encoder,
        "attention_processor_state_dict": {key: value for key, value in whole.items() if key not in encoder},
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]},
    }
    torch.save(content, tmp_path / "camera.ckpt")
    given, wanted = load_camera(tmp_path / "camera.ckpt"), load_camera(camera_file(tmp_path))
    same_weights(dict(given.encoder), dict(wanted.encoder))
    assert given.merges.keys() == wanted.merges.keys()
    for slot in wanted.merges:
        same_weights(dict(given.merges[slot]), dict(wanted.merges[slot]))


def test_a_camera_without_tables_knows_the_times_it_was_trained_on(tmp_path):
    path = saved(tmp_path / "camera.safetensors", without_tables(camera_state()))
    assert load_camera(path).max_frames == 16


@pytest.mark.parametrize(("donor", "part"), [("PIA", "conv_in"), ("AnimateLCM-I2V", "image_encoder")])
def test_what_follows_a_picture_is_put_into_another_module(tmp_path, donor, part):
    motion, other = (load_motion_module(motion_file(tmp_path, family, name=f"{family}.safetensors")) for family in ("v3", donor))
    made = graft_picture(motion, other)
    assert getattr(made, part) is getattr(other, part) and getattr(motion, part) is None
    assert (made.name, made.family, made.clip_norms, made.state) == (motion.name, "v3", False, motion.state)
    network = made.build()
    assert (network.input_layer is not None, network.picture_encoder is not None) == (donor == "PIA", donor != "PIA")


def test_a_module_that_follows_no_picture_or_is_for_another_base_is_no_donor(tmp_path):
    v3, v2, large = (
        load_motion_module(motion_file(tmp_path, family, name=f"{family}.safetensors")) for family in ("v3", "v2", "SDXL-beta")
    )
    pia = load_motion_module(motion_file(tmp_path, "PIA", name="PIA.safetensors"))
    for motion, donor, said in (
        (v3, v2, "v2.safetensors is a v2 module, which follows no picture"),
        (large, pia, "is for .* 32, 64 .*128"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            graft_picture(motion, donor)
        one_sentence(error)


MERGE = ATTENTION + "processor.qkv_merge."
BAD_CAMERAS = {
    "a motion module": (lambda state: motion_state(), "it is a motion module, for Load Motion Module"),
    "anything": (lambda state: {"weights": torch.zeros(2)}, "its first keys are weights"),
    "half a merge": (without(f"{MERGE}bias"), f"{MERGE}bias"),
    "a missing merge": (without_slot("up_blocks.0.motion_modules.1."), "up_blocks.0.motion_modules.1"),
    "no merges": (lambda state: {key: value for key, value in state.items() if "qkv_merge" not in key}, "is not complete"),
    "no encoder": (lambda state: {key: value for key, value in state.items() if "qkv_merge" in key}, "encoder_conv_in.bias"),
    "half an encoder": (without("encoder_down_conv_blocks.1.0.in_conv.bias"), "encoder_down_conv_blocks.1.0.in_conv.bias"),
    "another attention": (
        lambda state: {**state, "encoder_down_attention_blocks.0.0.attention_blocks.1.to_q.weight": torch.zeros(32, 32)},
        "encoder_down_attention_blocks.0.0.attention_blocks.1.to_q.weight",
    ),
    "other positions": (other_positions, "sinusoid"),
}


@pytest.mark.parametrize(("spoil", "said"), BAD_CAMERAS.values(), ids=BAD_CAMERAS)
def test_a_camera_file_that_cannot_work_is_refused_in_one_sentence(tmp_path, spoil, said):
    path = saved(tmp_path / "bad.safetensors", spoil(camera_state()))
    with pytest.raises(ValueError, match="bad.safetensors") as error:
        load_camera(path)
    assert said in one_sentence(error)


def test_a_camera_of_another_base_is_refused(tmp_path):
    motion = load_motion_module(motion_file(tmp_path, "SDXL-beta"))
    with pytest.raises(
        ValueError, match=r"camera.safetensors is for .* 32, 64 channels and module.safetensors is for .* 128"
    ) as error:
        graft_camera(motion, load_camera(camera_file(tmp_path)))
    one_sentence(error)
