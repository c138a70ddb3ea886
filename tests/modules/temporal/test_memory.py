"""The memory plan against tensors without contents (``simulated.py``), and what ComfyUI is told of it."""

from dataclasses import replace

import pytest
import torch
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.temporal import transformer
from pack.modules.temporal.memory import CHUNKS, choose, estimate, human
from pack.modules.temporal.memory_moments import Call, moments_of
from pack.modules.temporal.slots import widths
from pack.modules.temporal.windows import WindowPlan
from simulated import ARCHITECTURES, META, Rig, comfy_unet, our_unet, peak_of
from tiny_motion import SDXL_UNET, UNET, image_model, ksample, motion_file

LIMIT = 0.15
ATTENTION = WindowPlan(length=8, overlap=7)
MODULE = replace(ATTENTION, fuse_at="module")
LOOP = WindowPlan(schedule="looped_uniform", length=8, overlap=5, stride=2)
GB = 2**30


# real widths, and fewer layers of each kind: how many there are takes time, not memory; benchmarks/memory.py has all of them
SHORT = {
    "SD1.5": replace(UNET, model_channels=320, num_heads=8, context_dim=768),
    "SDXL": replace(SDXL_UNET, model_channels=320, num_heads=10, context_dim=2048, label_channels=2816),
}


@pytest.fixture(scope="module", params=SHORT)
def rig(request):
    config = SHORT[request.param]
    return Rig(our_unet(config), config)


@pytest.fixture(scope="module")
def sd15():
    return our_unet(ARCHITECTURES["SD1.5"])


def agrees(rig, shape, **options):
    plan, peak = rig.plan(*shape, **options), rig.peak(*shape, **options)
    assert abs(plan.bytes / peak - 1) < LIMIT, (plan, peak)


# The simulation


def test_the_simulation_counts_what_is_alive_at_once():
    kept = torch.empty(100, device=META)

    def run():
        first = kept + 1  # 400 bytes
        second = first.view(10, 10) * 2  # a view makes nothing; 800 now
        del first
        third = second.half()  # 600
        del second
        return torch.cat([third, third]).view(-1)  # 200 + 400

    assert peak_of(run, [kept]) == 800


def test_the_simulation_frees_what_an_operation_had_alone():
    kept = torch.empty(100, device=META)
    assert peak_of(lambda: ((kept + 1) + 1) + 1, [kept]) == 800


# The estimate


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((16, 16, 24), {}),
        ((5, 16, 16), {"chunk": 3, "conds": 2}),
        ((16, 16, 16), {"windows": MODULE, "chunk": 8}),
        pytest.param((8, 17, 23), {"chunk": 4}, marks=pytest.mark.slow),
        pytest.param((16, 16, 16), {"windows": ATTENTION, "chunk": 8}, marks=pytest.mark.slow),
        pytest.param((18, 16, 16), {"chunk": 9, "windows": LOOP}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_estimate_is_the_simulated_peak(rig, shape, options):
    agrees(rig, shape, **options)


@pytest.mark.parametrize("chunk", [None, 4])
def test_the_estimate_knows_how_many_pixels_a_motion_module_takes_at_once(monkeypatch, rig, chunk):
    monkeypatch.setattr(transformer, "ANYWHERE", 20 * 2**20)
    agrees(rig, (8, 16, 16), conds=2, chunk=chunk)


def test_the_estimate_knows_that_norms_over_a_clip_take_whole_residual_blocks(sd15):
    agrees(Rig(our_unet(SHORT["SD1.5"]), SHORT["SD1.5"], clip_norms=True), (8, 16, 16), chunk=4, conds=2)
    scoped, plain = (Rig(sd15, ARCHITECTURES["SD1.5"], clip_norms=clip_norms) for clip_norms in (True, False))
    assert scoped.plan(256, 64, 64, chunk=16).bytes > plain.plan(256, 64, 64, chunk=16).bytes


def test_a_long_clip_in_chunks_takes_far_less_than_at_once(sd15):
    rig = Rig(sd15, ARCHITECTURES["SD1.5"])
    plan = rig.plan(256, 64, 64, chunk=16)
    assert plan.whole == rig.plan(256, 64, 64).bytes
    assert plan.whole > 2 * plan.bytes


@pytest.mark.parametrize("field", ["frames", "height", "width", "conds", "element"])
def test_twice_as_much_of_anything_takes_more_and_at_most_twice(sd15, field):
    call = Call(32, 16, 16, conds=2)
    before, after = (
        estimate(sd15, widths(sd15), made, 4).bytes for made in (call, replace(call, **{field: 2 * getattr(call, field)}))
    )
    assert before < after <= 2 * before


def test_smaller_chunks_never_take_more(sd15):
    sizes = [estimate(sd15, widths(sd15), Call(256, 64, 64), chunk).bytes for chunk in (None, *CHUNKS)]
    assert sizes == sorted(sizes, reverse=True)


def test_a_controlnet_holds_its_outputs_beside_the_skip_connections(sd15):
    call = Call(256, 64, 64)
    without, controlled = (estimate(sd15, widths(sd15), made, 16) for made in (call, replace(call, controlled=True)))
    assert controlled.bytes > without.bytes


def test_what_a_controlnet_gives_leaves_with_the_skip_connections_that_it_is_added_to(sd15):
    """One for each of them and one for the middle block, from the first block on."""
    call = Call(4, 8, 8)
    without, controlled = (
        [moment.between for moment in moments_of(sd15, (), made) if moment.place == "output" or "block" in moment.place]
        for made in (call, replace(call, controlled=True))
    )
    more = [held - plain for plain, held in zip(without, controlled, strict=True)]
    skips = [320 * 64] * 3 + [320 * 16, *[640 * 16] * 2, 640 * 4, *[1280 * 4] * 2, *[1280] * 3]
    assert max(more) == more[0] == sum(skips) + 1280
    assert more == sorted(more, reverse=True) and more[-1] == 1280, "the middle block's is added to no skip connection"


def test_without_motion_modules_less_is_held(sd15):
    assert estimate(sd15, (), Call(256, 64, 64), 16).bytes < estimate(sd15, widths(sd15), Call(256, 64, 64), 16).bytes


# The choice


@pytest.mark.parametrize("free", [5.8 * GB, 6 * GB, 6.5 * GB, 8 * GB, 10 * GB, 100 * GB])
def test_the_largest_chunk_that_fits_is_chosen(sd15, free):
    call, names = Call(200, 64, 64), widths(sd15)
    plan = choose(sd15, names, call, int(free))
    candidates = [None, *(chunk for chunk in CHUNKS if chunk < 200)]
    larger = candidates[: candidates.index(plan.chunk)]
    assert plan.fits and plan.bytes <= free
    assert all(estimate(sd15, names, call, chunk).bytes > free for chunk in larger)


def test_different_amounts_of_memory_give_different_chunks(sd15):
    chunks = {choose(sd15, widths(sd15), Call(200, 64, 64), int(free * GB)).chunk for free in (5, 6.5, 8, 10, 100)}
    assert len(chunks) >= 4


def test_what_never_fits_is_said_with_what_to_do(sd15):
    plan = choose(sd15, widths(sd15), Call(256, 64, 64), GB)
    assert plan.chunk == 1 and not plan.fits
    assert "fewer frames or smaller pictures" in plan.text()


def test_the_text_says_chunk_size_and_what_all_frames_would_take(sd15):
    plan = choose(sd15, widths(sd15), Call(256, 64, 64), 8 * GB)
    assert (
        f"256 frames go through each layer {plan.chunk} at a time: {human(plan.bytes)} above the weights, of 8.0 GB free"
        in plan.text()
    )
    assert f"all 256 frames at once would take {human(plan.whole)}" in plan.text()
    assert "does not fit" not in plan.text()
    assert (
        choose(sd15, widths(sd15), Call(16, 64, 64), 80 * GB).text().startswith("all 16 frames go through each layer at once: ")
    )


def test_another_kind_of_model_is_refused():
    with pytest.raises(ValueError, match="need a U-Net of Stable Diffusion's family"):
        estimate(torch.nn.Linear(1, 1), (), Call(16, 64, 64))


# ComfyUI

comfy = pytest.mark.comfy


@pytest.fixture
def model(tmp_path):
    return host.apply_motion(image_model(), load_motion_module(motion_file(tmp_path)))


@pytest.fixture
def memory():
    from pack.host.comfyui import memory

    return memory


def with_free(monkeypatch, size):
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *args, **kwargs: size)
    monkeypatch.setattr(comfy.model_management, "extra_reserved_memory", lambda: 0)


@comfy
@pytest.mark.parametrize("base", SHORT)
def test_comfyuis_network_takes_what_the_plan_says(base):
    config = SHORT[base]
    rig = Rig(comfy_unet(config), config)
    agrees(rig, (8, 16, 16), chunk=4, conds=2)
    agrees(rig, (8, 16, 16))


@comfy
def test_less_free_memory_gives_smaller_chunks(monkeypatch, memory, model):
    conds, shape = {"positive": [{"cross_attn": torch.zeros(1, 4, 16)}]}, (64, 4, 64, 64)
    with_free(monkeypatch, 100 * GB)
    plan = memory.plan_for(model, shape, conds)
    assert plan.chunk is None
    with_free(monkeypatch, int(plan.bytes * 0.8))
    assert memory.plan_for(model, shape, conds).chunk in CHUNKS
    with_free(monkeypatch, plan.bytes)  # not all of it is planned with
    assert memory.plan_for(model, shape, conds).chunk in CHUNKS


@comfy
def test_two_conditions_count_when_comfyui_would_batch_them(monkeypatch, memory, model):
    shape = (16, 4, 64, 64)
    one, two = ({name: [{}] for name in names} for names in (("positive",), ("positive", "negative")))
    with_free(monkeypatch, 1000 * GB)
    assert memory.plan_for(model, shape, two).bytes > 1.5 * memory.plan_for(model, shape, one).bytes
    with_free(monkeypatch, int(model.model.memory_required([2 * 16, 4, 64, 64])))  # times 1.5 is not free
    assert memory.plan_for(model, shape, two).whole == memory.plan_for(model, shape, one).whole


@comfy
def test_a_controlnet_in_the_conditions_is_counted(monkeypatch, memory, model):
    with_free(monkeypatch, 1000 * GB)
    plain, controlled = (
        memory.plan_for(model, (256, 4, 64, 64), {"positive": [cond]}).bytes for cond in ({}, {"control": object()})
    )
    assert controlled > plain


@comfy
@pytest.mark.parametrize("mode", ["temporal", "views", "whole"])
def test_windows_are_part_of_the_plan(monkeypatch, memory, model, mode):
    with_free(monkeypatch, 1000 * GB)
    windowed = host.context_windows(
        model, WindowPlan(length=16, overlap=15, fuse_at="module" if mode == "views" else "attention"), mode
    )
    plain, planned = (memory.plan_for(made, (32, 4, 64, 64)) for made in (model, windowed))
    assert planned.frames == (16 if mode == "whole" else 32)
    assert (planned.bytes < plain.bytes) == (mode == "whole")


@comfy
def test_weights_still_to_be_loaded_are_not_free(monkeypatch, memory, model):
    with_free(monkeypatch, GB)
    assert memory.free_bytes(model) == GB  # on a CPU they lie where they are used
    model.offload_device = torch.device("meta")
    assert memory.free_bytes(model) == GB - model.model_size() + model.loaded_size() < GB


@comfy
def test_the_text_for_show_plan(memory, model):
    latent = {"samples": torch.zeros(32, 4, 8, 8)}
    assert memory.memory_text(model, latent).startswith("memory: all 32 frames go through each layer at once: ")
    assert "no motion module" in memory.memory_text(image_model(), latent)


@comfy
@pytest.mark.parametrize("size", [1, 10**6, 10**8, 10**12])
def test_comfyui_is_asked_for_what_the_plan_takes_and_never_more_than_before(memory, model, size):
    import comfy.sampler_helpers

    shape = [64, 4, 32, 32]
    given = memory.shape_for(model, shape, size)
    conds = {"positive": []}
    asked, before = (comfy.sampler_helpers.estimate_memory(model, made, conds)[0] for made in (given, shape))
    assert asked <= before and given[1:] == shape[1:] and 1 <= given[0] <= 64
    assert asked >= min(size, before)
    assert given[0] == 1 or comfy.sampler_helpers.estimate_memory(model, [given[0] - 1, *shape[1:]], conds)[0] < size


@comfy
@pytest.mark.parametrize("planned", [True, False])
def test_the_wrapper_changes_the_shape_when_there_is_a_plan(monkeypatch, memory, model, planned):
    """Through ComfyUI's own sampling, whatever the version calls the wrapper with."""
    import comfy.sampler_helpers
    from comfy.patcher_extension import WrappersMP

    seen = []
    estimate_memory = comfy.sampler_helpers.estimate_memory
    monkeypatch.setattr(
        comfy.sampler_helpers, "estimate_memory", lambda *args: seen.append(list(args[1])) or estimate_memory(*args)
    )
    plain = ksample(image_model(), frames=16)
    assert seen == [[16, 4, 8, 8]]
    bare, plan = image_model(), memory.plan_for(model, (16, 4, 8, 8))
    bare.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, "test", memory.prepare_sampling)
    options = bare.model_options.setdefault("transformer_options", {})
    options[memory.PLAN] = replace(plan, between=0, layer=0, temporal=0, ends=1) if planned else None
    assert torch.equal(ksample(bare, frames=16), plain)
    assert seen[1] == ([1, 4, 8, 8] if planned else [16, 4, 8, 8])
