"""Reference attention inside ComfyUI: its formula written out, what it costs, and where it does nothing."""

from dataclasses import replace

import pytest
import torch
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.control.keyframes import Keyframes
from pack.modules.control.reference import ReferenceSettings
from pack.modules.temporal.block_rules import parse_blocks
from pack.modules.temporal.windows import WindowPlan
from small_workflows import Pixels
from tiny_motion import image_model, ksample, motion_file
from tiny_prompt import pictures
from whole_windows import close

pytestmark = pytest.mark.comfy
FRAMES, SIZE = 6, 8
LATENT = {"samples": torch.zeros(FRAMES, 4, SIZE, SIZE)}


def looking(model, images=None, keyframes=None, latent=LATENT, **settings):
    images = pictures(1) if images is None and keyframes is None else images
    return host.apply_reference(model, Pixels(), latent, images, keyframes, ReferenceSettings(**settings))


def sampled(model, steps=2, latent=LATENT, **more):
    return ksample(model, latent=latent["samples"], steps=steps, **more)


class Attentions:
    """The self-attentions of a U-Net, whose inputs are watched and may be changed from outside, without any of ComfyUI's patches."""

    def __init__(self, model):
        unet = model.model.diffusion_model
        self.layers = [layer for name, layer in unet.named_modules() if name.endswith("attn1")]
        self.kept, self.more, self.calls = {}, {}, 0
        for layer in self.layers:
            layer.register_forward_pre_hook(self.hook, with_kwargs=True)

    def hook(self, layer, args, kwargs):
        x = args[0]
        self.calls += 1
        self.kept[layer] = x
        if layer in self.more:
            return (x,), {**kwargs, "context": torch.cat([x, self.more[layer].expand(len(x), -1, -1)], dim=1), "value": None}
        return None


def test_a_frame_looks_at_itself_and_at_the_reference(comfyui):
    """One call of the model: the reference's pass and attention over both, by hand on the layers."""
    from pack.modules.noise.seeded import frame_noise

    model, images = image_model(), pictures(1)
    large = {"samples": torch.zeros(2, 4, 16, 16)}  # so that one row has more than one pixel at the deepest place
    told = looking(model, images, latent=large, negative_strength=1.0, seed=5)
    seen = {}

    def watching(apply, call):
        seen.update(call)
        seen["made"] = apply(call["input"], call["timestep"], **call["c"])
        return seen["made"]

    told.set_model_unet_function_wrapper(watching)
    sampled(told, 1, large, cfg=1.0)
    x, sigma, context = seen["input"], seen["timestep"], seen["c"]["c_crossattn"]
    hand, base = Attentions(model), model.model
    latents = told.get_attachment("longtake_reference").latents
    assert latents.shape == (1, 4, 16, 16)
    noisy = latents + sigma[:1, None, None, None] * frame_noise(latents.shape[1:], 5, range(1), "reference")
    with torch.inference_mode():
        options = {"transformer_options": {"cond_or_uncond": [0]}}
        plain = base.apply_model(x, sigma, c_crossattn=context, **options)
        base.apply_model(noisy, sigma[:1], c_crossattn=context[:1], **options)
        hand.more = dict(hand.kept)
        made = base.apply_model(x, sigma, c_crossattn=context, **options)
    close(seen["made"], made, 1e-5)
    assert (made - plain).abs().max() > 0.01


def test_strengths_of_nothing_change_nothing(comfyui):
    model = image_model()
    plain = sampled(model)
    assert torch.equal(sampled(looking(model, strength=0.0, negative_strength=0.0)), plain)
    none = tuple(parse_blocks("down 0; mid 0; up 0"))
    assert torch.equal(sampled(looking(model, blocks=none, negative_strength=1.0)), plain)
    close(sampled(looking(model, strength=1e-6, negative_strength=1e-6)), plain, 1e-4)
    whole = sampled(looking(model, negative_strength=1.0))
    assert (whole - plain).abs().max() > 0.01
    early = sampled(looking(model, negative_strength=1.0, end_percent=0.01))
    assert not torch.equal(early, whole) and not torch.equal(early, plain), "the last step is without it"
    assert torch.equal(sampled(model), plain), "the model itself is as it was"


def test_each_frame_looks_as_strongly_as_it_is_told(comfyui):
    model = image_model()
    plain, whole = sampled(model), sampled(looking(model, negative_strength=1.0))
    some = sampled(looking(model, negative_strength=1.0, per_frame=(0.0, 0.0, 1.0)))
    close(some[:2], plain[:2], 1e-5)
    close(some[2:], whole[2:], 1e-5)


def test_a_frame_looks_at_the_nearest_keyframe(comfyui):
    model, given = image_model(), pictures(2)
    keyed = sampled(looking(model, keyframes=Keyframes(given, (0, -1), (1.0, 1.0), (0, 0)), seed=3))
    first = sampled(looking(model, given[:1], seed=3))
    close(keyed[:2], first[:2], 1e-5)
    assert (keyed[-1] - first[-1]).abs().max() > 1e-3


def test_adain_gives_the_reference_s_spread(comfyui):
    model = image_model()
    one, other = (sampled(looking(model, adain=adain, negative_strength=1.0)) for adain in (False, True))
    assert torch.isfinite(other).all() and (one - other).abs().max() > 1e-3


def test_windows_share_one_pass_of_the_reference(comfyui, tmp_path):
    """Six windows of a clip in a step: the reference goes through the U-Net once for both conditions."""
    module = load_motion_module(motion_file(tmp_path, "v3", name="v3.safetensors"))
    told = looking(
        host.apply_motion(image_model(), module), negative_strength=1.0
    )  # less is mixed in by a replacement of the layer
    model = host.context_windows(told, WindowPlan(length=2, overlap=1), "whole")
    rows, layer = [], Attentions(model).layers[0]
    layer.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    sampled(model, steps=2, cfg=2.0)
    assert rows.count(2) == 2, "one row for each condition, once a step"
    assert sum(rows) == 2 * (2 + 5 * 2 * 2)


def test_motion_modules_rest_while_the_reference_is_looked_at(comfyui, tmp_path):
    """With a strength of nothing but in the first layer's place the clip is what motion makes; the pass itself is without motion."""
    module = load_motion_module(motion_file(tmp_path, "v3", name="v3.safetensors"))
    before = host.apply_motion(looking(image_model(), seed=2), module)
    after = looking(host.apply_motion(image_model(), module), seed=2)
    close(sampled(before), sampled(after), 1e-5)


def refused(sentence, model=None, latent=LATENT, images=None, keyframes=None):
    with pytest.raises(ValueError, match=sentence):
        host.apply_reference(model or image_model(), Pixels(), latent, images, keyframes, ReferenceSettings())


def test_bad_input_is_refused(comfyui):
    refused("nothing is connected: connect images or keyframes")
    refused("images and keyframes is connected", images=pictures(1), keyframes=Keyframes(pictures(1), (0,), (1.0,), (0,)))
    refused("it must be frames, channels, height, width", latent={"samples": torch.zeros(1, 4, 2, 8, 8)}, images=pictures(1))
    refused("this model looks at references already: give all pictures to one", looking(image_model()), images=pictures(1))
    with pytest.raises(ValueError, match="strength_per_frame has 2: each must lie between 0 and 1"):
        ReferenceSettings(per_frame=(1.0, 2.0))
    with pytest.raises(ValueError, match="strength is 2"):
        replace(ReferenceSettings(), strength=2.0)


def test_the_node_refuses_texts_before_work(comfyui):
    from pack.nodes.keyframes.reference import LongTakeReferenceAttention

    assert "strength_per_frame has 3" in LongTakeReferenceAttention.validate_inputs(strength_per_frame="3", blocks="")
    made = LongTakeReferenceAttention.execute(
        model=image_model(), vae=Pixels(), latent=LATENT, images=pictures(1), strength_per_frame="1, 0.5", blocks="up 0.5"
    ).args[0]
    assert torch.isfinite(sampled(made)).all()


def test_cancel_leaves_the_model_whole(comfyui):
    import comfy.model_management

    model = image_model()
    expected, told = sampled(model), looking(model)
    layer = model.model.diffusion_model.middle_block[1]
    hook = layer.register_forward_hook(lambda *_: comfy.model_management.interrupt_current_processing())
    stop = layer.register_forward_pre_hook(lambda *_: comfy.model_management.throw_exception_if_processing_interrupted())
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sampled(told, steps=3)
    hook.remove()
    stop.remove()
    comfy.model_management.interrupt_current_processing(False)
    assert torch.equal(sampled(model), expected)


def test_anothers_self_attention_is_left_as_it_is(comfyui):
    """Perturbed attention gives values back, of which there must be as many as queries; it stands in the middle block."""
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    told = looking(image_model(), negative_strength=1.0)
    made = getattr(PerturbedAttentionGuidance.execute(told, 3.0), "args", None)
    guided = (made or PerturbedAttentionGuidance.execute(told, 3.0))[0]
    one, other = sampled(guided, cfg=2.0), sampled(told, cfg=2.0)
    assert torch.isfinite(one).all() and (one - other).abs().max() > 1e-3
