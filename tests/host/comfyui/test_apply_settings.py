"""Effect, scale, ranges and windows of motion modules on a MODEL, through ComfyUI's own KSampler."""

import logging

import pytest
import torch
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.temporal.block_rules import parse_blocks
from pack.modules.temporal.settings import MotionKeyframe, MotionSettings, Strength
from pack.modules.temporal.windows import WindowPlan
from tiny_motion import image_model, ksample, motion_file

pytestmark = pytest.mark.comfy


@pytest.fixture(scope="module")
def model():
    return image_model()


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    return load_motion_module(motion_file(tmp_path_factory.mktemp("motion")))


@pytest.fixture(scope="module")
def scheduled(model, motion):
    """The model on the module's noise schedule, without the module."""
    patched = model.clone()
    patched.add_object_patch("model_sampling", host.apply_motion(model, motion).get_model_object("model_sampling"))
    return patched


def same(a, b, part=2e-5):
    torch.testing.assert_close(a, b, rtol=0, atol=part * float(b.abs().max()))


def apply(model, motion, **settings):
    return host.apply_motion(model, motion, MotionSettings(**settings))


def keyed(**values):
    return {"keyframes": (MotionKeyframe(**values),)}


def test_no_effect_is_no_module(model, motion, scheduled):
    assert torch.equal(ksample(apply(model, motion, effect=0.0)), ksample(scheduled))
    assert torch.equal(ksample(apply(model, motion, **keyed(blocks=parse_blocks("all 0")))), ksample(scheduled))


def test_effect_and_scale_change_the_clip_and_survive_clones_and_loras(model, motion):
    full, half = ksample(host.apply_motion(model, motion)), apply(model, motion, effect=0.5, **keyed(scale=Strength(1.5)))
    given = ksample(half)
    assert (given - full).abs().max() > 1e-3 * full.abs().max()
    clone = half.clone()
    clone.add_patches({"diffusion_model.out.2.bias": ("diff", (torch.zeros(4),))}, 1.0)
    assert torch.equal(ksample(clone.clone()), given)


def test_lists_and_masks_that_say_the_same_give_the_same(model, motion):
    number = ksample(apply(model, motion, effect=0.6))
    same(ksample(apply(model, motion, **keyed(effect=Strength(frames=(0.6,))))), number)
    same(ksample(apply(model, motion, **keyed(effect=Strength(mask=torch.full((1, 5, 7), 0.6))))), number)
    same(ksample(apply(model, motion, **keyed(effect=Strength(1.2, (0.5, 0.5))))), number)


def test_a_range_ends_where_the_sampling_is_handed_over(model, motion, scheduled):
    """With the module off from the middle on, the last step is one of the bare model."""
    first = ksample(apply(model, motion, end_percent=0.4), steps=4)
    assert not torch.equal(first, ksample(host.apply_motion(model, motion), steps=4))
    assert not torch.equal(first, ksample(scheduled, steps=4))
    everything = ksample(apply(model, motion, start_percent=0.0, end_percent=1.0), steps=4)
    assert torch.equal(everything, ksample(host.apply_motion(model, motion), steps=4))


def test_keyframes_of_two_halves_are_two_ranges(model, motion):
    two = (MotionKeyframe(0.0, Strength(0.3)), MotionKeyframe(0.5, Strength(0.9)))
    given = ksample(apply(model, motion, keyframes=two), steps=4)
    joined = host.apply_motion(model, motion, MotionSettings(effect=0.3, end_percent=0.4999))
    joined = host.apply_motion(joined, motion, MotionSettings(effect=0.9, start_percent=0.5001))
    same(ksample(joined, steps=4), given)


def test_a_rested_first_step_does_not_excuse_the_later_ones(model, motion, caplog):
    caplog.set_level(logging.INFO, "longtake")
    ksample(apply(model, motion, start_percent=0.5), steps=4)
    assert [record.message for record in caplog.records if "motion modules ran" in record.message] == [
        "module.safetensors: 10 of 10 motion modules ran"
    ]


def test_modules_that_another_node_has_cut_off_are_noticed(model, motion):
    from comfy.patcher_extension import WrappersMP

    animated = host.apply_motion(model, motion)
    layer = host.unet_of(model).input_blocks[1][1]

    def deaf(executor, *args, **kwargs):
        """Another pack's: it skips a layer while the model runs."""
        before = layer.__dict__["forward"]
        layer.__dict__["forward"] = lambda x, *args, **kwargs: x
        try:
            return executor(*args, **kwargs)
        finally:
            layer.__dict__["forward"] = before

    disturbed = animated.clone()
    disturbed.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "deaf", deaf)
    with pytest.raises(RuntimeError, match=r"1 of 10 motion modules of module.safetensors did not run, first down_blocks.0"):
        ksample(disturbed)
    ksample(animated)


def test_short_clips_are_warned_of_and_single_frames_refused(model, motion, caplog):
    animated = host.apply_motion(model, motion)
    ksample(animated, frames=6)
    assert "was trained on clips of 16 frames and got 6" in caplog.text
    with pytest.raises(ValueError, match="got a clip of 1 frame and moves nothing"):
        ksample(animated, frames=1)


def test_longer_clips_need_windows_or_stretched_positions(model, motion):
    with pytest.raises(ValueError, match="at most 32 frames and got 40.*Context Windows.*stretch"):
        ksample(host.apply_motion(model, motion), frames=40)
    stretched = ksample(apply(model, motion, positions="stretch"), frames=40, steps=1)
    extended = ksample(apply(model, motion, positions="extend"), frames=40, steps=1)
    assert stretched.isfinite().all() and not torch.equal(stretched, extended)


@pytest.mark.parametrize("mode", ["temporal", "views", "whole"])
def test_windows_that_hold_the_clip_change_nothing(model, motion, mode):
    animated = host.apply_motion(model, motion)
    same(ksample(host.context_windows(animated, WindowPlan(), mode)), ksample(animated))


def test_modes_differ_and_each_is_the_same_twice(model, motion):
    animated = host.apply_motion(model, motion)
    found = {}
    for mode in ("temporal", "views", "whole"):
        plan = WindowPlan(length=8, overlap=3, fuse_at="module" if mode == "views" else "attention")
        windowed = host.context_windows(animated, plan, mode)
        found[mode] = ksample(windowed, frames=18, steps=2)
        assert torch.equal(ksample(windowed.clone(), frames=18, steps=2), found[mode])
    assert not torch.equal(found["temporal"], found["views"]) and not torch.equal(found["views"], found["whole"])


def test_chunks_change_nothing(model, motion, monkeypatch):
    from pack.host.comfyui.attached import MotionSampling

    animated = host.context_windows(host.apply_motion(model, motion), WindowPlan(length=8, overlap=2), "temporal")
    whole = ksample(animated, frames=18, steps=2)
    before = MotionSampling.__init__

    def chunked(self, plan=None, chunk=None, recall=None):
        before(self, plan, 5, recall)

    monkeypatch.setattr(MotionSampling, "__init__", chunked)
    same(ksample(animated, frames=18, steps=2), whole)


def test_out_of_memory_halves_the_chunk_and_goes_on(model, motion, monkeypatch, caplog):
    animated = host.apply_motion(model, motion)
    whole = ksample(animated, frames=16)
    layer = host.unet_of(model).input_blocks[1][0]
    inner, sizes = layer._forward, []

    def tight(x, emb):
        sizes.append(len(x))
        if len(x) > 10:
            raise torch.OutOfMemoryError("no more")
        return inner(x, emb)

    monkeypatch.setattr(layer, "_forward", tight)
    same(ksample(animated, frames=16), whole)
    assert sizes[:3] == [32, 16, 8] and max(sizes[2:]) <= 10, sizes
    assert "from here on" in caplog.text
    monkeypatch.undo()
    assert torch.equal(ksample(animated, frames=16), whole)


@pytest.mark.slow
def test_compiled_with_the_eager_backend_is_the_same_and_not_compiled_for_every_step(model, motion):
    import torch._dynamo
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    animated = host.context_windows(host.apply_motion(model, motion), WindowPlan(length=8, overlap=2), "temporal")
    plain = ksample(animated, frames=12, steps=6, cfg=1.0)
    compiled = animated.clone()
    set_torch_compile_wrapper(model=compiled, backend="eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    same(ksample(compiled, frames=12, steps=2, cfg=1.0), ksample(animated, frames=12, steps=2, cfg=1.0))
    after_two = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch._dynamo.utils.counters.clear()
    same(ksample(compiled, frames=12, steps=6, cfg=1.0), plain)
    assert torch._dynamo.utils.counters["stats"].get("unique_graphs", 0) <= 1, (after_two, torch._dynamo.utils.counters["stats"])
    assert not torch._dynamo.utils.counters["recompiles"]
