"""Image prompts on ComfyUI's own U-Net, beside diffusers' IP-Adapter on the same weights, under windows and per-frame noise levels."""

from dataclasses import replace

import pytest
import torch
from custom import advanced, forcing, scheduler_sigmas, theirs
from pack.modules.checkpoints.image_prompt import load_image_prompt
from pack.modules.control.image_prompt import cross_layers
from pack.modules.control.keyframes import Keyframes
from pack.modules.control.prompt_settings import PromptSettings, parse_scales
from tiny_motion import SDXL_UNET, UNET, image_model, ksample, motion_file, randomized, text
from tiny_prompt import CLIP, SmallVision, in_two_dictionaries, pictures, prompt_file, prompt_state
from wrapped_models import loaded, wrapped

pytestmark = pytest.mark.comfy
# SDXL has several transformer blocks in one attention layer
DEEP = replace(
    SDXL_UNET,
    transformer_depth=(0, 0, 1, 1, 2, 2),
    transformer_depth_output=(0, 0, 0, 1, 1, 1, 2, 2, 2),
    transformer_depth_middle=2,
)
CONFIGS = {"SD1.5": UNET, "SDXL": DEEP}
FRAMES = 6


def prompt_of(model, folder, kind="plain", seed=21):
    path = prompt_file(folder, prompt_state(model.model.diffusion_model, kind, seed=seed), name=f"{kind}-{seed}.safetensors")
    return load_image_prompt(path)


def applied(model, prompt, *, scale=1.0, blend="interpolate", blocks="", start=0.0, end=1.0, **given):
    from pack import host

    settings = PromptSettings(scale, start, end, parse_scales(blocks), blend)
    given = {"clip_vision": SmallVision(), **given} if "clip_vision" not in given else given
    names = ("clip_vision", "images", "keyframes", "encoded")
    return host.apply_image_prompt(model, prompt, settings, *(given.get(name) for name in names))


@pytest.fixture(scope="module")
def base(comfyui):
    return image_model(config=UNET)


@pytest.fixture(scope="module")
def prompt(base, tmp_path_factory):
    return prompt_of(base, tmp_path_factory.mktemp("prompt"))


# Beside diffusers


def in_diffusers(model, config):
    """diffusers' U-Net with the weights of a small ComfyUI one."""
    import comfy.utils

    pytest.importorskip("diffusers")
    from diffusers import UNet2DConditionModel

    levels = len(config.channel_mult)
    depths = [config.transformer_depth[2 * level] for level in range(levels)]
    up = [config.transformer_depth_output[3 * level] for level in range(levels)]
    with torch.device("meta"):
        theirs = UNet2DConditionModel(
            block_out_channels=[config.model_channels * mult for mult in config.channel_mult],
            layers_per_block=2,
            down_block_types=["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
            up_block_types=["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(up)],
            cross_attention_dim=config.context_dim,
            transformer_layers_per_block=[max(1, depth) for depth in depths],
            attention_head_dim=config.num_heads,
        )
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    state, wanted = model.model.diffusion_model.state_dict(), theirs.state_dict()
    theirs.load_state_dict({name: state[ours] for name, ours in names.items() if name in wanted}, assign=True)
    return theirs.eval()


@pytest.fixture(scope="module", params=CONFIGS)
def both(request, comfyui):
    """A small ComfyUI model and diffusers' U-Net of the same weights."""
    model = image_model(config=CONFIGS[request.param])
    return model, in_diffusers(model, CONFIGS[request.param])


@pytest.mark.parametrize("kind", ["plain", "plus", "full"])
def test_the_whole_network_equals_diffusers(kind, both, tmp_path):
    """Projection, numbering of the layers, attention: everything between the image encoder and the output."""
    model, theirs = both
    state = prompt_state(model.model.diffusion_model, kind)
    patched = applied(model, load_image_prompt(prompt_file(tmp_path, state)), scale=0.7, images=pictures(1))
    seen = SmallVision().encode_image(pictures(1))
    shown = seen.image_embeds if kind == "plain" else seen.penultimate_hidden_states
    x, context = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), text()[0][0].repeat(2, 1, 1)
    t = torch.tensor([500.0, 300.0])
    theirs._load_ip_adapter_weights([in_two_dictionaries(state)], low_cpu_mem_usage=False)
    results = []
    with torch.no_grad():
        for scale in (0.0, 0.7):
            for processor in theirs.attn_processors.values():
                if hasattr(processor, "scale"):
                    processor.scale = [scale]
            embeds = [shown[:, None].repeat(2, *(1,) * shown.ndim)]
            results.append(theirs(x, t, context, added_cond_kwargs={"image_embeds": embeds}).sample)
        ours = noise_of(patched, x, t, context)
    without, expected = results
    assert (expected - without).abs().max() > 1e-2
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=2e-5)


def noise_of(model, x, t, context):
    """What a MODEL with image prompts predicts as diffusers' networks are called: ``x`` scaled for the network, ``t`` its timesteps."""
    with loaded(model) as base:
        sigma = base.model_sampling.sigma(t).view(-1, 1, 1, 1)
        scaled = x * (sigma**2 + 1).sqrt()
        clean = base.apply_model(scaled, sigma.flatten(), c_crossattn=context, transformer_options=wrapped(model))
    return (scaled - clean) / sigma


def test_attention_equals_diffusers_processor(base, prompt):
    """One layer, with queries of its own: IPAdapterAttnProcessor2_0."""
    pytest.importorskip("diffusers")
    from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor2_0
    from pack.host.comfyui.attach.image_prompt import Decoupled, PromptLayer
    from pack.modules.control.image_prompt import Mixture
    from pack.modules.temporal.chunks import ROWS

    generator = torch.Generator().manual_seed(5)
    layer = prompt.build().layers()[0]
    theirs = randomized(Attention(32, cross_attention_dim=16, heads=4, dim_head=8), 3)
    processor = IPAdapterAttnProcessor2_0(32, 16, num_tokens=[4], scale=[0.6])
    processor.to_k_ip[0].load_state_dict(layer.to_k_ip.state_dict())
    processor.to_v_ip[0].load_state_dict(layer.to_v_ip.state_dict())
    x, context = torch.randn(3, 20, 32, generator=generator), torch.randn(3, 7, 16, generator=generator)
    tokens = torch.randn(3, 4, 16, generator=generator)
    with torch.no_grad():
        expected = processor(theirs, x, encoder_hidden_states=(context, [tokens[:, None]]))
        mixture = Mixture(tokens, torch.eye(3), torch.full((3,), 0.6))
        ours = Decoupled((PromptLayer(layer, mixture, 1.0),), None)
        extra = {"n_heads": 4, "attn_precision": None, ROWS: torch.arange(3)}
        out = theirs.to_out[0](ours(theirs.to_q(x), theirs.to_k(context), theirs.to_v(context), extra))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


# On ComfyUI's sampler


def sampled(model, *, frames=FRAMES, steps=2, cfg=2.0):
    return ksample(model, frames=frames, steps=steps, cfg=cfg, size=4)


def same(one, other):
    """Equal but for the order in which numbers are added."""
    assert (one - other).abs().max() < 1e-4 * other.abs().max()


@pytest.fixture(scope="module")
def plain(base):
    return sampled(base, frames=FRAMES)


@pytest.fixture(scope="module")
def prompted(base, prompt):
    return sampled(applied(base, prompt, images=pictures(1)), frames=FRAMES)


def keyframes(*frames, strengths=None, reach=0, clip=0):
    return Keyframes(pictures(len(frames)), frames, strengths or (1.0,) * len(frames), (reach,) * len(frames), clip)


def test_pictures_change_the_clip_and_the_model_stays_as_it_was(base, plain, prompted):
    assert (plain - prompted).abs().max() > 1e-2
    assert torch.equal(sampled(base, frames=FRAMES), plain)
    assert not base.wrappers and not base.model_options["transformer_options"].get("patches_replace")
    assert "_longtake_image_prompts" not in base.model.diffusion_model.__dict__


@pytest.mark.parametrize("off", [{"scale": 0.0}, {"blocks": "all 0"}])
def test_nothing_is_nothing_bit_for_bit(off, base, prompt, plain):
    assert torch.equal(sampled(applied(base, prompt, images=pictures(1), **off)), plain)


def test_plain_attention_through_the_replacement_is_bit_for_bit(base, prompt, plain):
    """A frame whose picture has strength 0 beside one that has some: the same numbers as without image prompt."""
    model = applied(base, prompt, keyframes=keyframes(0, FRAMES - 1, strengths=(1.0, 0.0)), blend="nearest")
    clip = sampled(model, frames=FRAMES)
    assert torch.equal(clip[FRAMES // 2 :], plain[FRAMES // 2 :])
    assert (clip[: FRAMES // 2] - plain[: FRAMES // 2]).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_each_layer_gets_its_own_keys_and_values(both, tmp_path):
    """Only the n-th pair of the file is not zero: then the output of the n-th attention to the text changes first, and no earlier one."""
    model, _ = both
    order = [layer.block for layer in cross_layers(model.model.diffusion_model)]
    sides = ("input", "middle", "output")
    in_time = sorted(order, key=lambda block: (sides.index(block[0]), block[1:]))
    assert order != in_time, "the file's order is not that of the network"
    prompt = prompt_of(model, tmp_path)
    x, t, context = torch.randn(1, 4, 4, 4), torch.tensor([400.0]), text()[0][0]
    before = outputs_of(model, x, t, context)
    for place in {0, 1, len(order) // 2, len(order) - 2, len(order) - 1}:
        kept = ("image_proj.", f"ip_adapter.{2 * place + 1}.")
        state = {key: value if key.startswith(kept) else torch.zeros_like(value) for key, value in prompt.state.items()}
        after = outputs_of(applied(model, replace(prompt, state=state), images=pictures(1)), x, t, context)
        changed = [block for block in order if not torch.equal(before[block], after[block])]
        assert min(changed, key=in_time.index) == order[place]


def outputs_of(model, x, t, context):
    """What comes out of each attention to the text in one call of a MODEL."""
    found, hooks = {}, []
    for layer in cross_layers(model.model.diffusion_model):
        keep = lambda module, args, out, block=layer.block: found.update({block: out.clone()})  # noqa: E731
        hooks.append(layer.attention.to_out.register_forward_hook(keep))
    try:
        with torch.no_grad():
            noise_of(model, x, t, context)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def test_the_negative_condition_sees_no_picture(base, prompt):
    """At guidance 1 only the positive condition counts, at 0 only the negative one, which two different pictures leave alike."""
    first, second = (applied(base, prompt, images=pictures(1, seed=seed)) for seed in (1, 2))
    assert torch.equal(sampled(first, frames=2, cfg=0.0), sampled(second, frames=2, cfg=0.0))
    assert not torch.equal(sampled(first, frames=2, cfg=1.0), sampled(second, frames=2, cfg=1.0))


def test_zeros_stand_for_no_picture(base, prompt, plain):
    """The negative condition sees what the projection makes of zeros, as IP-Adapter was trained, and not nothing."""
    assert (
        sampled(applied(base, prompt, images=pictures(1)), frames=2, cfg=0.0) - sampled(base, frames=2, cfg=0.0)
    ).abs().max() > 1e-3


def test_several_are_added(base, tmp_path):
    """Their order does not matter, and twice the same at half is the same at once."""
    one, two = (prompt_of(base, tmp_path, kind, seed) for kind, seed in (("plain", 1), ("plus", 2)))
    there = sampled(applied(applied(base, one, images=pictures(1)), two, images=pictures(1)), frames=2)
    back = sampled(applied(applied(base, two, images=pictures(1)), one, images=pictures(1)), frames=2)
    same(there, back)
    once = sampled(applied(base, one, images=pictures(1)), frames=2)
    assert (there - once).abs().max() > 1e-2
    halves = applied(applied(base, one, scale=0.5, images=pictures(1)), one, scale=0.5, images=pictures(1))
    same(sampled(halves, frames=2), once)


def test_pictures_beside_each_other_are_more_tokens(base, prompt):
    """The same picture twice is the picture once: attention is a mean."""
    twice = pictures(1).repeat(2, 1, 1, 1)
    same(sampled(applied(base, prompt, images=twice), frames=2), sampled(applied(base, prompt, images=pictures(1)), frames=2))


def test_another_packs_replacement_is_called_in_its_place(base, prompt):
    from comfy.ldm.modules.attention import optimized_attention

    def halved(q, k, v, extra):
        return 0.5 * optimized_attention(q, k, v, extra["n_heads"])

    patched = base.clone()
    for block in [("input", 1), ("input", 2), ("middle", 0)]:
        patched.set_model_attn2_replace(halved, *block)
    both = applied(patched, prompt, images=pictures(1))
    results = [sampled(model, frames=2) for model in (base, patched, applied(base, prompt, images=pictures(1)), both)]
    assert all((one - other).abs().max() > 1e-3 for place, one in enumerate(results) for other in results[:place])
    assert patched.model_options["transformer_options"]["patches_replace"]["attn2"].keys() == {
        ("input", 1),
        ("input", 2),
        ("middle", 0),
    }
    off = applied(patched, prompt, images=pictures(1), scale=0.0)
    assert torch.equal(sampled(off, frames=2), results[1])


def test_a_lora_of_the_image_model_still_works(base, prompt):
    import comfy.sd
    from small_workflows import spatial_lora

    with_lora, _ = comfy.sd.load_lora_for_models(base, None, spatial_lora(), 1.0, 0.0)
    before, after = (sampled(applied(model, prompt, images=pictures(1)), frames=2) for model in (base, with_lora))
    assert (before - after).abs().max() > 1e-3
    late, _ = comfy.sd.load_lora_for_models(applied(base, prompt, images=pictures(1)), None, spatial_lora(), 1.0, 0.0)
    assert torch.equal(sampled(late, frames=2), after)


# Per frame


def test_each_frame_sees_its_own_keyframe(base, prompt):
    """Without motion a frame is what it would be with its picture alone, and between two something of both."""
    frames = keyframes(0, FRAMES - 1)
    blended = sampled(applied(base, prompt, keyframes=frames), frames=FRAMES)
    alone = [sampled(applied(base, prompt, images=frames.images[[place]]), frames=FRAMES) for place in (0, 1)]
    same(blended[0], alone[0][0])
    same(blended[-1], alone[1][-1])
    assert min((blended[2] - one[2]).abs().max() for one in alone) > 1e-3


def test_reach_ends(base, prompt, plain):
    clip = sampled(applied(base, prompt, keyframes=keyframes(1, reach=1), blend="reach"), frames=FRAMES)
    moved = [(clip[frame] - plain[frame]).abs().max() > 1e-3 for frame in range(FRAMES)]
    assert moved == [True, True, True, False, False, False]
    assert torch.equal(clip[3:], plain[3:])


@pytest.fixture(scope="module")
def module(comfyui, tmp_path_factory):
    from pack.modules.checkpoints.motion import load_motion_module

    return load_motion_module(motion_file(tmp_path_factory.mktemp("motion")))


@pytest.mark.parametrize("mode", ["whole", "temporal", "views"])
def test_windows_change_nothing_where_frames_do_not_know_each_other(mode, base, prompt, module):
    from pack import host
    from pack.modules.temporal.settings import MotionSettings
    from pack.modules.temporal.windows import WindowPlan

    still = host.apply_motion(base, module, MotionSettings(effect=0.0), "model")
    model = applied(still, prompt, keyframes=keyframes(0, 3, -1))
    windowed = host.context_windows(model, WindowPlan(length=4, overlap=2), mode)
    expected = sampled(applied(base, prompt, keyframes=keyframes(0, 3, -1)), frames=9)
    same(sampled(windowed, frames=9), expected)


def test_comfyuis_own_windows(base, prompt):
    """Its handler cuts the batch axis too, and says which frames are in it."""
    import comfy.context_windows as core

    model = applied(base, prompt, keyframes=keyframes(0, -1))
    settings = {
        "context_schedule": core.get_matching_context_schedule("standard_static"),
        "fuse_method": core.get_matching_fuse_method("pyramid"),
        "context_length": 4,
        "context_overlap": 2,
        "context_stride": 1,
        "closed_loop": False,
        "dim": 0,
    }
    windowed = model.clone()
    windowed.model_options["context_handler"] = one_level(core, settings)
    same(sampled(windowed, frames=FRAMES), sampled(model, frames=FRAMES))


def one_level(core, settings):
    """ComfyUI's handler, whose ``set_step`` compares a vector of levels with one in some versions."""

    class Handler(core.IndexListContextHandler):
        def set_step(self, timestep, model_options):
            super().set_step(timestep[:1], model_options)

    return Handler(**settings)


def test_chunks_of_frames_change_nothing(base, module, prompt, monkeypatch):
    """Motion modules let spatial layers see a few frames at a time: each then sees its own pictures."""
    from pack import host
    from pack.host.comfyui.attach import motion_call

    model = applied(host.apply_motion(base, module), prompt, keyframes=keyframes(0, 3, -1))
    expected = sampled(model, frames=FRAMES)
    real = motion_call.plan_for
    monkeypatch.setattr(motion_call, "plan_for", lambda *args, **kwargs: replace(real(*args, **kwargs), chunk=2))
    same(sampled(model, frames=FRAMES), expected)


def test_a_range_counts_for_each_frame_by_its_own_noise_level(base, prompt):
    """One call with noise levels that lie on both sides of the end."""
    model = applied(base, prompt, images=pictures(1), end=0.5)
    x, context = torch.randn(2, 4, 8, 8), text()[0][0].repeat(2, 1, 1)
    t = torch.tensor([900.0, 100.0])
    with torch.no_grad():
        both = noise_of(model, x, t, context)
        without = noise_of(base, x, t, context)
        always = noise_of(applied(base, prompt, images=pictures(1)), x, t, context)
    torch.testing.assert_close(both[0], always[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(both[1], without[1])
    assert (always[1] - without[1]).abs().max() > 1e-3


def test_a_noise_level_per_frame_and_a_rolling_window(base, prompt):
    """Without motion a frame gets what it gets when all frames are at its level: keyframes, start and end by its own number and level."""
    model = applied(base, prompt, keyframes=keyframes(0, 3, -1), start=0.1, end=0.7)
    sigmas, latent = scheduler_sigmas(model, 4), torch.zeros(8, 4, 4, 4)
    given = {"positive": text(3), "negative": text(4), "cfg": 2.0}
    expected = advanced(model, theirs("euler"), latent, sigmas, **given)
    same(advanced(model, forcing("pyramid", 8, 4, window=5), latent, sigmas, **given), expected)


def test_blocks_have_their_own_scale(base, prompt):
    full = applied(base, prompt, images=pictures(1))
    results = [
        sampled(model, frames=2)
        for model in (
            base,
            full,
            *(applied(base, prompt, images=pictures(1), blocks=rule) for rule in ("up 0", "down 0; mid 0", "up.1.1 0")),
        )
    ]
    assert all((one - other).abs().max() > 1e-4 for place, one in enumerate(results) for other in results[:place])
    same(
        sampled(applied(base, prompt, images=pictures(1), blocks="all 0.5"), frames=2),
        sampled(applied(base, prompt, images=pictures(1), scale=0.5), frames=2),
    )


# What it refuses, and what it leaves behind


REFUSED = {
    "another base": (
        lambda base, folder: (base, prompt_of(image_model(config=SDXL_UNET), folder), {"images": pictures(1)}),
        "is for a U-Net .* and the model is",
    ),
    "no image encoder": (
        lambda base, folder: (base, prompt_of(base, folder), {"images": pictures(1), "clip_vision": None}),
        "no CLIP vision model is connected",
    ),
    "no picture": (lambda base, folder: (base, prompt_of(base, folder), {}), "no picture is connected"),
    "two answers": (
        lambda base, folder: (base, prompt_of(base, folder), {"images": pictures(1), "keyframes": keyframes(0)}),
        "images and keyframes are both connected",
    ),
    "another encoder": (
        lambda base, folder: (base, prompt_of(base, folder), {"images": pictures(1), "clip_vision": SmallVision(CLIP + 1)}),
        f"gives {CLIP} features and this one gives {CLIP + 1}",
    ),
    "encoded, but no picture unknown": (
        lambda base, folder: (
            base,
            prompt_of(base, folder, "plus"),
            {"encoded": SmallVision().encode_image(pictures(1)), "clip_vision": None},
        ),
        "a plus image prompt needs it for no picture",
    ),
    "too few encoded": (
        lambda base, folder: (
            base,
            prompt_of(base, folder),
            {"encoded": SmallVision().encode_image(pictures(1)), "keyframes": keyframes(0, 1)},
        ),
        "2 keyframes and 1 encoded pictures",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses_in_one_sentence(name, base, tmp_path):
    make, sentence = REFUSED[name]
    model, prompt, given = make(base, tmp_path)
    with pytest.raises(ValueError, match=sentence) as refusal:
        applied(model, prompt, **given)
    assert "\n" not in str(refusal.value)


def test_a_keyframe_outside_the_clip_is_refused_before_sampling(base, prompt, monkeypatch):
    model = applied(base, prompt, keyframes=keyframes(0, 7))
    monkeypatch.setattr(type(base.model), "apply_model", lambda *args, **kwargs: pytest.fail("the model was called"))
    with pytest.raises(ValueError, match="a keyframe is at frame 7 and the clip has 6 frames"):
        sampled(model, frames=FRAMES)


def test_after_a_cancelled_sampling_everything_is_as_before(base, prompt, plain, monkeypatch):
    import comfy.model_management as management

    model = applied(base, prompt, images=pictures(1))
    real = type(base.model.diffusion_model).forward

    def interrupted(*args, **kwargs):
        raise management.InterruptProcessingException

    monkeypatch.setattr(type(base.model.diffusion_model), "forward", interrupted)
    with pytest.raises(management.InterruptProcessingException):
        sampled(model, frames=2)
    monkeypatch.setattr(type(base.model.diffusion_model), "forward", real)
    assert "longtake_image_prompt" not in model.model_options["transformer_options"]
    assert torch.equal(sampled(base, frames=FRAMES), plain)


def test_encoded_pictures_are_as_good(base, prompt):
    encoded = SmallVision().encode_image(pictures(1))
    model = applied(base, prompt, encoded=encoded, clip_vision=None)
    assert torch.equal(sampled(model, frames=2), sampled(applied(base, prompt, images=pictures(1)), frames=2))


def test_no_picture_is_the_mean_colour_for_those_that_look_at_tokens(base, tmp_path):
    vision = SmallVision()
    applied(base, prompt_of(base, tmp_path, "plus"), images=pictures(1), clip_vision=vision)
    shown, nothing = vision.calls
    assert torch.equal(shown, pictures(1))
    torch.testing.assert_close(nothing[0, 0, 0], torch.tensor(vision.image_mean))


@pytest.mark.parametrize("kind", ["plain", "plus", "full"])
def test_comfyuis_own_image_encoder(kind, base, tmp_path):
    """A small one of its class: features as it gives them, and a mean colour that its own preprocessing makes nothing of."""
    import json

    import comfy.clip_model
    import comfy.clip_vision
    from pack.host.comfyui.attach.image_prompt import see

    settings = {
        "model_type": "clip_vision_model",
        "hidden_size": CLIP,
        "projection_dim": CLIP,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "num_channels": 3,
        "hidden_act": "gelu",
        "patch_size": 8,
        "image_size": 16,
    }
    path = tmp_path / "vision.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    vision = comfy.clip_vision.ClipVisionModel(str(path))
    randomized(vision.model, 9)
    seen, nothing = see(vision, pictures(2), kind)
    assert seen.shape == ((2, CLIP) if kind == "plain" else (2, 5, CLIP)), "four patches and a class token"
    assert nothing.shape == seen[:1].shape
    mean = torch.tensor(vision.image_mean).expand(1, 16, 16, 3)
    preprocess = getattr(comfy.clip_model, "clip_preprocess", None) or comfy.clip_vision.clip_preprocess  # where it was before
    pixels = preprocess(mean, size=16, mean=vision.image_mean, std=vision.image_std)
    assert pixels.abs().max() < 0.01, "rounded to 8 bits"
    model = applied(base, prompt_of(base, tmp_path, kind), keyframes=keyframes(0, -1), clip_vision=vision)
    assert torch.isfinite(sampled(model, frames=2, steps=1)).all()


def test_gradients_go_through(base, prompt):
    """As guidance by gradients asks for them, where everything was made in inference mode."""
    with torch.inference_mode():
        model = applied(base, prompt, images=pictures(1))
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with torch.enable_grad():
        noise_of(model, x, torch.tensor([500.0]), text()[0][0]).square().sum().backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().max() > 1e-3
