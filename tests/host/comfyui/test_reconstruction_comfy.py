"""Guidance by gradients inside ComfyUI, on image models with motion that a loader made in inference mode and that nobody may train."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny_wan
import torch
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.guidance.goals import GoalGuidance, named
from pack.modules.guidance.reconstruction import NO_MODULES, Known, ReconstructionGuidance
from pack.modules.guidance.steering import When, differentiated
from pack.modules.temporal.gradients import Gradients
from pack.modules.temporal.settings import MotionSettings
from pack.modules.temporal.windows import WindowPlan
from pack.nodes.forcing.vdm import LongTakeExtend, LongTakeVdmSampler
from pack.nodes.guidance.guidance import LongTakeGuider
from pack.nodes.guidance.reconstruction import LongTakeReconstructionGuidance
from sparing import sparing
from tiny_motion import image_model, motion_file, text
from torch import nn
from whole_windows import CONTROLS, controlled, hints

pytestmark = pytest.mark.comfy
FRAMES, CFG = 6, 3.0


@pytest.fixture(scope="module")
def base():
    """SD1.5 in small, whose weights are tensors of inference mode."""
    with torch.inference_mode():
        return frozen(image_model())


def frozen(model):
    """As a loader leaves it that runs in inference mode."""
    for module in model.model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in list(held.items()):
                if tensor is not None:
                    copy = tensor.detach().clone()
                    held[name] = nn.Parameter(copy, requires_grad=False) if held is module._parameters else copy
    assert all(parameter.is_inference() for parameter in model.model.parameters())
    return model


@pytest.fixture(scope="module", params=sparing(["v1", "v3"], "v3"))
def model(request, base, tmp_path_factory):
    """The same with a motion module; the first generation's norms run over whole clips."""
    with torch.inference_mode():
        motion = load_motion_module(motion_file(tmp_path_factory.mktemp("motion"), request.param))
        return host.apply_motion(base, motion)


@pytest.fixture(scope="module")
def later(base, tmp_path_factory):
    with torch.inference_mode():
        return host.apply_motion(base, load_motion_module(motion_file(tmp_path_factory.mktemp("motion"), "v3")))


def latents(frames=FRAMES, seed=7):
    return torch.randn(frames, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def sampled(model, guide, *, sampler=None, frames=FRAMES, steps=2, cfg=CFG, latent=None, mask=None, seed=1, conds=None):
    """Through ComfyUI's own guider call, in inference mode as its executor has it."""
    import comfy.samplers

    sampler = sampler or comfy.samplers.sampler_object("euler")
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    latent = torch.zeros(frames, 4, 8, 8) if latent is None else latent
    with torch.inference_mode():
        positive, negative = conds or (text(3), text(4))
        guider = LongTakeGuider.execute(model=model, positive=positive, negative=negative, cfg=cfg, guidance=guide).args[0]
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
        return guider.sample(noise, latent.clone(), sampler, sigmas, denoise_mask=mask, disable_pbar=True, seed=seed).clone()


def guidance(**changes):
    kept = Gradients(gradient_checkpointing=False)  # as fast as such small models can be
    return ReconstructionGuidance(**({"weight": 2.0, "known": Known((0, 1), latents(2)), "gradients": kept} | changes))


class Measure:
    """A guide that compares the slope of the sum of squares with finite differences in the first call of a sampling."""

    def __init__(self, wish):
        self.gradients, self.found = wish, []

    def fit(self, space):
        self.known = space.encode(latents(2))
        return self

    def __call__(self, denoise, view):
        clean, gradient = differentiated(denoise, view, lambda guess: (self.known.clone() - guess[:2]).square().sum())
        if not self.found:
            direction = torch.randn(view.x.shape, generator=torch.Generator().manual_seed(3))
            step = 3e-3 * float(view.sigma[0])

            def error(x):
                return float((self.known - denoise(replace(view, x=x))[:2]).double().square().sum())

            there, back = (error(view.x + sign * step * direction) for sign in (1, -1))
            self.found = [(there - back) / (2 * step), float((gradient.double() * direction.double()).sum())]
        return clean


@pytest.mark.parametrize("checkpoint", sparing([True, False], True))
def test_the_gradient_through_a_frozen_model(model, checkpoint):
    measure = Measure(Gradients(gradient_checkpointing=checkpoint))
    sampled(model, measure)
    assert measure.found[1] == pytest.approx(measure.found[0], rel=5e-3) and abs(measure.found[0]) > 1e-3


@pytest.mark.parametrize("checkpoint", [True, False])
@pytest.mark.parametrize("kind", sparing(CONTROLS, "ControlNet"))
def test_the_gradient_through_a_controlled_model(later, kind, checkpoint):
    """ComfyUI adds what a control gives to the skips in place, where the layers after them still need them."""

    def conds():
        return controlled(CONTROLS[kind]().set_cond_hint(hints(FRAMES), 1.0))

    measure = Measure(Gradients(gradient_checkpointing=checkpoint))
    sampled(later, measure, conds=conds())
    assert measure.found[1] == pytest.approx(measure.found[0], rel=5e-3) and abs(measure.found[0]) > 1e-3
    assert not torch.allclose(sampled(later, None, conds=conds()), sampled(later, None), atol=1e-3), "the control must act here"


def test_the_gradient_of_the_positive_branch_is_that_at_cfg_1(later):
    """The error is of the full guess; the slope is the positive condition's."""
    seen = {}

    class Slope(Measure):
        def __call__(self, denoise, view):
            clean, gradient = differentiated(denoise, view, lambda guess: guess[:2].sum())
            seen.setdefault(self.gradients, gradient)
            return clean

    positive, both = Gradients("positive", False), Gradients("both", False)
    sampled(later, Slope(positive))
    sampled(later, Slope(both), cfg=1.0)
    torch.testing.assert_close(seen[positive], seen[both], rtol=1e-4, atol=1e-6)


def state(model):
    networks = [model.model, *(patcher.model for patcher in model.get_nested_additional_models())]
    values = {(n, key): value.clone() for n, net in enumerate(networks) for key, value in net.state_dict().items()}
    own = {
        (n, name): {key: value for key, value in vars(layer).items() if key.endswith("_function")}
        for n, net in enumerate(networks)
        for name, layer in net.named_modules()
    }
    objects = {(n, name): id(value) for n, net in enumerate(networks) for name, value in net.named_parameters()}
    return values, {place: {key: list(value) for key, value in found.items()} for place, found in own.items()}, objects


def assert_untouched(model, before):
    import comfy.model_management

    assert not getattr(comfy.model_management, "in_training", False)
    values, own, objects = state(model)
    assert own == before[1] and objects == before[2]
    assert all(torch.equal(value, before[0][key]) for key, value in values.items())


@pytest.mark.parametrize("name", ["euler", "euler_ancestral", "dpmpp_2m"])
def test_any_sampler_of_comfyui_s(later, name):
    import comfy.samplers

    plain = sampled(later, None)
    before = state(later)
    sampler = comfy.samplers.sampler_object(name)
    guided = sampled(later, guidance(), sampler=sampler)
    assert_untouched(later, before)
    torch.testing.assert_close(guided[:2], latents(2), rtol=1e-4, atol=1e-4)  # the last step gives the guess
    assert not torch.allclose(guided[2:], sampled(later, guidance(weight=0.0), sampler=sampler)[2:], atol=1e-4)
    assert torch.equal(sampled(later, None), plain), "the model samples as before"


def test_with_our_sampler_and_a_mask(later):
    mask = torch.ones(FRAMES, 1, 8, 8)
    mask[:2] = 0
    latent = torch.cat([latents(2), torch.zeros(FRAMES - 2, 4, 8, 8)])
    sampler = LongTakeVdmSampler.execute(gamma=0.1, corrector_steps=1).args[0]
    guided, plain = (sampled(later, guidance(weight=weight), sampler=sampler, latent=latent, mask=mask) for weight in (2.0, 0.0))
    torch.testing.assert_close(guided[:2], latent[:2], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(guided[2:], plain[2:], atol=1e-4)


def test_an_error_and_cancel_leave_nothing(later):
    import comfy.model_management

    plain = sampled(later, None)
    before = state(later)

    def fails(clean):
        raise RuntimeError("the score failed")

    def cancelled(clean):
        raise comfy.model_management.InterruptProcessingException()

    for score, error in ((fails, RuntimeError), (cancelled, comfy.model_management.InterruptProcessingException)):
        with pytest.raises(error):
            sampled(later, GoalGuidance(score, latents=True))
        assert_untouched(later, before)
    assert torch.equal(sampled(later, None), plain)


def test_a_layer_that_fails_while_it_computes_again(later, monkeypatch):
    plain = sampled(later, None)
    before, calls = state(later), []
    block = later.model.diffusion_model.middle_block[0].out_layers[3]
    forward = type(block).forward

    def fails(self, *args, **kwargs):
        calls.append(1)
        if torch.is_grad_enabled() and self is block and len(calls) > 60:
            raise RuntimeError("out of luck")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(block), "forward", fails)
    with pytest.raises(RuntimeError, match="out of luck"):
        sampled(later, guidance(gradients=Gradients()))
    monkeypatch.undo()
    assert_untouched(later, before)
    assert torch.equal(sampled(later, None), plain)


def test_a_model_without_motion_is_refused_before_it_is_loaded_or_called(base, monkeypatch):
    monkeypatch.setattr(type(base.model), "apply_model", lambda *args, **kwargs: pytest.fail("the model was called"))
    with pytest.raises(ValueError, match=NO_MODULES):
        sampled(base, guidance())
    with pytest.raises(ValueError, match=NO_MODULES):
        LongTakeExtend.execute(
            model=base, clip={"samples": latents(4)}, positive=text(), new_frames=4, window=6, overlap=3, steps=2
        )


def test_a_motion_module_that_does_nothing_is_found_out(base, tmp_path):
    motion = load_motion_module(motion_file(tmp_path, "v3", zero=True))
    with pytest.raises(ValueError, match="nothing to guide them by"):
        sampled(host.apply_motion(base, motion), guidance())
    with pytest.raises(ValueError, match="nothing to guide them by"):
        sampled(host.apply_motion(base, motion, MotionSettings(effect=0.0)), guidance())


def test_a_goal_needs_no_motion(base):
    bright = [
        float(sampled(base, GoalGuidance(named("brightness", (target,)), 1000.0), cfg=1.0).mean(dim=(0, 2, 3)) @ weights())
        for target in (0.0, 1.0)
    ]
    assert bright[0] < bright[1]


def weights():
    """How ComfyUI's previews make brightness of SD1.5's latents."""
    import comfy.latent_formats

    return torch.tensor(comfy.latent_formats.SD15().latent_rgb_factors).mean(dim=1)


def test_extend_goes_on_with_a_motion_module(later):
    clip = latents(4)
    take, report = LongTakeExtend.execute(
        model=later,
        clip={"samples": clip},
        positive=text(3),
        negative=text(4),
        cfg=CFG,
        new_frames=5,
        window=6,
        overlap=3,
        steps=2,
        gradient_checkpointing=False,
    ).args
    assert torch.equal(take["samples"][:4], clip) and take["samples"].shape == (9, 4, 8, 8) and "5 of them new" in report


def test_windows_of_the_motion_module(later):
    """Windows inside the model: a graph goes through their indices too, which sampling without guidance made in inference mode."""
    windowed = host.context_windows(later, WindowPlan(length=4, overlap=2), "temporal")
    guided = sampled(windowed, guidance(when=When(start_percent=0.4), gradients=Gradients()), frames=8, steps=3)
    assert not torch.allclose(guided[2:], sampled(windowed, None, frames=8, steps=3)[2:], atol=1e-4)


def test_a_guider_may_be_used_again(later):
    """ComfyUI keeps the objects that nodes give: each sampling fits the guidance anew, and leaves it as it was."""
    import comfy.samplers

    sigmas = comfy.samplers.calculate_sigmas(later.get_model_object("model_sampling"), "normal", 2)
    with torch.inference_mode():
        guider = LongTakeGuider.execute(model=later, positive=text(3), negative=text(4), cfg=CFG, guidance=guidance()).args[0]
        euler, empty = comfy.samplers.sampler_object("euler"), torch.zeros(FRAMES, 4, 8, 8)
        clips = [guider.sample(latents(), empty.clone(), euler, sigmas, disable_pbar=True, seed=1).clone() for _ in range(2)]
    assert torch.equal(*clips)


def test_weights_that_layers_use_as_they_are():
    """Position tables and scales: no layer of ComfyUI's gives them out, so they are exchanged for the length of a sampling."""
    from pack.host.comfyui.sampling.gradients import differentiable

    with torch.inference_mode():
        module = nn.Module()
        module.scale, table = nn.Parameter(torch.full((3,), 2.0), requires_grad=False), torch.ones(3)
        module.register_buffer("table", table)
    given = module.scale
    with differentiable([module]), torch.enable_grad():
        x = torch.ones(3, requires_grad=True)
        (slope,) = torch.autograd.grad((x * module.scale * module.table).sum(), x)
    assert slope.tolist() == [2.0] * 3 and module.scale is given and module.table is table


def test_weights_in_a_graph_are_copies():
    """Layers may be given their weights in a buffer that the next layer's go into."""
    from pack.host.comfyui.sampling.gradients import own_copy

    weight = torch.ones(3)
    with torch.no_grad():
        assert own_copy(weight) is weight
    with torch.enable_grad():
        assert own_copy(weight).data_ptr() != weight.data_ptr()


def test_conditions_leave_inference_mode_for_the_call():
    import comfy.conds
    from pack.host.comfyui.sampling.gradients import predicted

    with torch.inference_mode():
        tokens, given = torch.full((3,), 2.0), torch.full((3,), 5.0)
    entry = {"model_conds": {"c": comfy.conds.CONDRegular(tokens)}, "strength": given}
    guider = SimpleNamespace(cfg=1.0, conds={"positive": [entry]}, loaded_models=[])
    conds = guider.conds

    def predict(x, sigma, options, seed):
        entry = guider.conds["positive"][0]
        return x * entry["model_conds"]["c"].cond * entry["strength"] * sigma

    with torch.inference_mode(False), torch.enable_grad():
        x = torch.ones(3, requires_grad=True)
        with torch.inference_mode():
            sigma = torch.full((3,), 7.0)
        clean = predicted(guider, predict, Gradients("both", False), x, sigma, {}, None)
        (slope,) = torch.autograd.grad(clean.sum(), x)
    assert slope.tolist() == [70.0] * 3 and guider.conds is conds


def test_a_latent_of_the_whole_clip_made_small(later):
    small = {"samples": 0.3 * torch.randn(FRAMES, 4, 4, 4, generator=torch.Generator().manual_seed(2))}
    guide = LongTakeReconstructionGuidance.execute(small_clip=small, weight=5.0).args[0]
    errors = [
        float((nn.functional.avg_pool2d(sampled(later, made, cfg=1.0, steps=4), 2) - small["samples"]).square().mean())
        for made in (guide, None)
    ]
    assert errors[0] < errors[1]


# Video models with an axis of frames, in flow coordinates


@pytest.fixture(scope="module")
def wan():
    with torch.inference_mode():
        return frozen(tiny_wan.wan_model())


def wan_sampled(model, guide, *, sampler=None, steps=2, cfg=CFG):
    import comfy.samplers

    sampler = sampler or comfy.samplers.sampler_object("euler")
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
    with torch.inference_mode():
        conditions = {"positive": tiny_wan.text(3), "negative": tiny_wan.text(4)}
        guider = LongTakeGuider.execute(model=model, cfg=cfg, guidance=guide, **conditions).args[0]
        noise = tiny_wan.video()
        return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=1).clone()


class WanMeasure(Measure):
    def fit(self, space):
        self.known = space.encode(tiny_wan.video(2, seed=9))
        assert self.known.shape == (2, 1, 16, *tiny_wan.SIZE), "frames first"
        return self


@pytest.mark.parametrize("checkpoint", [True, False])
def test_the_gradient_through_a_frozen_video_model(wan, checkpoint):
    measure = WanMeasure(Gradients(gradient_checkpointing=checkpoint))
    wan_sampled(wan, measure)
    assert measure.found[1] == pytest.approx(measure.found[0], rel=5e-3) and abs(measure.found[0]) > 1e-3


def test_known_frames_of_a_video_model(wan):
    """At pure noise a flow model has nothing to compare with: the first call is as without guidance."""
    samples = tiny_wan.video(2, seed=9)
    before = state(wan)
    guide = LongTakeReconstructionGuidance.execute(known_frames={"samples": samples}, known_at="last", weight=2.0).args[0]
    guided, plain = wan_sampled(wan, guide), wan_sampled(wan, None)
    assert_untouched(wan, before)
    torch.testing.assert_close(guided[:, :, -2:], samples, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(guided[:, :, :-2], plain[:, :, :-2], atol=1e-4)
    assert torch.equal(wan_sampled(wan, None), plain)


@pytest.mark.parametrize(("replacement", "weight"), [("none", 0.0), ("fresh", 2.0)])
def test_a_video_latent_is_extended(wan, replacement, weight):
    samples = tiny_wan.video(3, seed=9)
    take, report = LongTakeExtend.execute(
        model=wan,
        clip={"samples": samples},
        positive=tiny_wan.text(3),
        new_frames=4,
        window=4,
        overlap=2,
        steps=2,
        weight=weight,
        replacement=replacement,
    ).args
    assert torch.equal(take["samples"][:, :, :3], samples) and take["samples"].shape == (1, 16, 7, *tiny_wan.SIZE)
    assert torch.isfinite(take["samples"]).all() and "7 frames, 4 of them new" in report
