"""A noise level per frame on ComfyUI's Wan network, through its guider, as samplers of this pack call it."""

from types import SimpleNamespace

import pytest
import torch
from tiny_motion import image_model
from tiny_wan import FRAMES, text, video, wan_model
from video_calls import CFG, guess

pytestmark = pytest.mark.comfy
LEVELS = torch.tensor([0.0, 0.0, 0.2, 0.2, 0.7, 1.0])


def velocity(model, x, sigma, cond, **inputs):
    """The network alone: ``sigma``: ``b f``."""
    with torch.inference_mode():
        return model.model.diffusion_model(x, sigma * 1000, cond[0][0].expand(len(x), -1, -1), transformer_options={}, **inputs)


def by_hand(model, x, sigma, cfg=CFG):
    """What the guess must be, frame by frame in float64 behind the network."""
    place = sigma.double()[:, None, :, None, None]
    positive, negative = (x - place * velocity(model, x, sigma, cond).double() for cond in (text(3), text(4)))
    return (negative + cfg * (positive - negative)).float()


def far(a, b):
    return float((a - b).abs().max())


def test_each_frame_gets_the_guess_of_its_own_level():
    model, x = wan_model(), video()
    sigma = LEVELS[None]
    got = guess(model, x, sigma)
    assert far(got, by_hand(model, x, sigma)) < 1e-5
    assert far(got, by_hand(model, x, sigma.flip(1))) > 1e-2


@pytest.mark.parametrize("sigma", [1.0, 0.6, 0.02])
def test_equal_levels_are_the_ordinary_call(sigma):
    model, x = wan_model(), video(batch=2)
    ordinary = guess(model, x, torch.full((2,), sigma))
    assert far(guess(model, x, torch.full((2, FRAMES), sigma)), ordinary) < 1e-6 * float(ordinary.abs().max())


def test_clips_of_a_batch_have_levels_of_their_own():
    model, x = wan_model(), video(batch=2)
    sigma = torch.stack([LEVELS, LEVELS.flip(0)])
    got = guess(model, x, sigma)
    for clip in range(2):
        assert far(got[clip : clip + 1], guess(model, x[clip : clip + 1], sigma[clip : clip + 1])) < 1e-5


def test_clean_frames_come_back_bit_for_bit():
    from comfy.patcher_extension import WrappersMP

    model, x = wan_model(), video()
    direct = {}

    def keep(executor, x, t, *args, **kwargs):
        direct["clean"] = executor(x, t, *args, **kwargs)
        direct["x"] = x
        return direct["clean"]

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "keep", keep)
    guess(model, x, LEVELS[None], cfg=1.0)
    assert torch.equal(direct["clean"][:, :, :2], direct["x"][:, :, :2])
    guess(model, x, torch.zeros(1, FRAMES), cfg=1.0)
    assert torch.equal(direct["clean"], direct["x"])


def test_a_level_that_is_shifted_by_model_sampling_is_told_as_it_is():
    """ModelSamplingSD3 changes which sigmas are sampled, not what a sigma means."""
    import comfy.model_sampling

    class Sampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    model, x = wan_model(), video()
    shifted = model.clone()
    sampling = Sampling(model.model.model_config)
    sampling.set_parameters(shift=3.0)
    shifted.add_object_patch("model_sampling", sampling)
    assert far(guess(shifted, x, LEVELS[None]), guess(model, x, LEVELS[None])) < 1e-6


# Conditions


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.5), (0.5, 1.0), (0.2, 0.9)])
def test_conditions_start_and_end_for_each_frame_at_its_own_level(start, end):
    model, x = wan_model(), video()
    sampling = model.model.model_sampling
    high, low = sampling.percent_to_sigma(start), sampling.percent_to_sigma(end)
    sometimes, always = text(5), text(6)
    sometimes[0][1].update(start_percent=start, end_percent=end)
    both = guess(model, x, LEVELS[None], positive=[*sometimes, *always], cfg=1.0)
    alone = guess(model, x, LEVELS[None], positive=always, cfg=1.0)
    mean = (alone + guess(model, x, LEVELS[None], positive=text(5), cfg=1.0)) / 2
    inside = (high >= LEVELS) & (low <= LEVELS)
    assert inside.any() and not inside.all()
    assert far(both[:, :, inside], mean[:, :, inside]) < 1e-5
    assert far(both[:, :, ~inside], alone[:, :, ~inside]) < 1e-5
    noisy = inside & (LEVELS > 0)
    assert far(both[:, :, noisy], alone[:, :, noisy]) > 1e-3


def test_a_condition_outside_all_frames_is_not_computed():
    model, rows = wan_model(), []
    model.model.diffusion_model.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    never = text(5)
    never[0][1].update(start_percent=0.9, end_percent=1.0)
    guess(model, video(), torch.full((1, FRAMES), 0.9), positive=[*never, *text(3)], cfg=1.0)
    assert rows == [1]


def test_a_window_gets_the_concatenated_latents_of_its_own_frames():
    """Image-to-video models have 16 + 4 more channels: the known latents and their mask, for the whole clip."""
    model, clip = wan_model(in_dim=36), 9
    image = torch.randn(1, 16, clip, 4, 6, generator=torch.Generator().manual_seed(8))
    mask = torch.ones(1, 1, clip, 4, 6)
    mask[:, :, :4] = 0
    positive = text(3)
    positive[0][1].update(concat_latent_image=image, concat_mask=mask)
    ids, x = [3, 4, 5], video(3)
    got = guess(model, x, LEVELS[None, 3:], positive=positive, ids=ids, cfg=1.0, extra=clip)
    told = torch.cat([1 - mask.expand(-1, 4, -1, -1, -1), model.model.process_latent_in(image)], dim=1)[:, :, ids]
    clean = x - LEVELS[None, None, 3:, None, None] * velocity(model, torch.cat([x, told], dim=1), LEVELS[None, 3:], text(3))
    assert far(got, clean) < 1e-5


def test_masked_conditions_follow_the_window():
    model, clip = wan_model(), 9
    mask = torch.zeros(clip, 4, 6)
    mask[4] = 1
    here, everywhere = text(5), text(6)
    here[0][1].update(mask=mask[None], mask_strength=1.0)
    ids, x, sigma = [3, 4, 5], video(3), LEVELS[None, 3:]
    both = guess(model, x, sigma, positive=[*here, *everywhere], ids=ids, cfg=1.0, extra=clip)
    alone = guess(model, x, sigma, positive=everywhere, cfg=1.0)
    assert far(both[:, :, [0, 2]], alone[:, :, [0, 2]]) < 1e-5
    assert far(both[:, :, 1], alone[:, :, 1]) > 1e-3


@pytest.mark.parametrize(
    ("window", "ids", "numbers"),
    [
        (None, None, [0, 1, 2]),
        (None, [3, 4, 5], [3, 4, 5]),
        ({"dim": 2, "index_list": [4, 5, 6]}, None, [4, 5, 6]),
        ({"dim": 2, "index_list": [1, 2], "causal_anchor_index": 0}, None, [0, 1, 2]),
        ({"dim": 2, "index_list": [0, 1, 2], "causal_anchor_index": -1}, [5, 6, 7, 8], [5, 6, 7]),
        ({"dim": 0, "index_list": [0]}, None, [0, 1, 2]),  # of the batch
    ],
)
def test_a_call_knows_its_frame_numbers(window, ids, numbers):
    from pack.host.comfyui.options import IDS, frame_numbers

    options = {} if window is None else {"context_window": SimpleNamespace(**window)}
    options |= {} if ids is None else {IDS: torch.tensor(ids)}
    assert frame_numbers(options, 3, axis=2).tolist() == numbers


# What is left behind, and what is refused


def test_nothing_is_left_on_the_model_even_when_a_call_fails():
    model, x = wan_model(), video()
    before = guess(model, x, torch.full((1,), 0.5))
    options, wrappers = repr(model.model_options), repr(model.wrappers)
    guess(model, x, LEVELS[None])

    def broken(*args, **kwargs):
        raise RuntimeError("out of memory")

    forward = model.model.diffusion_model.blocks[1].forward
    model.model.diffusion_model.blocks[1].forward = broken
    with pytest.raises(RuntimeError, match="out of memory"):
        guess(model, x, LEVELS[None])
    model.model.diffusion_model.blocks[1].forward = forward
    assert (repr(model.model_options), repr(model.wrappers)) == (options, wrappers)
    assert torch.equal(guess(model, x, torch.full((1,), 0.5)), before)


def refuses(model, match, **given):
    """A guess is refused before the network is called."""
    calls = []
    model.model.diffusion_model.register_forward_pre_hook(lambda *args: calls.append(1))
    with pytest.raises(ValueError, match=match):
        guess(model, video(), LEVELS[None], **given)
    assert not calls


def test_models_with_one_timestep_are_refused():
    from pack.host.comfyui.parts.frame_levels import check_frame_levels

    with pytest.raises(ValueError, match="BaseModel takes one timestep for the whole clip"):
        check_frame_levels(image_model())
    vace = wan_model(kind="WAN21_Vace", model_type="vace", vace_layers=1, vace_in_dim=32)
    refuses(vace, "WAN21_Vace takes one timestep")


def test_a_sampling_that_is_no_flow_is_refused():
    import comfy.model_sampling

    class Sampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.EPS):
        pass

    model = wan_model()
    model.add_object_patch("model_sampling", Sampling(model.model.model_config))
    refuses(model, "not that of a flow model")


def test_context_windows_are_refused():
    import comfy.context_windows as windows

    model = wan_model()
    schedule, fuse = windows.get_matching_context_schedule("standard_static"), windows.get_matching_fuse_method("flat")
    model.model_options["context_handler"] = windows.IndexListContextHandler(schedule, fuse, context_length=3, dim=2)
    refuses(model, "the model has context windows")


def test_controls_are_refused():
    from comfy.controlnet import ControlBase

    positive = text(3)
    positive[0][1]["control"] = ControlBase()
    refuses(wan_model(), "a ControlNet is told one noise level", positive=positive)


def test_reference_frames_beside_the_clip_are_refused():
    positive = text(3)
    positive[0][1]["time_dim_concat"] = torch.zeros(1, 16, 1, 4, 6)
    model = wan_model()
    with pytest.raises(ValueError, match=r"reference frames beside the clip \(time_dim_concat\)"):
        guess(model, video(), LEVELS[None], positive=positive)
    fun = wan_model(in_dim_ref_conv=16)
    positive = text(3)
    positive[0][1]["reference_latents"] = [torch.zeros(1, 16, 1, 4, 6)]
    with pytest.raises(ValueError, match=r"\(reference_latent\)"):
        guess(fun, video(), LEVELS[None], positive=positive)
