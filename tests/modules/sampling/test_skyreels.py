"""SkyReels-V2's Diffusion Forcing on ComfyUI's Wan network, against diffusers' own network, scheduler and pipeline."""

import pytest
import torch
from pack.modules.checkpoints.skyreels import fps_modulation, read_fps
from pack.modules.sampling.context_noise import ContextNoise
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.model_view import plain
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.modules.temporal.skyreels import block_causal, whole_timesteps
from safetensors.torch import save_file
from small_skyreels import fps_weights
from tiny_wan import FRAMES, skyreels_transformer, text, video, wan_model, wan_state
from torch.nn import functional as F


def far(a, b):
    return float((a - b).abs().max())


def relative(a, b):
    return far(a, b) / float(b.abs().max())


# Noise levels


def order_one(steps, shift=8.0):
    """diffusers' UniPC as the pipelines use it, but of order 1 and without its corrector: then it is Euler's method (DDIM) exactly.

    Its update is ``x' = sigma'/sigma x - (1 - sigma') (exp(-h) - 1) clean`` with ``exp(-h) = sigma' (1 - sigma) / (sigma (1 - sigma'))``,
    which is ``clean + (x - clean) sigma'/sigma``.
    """
    diffusers = pytest.importorskip("diffusers")
    return diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift,
        solver_order=1,
        disable_corrector=list(range(steps)),
        num_train_timesteps=1000,
    )


def default(steps, shift=8.0):
    """diffusers' UniPC as the pipelines' files have it: of second order, with its corrector.

    The pipeline hands it views of the latents and writes into these what comes back, so that its first correction would begin from the
    frame that it is to correct (as in the authors' code): here it gets frames of its own.
    """
    diffusers = pytest.importorskip("diffusers")

    class Scheduler(diffusers.UniPCMultistepScheduler):
        def step(self, model_output, timestep, sample, return_dict=True):
            return super().step(model_output, timestep, sample.clone(), return_dict)

    return Scheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, num_train_timesteps=1000)


SCHEDULERS = {"euler": order_one, "unipc": default}


def pipeline(transformer=None, steps=5, shift=8.0, order="euler"):
    diffusers = pytest.importorskip("diffusers")
    made = diffusers.SkyReelsV2DiffusionForcingPipeline(
        tokenizer=None, text_encoder=None, transformer=transformer, vae=None, scheduler=SCHEDULERS[order](steps, shift)
    )
    made.set_progress_bar_config(disable=True)
    return made


def level_sigmas(steps, shift=8.0):
    """The pipeline's sigmas, one per level, rising."""
    scheduler = order_one(steps, shift)
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.flip(0)


@pytest.mark.parametrize(("steps", "shift"), [(1, 8.0), (4, 5.0), (30, 8.0), (50, 3.0), (997, 1.0)])
def test_whole_timesteps_are_the_schedulers(steps, shift):
    scheduler = order_one(steps, shift)
    scheduler.set_timesteps(steps)
    assert whole_timesteps(1000 * scheduler.sigmas)[:-1].tolist() == scheduler.timesteps.tolist()
    assert whole_timesteps(torch.arange(1001) / 1000 * 1000).tolist() == list(range(1001)), (
        "though 1000 times a float may be below"
    )


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize(("blocks", "known"), [(1, 0), (2, 0), (2, 1), (4, 0), (4, 1), (4, 3)])
def test_asynchronous_timesteps_are_the_pyramids(steps, block, blocks, known):
    """For every lag: their matrix is ours behind idle rows, and they evaluate what we move."""
    made, frames = pipeline(), blocks * block
    template = torch.arange(steps, 0, -1) * 10
    for ar_step in range(steps + 3):
        told, index, moving, _ = made.generate_timestep_matrix(frames, template, frames, ar_step, known * block, block)
        levels = NoiseLevels.named("pyramid", frames, steps, lag=min(ar_step, steps), block=block, known=known * block)
        rows = [row for row in range(len(index)) if moving[row].any()]  # theirs does nothing for some rows when ar_step > steps
        ours = levels.matrix()
        assert ours[1:].tolist() == (steps - index[rows]).clamp_min(0).tolist()
        assert (ours[:-1] != ours[1:]).tolist() == moving[rows].tolist()
        begun = index[rows] > 0  # waiting frames are told 999, whatever the first timestep is
        assert torch.where(begun, 10 * ours[:-1], 999).tolist() == told[rows].tolist()


# Attention


@pytest.mark.parametrize("numbers", [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7], [0, 5, 6, 7, 8], [3]])
@pytest.mark.parametrize("block", [1, 2, 5, 9])
def test_block_causal_attention_is_the_masked_one(numbers, block):
    blocks, tokens = torch.tensor(numbers) // block, 3
    q, k, v = torch.randn(3, 2, 4, len(numbers) * tokens, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    of_token = blocks.repeat_interleave(tokens)
    mask = of_token[None, :] <= of_token[:, None]
    assert (
        far(block_causal(F.scaled_dot_product_attention, q, k, v, blocks), F.scaled_dot_product_attention(q, k, v, mask)) < 1e-12
    )


@pytest.mark.parametrize("blocks", [[0, 0, 1, 0], [0, 0, 0, 0, 0]])
def test_block_causal_attention_refuses_what_is_no_clip(blocks):
    q = torch.randn(1, 12, 4)
    with pytest.raises(ValueError, match="12 tokens cannot be dealt out"):
        block_causal(F.scaled_dot_product_attention, q, q, q, torch.tensor(blocks))


# The frame-rate embedding


THEIRS = {"fps_projection.0.": "fps_projection.net.0.proj.", "fps_projection.2.": "fps_projection.net.2."}
SPELT = {
    "authors": lambda key: key,
    "comfyui checkpoint": lambda key: f"model.diffusion_model.{key}",
    "diffusers": lambda key: next((key.replace(a, b) for a, b in THEIRS.items() if a in key), key),
}


@pytest.mark.parametrize("spelling", SPELT)
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_fps_weights_are_found_in_every_spelling(spelling, ending, tmp_path):
    weights = fps_weights()
    state = {SPELT[spelling](key): value for key, value in weights.items()} | {"blocks.0.ffn.0.weight": torch.zeros(2, 2)}
    path = tmp_path / f"model.{ending}"
    (save_file if ending == "safetensors" else torch.save)(state, path)
    found = read_fps(path)
    assert set(found) == set(weights)
    assert all(torch.equal(found[key], weights[key]) for key in weights)


@pytest.mark.parametrize(("fps", "row"), [(16, 0), (24, 1), (8, 1), (30, 1)])
def test_fps_modulation_is_the_authors_network(fps, row):
    weights = fps_weights()
    table, network = torch.nn.Embedding(2, 8), torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.SiLU(), torch.nn.Linear(8, 48))
    table.load_state_dict({"weight": weights["fps_embedding.weight"]})
    network.load_state_dict({key.removeprefix("fps_projection."): value for key, value in weights.items() if "projection" in key})
    assert far(fps_modulation(weights, fps), network(table(torch.tensor([row])))[0].unflatten(0, (6, 8)).detach()) < 1e-6


def test_fps_files_that_cannot_be_used_are_refused(tmp_path):
    def refused(state, match):
        path = tmp_path / "model.safetensors"
        save_file(state, path)
        with pytest.raises(ValueError, match=match) as refusal:
            read_fps(path)
        assert "\n" not in str(refusal.value)

    weights = fps_weights()
    refused({"blocks.0.ffn.0.weight": torch.zeros(2, 2)}, "has no frame-rate embedding: only the 1.3B models")
    refused({key: value for key, value in weights.items() if "bias" not in key}, "is not complete: 2 weights are missing")
    refused(weights | {"fps_projection.2.bias": torch.zeros(3)}, "unknown or of another shape")
    refused(weights | {"fps_embedding.weight": torch.full((2, 8), float("nan"))}, "not made of finite")
    with pytest.raises(ValueError, match="there is no file"):
        read_fps(tmp_path / "none.safetensors")


# ComfyUI's network


def skyreels(model, **given):
    from pack.host.comfyui.attach.skyreels import apply_skyreels

    return apply_skyreels(model, **given)


def network_call(model, x, t, cond, ids=None, **options):
    """The network as ComfyUI calls it, with the wrappers of ``model``."""
    from pack.host.comfyui.options import IDS

    told = {"wrappers": model.wrappers, **({} if ids is None else {IDS: torch.tensor(ids)}), **options}
    with torch.inference_mode():
        return model.model.diffusion_model(x, t, cond[0][0], transformer_options=told)


def reference_call(transformer, x, t, cond, *, block=1, fps=24):
    transformer._set_ar_attention(block)
    with torch.inference_mode():
        forced = {"enable_diffusion_forcing": True, "fps": [0 if fps == 16 else 1], "return_dict": False}
        return transformer(x, t, cond[0][0], **forced)[0]


TIMESTEPS = torch.tensor([[0.0, 0.0, 200.0, 200.0, 700.0, 999.0]])


@pytest.fixture(scope="module")
def twins():
    """diffusers' network and ComfyUI's, with the same weights, and the weights."""
    pytest.importorskip("diffusers")
    transformer = skyreels_transformer()
    state = wan_state(transformer)
    return transformer, wan_model(state), state


@pytest.mark.comfy
@pytest.mark.parametrize("block", [2, 3, 6])
@pytest.mark.parametrize("fps", [16, 24])
def test_the_network_is_the_authors(block, fps, twins):
    transformer, model, state = twins
    x = video()
    ours = network_call(skyreels(model, causal_block_size=block, fps=fps_modulation(state, fps)), x, TIMESTEPS, text(3))
    wanted = reference_call(transformer, x, TIMESTEPS, text(3), block=block, fps=fps)
    assert relative(ours, wanted) < 1e-5
    assert relative(network_call(model, x, TIMESTEPS, text(3)), wanted) > 1e-2, (
        "neither mask nor frame rate would be another result"
    )


@pytest.mark.comfy
def test_without_causal_blocks_all_frames_see_all(twins):
    transformer, model, state = twins
    ours = network_call(skyreels(model, fps=fps_modulation(state, 24)), video(), TIMESTEPS, text(3))
    assert relative(ours, reference_call(transformer, video(), TIMESTEPS, text(3))) < 1e-5


@pytest.mark.comfy
@pytest.mark.parametrize("tokens", [8, FRAMES * 6])  # the second: as many words as the clip has tokens, 2 x 3 in each frame
@pytest.mark.parametrize(("block", "unchanged"), [(1, 4), (2, 4), (3, 3), (5, 0)])
def test_frames_do_not_see_later_blocks(tokens, block, unchanged):
    model, x, words = skyreels(wan_model(text_len=tokens), causal_block_size=block), video(), text(3, tokens)
    before, changed = network_call(model, x, TIMESTEPS, words), x.clone()
    changed[:, :, 4] += 1
    after = network_call(model, changed, TIMESTEPS, words)
    changes = (before - after).abs().amax(dim=(0, 1, 3, 4))
    assert (changes > 1e-5).tolist() == [frame >= unchanged for frame in range(FRAMES)]
    words[0][0][:, -1] += 1  # all frames see all words
    assert (network_call(model, x, TIMESTEPS, words) - before).abs().amax(dim=(0, 1, 3, 4)).min() > 1e-4


@pytest.mark.comfy
def test_blocks_are_counted_in_the_clip_and_not_in_the_window():
    model, x = skyreels(wan_model(), causal_block_size=4), video()
    before, changed = network_call(model, x, TIMESTEPS, text(3), ids=[3, 4, 5, 6, 7, 8]), x.clone()
    changed[:, :, 4] += 1  # frame 7, in the block of frames 4 to 7
    after = network_call(model, changed, TIMESTEPS, text(3), ids=[3, 4, 5, 6, 7, 8])
    assert (before - after).abs().amax(dim=(0, 1, 3, 4)).gt(1e-5).tolist() == [False, True, True, True, True, True]


@pytest.mark.comfy
def test_fractions_of_timesteps_are_cut_off():
    model = wan_model()
    whole = skyreels(model)
    for t in (TIMESTEPS, TIMESTEPS[:, 4]):
        told = network_call(whole, video(), t + 0.7 * (t > 0), text(3))
        assert far(told, network_call(model, video(), t, text(3))) < 1e-6
    assert far(network_call(model, video(), TIMESTEPS + 0.7, text(3)), network_call(model, video(), TIMESTEPS, text(3))) > 1e-6


@pytest.mark.comfy
def test_what_others_put_in_the_same_places_still_works():
    """Another attention, a wrapper around a block, and a clone of all that; applying it twice is applying the second."""
    model, calls = wan_model(), []

    def attention(function, *args, **kwargs):
        calls.append("attention")
        return function(*args, **kwargs)

    def block(args, extra):
        calls.append("block")
        return extra["original_block"](args)

    others = {"optimized_attention_override": attention, "patches_replace": {"dit": {("double_block", 1): block}, "other": {}}}
    alone = network_call(skyreels(model, causal_block_size=2), video(), TIMESTEPS, text(3))
    twice = skyreels(skyreels(model, causal_block_size=3), causal_block_size=2).clone()
    assert torch.equal(network_call(twice, video(), TIMESTEPS, text(3), **others), alone)
    assert calls.count("block") == 1
    assert calls.count("attention") == 2 * (3 + 1), "two layers: three blocks of frames, and one for the words"
    assert set(others["patches_replace"]["dit"]) == {("double_block", 1)}
    assert not model.wrappers


# The pipeline


STEPS, BASE, OVERLAP = 5, 8, 4  # latent frames of a pass, and of the history that the next one starts with
CFG = 3.0


def our_pass(model, latent, known, *, ar_step, block, seed, addnoise, order):
    """One pass of our sampler through ComfyUI's guider.

    Gives the clip, how each frame looked when the model first saw it: ``b c f h w``, and how it saw the known ones at each call.
    """
    from pack import host

    frames, shown, first = latent.shape[2], [], {}
    levels = NoiseLevels.named("ar_step", frames, STEPS, lag=min(ar_step, STEPS), block=block, known=known)

    # the pipeline noises what it was given and not what it has finished itself
    history = ContextNoise(addnoise / 1000, "addnoise", "known")

    def guide(denoise, view):
        def watched(view):
            seen = dict(zip(view.ids.tolist(), view.x, strict=True))
            shown.append([seen[i] for i in range(known)])
            first.update({i: x for i, x in seen.items() if i not in first})
            return denoise(view)

        return plain(watched, view)

    clip = host.sample(
        model,
        text(3),
        text(4),
        cfg=CFG,
        latent=latent,
        algorithm=Forcing(levels, window=2 * frames, order=order, context_noise=history),
        seed=seed,
        sigmas=level_sigmas(STEPS),
        guide=guide,
    )
    return clip, torch.stack([first[i] for i in range(frames)], dim=2), [torch.stack(row, dim=2) for row in shown if known]


def their_passes(transformer, monkeypatch, *, passes, ar_step, block, starts, addnoise, noises, order, causal):
    """diffusers' pipeline as it is, with our noise in the place of what it draws.

    It lets attention be causal whenever frames move in blocks; the authors' own code has a switch for that, which is off.
    """
    made = pipeline(transformer, STEPS, order=order)
    module, starts, noises = __import__(type(made).__module__, fromlist=["randn_tensor"]), iter(starts), iter(noises)
    monkeypatch.setattr(module, "randn_tensor", lambda shape, **given: next(starts).clone())
    monkeypatch.setattr(torch, "randn_like", lambda like: next(noises))
    transformer._set_ar_attention(1)
    if not causal:
        monkeypatch.setattr(transformer, "_set_ar_attention", lambda block: None)
    latent_frames = BASE + (passes - 1) * (BASE - OVERLAP)
    long = {"overlap_history": 4 * (OVERLAP - 1) + 1, "base_num_frames": 4 * (BASE - 1) + 1} if passes > 1 else {}
    return made(
        prompt=None,
        prompt_embeds=text(3)[0][0],
        negative_prompt_embeds=text(4)[0][0],
        height=32,
        width=48,
        num_frames=4 * (latent_frames - 1) + 1,
        num_inference_steps=STEPS,
        guidance_scale=CFG,
        output_type="latent",
        addnoise_condition=addnoise,
        ar_step=ar_step,
        causal_block_size=block if ar_step else None,
        fps=24,
        **long,
    ).frames


@pytest.mark.comfy
@pytest.mark.parametrize(("ar_step", "block"), [(0, 1), (2, 2), (3, 4), (1, 2), (5, 2)])
@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize(("order", "causal"), [("unipc", True), ("unipc", False), ("euler", True)])
def test_the_pipeline_makes_the_same_video(ar_step, block, passes, order, causal, twins, monkeypatch):
    """Same weights, same noise: synchronous and asynchronous, and with the last frames of one pass as history of the next."""
    transformer, model, state = twins
    ready = skyreels(model, causal_block_size=block if ar_step and causal else 0, fps=fps_modulation(state, 24))
    format_ = model.model.latent_format
    addnoise = 20 if passes > 1 else 0
    clip, starts, noises = torch.zeros(1, 16, 0, 4, 6), [], []
    for number in range(passes):
        known = min(OVERLAP, clip.shape[2])
        latent = torch.cat([clip[:, :, clip.shape[2] - known :], torch.zeros(1, 16, BASE - known, 4, 6)], dim=2)
        made, start, shown = our_pass(
            ready, latent, known, ar_step=ar_step, block=block, seed=number, addnoise=addnoise, order=order
        )
        starts.append(start)
        noises += [(seen - 0.98 * format_.process_in(latent)[:, :, :known]) / 0.02 for seen in shown]
        clip = torch.cat([clip, made[:, :, known:]], dim=2)
    theirs = their_passes(
        transformer,
        monkeypatch,
        passes=passes,
        ar_step=ar_step,
        block=block,
        starts=starts,
        addnoise=addnoise,
        noises=noises,
        order=order,
        causal=causal,
    )
    assert theirs.shape == clip.shape
    assert relative(format_.process_in(clip), theirs) < 1e-4
