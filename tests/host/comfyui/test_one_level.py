"""Samplers whose frames are all at one noise level: on video models that know no more than one, and over a part of the sigmas."""

import pytest
import tiny_wan
import torch
from custom import advanced, forcing, scheduler_sigmas, theirs
from tiny_motion import image_model, motion_file, text

pytestmark = pytest.mark.comfy
FRAMES, STEPS = 5, 4


def around(kind, config, base, seed=0):
    """ComfyUI's MODEL of a kind, small and with random weights."""
    import comfy.model_patcher

    settings = kind(config | {"dtype": torch.float32})
    settings.set_inference_dtype(torch.float32, None)
    cpu = torch.device("cpu")
    model = base(settings, device=cpu)
    tiny_wan.randomize(model.diffusion_model, seed)
    return comfy.model_patcher.ModelPatcher(model.requires_grad_(False).eval(), load_device=cpu, offload_device=cpu)


def ltx():
    from comfy import model_base, supported_models

    config = {"image_model": "ltxv", "in_channels": 128, "cross_attention_dim": 32, "attention_head_dim": 16}
    config |= {"num_attention_heads": 2, "caption_channels": 16, "num_layers": 1}
    return around(supported_models.LTXV, config, model_base.LTXV)


def hunyuan():
    from comfy import model_base, supported_models
    from comfy.ldm.hunyuan_video.model import HunyuanVideoParams

    config = {"image_model": "hunyuan_video", "in_channels": 16, "out_channels": 16, "vec_in_dim": 8, "context_in_dim": 16}
    config |= {"hidden_size": 32, "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1, "axes_dim": [4, 6, 6]}
    config |= {"theta": 256, "patch_size": [1, 2, 2], "qkv_bias": True, "guidance_embed": False, "byt5": False, "meanflow": False}
    config |= {"use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False}
    known = HunyuanVideoParams.__dataclass_fields__.keys() | {"image_model"}  # older versions have fewer
    config = {key: value for key, value in config.items() if key in known}
    return around(supported_models.HunyuanVideo, config, model_base.HunyuanVideo)


def vace():
    return tiny_wan.wan_model(kind="WAN21_Vace", model_type="vace", vace_layers=1, vace_in_dim=96)


def pooled(seed):
    ((words, more),) = text(seed)
    return [[words, {**more, "pooled_output": torch.zeros(1, 8)}]]


def framed(seed):
    ((words, more),) = text(seed)
    return [[words, {**more, "frame_rate": 25, "attention_mask": torch.ones(1, 4, dtype=torch.int64)}]]


MODELS = {
    "LTX": (ltx, (1, 128, FRAMES, 2, 2), framed),
    "Hunyuan": (hunyuan, (1, 16, FRAMES, 4, 4), pooled),
    "VACE": (vace, (1, 16, FRAMES, *tiny_wan.SIZE), tiny_wan.text),
    "Wan": (tiny_wan.wan_model, (1, 16, FRAMES, *tiny_wan.SIZE), tiny_wan.text),
    "SD1.5": (image_model, (FRAMES, 4, 8, 8), text),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def case(request):
    make, shape, prompt = request.param
    return make(), torch.zeros(shape), {"positive": prompt(3), "negative": prompt(4), "cfg": 2.0}


def vdm(**given):
    from pack import host
    from pack.modules.sampling.vdm import VdmSampler

    return host.forcing_sampler(VdmSampler(**given))


def close(one, other, tolerance):
    """Relative to the largest value."""
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance * float(other.abs().max()))


@pytest.mark.parametrize("order", ["euler", "heun"])
def test_full_sequence_is_comfyuis_on_any_model(case, order):
    model, latent, prompt = case
    sigmas = scheduler_sigmas(model, STEPS)
    made = advanced(model, forcing(frames=FRAMES, order=order), latent, sigmas, **prompt)
    close(made, advanced(model, theirs(order), latent, sigmas, **prompt), 2e-5)
    assert torch.isfinite(made).all() and made.std() > 0


def test_vdm_runs_on_any_model(case):
    model, latent, prompt = case
    made = advanced(model, vdm(), latent, scheduler_sigmas(model, STEPS), **prompt)
    assert torch.isfinite(made).all() and made.std() > 0


@pytest.mark.parametrize("first", ["ours", "comfyui's"])
@pytest.mark.parametrize("order", ["euler", "heun"])
def test_the_halves_of_split_sigmas_make_the_whole(case, order, first):
    """Two experts, each over its half: here both are one model, and the second half is ComfyUI's or ours."""
    model, latent, prompt = case
    sigmas, ours = scheduler_sigmas(model, 2 * STEPS), forcing(frames=FRAMES, steps=STEPS, order=order)
    whole = advanced(model, theirs(order), latent, sigmas, **prompt)
    samplers = (ours, theirs(order)) if first == "ours" else (theirs(order), ours)
    half = advanced(model, samplers[0], latent, sigmas[: STEPS + 1], **prompt)
    close(advanced(model, samplers[1], half, sigmas[STEPS:], noise=False, **prompt), whole, 2e-5)


@pytest.mark.parametrize(
    "sampler", [lambda: forcing(frames=FRAMES, eta=1.0), lambda: forcing(frames=FRAMES, order="renoise"), vdm]
)
def test_what_is_left_of_the_noise_is_there(sampler):
    """With fresh noise in every step, too: at the level where the high half ends, frames are as noisy as the level says."""
    model, latent, prompt = image_model(), torch.zeros(FRAMES, 4, 32, 32), {"positive": text(3)}
    sigmas = scheduler_sigmas(model, 2 * STEPS)[: STEPS + 1]
    half = model.model.process_latent_in(advanced(model, sampler(), latent, sigmas, **prompt))
    fine = half - torch.nn.functional.avg_pool2d(half, 3, 1, 1)
    assert float(fine.std()) > 0.7 * float(sigmas[-1])


@pytest.mark.parametrize("make", [ltx, hunyuan, vace])
def test_levels_per_frame_are_refused_before_the_first_call(make):
    name = {ltx: "LTX", hunyuan: "Hunyuan", vace: "VACE"}[make]
    model, (_, shape, prompt) = make(), MODELS[name]
    with pytest.raises(
        ValueError, match="takes one timestep for the whole clip, so all frames must be at one noise level: use full_seq"
    ):
        advanced(model, forcing("pyramid", frames=FRAMES), torch.zeros(shape), scheduler_sigmas(model, STEPS), positive=prompt(3))


@pytest.mark.parametrize(("schedule", "known"), [("pyramid", 0), ("full_sequence", 2)])
def test_the_high_half_is_refused_where_finished_frames_are_shown(schedule, known):
    model = image_model()
    sigmas = scheduler_sigmas(model, 2 * STEPS)[: STEPS + 1]
    latent = {"samples": torch.ones(FRAMES, 4, 8, 8)}
    with pytest.raises(ValueError, match="the high half of SplitSigmas is for full_sequence without known frames"):
        advanced(model, forcing(schedule, frames=FRAMES, known=known), latent, sigmas, positive=text(3))


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (lambda: forcing("pyramid", frames=FRAMES), 1),
        (lambda: forcing("autoregressive", frames=FRAMES), 1),
        (lambda: forcing(frames=FRAMES), 0),
        (vdm, 0),
        (lambda: fifo(), 0),
    ],
    ids=["pyramid", "autoregressive", "full_sequence", "vdm", "fifo"],
)
def test_modules_of_one_level_are_named_once(tmp_path, caplog, sampler, said):
    from pack import host
    from pack.modules.checkpoints.motion import load_motion_module

    model = host.apply_motion(image_model(), load_motion_module(motion_file(tmp_path)))
    advanced(model, sampler(), torch.zeros(FRAMES, 4, 8, 8), scheduler_sigmas(model, STEPS), positive=text(3))
    assert caplog.text.count("FIFO Sampler makes long takes with such a module") == said


def fifo():
    from pack import host
    from pack.modules.sampling.fifo import Fifo

    return host.forcing_sampler(Fifo(partitions=1, window=STEPS))
