"""AnimateDiff on an SD1.5-shaped model of ComfyUI's, through ComfyUI's own KSampler."""

import pytest
import torch
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.nets.unet import UNet
from pack.modules.nets.unet_config import UNetConfig
from pack.modules.noise.levels import NoiseSchedule, linear
from pack.modules.temporal.frames import Frames
from pack.modules.temporal.slots import MARK, empty
from tiny_motion import FAMILY_SHAPES, UNET, image_model, ksample, motion_file, text

pytestmark = pytest.mark.comfy
FRAMES, STEPS, CFG = 6, 3, 2.0


@pytest.fixture
def model():
    return image_model()


@pytest.fixture
def motion(tmp_path):
    return load_motion_module(motion_file(tmp_path))


@pytest.fixture
def animated(model, motion):
    return host.apply_motion(model, motion)


@pytest.fixture
def plain(model):
    """What the model without motion makes, before anything else was done to it."""
    return ksample(model)


def is_clean(model):
    """No forward is shadowed and nothing of ours lies on the U-Net."""
    unet = host.unet_of(model)
    traces = [
        key for layer in unet.modules() for key in layer.__dict__ if key in (MARK, "forward") or key.startswith("_longtake")
    ]
    return not traces


def reference(model, motion, *, clip_norms, frames=FRAMES, steps=STEPS, cfg=CFG, seed=1):
    """Euler's method written out over our own U-Net with the same weights, modules called by hand after their layers.

    The norms over a clip follow the original's definition: a GroupNorm of ``(1, channels, frames, height, width)``.
    """
    unet = UNet(UNET)
    unet.load_state_dict(host.unet_of(model).state_dict())
    network = motion.build()
    unet.eval().requires_grad_(False)
    told = Frames.of(frames)

    def after(module):
        return lambda layer, inputs, output: module(output, told)

    places = {}
    for level, (down, up) in enumerate([((1, 2), (0, 1, 2)), ((4, 5), (3, 4, 5))]):
        places |= {f"down_blocks.{level}.motion_modules.{index}": unet.input_blocks[block] for index, block in enumerate(down)}
        places |= {f"up_blocks.{level}.motion_modules.{index}": unet.output_blocks[block] for index, block in enumerate(up)}
    for name, block in places.items():
        layer = block[1] if len(block) > 1 and hasattr(block[1], "transformer_blocks") else block[0]
        layer.register_forward_hook(after(network.at(name)))
    if "mid_block.motion_modules.0" in network.names:
        unet.middle_block[1].register_forward_hook(after(network.at("mid_block.motion_modules.0")))

    def over_clip(norm):
        def forward(x):
            clip = x.reshape(-1, frames, *x.shape[1:]).permute(0, 2, 1, 3, 4)
            out = torch.nn.functional.group_norm(clip, norm.num_groups, norm.weight, norm.bias, norm.eps)
            return out.permute(0, 2, 1, 3, 4).reshape(x.shape)

        return forward

    if clip_norms:
        residuals = [layer for layer in unet.modules() if hasattr(layer, "emb_layers")]
        for norm in [unet.out[0], *(layer.in_layers[0] for layer in residuals), *(layer.out_layers[0] for layer in residuals)]:
            norm.forward = over_clip(norm)

    import comfy.sample

    sigmas = linear()
    timesteps = torch.linspace(len(sigmas) - 1, 0, steps)  # ComfyUI's "normal" scheduler
    low, high, part = timesteps.floor().long(), timesteps.ceil().long(), timesteps.frac()
    levels = torch.cat([((1 - part) * sigmas[low].log() + part * sigmas[high].log()).exp(), torch.zeros(1)])
    x = comfy.sample.prepare_noise(torch.zeros(frames, 4, 8, 8), seed) * (1 + levels[0] ** 2).sqrt()
    schedule = NoiseSchedule(sigmas)
    with torch.no_grad():
        for now, then in zip(levels, levels[1:], strict=False):
            t = schedule.timestep(now.expand(frames))
            noises = [unet(x / (now**2 + 1).sqrt(), t, text(which)[0][0].expand(frames, -1, -1)) for which in (3, 4)]
            clean = [x - now * noise for noise in noises]
            guided = clean[1] + cfg * (clean[0] - clean[1])
            x = x + (x - guided) / now * (then - now)
    return x / 0.18215


@pytest.mark.parametrize("family", FAMILY_SHAPES)
def test_a_module_that_outputs_zero_changes_nothing(tmp_path, model, family):
    """Compared with the same model on the same noise schedule; v1 also changes norms, which has a test of its own."""
    motion = load_motion_module(motion_file(tmp_path, family, zero=True))
    animated = host.apply_motion(model, motion)
    scheduled = model.clone()
    scheduled.add_object_patch("model_sampling", animated.get_model_object("model_sampling"))
    same = torch.equal(ksample(animated), ksample(scheduled))
    assert same is (family != "v1")


@pytest.mark.parametrize("family", FAMILY_SHAPES)
def test_a_random_module_equals_the_reference(tmp_path, model, plain, family):
    motion = load_motion_module(motion_file(tmp_path, family))
    given = ksample(host.apply_motion(model, motion))
    wanted = reference(model, motion, clip_norms=family == "v1")
    torch.testing.assert_close(given, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))
    assert (given - plain).abs().max() > 0.01 * plain.abs().max()


def test_the_norms_of_v1_matter_and_those_of_v3_do_not_change(tmp_path, model):
    motion = load_motion_module(motion_file(tmp_path, "v1"))
    across = reference(model, motion, clip_norms=True)
    assert (across - reference(model, motion, clip_norms=False)).abs().max() > 1e-3 * across.abs().max()


def test_the_noise_schedule_is_the_authors_and_the_prediction_type_the_models(model, animated):
    theirs, ours = model.get_model_object("model_sampling"), animated.get_model_object("model_sampling")
    assert type(ours) is type(theirs)
    assert float(theirs.sigma_max) == pytest.approx(14.615, abs=1e-3)
    assert float(ours.sigma_max) == pytest.approx(25.146, abs=1e-3)
    torch.testing.assert_close(host.noise_schedule(animated).sigmas, linear(), rtol=0, atol=0)


def test_the_bare_model_stays_as_it_was(model, plain, animated):
    ksample(animated)
    assert torch.equal(ksample(model), plain) and is_clean(model)


def test_a_second_run_equals_the_first(animated):
    assert torch.equal(ksample(animated), ksample(animated))


def test_two_modules_on_one_model_do_not_mix(tmp_path, model, animated):
    first = ksample(animated)
    other = host.apply_motion(model, load_motion_module(motion_file(tmp_path, seed=5, name="other.safetensors")))
    second = ksample(other)
    assert not torch.equal(first, second)
    assert torch.equal(ksample(animated), first) and torch.equal(ksample(other), second)


def test_a_clone_keeps_everything(model, plain, animated):
    first = ksample(animated)
    clone = animated.clone()
    assert torch.equal(ksample(clone), first)
    assert torch.equal(ksample(clone.clone()), first)
    assert torch.equal(ksample(model), plain) and is_clean(model)


class Boom(Exception):
    pass


def failing(model, exception, *, call):
    """A clone of ``model`` whose U-Net raises inside its ``call``-th call, deep in the network."""
    from comfy.patcher_extension import WrappersMP

    calls = []

    def patch(h, options):
        calls.append(1)
        if len(calls) == call:
            raise exception
        return h

    def fail(executor, x, timesteps, context, y, control, options, **kwargs):
        patches = options.get("patches", {})
        return executor(
            x, timesteps, context, y, control, {**options, "patches": {**patches, "input_block_patch": [patch]}}, **kwargs
        )

    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", fail)
    return clone


@pytest.mark.parametrize("call", [1, 10])
@pytest.mark.parametrize("kind", ["error", "interrupt"])
def test_after_an_error_or_a_cancel_the_bare_model_is_bit_identical(model, plain, animated, kind, call):
    exception = Boom if kind == "error" else host.Interrupted
    first = ksample(animated)
    with pytest.raises(exception):
        ksample(failing(animated, exception(), call=call))
    held = animated.get_additional_models_with_key("longtake_motion")[0].model
    assert held.frames is None, "the call's frames must be forgotten"
    assert torch.equal(ksample(model), plain) and is_clean(model)
    assert torch.equal(ksample(animated), first)


def test_an_injection_that_fails_undoes_itself(monkeypatch, model, plain, animated):
    """It fails after two slots are filled."""
    from pack.host.comfyui.attach import motion_call as injection

    def broken(unet, functions, around, layers):
        for block in (1, 2):
            injection.swap(unet.input_blocks[block][1], lambda inner: lambda *args, **kwargs: inner(*args, **kwargs))
        raise Boom

    monkeypatch.setattr(injection, "fill", broken)
    with pytest.raises(Boom):
        ksample(animated)
    assert is_clean(model)
    monkeypatch.undo()
    assert torch.equal(ksample(model), plain)


def test_injecting_twice_and_ejecting_thrice(model, animated):
    from pack.host.comfyui.attach.attachment import eject, inject

    for _ in range(2):
        inject(animated)
    for _ in range(3):
        eject(animated)
        assert is_clean(model)
    eject(model)


def test_the_state_dict_is_the_same_while_injected(model, animated):
    unet = host.unet_of(model)
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    names = [name for name, _ in model.model.named_modules() if not name.startswith("model_sampling")]
    ksample(animated)
    assert not is_clean(model), "ComfyUI leaves a model injected after sampling; if not, this test says nothing"
    after = unet.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
    assert [name for name, _ in model.model.named_modules() if not name.startswith("model_sampling")] == names


def lora(model, rank=2):
    """A LoRA over the whole U-Net, in the usual spelling, by ComfyUI's own list of its keys."""
    import comfy.lora

    generator = torch.Generator().manual_seed(9)
    weights = host.unet_of(model).state_dict()
    state, done = {}, set()
    for key, target in comfy.lora.model_lora_keys_unet(model.model, {}).items():
        name = target.removeprefix("diffusion_model.") if isinstance(target, str) else ""
        if not key.startswith("lora_unet_") or name not in weights or name in done:
            continue  # ComfyUI knows several spellings of one weight, and some weights that only other models have
        done.add(name)
        shape = weights[name].shape
        if len(shape) in (2, 4):
            state[f"{key}.lora_up.weight"] = 0.05 * torch.randn(shape[0], rank, generator=generator)
            state[f"{key}.lora_down.weight"] = torch.randn(rank, shape[1:].numel(), generator=generator)
            if len(shape) == 4:
                state[f"{key}.lora_up.weight"] = state[f"{key}.lora_up.weight"][..., None, None]
                state[f"{key}.lora_down.weight"] = state[f"{key}.lora_down.weight"].reshape(rank, *shape[1:])
    return state


def test_a_lora_loaded_after_the_injection_finds_all_its_keys_and_works(caplog, model, animated):
    import comfy.sd

    weights = lora(model)
    without = ksample(animated)  # and from here on the shared U-Net is injected
    assert not is_clean(model)
    with caplog.at_level("WARNING"):
        styled, _ = comfy.sd.load_lora_for_models(animated, None, dict(weights), 1.0, 0)
    assert not [record for record in caplog.records if "lora key not loaded" in record.message or "NOT LOADED" in record.message]
    assert len(styled.patches) == len(weights) // 2 > 50
    with_lora = ksample(styled)
    assert (with_lora - without).abs().max() > 0.01 * without.abs().max()

    before, _ = comfy.sd.load_lora_for_models(model, None, dict(weights), 1.0, 0)
    motion = animated.get_additional_models_with_key("longtake_motion")[0]
    other_order = before.clone()
    from pack.host.comfyui.attach.motion import attach

    other_order = attach(other_order, motion.model, motion.get_attachment("longtake_motion"))
    other_order.add_object_patch("model_sampling", animated.get_model_object("model_sampling"))
    torch.testing.assert_close(ksample(other_order), with_lora, rtol=0, atol=1e-6 * float(with_lora.abs().max()))
    assert torch.equal(ksample(animated), without), "the LoRA must be gone with its own branch"


def test_two_modules_in_a_row_act_one_after_the_other(tmp_path, model, motion, animated):
    again = host.apply_motion(animated, motion)
    assert len(again.get_additional_models_with_key("longtake_motion")) == 2
    assert not torch.equal(ksample(again), ksample(animated))
    zero = load_motion_module(motion_file(tmp_path, zero=True, name="zero.safetensors"))
    assert torch.equal(ksample(host.apply_motion(animated, zero)), ksample(animated))


@pytest.mark.parametrize(("family", "most"), [("v1", 24), ("v2", 32), ("v3", 32)])
def test_more_frames_than_the_table_are_refused_before_the_first_call(tmp_path, model, family, most):
    animated = host.apply_motion(model, load_motion_module(motion_file(tmp_path, family)))
    calls = []
    counted = animated.clone()
    from comfy.patcher_extension import WrappersMP

    counted.add_wrapper_with_key(
        WrappersMP.APPLY_MODEL, "test", lambda executor, *args, **kwargs: (calls.append(1), executor(*args, **kwargs))[1]
    )
    with pytest.raises(ValueError, match=f"at most {most} frames and got {most + 1}: use at most {most} frames"):
        ksample(counted, frames=most + 1, size=2, steps=1)
    assert not calls
    ksample(counted, frames=most, size=2, steps=1)
    assert calls


def test_another_base_model_is_refused_by_name(tmp_path, motion):
    wide = image_model(config=UNetConfig(**{**vars(UNET), "model_channels": 64}))
    with pytest.raises(
        ValueError, match="levels of 32, 64 channels and the model is a U-Net with levels of 64, 128 channels"
    ) as error:
        host.apply_motion(wide, motion)
    assert "\n" not in str(error.value)
    assert is_clean(wide)


def test_a_model_that_is_no_unet_is_refused(motion):
    class Other:
        diffusion_model = torch.nn.Linear(1, 1)

    class Patcher:
        model = Other()

    with pytest.raises(ValueError, match="Stable Diffusion's family"):
        host.apply_motion(Patcher(), motion)


def test_a_model_without_discrete_timesteps_is_refused(model, motion):
    import comfy.model_sampling

    class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    flow = model.clone()
    flow.add_object_patch("model_sampling", Flow())
    with pytest.raises(ValueError, match="discrete timesteps"):
        host.apply_motion(flow, motion)


def test_the_nodes_do_the_same(tmp_path, model, animated):
    from pathlib import Path

    import folder_paths
    from pack.nodes.motion.motion import LongTakeApplyMotionModule, LongTakeLoadMotionModule

    folder = Path(folder_paths.models_dir) / "animatediff_models"
    folder.mkdir(parents=True, exist_ok=True)
    path = motion_file(folder, name="from_the_node.safetensors")
    try:
        assert path.name in host.files("motion_modules")
        loaded = LongTakeLoadMotionModule.execute(motion_module=path.name).result[0]
        made = LongTakeApplyMotionModule.execute(model=model, motion_module=loaded).result[0]
        assert torch.equal(ksample(made), ksample(animated))
        with pytest.raises(ValueError, match="there is no 'none.ckpt'"):
            LongTakeLoadMotionModule.execute(motion_module="none.ckpt")
    finally:
        path.unlink()


def test_slots_that_another_pack_swapped_first_stay_swapped(model, animated):
    """Someone else's forward under ours is called, and is still there afterwards."""
    layer = host.unet_of(model).input_blocks[1][1]
    calls, original = [], layer.forward

    def theirs(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    layer.forward = theirs
    ksample(animated)
    assert calls
    empty(host.unet_of(model))
    assert layer.__dict__["forward"] is theirs
    del layer.forward
