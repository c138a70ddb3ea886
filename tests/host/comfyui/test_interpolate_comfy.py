"""Hint latents, pseudo-3-D U-Nets and frame rates inside ComfyUI: what reaches the network, and what is left behind."""

import re
from dataclasses import replace

import pytest
import torch
from article import by_the_article
from custom import advanced, scheduler_sigmas
from einops import rearrange
from small_pseudo3d import SMALL, file_state, folder, joined
from tiny import video_model
from tiny_motion import UNET, image_model, ksample, motion_file, randomized, text

pytestmark = pytest.mark.comfy
INPAINT = replace(UNET, in_channels=9)


def hints(samples, /, **inputs):
    """(positive, negative, latent) of Hint Latents."""
    from pack.nodes.keyframes.hints import LongTakeHintLatents

    given = {"positive": text(3), "negative": text(4), "samples": {"samples": samples}} | inputs
    return LongTakeHintLatents.execute(**given).args


def keys(count, channels=4, size=8, seed=0):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def inpainting_model(tmp_path, frames=None):
    """An SD1.5 inpainting checkpoint in small, with a motion module."""
    from pack.modules.checkpoints.motion import load_motion_module
    from pack.nodes.motion.motion import LongTakeApplyMotionModule

    model = image_model(config=INPAINT, in_channels=9)
    model.model.set_inpaint()
    module = load_motion_module(motion_file(tmp_path))
    settings = {"positions": "extend"} if frames else {}
    return LongTakeApplyMotionModule.execute(model=model, motion_module=module, noise_schedule="model", **settings).args[0]


class Watching:
    """What the network's first layer is given while a test runs, by call."""

    def __init__(self, model):
        self.layer, self.inputs = model.model.diffusion_model.input_blocks[0][0], []

    def __enter__(self):
        self.handle = self.layer.register_forward_pre_hook(lambda _, args: self.inputs.append(args[0].detach().clone()))
        return self

    def __exit__(self, *_):
        self.handle.remove()


@pytest.mark.parametrize("frames", [5, 17, 65])
@pytest.mark.parametrize("k", [2, 4, 5])
def test_the_network_is_told_what_the_article_says(tmp_path, frames, k):
    """Mask and hints reach the first layer in the order of an inpainting checkpoint, frame by frame, both for positive and negative."""
    if frames == 65 and k != 4:
        pytest.skip("one length of 65 frames is enough here: test_interpolate.py has the others")
    model = inpainting_model(tmp_path, frames)
    clip = keys(frames)
    positive, negative, latent, length, known_at = hints(clip[::k], factor=k, frames=frames, pin=False)
    assert length == frames and known_at == "" and "noise_mask" not in latent
    with Watching(model) as seen:
        ksample(model, latent=latent["samples"], steps=1, positive=positive, negative=negative)
    scaled = model.model.process_latent_in(clip)
    (call,) = seen.inputs
    for part in call.chunk(2):
        assert torch.equal(part[:, 4:], by_the_article(scaled, k))


def test_recursion_keeps_pinned_keyframes_bit_for_bit(tmp_path):
    """5 to 17 to 65 with Rollout, which gives back what is known as it was given."""
    from pack.modules.sampling.noise_levels import NoiseLevels
    from pack.nodes.forcing.forcing import LongTakeRollout

    model, first = inpainting_model(tmp_path, 65), keys(5)
    now = first
    for _ in range(2):
        positive, negative, latent, frames, known_at = hints(now)
        levels = NoiseLevels.named("full_sequence", frames, 1, lag=0, known=[int(number) for number in known_at.split(",")])
        given = {"known_frames": latent, "noise_levels": levels, "window": frames, "context_noise": 0.0}
        now = LongTakeRollout.execute(model=model, positive=positive, negative=negative, **given).args[0]["samples"]
    assert len(now) == 65
    assert torch.equal(now[::16], first)


def test_other_samplers_keep_them_but_for_rounding(tmp_path):
    """The model's own numbers are the latent's times a factor, there and back."""
    from pack.nodes.forcing.vdm import LongTakeVdmSampler

    model, first = inpainting_model(tmp_path), keys(5)
    positive, negative, latent, *_ = hints(first)
    sigmas, conditions = scheduler_sigmas(model, 2), {"positive": positive, "negative": negative, "cfg": 2.0}
    made = advanced(model, LongTakeVdmSampler.execute().args[0], latent, sigmas, **conditions)
    torch.testing.assert_close(made[::4], first, atol=1e-6, rtol=1e-6)
    assert (made[1::4] - made[0:-1:4]).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_windows_take_their_frames_hints_along(tmp_path):
    """Whole windows: each call is told the hints of its own frames, and all frames are told."""
    from pack.nodes.motion.windows import LongTakeContextWindows

    model = inpainting_model(tmp_path)
    clip = keys(17)
    positive, negative, latent, *_ = hints(clip[::4], pin=False)
    windowed = LongTakeContextWindows.execute(model=model, mode="whole", length=8, overlap=4).args[0]
    with Watching(windowed) as seen:
        ksample(windowed, latent=latent["samples"], steps=1, cfg=1.0, positive=positive, negative=negative)
    told = by_the_article(model.model.process_latent_in(clip), 4)
    places = []
    for call in seen.inputs:
        (start,) = [at for at in range(17) if len(call) <= 17 - at and torch.equal(call[:, 4:], told[at : at + len(call)])][:1]
        places += range(start, start + len(call))
    assert len(seen.inputs) > 1 and set(places) == set(range(17))


def hinted_model(seed=0):
    """A LongTake video model with hints, of random weights."""
    from pack import host
    from pack.modules.checkpoints.video_model import VideoModel, with_hints

    video = with_hints(video_model(seed, labels=(), unet=video_config()))
    first = video.unet["input_blocks.0.0.weight"].clone()
    first[:, 48:] = 0.1 * torch.randn(first[:, 48:].shape, generator=torch.Generator().manual_seed(seed))
    return host.video_model(VideoModel(video.info, {**video.unet, "input_blocks.0.0.weight": first}, video.temporal))


def video_config():
    from tiny import config

    return config(in_channels=48, out_channels=48)


def test_a_longtake_model_with_hints_is_told_the_same(tmp_path):
    model, clip = hinted_model(), keys(9, 48, 4)
    positive, negative, latent, *_ = hints(clip[::4], layout="custom", hint="linear", mask="between")
    with Watching(model) as seen:
        made = ksample(model, latent=latent["samples"], steps=2, positive=positive, negative=negative)
    from pack.modules.control.hints import Layout

    told = Layout("linear", "between").hints(clip[::4], (0, 4, 8), 9).joined()
    assert all(torch.equal(part[:, 48:], told) for call in seen.inputs for part in call.chunk(2))
    other = hints(keys(3, 48, 4, seed=9), layout="custom", hint="linear", mask="between")
    assert (made - ksample(model, latent=latent["samples"], steps=2, positive=other[0], negative=other[1])).abs().max() > 1e-3


def test_a_rollout_shows_each_frame_its_own_hint():
    """Our own samplers show some frames of the clip at a time."""
    from pack.nodes.forcing.forcing import LongTakeRollout

    model, clip = hinted_model(), keys(9, 48, 4)
    positive, negative, _, frames, known_at = hints(clip[::4])
    assert known_at == "0, 4, 8"
    with Watching(model) as seen:
        LongTakeRollout.execute(
            model=model, positive=positive, negative=negative, frames=frames, schedule="pyramid", steps=2, window=4
        )
    told, shown = by_the_article(clip, 4), set()
    for call in seen.inputs:
        part = call.chunk(2)[0] if len(call) > 4 else call
        starts = [at for at in range(9) if len(part) <= 9 - at and torch.equal(part[:, 48:], told[at : at + len(part)])]
        assert starts, "the hints of neighbouring frames"
        shown |= set(range(starts[0], starts[0] + len(part)))
    assert shown == set(range(9))


def test_a_model_with_hints_refuses_a_prompt_without():
    model = hinted_model()
    with pytest.raises(ValueError, match="its conditioning has none: put Hint Latents between the prompt and the sampler"):
        ksample(model, latent=torch.zeros(9, 48, 4, 4), steps=1)


def pseudo_model(tmp_path, **options):
    from pack import host
    from pack.modules.checkpoints.pseudo3d import load_pseudo3d

    file = load_pseudo3d(folder(tmp_path, file_state(**options)))
    return host.pseudo3d_model(file), file


def call_of(model, x, sigma, context, concat):
    """What the MODEL takes the clean clip to be, in one call inside a sampling."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model, *model.get_nested_additional_models()])
    model.pre_run()
    from comfy.patcher_extension import WrappersMP

    options = {"wrappers": {WrappersMP.APPLY_MODEL: model.get_wrappers(WrappersMP.APPLY_MODEL, "longtake")}}
    wrappers = {WrappersMP.APPLY_MODEL: {"longtake": options["wrappers"][WrappersMP.APPLY_MODEL]}}
    with torch.inference_mode():
        return model.model.apply_model(
            x, sigma, c_concat=concat, c_crossattn=context, transformer_options={"cond_or_uncond": [0], "wrappers": wrappers}
        )


def test_a_pseudo3d_model_computes_what_its_file_says(tmp_path):
    """The MODEL in ComfyUI's hands and the network by itself, 5 frames."""
    model, file = pseudo_model(tmp_path)
    x, concat = keys(5), torch.cat([torch.zeros(5, 1, 8, 8), keys(5, seed=1)], dim=1)
    context, sigma = text(3)[0][0], torch.full((5,), 2.5)
    made = call_of(model, x, sigma, context.expand(5, -1, -1), concat)
    run, _ = joined(file)
    t = model.model.model_sampling.timestep(sigma[:1]).float()
    clip = rearrange(torch.cat([x / (1 + 2.5**2) ** 0.5, concat], dim=1), "f c h w -> 1 c f h w")
    eps = rearrange(run(clip, t, context), "1 c f h w -> f c h w")
    torch.testing.assert_close(made, x - 2.5 * eps, atol=2e-4, rtol=1e-3)


def test_a_static_clip_is_what_the_image_model_makes(tmp_path):
    from comfy.model_patcher import ModelPatcher

    model, _ = pseudo_model(tmp_path, plain=True)
    x, concat = keys(1).expand(4, -1, -1, -1), torch.cat([torch.zeros(1, 1, 8, 8), keys(1, seed=1)], dim=1)
    context, sigma = text(3)[0][0], torch.full((4,), 2.5)
    made = call_of(model, x, sigma, context.expand(4, -1, -1), concat.expand(4, -1, -1, -1))
    plain = ModelPatcher(model.model, torch.device("cpu"), torch.device("cpu"))
    model.detach()
    with torch.inference_mode():
        image = plain.model.apply_model(x[:1], sigma[:1], c_concat=concat, c_crossattn=context, transformer_options={})
    torch.testing.assert_close(made, image.expand(4, -1, -1, -1), atol=2e-5, rtol=1e-4)


def test_a_pseudo3d_model_is_an_ordinary_model(tmp_path):
    """KSampler with CFG, a first frame to go on from, another length; frames hang on each other; the U-Net is itself afterwards."""
    model, _ = pseudo_model(tmp_path)
    before = {key: value.clone() for key, value in model.model.diffusion_model.state_dict().items()}
    positive, negative, latent, length, _ = hints(keys(1), layout="tempofunk", frames=7)
    assert length == 6
    made = ksample(model, latent=latent["samples"], steps=2, positive=positive, negative=negative)
    assert made.shape == (6, 4, 8, 8) and torch.isfinite(made).all()
    assert (made - made[:1]).abs().amax(dim=(1, 2, 3))[1:].min() > 1e-3
    again = ksample(model.clone(), latent=latent["samples"], steps=2, positive=positive, negative=negative)
    assert torch.equal(made, again)
    other = hints(keys(1, seed=8), layout="tempofunk", frames=7)
    assert (made - ksample(model, latent=latent["samples"], steps=2, positive=other[0], negative=other[1])).abs().max() > 1e-3
    model.detach()
    after = model.model.diffusion_model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not [name for layer in model.model.diffusion_model.modules() for name in layer.__dict__ if "swapped" in name]


def test_cancel_in_the_middle_leaves_the_model_whole(tmp_path):
    import comfy.model_management

    model, _ = pseudo_model(tmp_path)
    positive, negative, latent, *_ = hints(keys(2), factor=4)
    expected = ksample(model, latent=latent["samples"], steps=2, positive=positive, negative=negative)
    layer = model.model.diffusion_model.middle_block[1]
    hook = layer.register_forward_hook(lambda *_: comfy.model_management.interrupt_current_processing())
    stop = layer.register_forward_pre_hook(lambda *_: comfy.model_management.throw_exception_if_processing_interrupted())
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        ksample(model, latent=latent["samples"], steps=3, positive=positive, negative=negative)
    hook.remove()
    stop.remove()
    comfy.model_management.interrupt_current_processing(False)
    assert torch.equal(ksample(model, latent=latent["samples"], steps=2, positive=positive, negative=negative), expected)


def test_the_menu_offers_a_diffusers_folder_and_the_loader_takes_it(tmp_path):
    import folder_paths
    from pack.nodes.models.models import LongTakeLoadVideoModel

    there = folder_paths.get_folder_paths("longtake_models")[0]
    path = folder(__import__("pathlib").Path(there), file_state(), name="toy_timelapse")
    try:
        folder_paths.filename_list_cache.clear()
        name = next(item for item in LongTakeLoadVideoModel.define_schema().inputs[0].options if "toy_timelapse" in item)
        model, vae = LongTakeLoadVideoModel.execute(model_name=name).args
        assert model.model.diffusion_model.input_blocks[0][0].in_channels == SMALL.in_channels
        with pytest.raises(ValueError, match="toy_timelapse has no VAE here: connect that of Stable Diffusion 1.5"):
            vae.decode(keys(1))
    finally:
        path.unlink()
        folder_paths.filename_list_cache.clear()


@pytest.fixture
def interpolate_node(comfyui):
    """ComfyUI's FrameInterpolate in its registry, where this version has it."""
    import nodes

    try:
        from comfy_extras.nodes_frame_interpolation import FrameInterpolate
    except ImportError:
        return None
    nodes.NODE_CLASS_MAPPINGS.setdefault("FrameInterpolate", FrameInterpolate)
    return FrameInterpolate


def test_without_a_node_or_a_model_it_is_said_what_to_do(interpolate_node, monkeypatch):
    import nodes
    from pack.nodes.keyframes.hints import LongTakeInterpolateTo

    images = torch.rand(3, 8, 8, 3)
    if interpolate_node is not None:
        with pytest.raises(ValueError, match="put a RIFE or FILM file .* into models/frame_interpolation"):
            LongTakeInterpolateTo.execute(images=images, from_fps=8.0, to_fps=16.0)
    monkeypatch.delitem(nodes.NODE_CLASS_MAPPINGS, "FrameInterpolate", raising=False)
    with pytest.raises(ValueError, match="this ComfyUI has no FrameInterpolate node, which does the work: update ComfyUI"):
        LongTakeInterpolateTo.execute(images=images, from_fps=8.0, to_fps=16.0)
    made, fps, report = LongTakeInterpolateTo.execute(images=images, from_fps=8.0, to_fps=4.0).args
    assert torch.equal(made, images[::2]) and fps == 4.0 and "no frames in between" in report, "fewer frames take no model"


def rife():
    from comfy_extras.frame_interpolation_models.ifnet import IFNet

    return IFNet(head_ch=4, channels=[32, 16, 16, 16, 16])


def film():
    from comfy_extras.frame_interpolation_models.film_net import FILMNet

    return FILMNet(filters=8)


@pytest.mark.parametrize("build", [rife, film])
def test_wanted_frames_are_those_of_comfyuis_node(interpolate_node, build, monkeypatch):
    """Its architectures with random weights: 8 to 20 frames per second takes every second of its frames, and nothing else is computed."""
    if interpolate_node is None:
        pytest.skip("this ComfyUI has no frame interpolation")
    import comfy.model_patcher
    from pack.nodes.keyframes.hints import LongTakeInterpolateTo

    network = randomized(build()).eval().requires_grad_(False)
    cpu = torch.device("cpu")
    model = comfy.model_patcher.CoreModelPatcher(network, load_device=cpu, offload_device=cpu)
    images = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    read, made_of = [], network.extract_features
    with torch.inference_mode():
        theirs = getattr(interpolate_node.execute(model, images, 5), "args", None)[0][::2]
        monkeypatch.setattr(network, "extract_features", lambda image: read.append(1) or made_of(image))
        made, fps, report = LongTakeInterpolateTo.execute(images=images, from_fps=8.0, to_fps=20.0, interp_model=model).args
    torch.testing.assert_close(made, theirs, atol=1e-5, rtol=1e-5)
    assert torch.equal(made[::5], images[::2]) and len(made) == 6 and fps == 20.0
    assert "4 made by model, 2 kept" in report and len(read) == 3, "a frame's features serve both its pairs"


def test_another_model_is_named(interpolate_node):
    if interpolate_node is None:
        pytest.skip("this ComfyUI has no frame interpolation")
    from pack.nodes.keyframes.hints import LongTakeInterpolateTo

    with pytest.raises(ValueError, match="is a str, which this node does not know: connect Load Frame Interpolation Model"):
        LongTakeInterpolateTo.execute(images=torch.rand(3, 8, 8, 3), from_fps=8.0, to_fps=12.0, interp_model="rife")


def test_cancel_stops_between_pairs(interpolate_node):
    if interpolate_node is None:
        pytest.skip("this ComfyUI has no frame interpolation")
    import comfy.model_management
    import comfy.model_patcher
    from pack.nodes.keyframes.hints import LongTakeInterpolateTo

    network, cpu = randomized(rife()).eval().requires_grad_(False), torch.device("cpu")
    model = comfy.model_patcher.CoreModelPatcher(network, load_device=cpu, offload_device=cpu)
    hook = network.register_forward_hook(lambda *_: comfy.model_management.interrupt_current_processing())
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        LongTakeInterpolateTo.execute(images=torch.rand(4, 64, 64, 3), from_fps=8.0, to_fps=16.0, interp_model=model)
    hook.remove()


BAD = [
    ({"samples": None}, "nothing is connected: connect exactly one of samples (a latent), images or keyframes"),
    ({"images": torch.rand(2, 64, 64, 3)}, "samples, images is connected: connect exactly one"),
    ({"samples": None, "images": torch.rand(2, 64, 64, 3)}, "images is connected and no vae"),
    ({"samples": {"samples": torch.zeros(2, 4, 3, 8, 8)}}, "use the VAE of an image model"),
    ({"frames": 4}, "2 keyframes 4 frames apart take 5 frames and the clip has 4"),
    ({"layout": "tempofunk"}, "this layout goes on from one keyframe, at frame 0"),
]


@pytest.mark.parametrize(("inputs", "sentence"), BAD, ids=[sentence[:30] for _, sentence in BAD])
def test_bad_input_is_refused_before_anything_runs(inputs, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        hints(keys(2), **inputs)
