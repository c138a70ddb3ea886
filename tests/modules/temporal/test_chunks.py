"""Spatial layers a few frames at a time: the same numbers, the right frame numbers, and memory that runs out."""

import math
from types import SimpleNamespace

import pytest
import tiny
import torch
from pack.modules.temporal.chunks import AD_PARAMS, Chunks, spatial_layers
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.slots import MARK, empty, fill, widths
from pack.modules.temporal.transformer import TemporalConfig
from tiny_motion import UNET, image_model, randomized

FRAMES, SIZES = 6, (1, 2, 3, 4, 5)  # 4 and 5 leave a rest
TOO_MANY = "this many frames do not fit"


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(one, other):
    assert (one - other).abs().max() <= 1e-6 * other.abs().max()


def chunked(unet, call, size, conds, *, ids=(), clip_norms=False):
    """``call`` with motion modules in the slots of ``unet``, and layers in chunks."""
    motion = randomized(MotionModel(widths(unet), TemporalConfig(groups=8, heads=4))).double().eval().requires_grad_(False)
    chunks = Chunks()
    fill(unet, motion.slot_functions(), chunks.around, spatial_layers(unet, clip_norms=clip_norms))
    chunks.size, chunks.conds, chunks.ids = size, conds, list(ids)
    try:
        with motion.during(motion.frames_for(torch.arange(FRAMES))), torch.no_grad():
            return call()
    finally:
        empty(unet)


@pytest.fixture(scope="module")
def unet():
    return tiny.unet(context_dim=16).double()


def inputs(conds):
    count = conds * FRAMES
    return drawn(count, 4, 8, 8), torch.arange(count) * 900.0 / count, drawn(count, 4, 16, seed=1)


# The same numbers


@pytest.mark.parametrize("clip_norms", [False, True])
@pytest.mark.parametrize("conds", [1, 2])
def test_our_unet_in_chunks_is_the_same(unet, conds, clip_norms):
    given = inputs(conds)
    whole = chunked(unet, lambda: unet(*given), None, conds)
    for size in SIZES:
        close(chunked(unet, lambda: unet(*given), size, conds, clip_norms=clip_norms), whole)


def test_conditions_and_frames_are_not_confused(unet):
    """Were the batch cut without regard to conditions, the frames of two would be mixed: here each has its own noise."""
    x, t, context = inputs(2)
    whole = chunked(unet, lambda: unet(x, t, context), 4, 2)
    first = chunked(unet, lambda: unet(x[:FRAMES], t[:FRAMES], context[:FRAMES]), 4, 1)
    close(whole[:FRAMES], first)


def test_no_layer_sees_more_frames_than_the_chunk(unet):
    seen = []
    layers = [layer for layer in spatial_layers(unet) if layer is not unet.out]
    hooks = [layer.register_forward_pre_hook(lambda layer, args: seen.append(len(args[0]))) for layer in layers]
    inner = [part for layer in layers for part in layer.children() if hasattr(part, "weight")]
    hooks += [part.register_forward_pre_hook(lambda part, args: most.append(len(args[0]))) for part in inner]
    most = []
    given = inputs(2)
    try:
        chunked(unet, lambda: unet(*given), 2, 2)
    finally:
        for hook in hooks:
            hook.remove()
    assert set(seen) == {2 * FRAMES} and set(most) == {4}  # between the layers all, inside two frames of two conditions


@pytest.mark.comfy
@pytest.mark.parametrize("conds", [1, 2])
@pytest.mark.parametrize("per_frame", [False, True])
def test_comfyuis_unet_in_chunks_is_the_same(conds, per_frame):
    unet = image_model(config=UNET).model.diffusion_model.double()
    x, t, context = inputs(conds)
    sigmas = torch.linspace(1, 2, FRAMES) if per_frame else torch.ones(1)

    def call():
        return unet(x, t if per_frame else torch.full_like(t, 300), context, transformer_options={"sigmas": sigmas})

    whole = chunked(unet, call, None, conds)
    for size in SIZES:
        close(chunked(unet, call, size, conds), whole)


@pytest.mark.comfy
@pytest.mark.parametrize("size", [1, 4, None])
def test_attention_patches_are_told_which_frames_they_see(size):
    """Each frame carries its number in its text, so a patch can compare what it is told with what it sees."""
    unet = image_model(config=UNET).model.diffusion_model.double()
    ids, conds = [5, 9, 3, 7, 11, 2], 2
    x, t, context = inputs(conds)
    context = torch.tensor(ids * conds).double()[:, None, None].expand_as(context)
    calls = []

    def patch(n, k, v, options):
        told = options.get(AD_PARAMS, {})
        calls.append((k[:, 0, 0].tolist(), told.get("sub_idxs"), told.get("full_length"), options["sigmas"].tolist()))
        return n, k, v

    sigmas = torch.tensor(ids) / 10.0
    options = {"patches": {"attn2_patch": [patch]}, "sigmas": sigmas, AD_PARAMS: {"other": 1}}
    chunked(unet, lambda: unet(x, t, context, transformer_options=options), size, conds, ids=ids)
    assert calls
    for saw, told, length, levels in calls:
        if size is None:
            assert (told, length) == (None, None) and saw == ids * conds
            continue
        assert saw == told * conds and length == FRAMES and len(told) <= size
        assert levels == pytest.approx([number / 10 for number in told])
    assert options[AD_PARAMS] == {"other": 1}, "the caller's options stay as they were"


def test_what_is_not_per_frame_is_passed_on_whole():
    given = []

    def layer(x, scale, *, bias, name):
        given.append((len(scale), len(bias), name))
        return x * scale[0] + bias.sum()

    chunks = Chunks()
    chunks.size = 2
    x, scale, bias = drawn(FRAMES, 3), torch.tensor([2.0]), torch.ones(FRAMES + 1)
    close(chunks.around(layer)(x, scale, bias=bias, name="n"), x * 2 + (FRAMES + 1))
    assert set(given) == {(1, FRAMES + 1, "n")}


# Memory that runs out


def greedy(most, seen):
    """A layer that fits at most so many images."""

    def layer(x, shift):
        seen.append(len(x))
        if len(x) > most:
            raise torch.OutOfMemoryError(TOO_MANY)
        return x * 2 + shift

    return layer


@pytest.mark.parametrize("conds", [1, 2])
@pytest.mark.parametrize("start", [None, 8, 5])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_the_chunk_is_halved_until_it_fits(conds, start, most):
    said, seen = [], []
    chunks = Chunks(said.append)
    chunks.size, chunks.conds = start, conds
    x, shift = drawn(conds * 8, 3), drawn(conds * 8, 3, seed=1)
    assert torch.equal(chunks.around(greedy(most * conds, seen))(x, shift), x * 2 + shift)
    first = start or 8
    assert said == [size for size in (first // 2, first // 4, first // 8) if size][: len(said)]
    assert chunks.size == said[-1] <= most and (len(said) == 1 or said[-2] > most)
    assert seen[0] == first * conds and sum(seen[-math.ceil(8 / chunks.size) :]) == conds * 8, "the layer starts again, whole"


def test_the_next_layer_starts_with_the_smaller_chunk():
    seen, chunks = [], Chunks()
    x = drawn(8, 3)
    chunks.around(greedy(3, []))(x, x)
    chunks.around(greedy(8, seen))(x, x)
    assert seen == [2, 2, 2, 2]


@pytest.mark.parametrize("conds", [1, 2])
def test_when_one_frame_does_not_fit_the_error_comes_through(conds):
    said, chunks = [], Chunks()
    chunks.halved, chunks.conds = said.append, conds
    x = drawn(4 * conds, 3)
    with pytest.raises(torch.OutOfMemoryError, match=TOO_MANY):
        chunks.around(greedy(conds - 1, []))(x, x)
    assert said == [2, 1]


def test_other_errors_come_through_at_once():
    chunks, seen = Chunks(), []

    def layer(x):
        seen.append(len(x))
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        chunks.around(layer)(drawn(4, 3))
    assert seen == [4] and chunks.size is None


@pytest.mark.parametrize("fits", [True, False])
def test_after_memory_ran_out_in_a_unet_nothing_is_left_changed(unet, fits):
    given = inputs(2)
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    plain = unet(*given)
    whole = chunked(unet, lambda: unet(*given), None, 2)
    convolution = unet.output_blocks[0][0].in_layers[2]
    inner = convolution.forward
    scarce = SimpleNamespace(most=4 if fits else 1)

    def forward(x):
        if len(x) > scarce.most:
            raise torch.OutOfMemoryError(TOO_MANY)
        return inner(x)

    convolution.forward = forward
    try:
        if fits:
            close(chunked(unet, lambda: unet(*given), None, 2), whole)
        else:
            with pytest.raises(torch.OutOfMemoryError, match=TOO_MANY):
                chunked(unet, lambda: unet(*given), None, 2)
    finally:
        del convolution.forward
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())
    assert not any(MARK in layer.__dict__ or "forward" in layer.__dict__ for layer in unet.modules())
    assert torch.equal(unet(*given), plain)
