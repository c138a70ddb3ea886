"""Wan 2.2's two experts as one model: each frame is what the expert of its noise level makes of it."""

import pytest
import tiny_wan
import torch
from custom import advanced, forcing, theirs
from pack import host
from pack.modules.sampling.fifo import Fifo
from pack.modules.sampling.vdm import VdmSampler
from pack.nodes.models.experts import LongTakeTwoExperts
from tiny_motion import image_model

pytestmark = pytest.mark.comfy
FRAMES, BOUNDARY = 4, 0.875
LATENT = torch.zeros(1, 16, FRAMES, *tiny_wan.SIZE)
SIGMAS = torch.tensor([1.0, 0.95, 0.9, 0.6, 0.0])
PROMPT = {"positive": tiny_wan.text(3), "negative": tiny_wan.text(4), "cfg": 2.0}


@pytest.fixture(scope="module")
def experts(comfyui):
    return tiny_wan.wan_model(seed=1), tiny_wan.wan_model(seed=2)


@pytest.fixture(scope="module")
def both(experts):
    return LongTakeTwoExperts.execute(*experts, 0.0).args[0]


def guess(model, x, sigma):
    """What ComfyUI's guider makes of frames at levels of their own: ``x``: ``b c f h w``, ``sigma``: ``b f``."""
    from pack.host.comfyui.parts.frame_levels import with_frame_levels

    class Once:
        max_denoise = staticmethod(lambda *args: True)

        def sample(
            self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
        ):
            options = with_frame_levels(model, extra_args["model_options"])
            return model_wrap(x, sigma, model_options=options, seed=1)

    made = advanced(model, Once(), LATENT, SIGMAS, **PROMPT)
    return model.model.process_latent_in(made)


@pytest.mark.parametrize(
    "levels",
    [(1.0, 0.95, 0.9, 0.88), (0.8, 0.5, 0.1, 0.0), (0.0, 0.5, 0.87, 0.88), (0.0, 0.0, 0.9, 0.95)],
    ids=["high", "low", "both", "high behind finished frames"],
)
def test_each_frame_goes_to_the_expert_of_its_level(experts, both, levels):
    x, sigma = tiny_wan.video(FRAMES), torch.tensor([levels])
    by_hand = [guess(model, x, sigma) for model in experts]
    wanted = torch.where((sigma >= BOUNDARY)[:, None, :, None, None], *by_hand)
    torch.testing.assert_close(guess(both, x, sigma), wanted, rtol=0, atol=2e-5)
    noisy = sigma[0] > 0
    assert (by_hand[0] - by_hand[1])[:, :, noisy].abs().amax(dim=(0, 1, 3, 4)).min() > 1e-2, "the experts differ"


@pytest.mark.parametrize("sampler", ["forcing", "euler"])
def test_one_sampler_is_comfyuis_two(experts, both, sampler):
    """ComfyUI's own way: the first expert for the first steps, the second for the rest."""
    high, low = experts
    half = advanced(high, theirs("euler"), LATENT, SIGMAS[:4], **PROMPT)
    wanted = advanced(low, theirs("euler"), half, SIGMAS[3:], noise=False, **PROMPT)
    made = advanced(both, forcing(frames=FRAMES) if sampler == "forcing" else theirs("euler"), LATENT, SIGMAS, **PROMPT)
    torch.testing.assert_close(made, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    "sampler",
    [
        lambda: forcing("pyramid", FRAMES),
        lambda: host.forcing_sampler(Fifo(partitions=2, window=2)),
        lambda: host.forcing_sampler(VdmSampler()),
    ],
    ids=["pyramid", "FIFO", "VDM"],
)
def test_both_experts_have_a_share_in_every_kind_of_sampler(experts, both, sampler):
    made = [advanced(model, sampler(), LATENT, SIGMAS, **PROMPT) for model in (both, *experts)]
    assert made[0].isfinite().all()
    assert all((made[0] - other).abs().max() > 1e-2 for other in made[1:])


def test_the_models_are_left_as_they_were_and_one_network_is_asked_where_one_will_do(experts, both, monkeypatch):
    from comfy.ldm.wan.model import WanModel

    asked, inner = [], WanModel.forward_orig
    monkeypatch.setattr(
        WanModel, "forward_orig", lambda self, *args, **kwargs: asked.append(self) or inner(self, *args, **kwargs)
    )
    advanced(both, theirs("euler"), LATENT, SIGMAS, **{**PROMPT, "cfg": 1.0})
    high, low = (model.model.diffusion_model for model in experts)
    assert [network is high for network in asked] == [True, True, True, False] and asked[-1] is low
    asked.clear()
    advanced(experts[0], theirs("euler"), LATENT, SIGMAS, **{**PROMPT, "cfg": 1.0})
    assert len(asked) == 4 and all(network is high for network in asked)


def test_patches_behind_it_act_on_both(experts, both):
    import nodes  # noqa: F401  ComfyUI's own, before its extras
    from comfy_extras.nodes_slg import SkipLayerGuidanceDiTSimple

    made = SkipLayerGuidanceDiTSimple
    skip = made.execute if hasattr(made, "execute") else made().skip_guidance
    patched = skip(both, 0.0, 1.0, "0", "")
    patched = getattr(patched, "args", patched)[0]
    single = skip(experts[1], 0.0, 1.0, "0", "")
    single = getattr(single, "args", single)[0]
    low_only = torch.tensor([0.6, 0.0])
    noisy = {"samples": tiny_wan.video(FRAMES)}
    wanted, plain = (advanced(model, theirs("euler"), noisy, low_only, **PROMPT) for model in (single, experts[1]))
    torch.testing.assert_close(advanced(patched, theirs("euler"), noisy, low_only, **PROMPT), wanted, rtol=0, atol=1e-4)
    assert (wanted - plain).abs().max() > 1e-3


def patched(model):
    from pack.nodes.forcing.skyreels import LongTakeSkyReels

    return LongTakeSkyReels.execute(model, False, 5, 24, "none").args[0]


def refusals():
    wan = tiny_wan.wan_model
    same = wan()
    yield (wan(), image_model()), "the low-noise model is BaseModel: two experts are Wan models"
    yield (same, same.clone()), "both experts are the same model"
    yield (wan(), wan(in_dim=36)), "the experts are of different kinds, WanModel of 16 channels and WanModel of 36"
    yield (
        (wan(), patched(wan())),
        "longtake_skyreels hangs on the low-noise model and would be left out: put it behind Two Experts",
    )


def test_what_cannot_be_two_experts_is_refused_in_one_sentence(comfyui):
    for models, words in refusals():
        with pytest.raises(ValueError, match=words) as error:
            LongTakeTwoExperts.execute(*models, 0.0)
        assert "\n" not in str(error.value)


def test_hooks_are_refused_before_the_first_call(both):
    from comfy.hooks import create_hook_lora

    ((words, more),) = PROMPT["positive"]
    with pytest.raises(ValueError, match="hooks, which change the weights of the high-noise model alone"):
        advanced(both, theirs("euler"), LATENT, SIGMAS, positive=[[words, {**more, "hooks": create_hook_lora({}, 1.0, 1.0)}]])


@pytest.mark.parametrize(("channels", "boundary"), [(16, 0.875), (36, 0.9)])
def test_the_boundary_is_the_authors(comfyui, channels, boundary):
    from pack.host.comfyui.attach.experts import boundary_of

    pair = tiny_wan.wan_model(in_dim=channels), tiny_wan.wan_model(in_dim=channels)
    assert boundary_of(host.apply_experts(*pair)) == boundary
    assert boundary_of(host.apply_experts(*pair, 0.5)) == 0.5
    assert boundary_of(pair[0]) == 0
