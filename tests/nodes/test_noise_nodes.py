"""Clip noise and FreeInit through ComfyUI's own samplers."""

import pytest
import torch
from einops import rearrange
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.noise.clip_noise import Clip, Layer, clip_noise
from pack.modules.noise.freeinit import FreeInit
from pack.modules.noise.noise_kinds import KINDS, SOURCES, joint_noise
from pack.modules.noise.seeded import frame_noise
from pack.nodes.noise.noise import LongTakeClipNoise, LongTakeFreeInit
from sparing import sparing
from tiny_motion import image_model, ksample, motion_file, text

FRAMES, SEED = 6, 1
SHORT = {"length": 4, "overlap": 1, "share": 0.4}


@pytest.mark.skipif(host.name != "standalone", reason="about the standalone host")
def test_without_comfyui_both_say_what_to_do():
    for node in (LongTakeClipNoise, LongTakeFreeInit):
        with pytest.raises(ValueError, match="in ComfyUI"):
            node.execute(model=object())


@pytest.fixture
def model():
    return image_model()


def clip_noised(model, *, noise=None, **options):
    return LongTakeClipNoise.execute(model=model, noise=noise, **SHORT | options).result


def free_init(model, **options):
    return LongTakeFreeInit.execute(model=model, **options).result[0]


def random_noise(seed=SEED):
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

    return Noise_RandomNoise(seed)


def latent(frames=FRAMES, **more):
    return {"samples": torch.zeros(frames, 4, 8, 8), **more}


def sample(model, noise, clip=None, *, steps=3, denoise=1.0, sampler="euler"):
    """What SamplerCustomAdvanced does with a CFGGuider."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(text(3), text(4))
    guider.set_cfg(2.0)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", int(steps / denoise))
    with torch.inference_mode():
        made = SamplerCustomAdvanced().sample(
            noise, guider, comfy.samplers.sampler_object(sampler), sigmas[-(steps + 1) :], clip or latent()
        )
    return made[0]["samples"]


def noises_seen(model, run):
    """The noise that each sampling starts with, before ComfyUI scales it."""
    from comfy.patcher_extension import WrappersMP

    seen = []

    def look(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
        seen.append(noise.clone())
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "test", look)
    run(watched)
    return seen


@pytest.mark.comfy
class TestClipNoise:
    def test_comfyuis_independent_noise_is_no_change_bit_for_bit(self, model):
        shaped, _ = clip_noised(model, kind="independent", source="comfyui")
        assert torch.equal(ksample(shaped), ksample(model))

    @pytest.mark.parametrize("source", SOURCES)
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_sampler_starts_from_it(self, model, kind, source):
        shaped, _ = clip_noised(model, kind=kind, source=source)
        (seen,) = noises_seen(shaped, ksample)
        own = joint_noise(torch.empty(FRAMES, 4, 8, 8), SEED)
        wanted = clip_noise(Clip(own, SEED, tuple(range(FRAMES))), (Layer(kind, source, **SHORT),))
        assert torch.equal(seen, wanted)

    def test_the_seed_is_the_samplers(self, model):
        shaped, _ = clip_noised(model, source="per_frame")
        assert torch.equal(ksample(shaped, seed=4), ksample(shaped, seed=4))
        assert not torch.equal(ksample(shaped, seed=4), ksample(shaped, seed=5))

    @pytest.mark.parametrize("kind", KINDS)
    def test_model_and_noise_give_the_same_alone_and_together(self, model, kind):
        options = {"kind": kind, "combine": "normalised_sum", "seed_offset": 3}  # put in twice, this would be something else
        shaped, noise = clip_noised(model, noise=random_noise(), **options)
        by_model, by_noise = sample(shaped, random_noise()), sample(model, noise)
        assert torch.equal(by_model, by_noise)
        assert torch.equal(sample(shaped, noise), by_model)
        assert torch.equal(ksample(shaped), by_model)
        assert not torch.equal(sample(model, random_noise()), by_model)

    def test_layers_add_up_along_either_line(self, model):
        first = clip_noised(model, noise=random_noise(), kind="constant", source="per_frame")
        both = clip_noised(first[0], noise=first[1], kind="freenoise", source="per_frame", combine="add")
        other = clip_noised(first[0], noise=random_noise(), kind="freenoise", source="per_frame", combine="add")
        one = sample(both[0], random_noise())
        assert torch.equal(one, sample(model, both[1])) and torch.equal(one, sample(model, other[1]))
        assert not torch.equal(one, sample(first[0], random_noise()))
        assert torch.equal(sample(first[0], random_noise()), sample(model, first[1])), "the first node's model keeps one layer"

    def test_no_noise_stays_no_noise(self, model):
        import nodes

        shaped, _ = clip_noised(model, source="per_frame")

        def run(which):
            with torch.inference_mode():
                return nodes.KSamplerAdvanced().sample(
                    which, "disable", 0, 3, 2.0, "euler", "normal", text(3), text(4), latent(), 0, 3, "disable"
                )[0]["samples"]

        assert torch.equal(run(shaped), run(model))
        (seen,) = noises_seen(shaped, run)
        assert not seen.any()

    def test_clones_keep_it_and_the_model_before_has_none(self, model):
        plain = ksample(model)
        shaped, _ = clip_noised(model, kind="constant")
        made = ksample(shaped)
        assert torch.equal(ksample(shaped.clone().clone()), made)
        assert torch.equal(ksample(model), plain) and not torch.equal(made, plain)

    def test_frame_numbers_come_from_the_latent(self, model):
        _, noise = clip_noised(model, noise=random_noise(), kind="independent", source="per_frame")
        clip = latent(3, batch_index=[7, 2, 7])
        assert torch.equal(noise.generate_noise(clip), frame_noise((4, 8, 8), SEED, [7, 2, 7]))
        assert noise.seed == SEED

    @pytest.mark.parametrize("kind", KINDS)
    def test_ksampler_knows_frames_that_were_cut_out_of_a_clip(self, model, kind):
        import nodes

        shaped, _ = clip_noised(model, kind=kind, source="per_frame")
        whole = noises_seen(shaped, lambda which: ksample(which, latent=torch.zeros(9, 4, 8, 8)))[0]
        part = nodes.LatentFromBatch().frombatch(latent(9), 3, 4)[0]

        def run(which):
            nodes.KSampler().sample(which, SEED, 1, 1.0, "euler", "normal", text(3), text(4), part)

        assert torch.equal(noises_seen(shaped, run)[0], whole[3:7])

    def test_noise_of_another_is_counted_from_0_and_said(self, model, caplog):
        shaped, _ = clip_noised(model, kind="independent", source="per_frame")

        class Other(type(random_noise())):
            def generate_noise(self, input_latent):
                return super().generate_noise(input_latent) * 0.5

        seen = noises_seen(shaped, lambda which: sample(which, Other(SEED), latent(3, batch_index=[4, 5, 6])))[0]
        assert torch.equal(seen, frame_noise((4, 8, 8), SEED, range(3)))
        assert "counts from frame 0" in caplog.text

    def test_comfyuis_own_noise_keeps_its_batch_index(self, model):
        shaped, noise = clip_noised(model, noise=random_noise(), kind="independent", source="comfyui")
        clip = latent(3, batch_index=[2, 0, 5])
        assert torch.equal(noise.generate_noise(clip), random_noise().generate_noise(clip))
        assert torch.equal(sample(shaped, random_noise(), clip), sample(model, random_noise(), clip))

    def test_videos_have_frames_on_the_third_axis(self, model):
        _, noise = clip_noised(model, noise=random_noise(), kind="constant", source="per_frame")
        made = noise.generate_noise({"samples": torch.zeros(2, 4, 5, 8, 8)})
        assert made.shape == (2, 4, 5, 8, 8)
        assert torch.equal(made, made[:, :, :1].expand_as(made)) and not torch.equal(made[0], made[1])

    def test_a_noise_output_without_a_seed_says_what_to_connect(self, model):
        _, noise = clip_noised(model)
        with pytest.raises(ValueError, match="connect RandomNoise to its noise input"):
            sample(model, noise)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"kind": "freenoise", "overlap": 4}, "windows of 4 frames cannot overlap by 4"),
            ({"combine": "add"}, "with itself"),
            ({"mask": torch.full((1, 2, 2), -1.0)}, "outside 0 to 1"),
        ],
    )
    def test_bad_settings_are_refused_by_the_node(self, model, options, sentence):
        with pytest.raises(ValueError, match=sentence):
            clip_noised(model, **options)

    def test_masks_that_do_not_fit_are_refused_before_the_first_call(self, model):
        shaped, _ = clip_noised(model, source="per_frame", mask=torch.ones(5, 8, 8))
        calls = []
        with pytest.raises(ValueError, match="5 masks for 6 frames"):
            ksample(counting(shaped, calls))
        assert not calls


def counting(model, calls, *, fail_at=None, exception=None):
    from comfy.patcher_extension import WrappersMP

    def count(executor, *args, **kwargs):
        calls.append(1)
        if len(calls) == fail_at:
            raise exception
        return executor(*args, **kwargs)

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", count)
    return watched


def by_hand(model, settings, first, fresh, *, given=None, denoise=1.0, steps=3):
    """FreeInit over an untouched model, in variance-preserving coordinates where noise is all there is, and with whole transforms.

    Each iteration is a sampling of its own from given noise, so nothing here is shared with what is tested but ComfyUI's sampler.
    """
    import comfy.samplers

    class Given:
        seed = SEED

        def __init__(self, noise):
            self.noise = noise

        def generate_noise(self, latent):
            return self.noise.clone()

    scale = model.model.latent_format.scale_factor
    sampling = model.get_model_object("model_sampling")
    sigma = comfy.samplers.calculate_sigmas(sampling, "normal", int(steps / denoise))[-(steps + 1)]
    half = settings.response(FRAMES, 8, 8)
    mirror = (-torch.arange(8)) % 8  # the response on the whole plane: what rfftn leaves out is the mirror image
    whole = torch.cat([half, half[(-torch.arange(FRAMES)) % FRAMES][:, mirror][..., 1:4].flip(-1)], dim=-1)
    start = latent() if given is None else given
    current = first
    for new in [*fresh, None]:
        result = sample(model, Given(current), start, steps=steps, denoise=denoise)
        if new is None:
            return result
        if given is None:
            kept = 1 / (1 + sigma**2)
            diffused = kept**0.5 * result * scale + (1 - kept) ** 0.5 * first
        else:
            diffused = first + (result - given["samples"]) * scale / sigma
        low, high = (torch.fft.fftn(rearrange(x, "f c h w -> c f h w"), dim=(-3, -2, -1)) for x in (diffused, new))
        current = rearrange(torch.fft.ifftn(low * whole + high * (1 - whole), dim=(-3, -2, -1)).real, "c f h w -> f c h w")
    raise AssertionError


def drawn(iterations, layers=()):
    """The first noise and that of the later iterations."""
    like = torch.empty(FRAMES, 4, 8, 8)
    first = clip_noise(Clip(joint_noise(like, SEED), SEED, tuple(range(FRAMES))), layers)
    return first, [clip_noise(Clip.again(like, SEED, iteration), layers) for iteration in range(1, iterations)]


def close(made, wanted):
    torch.testing.assert_close(made, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


@pytest.mark.comfy
class TestFreeInit:
    def test_new_noise_is_that_of_the_frames_numbers(self, model):
        settings = FreeInit(iterations=2, filter="box")
        numbered = free_init(model, iterations=2, filter="box")
        part = latent(4, batch_index=[5, 6, 7, 8])
        seen = noises_seen(numbered, lambda which: sample(which, random_noise(), part))[1]
        fresh = Clip.again(torch.zeros(4, 4, 8, 8), SEED, 1, [5, 6, 7, 8]).own

        def quick(noise):  # what the filter leaves of new noise
            return settings.mixed(torch.zeros_like(noise).transpose(0, 1), noise.transpose(0, 1))

        torch.testing.assert_close(quick(seen), quick(fresh), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
    def test_one_iteration_is_no_change_bit_for_bit(self, model, sampler):
        once = free_init(model, iterations=1)
        assert torch.equal(ksample(once), ksample(model))
        assert torch.equal(sample(once, random_noise(), sampler=sampler), sample(model, random_noise(), sampler=sampler))

    @pytest.mark.parametrize("iterations", sparing([2, 3], 3))
    def test_iterations_by_hand(self, model, iterations):
        wanted = by_hand(model, FreeInit(), *drawn(iterations))
        close(ksample(free_init(model, iterations=iterations)), wanted)
        close(sample(free_init(model, iterations=iterations), random_noise()), wanted)
        assert (wanted - ksample(model)).abs().max() > 0.01 * wanted.abs().max()

    def test_with_less_denoise_by_hand(self, model):
        given = {"samples": torch.randn(FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(8))}
        wanted = by_hand(model, FreeInit(), *drawn(2), given=given, denoise=0.5)
        made = sample(free_init(model, iterations=2), random_noise(), given, denoise=0.5)
        close(made, wanted)
        assert (made - sample(model, random_noise(), given, denoise=0.5)).abs().max() > 0.01 * made.abs().max()

    def test_with_a_motion_module_by_hand(self, tmp_path, model):
        """Another noise schedule and so another first sigma: the sampler's real one counts, not the base model's."""
        animated = host.apply_motion(model, load_motion_module(motion_file(tmp_path)))
        wanted = by_hand(animated, FreeInit(), *drawn(2))
        close(ksample(free_init(animated, iterations=2)), wanted)
        close(ksample(host.apply_motion(free_init(model, iterations=2), load_motion_module(motion_file(tmp_path)))), wanted)

    @pytest.mark.parametrize("order", ["noise first", "noise last"])
    def test_with_clip_noise_by_hand(self, model, order):
        if order == "noise first":
            made = ksample(free_init(clip_noised(model)[0], iterations=2))
        else:
            made = ksample(clip_noised(free_init(model, iterations=2))[0])
        close(made, by_hand(model, FreeInit(), *drawn(2, (Layer(**SHORT),))))

    def test_with_a_mask_what_is_outside_stays(self, model):
        samples = torch.randn(FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(8))
        mask = torch.zeros(1, 64, 64)
        mask[..., 32:] = 1
        made = sample(free_init(model, iterations=2), random_noise(), {"samples": samples, "noise_mask": mask})
        torch.testing.assert_close(made[..., :4], samples[..., :4], rtol=0, atol=1e-5)
        assert not torch.allclose(made[..., 4:], samples[..., 4:], atol=1e-2)

    @pytest.mark.parametrize(
        "setting",
        sparing([{"filter": "gaussian"}, {"order": 1}, {"spatial_stop": 0.7}, {"temporal_stop": 0.9}], {"filter": "gaussian"}),
    )
    def test_each_setting_counts(self, model, setting):
        assert not torch.allclose(ksample(free_init(model, iterations=2, **setting)), ksample(free_init(model, iterations=2)))

    def test_it_repeats_and_clones_keep_it(self, model):
        plain = ksample(model)
        twice = free_init(model, iterations=2)
        made = ksample(twice)
        assert torch.equal(ksample(twice), made) and torch.equal(ksample(twice.clone().clone()), made)
        assert torch.equal(ksample(free_init(free_init(model, iterations=5), iterations=2)), made), "the last node counts, once"
        assert torch.equal(ksample(model), plain)

    def test_steps_are_counted_through_all_iterations(self, model):
        import comfy.samplers

        told = []
        guider = comfy.samplers.CFGGuider(free_init(model, iterations=3))
        guider.set_conds(text(3), text(4))
        guider.set_cfg(1.0)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 4)
        sampler = comfy.samplers.sampler_object("euler")
        guider.sample(
            joint_noise(torch.empty(2, 4, 8, 8), 0),
            torch.zeros(2, 4, 8, 8),
            sampler,
            sigmas,
            callback=lambda step, clean, x, total: told.append((step, total)),
            seed=0,
            disable_pbar=True,
        )
        assert told == [(step, 12) for step in range(12)]

    @pytest.mark.parametrize("call", sparing([1, 4, 6], 4))
    @pytest.mark.parametrize("kind", ["error", "interrupt"])
    def test_after_an_error_or_a_cancel_everything_is_as_before(self, model, kind, call):
        """Three calls are one iteration here: the first and the second one are cut short."""
        plain, twice = ksample(model), free_init(clip_noised(model)[0], iterations=2)
        made = ksample(twice)
        exception = RuntimeError("boom") if kind == "error" else host.Interrupted()
        with pytest.raises(type(exception)):
            ksample(counting(twice, [], fail_at=call, exception=exception))
        assert torch.equal(ksample(model), plain) and torch.equal(ksample(twice), made)

    def test_a_cancel_between_iterations_is_seen(self, model):
        import comfy.model_management
        from comfy.patcher_extension import WrappersMP

        calls = []
        watched = counting(free_init(model, iterations=2), calls)

        def cancel(executor, *args, **kwargs):
            result = executor(*args, **kwargs)
            comfy.model_management.interrupt_current_processing()
            return result

        watched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "test", cancel)
        with pytest.raises(host.Interrupted):
            ksample(watched)
        assert len(calls) == 3

    def test_sampling_without_noise_or_to_the_middle_is_refused_before_the_first_call(self, model):
        import nodes

        calls = []
        twice = counting(free_init(model, iterations=2), calls)

        def run(add_noise, end, leftover):
            with torch.inference_mode():
                nodes.KSamplerAdvanced().sample(
                    twice, add_noise, 0, 3, 2.0, "euler", "normal", text(3), text(4), latent(), 0, end, leftover
                )

        with pytest.raises(ValueError, match="this sampler adds none: enable add_noise"):
            run("disable", 3, "disable")
        with pytest.raises(ValueError, match="let it run to the last step"):
            run("enable", 2, "enable")
        assert not calls
        run("enable", 3, "disable")
        assert calls

    def test_flow_models_are_refused_at_full_denoise_and_right_below_it(self, model):
        import comfy.model_sampling

        class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
            pass

        calls = []
        flow = model.clone()
        flow.add_object_patch("model_sampling", Flow())
        twice = counting(free_init(flow, iterations=2), calls)
        with pytest.raises(ValueError, match="lower denoise"):
            ksample(twice)
        assert not calls
        given = {"samples": torch.randn(FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(8))}
        seen = noises_seen(twice, lambda which: sample(which, random_noise(), given, denoise=0.5))
        # the wrapper that looks is the innermost: one look per iteration
        assert len(seen) == 2 and not torch.equal(*seen)

    def test_latents_of_other_shapes_are_refused(self, model):
        from pack.host.comfyui.attach import noise

        with pytest.raises(ValueError, match="frames of one clip"):
            noise.shaped(torch.ones(1, 1, 64), (Layer(),), 0)
