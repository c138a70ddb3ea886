"""ComfyUI's own context windows around a motion module: how many frames they show it is counted before anything runs."""

import inspect

import pytest
import torch
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from tiny_motion import image_model, ksample, motion_file

pytestmark = pytest.mark.comfy


def windowed(model, length, fix):
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    known = inspect.signature(ContextWindowsManualNode.execute).parameters
    if "causal_window_fix" not in known:
        pytest.skip("this ComfyUI shows no frame before a window")
    node = ContextWindowsManualNode.execute
    return node(model, length, 8, "standard_static", 1, False, "pyramid", 0, freenoise=False, causal_window_fix=fix).args[0]


def calls(model, frames):
    """How many frames each call shows."""
    from comfy.patcher_extension import WrappersMP

    shown = []

    def wrapper(executor, x, *args, **kwargs):
        shown.append(len(x))
        return executor(x, *args, **kwargs)

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "count", wrapper)
    try:
        ksample(watched, steps=1, cfg=1.0, latent=torch.zeros(frames, 4, 4, 4))
    except ValueError as refused:
        return shown, str(refused)
    return shown, ""


@pytest.mark.parametrize(
    ("length", "fix", "most"), [(32, True, 0), (31, True, 32), (32, False, 32)], ids=["one too many", "shorter", "without"]
)
def test_the_frame_before_a_window_counts(tmp_path, length, fix, most):
    model = windowed(host.apply_motion(image_model(), load_motion_module(motion_file(tmp_path))), length, fix)
    shown, refused = calls(model, 48)
    assert max(shown, default=0) == most
    if not most:
        assert "switch causal_window_fix off there, or set its context_length to 31" in refused


def test_a_clip_of_one_window_has_no_frame_before_it(tmp_path):
    model = windowed(host.apply_motion(image_model(), load_motion_module(motion_file(tmp_path))), 32, True)
    assert calls(model, 32) == ([32], "")


# SparseCtrl, which hangs on the conditioning, under the same windows


def led(tmp_path, clip):
    """Both conditionings, with keyframes laid out for a clip of so many frames."""
    from pack.modules.checkpoints.sparsectrl import load_sparse_control
    from pack.modules.control.keyframes import Keyframes
    from pack.modules.control.sparse_pictures import SparseSettings
    from tiny_motion import text
    from tiny_sparse import PIXELS, sparse_file

    encoder = host.sparse_control(load_sparse_control(sparse_file(tmp_path, "scribble.safetensors", PIXELS)))
    keyframes = Keyframes(torch.rand(1, 32, 32, 3), (0,), (1.0,), (0,)).at(clip)
    return host.apply_sparse_control(text(3), text(4), encoder, SparseSettings(keyframes), None)


def led_calls(tmp_path, model, frames, clip):
    import comfy.model_base

    shown, inner = [], comfy.model_base.BaseModel.apply_model

    def counted(self, x, *args, **kwargs):
        shown.append(len(x))
        return inner(self, x, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.model_base.BaseModel, "apply_model", counted)
        positive, negative = led(tmp_path, clip)
        try:
            ksample(model, steps=1, cfg=1.0, latent=torch.zeros(frames, 4, 4, 4), positive=positive, negative=negative)
        except ValueError as refused:
            return shown, str(refused)
    return shown, ""


@pytest.mark.parametrize(
    ("length", "fix", "frames", "most"), [(32, True, 40, 0), (31, True, 40, 32), (32, False, 40, 32), (32, True, 32, 32)]
)
def test_sparse_control_counts_the_frame_before_a_window(tmp_path, length, fix, frames, most):
    shown, refused = led_calls(tmp_path, windowed(image_model(), length, fix), frames, frames)
    assert max(shown, default=0) == most
    assert bool(refused) == (not most) and (most or "set its context_length to 31" in refused)


def test_a_clip_of_another_length_than_its_keyframes_is_refused_before_the_first_window(tmp_path):
    shown, refused = led_calls(tmp_path, windowed(image_model(), 16, False), 40, 32)
    assert not shown and refused.startswith("the clip has 40 frames and its keyframes were laid out for 32")
