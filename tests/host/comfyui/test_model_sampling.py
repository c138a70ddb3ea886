"""The motion module's noise schedule in every sampling that ComfyUI's nodes give a model, before and after the module."""

import pytest
import torch
from pack.modules.noise.levels import linear
from tiny_motion import image_model, ksample, motion_file, motion_state, without_tables
from weight_files import saved

pytestmark = pytest.mark.comfy
STEPS = 6
DISCRETE = ("eps", "v_prediction", "lcm", "x0", "img_to_img", "img_to_img_flow")

# what a node of ComfyUI's does to a model, by a name for it
PATCHED = {f"discrete {kind}{' zsnr' * zsnr}": ("Discrete", (kind, zsnr)) for kind in DISCRETE for zsnr in (False, True)}
REFUSED = {
    **{f"edm {kind}": ("ContinuousEDM", (kind, 80.0, 0.01)) for kind in ("v_prediction", "edm", "eps", "cosmos_rflow")},
    "continuous v": ("ContinuousV", ("v_prediction", 80.0, 0.01)),
    "stable cascade": ("StableCascade", (2.0,)),
    "sd3": ("SD3", (3.0,)),
    "aura flow": ("AuraFlow", (1.73,)),
    "flux": ("Flux", (1.15, 0.5, 64, 64)),
}


def patched(model, node, values):
    from comfy_extras import nodes_model_advanced as nodes

    if values[0] == "img_to_img_flow" and not hasattr(nodes.comfy.model_sampling, "IMG_TO_IMG_FLOW"):
        pytest.skip("this ComfyUI has no such sampling")
    made = getattr(nodes, f"ModelSampling{node}")()
    return getattr(made, made.FUNCTION)(model, *values)[0]


def module(tmp_path, family):
    from pack.modules.checkpoints.motion import load_motion_module

    lcm = lambda: saved(tmp_path / "lcm.safetensors", without_tables(motion_state(middle=True)))  # noqa: E731
    return load_motion_module(lcm() if family == "AnimateLCM" else motion_file(tmp_path, family))


def told(model, **options):
    """The timesteps that the U-Net is told, one per step, and the latents that come out."""
    from comfy.patcher_extension import WrappersMP

    timesteps = []

    def wrapper(executor, x, t, *args, **kwargs):
        timesteps.append(float(t[0]))
        return executor(x, t, *args, **kwargs)

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "told", wrapper)
    made = ksample(watched, steps=STEPS, cfg=1.0, frames=2, size=4, **options)
    return timesteps, made


def sigmas_of(model):
    return model.get_model_object("model_sampling").sigmas


def zero_terminal(sigmas):
    """Lin et al. (arXiv:2305.08891), algorithm 1, with ComfyUI's last value."""
    kept = (1 / (sigmas.double() ** 2 + 1)).sqrt()
    kept = (kept - kept[-1]) * kept[0] / (kept[0] - kept[-1])
    kept[-1] = 4.8973451890853435e-08**0.5
    return ((1 - kept**2) / kept**2).sqrt().float()


@pytest.mark.parametrize("family", ["v3", "AnimateLCM"])
@pytest.mark.parametrize("name", PATCHED)
def test_the_schedule_goes_into_every_sampling_in_either_order(tmp_path, family, name):
    from pack import host

    (node, values), motion = PATCHED[name], module(tmp_path, family)
    plain = patched(image_model(), node, values)
    before = host.apply_motion(plain, motion)
    after = patched(host.apply_motion(image_model(), motion), node, values)
    every = {"AnimateLCM": 10}.get(
        family, 20 if "lcm" in name else 1
    )  # which timesteps were distilled: the module's word goes first
    wanted = (zero_terminal(linear()) if values[1] else linear())[every - 1 :: every]
    for model in (before, after):
        torch.testing.assert_close(sigmas_of(model), wanted, rtol=2e-3 if values[1] else 0, atol=0)
        assert isinstance(model.get_model_object("model_sampling"), type(plain.get_model_object("model_sampling")).__mro__[2])
    timesteps, clip = told(before)
    if family == "v3":
        assert timesteps == told(plain)[0]
    assert max(timesteps) == 999 and all((t + 1) % every == 0 for t in timesteps)
    again, same = told(after)
    assert again == timesteps and torch.equal(same, clip)


def test_lcm_over_six_steps(tmp_path):
    from pack import host

    model = host.apply_motion(patched(image_model(), "Discrete", ("lcm", False)), module(tmp_path, "v3"))
    assert (
        told(model, scheduler="sgm_uniform")[0]
        == told(patched(image_model(), "Discrete", ("lcm", False)), scheduler="sgm_uniform")[0]
    )
    assert told(model, scheduler="sgm_uniform")[0] == [999, 839, 679, 499, 339, 179]


@pytest.mark.parametrize("name", REFUSED)
def test_a_sampling_without_timesteps_is_refused_by_the_second_node(tmp_path, name):
    from pack import host

    (node, values), motion = REFUSED[name], module(tmp_path, "v3")
    with pytest.raises(
        ValueError, match="the model samples with .*, and the noise schedule of AnimateDiff's motion modules needs"
    ):
        host.apply_motion(patched(image_model(), node, values), motion)
    with pytest.raises(ValueError, match="noise_schedule model on Apply Motion Module"):
        patched(host.apply_motion(image_model(), motion), node, values)
    for model in (  # the way out
        host.apply_motion(patched(image_model(), node, values), motion, noise_schedule="model"),
        patched(host.apply_motion(image_model(), motion, noise_schedule="model"), node, values),
    ):
        assert torch.equal(sigmas_of(model), sigmas_of(patched(image_model(), node, values)))
        assert torch.isfinite(told(model)[1]).all()


def test_rescaled_guidance_is_the_same_in_either_order(tmp_path):
    from comfy_extras.nodes_model_advanced import RescaleCFG
    from pack import host

    motion = module(tmp_path, "v3")
    first = host.apply_motion(RescaleCFG().patch(image_model(), 0.7)[0], motion)
    last = RescaleCFG().patch(host.apply_motion(image_model(), motion), 0.7)[0]
    clip = ksample(first, steps=2, frames=2, size=4)
    assert torch.equal(clip, ksample(last, steps=2, frames=2, size=4))
    assert not torch.equal(clip, ksample(host.apply_motion(image_model(), motion), steps=2, frames=2, size=4))


@pytest.mark.parametrize("named", ["model", "linear"])
def test_training_asks_for_the_whole_table(tmp_path, named):
    from pack.host.comfyui.training import trainable

    with (
        pytest.raises(ValueError, match="use an SD1.5 or SDXL checkpoint"),
        trainable(patched(image_model(), "Discrete", ("lcm", False)), named),
    ):
        pass
