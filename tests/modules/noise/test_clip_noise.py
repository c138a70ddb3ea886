"""Noise for whole clips: closed forms of mean, variance and correlation, and orders by brute force."""

from collections import Counter

import pytest
import torch
from pack.modules.noise.clip_noise import Clip, Layer, clip_noise, with_layer
from pack.modules.noise.noise_kinds import COMBINATIONS, KINDS, SOURCES, joint_noise, shuffled
from pack.modules.noise.seeded import frame_noise

FRAMES, SHAPE, SEED = 14, (4, 24, 24), 7
ALIKE = {"length": 6, "overlap": 2, "share": 0.3}  # short windows, so that noise comes again within the clip


def clip(frames=FRAMES, shape=SHAPE, seed=SEED, numbers=None):
    own = joint_noise(torch.empty(frames, *shape), seed)
    return Clip(own, seed, tuple(range(frames)) if numbers is None else numbers)


def correlations(noise):
    """Of every frame with every other, ``f f``."""
    return torch.corrcoef(noise.flatten(1))


def expected(kind, frames):
    """The correlation of every two frames by the definition of the kind."""
    i = torch.arange(frames)
    if kind == "independent":
        return torch.eye(frames)
    if kind == "constant":
        return torch.ones(frames, frames)
    if kind == "mixed":
        return torch.full((frames, frames), ALIKE["share"]).fill_diagonal_(1.0)
    order = i % ALIKE["length"] if kind == "repeated" else shuffled(frames, length=6, overlap=2, seed=SEED)
    return (order[:, None] == order[None]).float()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
def test_mean_variance_and_correlation_are_those_of_the_closed_form(kind, source):
    # the end of the clip is a whole region, so that both sources shuffle it alike
    noise = clip_noise(clip(shape=(4, 64, 64)), (Layer(kind, source, **ALIKE),))
    assert noise.shape == (FRAMES, 4, 64, 64)
    assert noise.mean((1, 2, 3)).abs().max() < 0.04
    assert (noise.var((1, 2, 3)) - 1).abs().max() < 0.05
    torch.testing.assert_close(correlations(noise), expected(kind, FRAMES), atol=0.045, rtol=0)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
def test_noise_repeats_and_the_seed_matters(kind, source):
    layers = (Layer(kind, source, **ALIKE),)
    made = clip_noise(clip(), layers)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        before = torch.get_rng_state()
        assert torch.equal(clip_noise(clip(), layers), made)
        assert torch.equal(torch.get_rng_state(), before), "the global generator must be left alone"
    assert not torch.equal(clip_noise(clip(seed=8), layers), made)
    offset = clip_noise(clip(), (Layer(kind, source, **ALIKE, seed_offset=1),))
    assert torch.equal(offset, clip_noise(clip(seed=8), layers)), "a seed offset is nothing but another seed"


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_drawn_by_number_does_not_know_the_clip(kind):
    """Other lengths, other pieces, other orders: the same frame has the same noise."""
    layers = (Layer(kind, "per_frame", **ALIKE),)
    whole = clip_noise(clip(30), layers)
    for count in (1, 5, 6, 7, 9, 13, 29):
        assert torch.equal(clip_noise(clip(count), layers), whole[:count])
    numbers = (22, 3, 17, 3)
    assert torch.equal(clip_noise(clip(4, numbers=numbers), layers), whole[list(numbers)])


def test_independent_noise_by_number_is_that_of_the_rollout():
    made = clip_noise(clip(), (Layer("independent", "per_frame"),))
    assert torch.equal(made, frame_noise(SHAPE, SEED, range(FRAMES)))


def test_independent_noise_of_comfyuis_is_left_alone_bit_for_bit():
    given = clip()
    assert torch.equal(clip_noise(given, (Layer("independent"),)), given.own)
    assert torch.equal(clip_noise(given, ()), given.own)


# FreeNoise


@pytest.mark.parametrize(("length", "overlap"), [(16, 4), (16, 12), (8, 0), (5, 4), (1, 0), (7, 2)])
@pytest.mark.parametrize("count", [1, 4, 16, 17, 40, 41])
def test_regions_are_permutations_of_what_lies_a_window_before(count, length, overlap):
    order, step = shuffled(count, length=length, overlap=overlap, seed=3), length - overlap
    assert order[:length].tolist() == list(range(min(count, length))), "the first window is independent"
    for place in range(length, count, step):
        size = min(step, count - place)
        assert Counter(order[place : place + size].tolist()) == Counter(order[place - length : place - length + size].tolist())
    assert not count or int(order.max()) < length


def test_every_full_window_holds_each_noise_once():
    """The paper's claim (section 3.2): each window sees the same set of noise, in another order."""
    order = shuffled(16 + 5 * 4, length=16, overlap=12, seed=5)
    for start in range(0, 5 * 4 + 1, 4):
        assert sorted(order[start : start + 16].tolist()) == list(range(16))
    assert order[16:20].tolist() != order[:4].tolist()


@pytest.mark.parametrize("kind", ["freenoise", "repeated"])
def test_windows_may_be_of_one_frame(kind):
    clip = Clip(torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(1)), 7, tuple(range(5)))
    made = clip_noise(clip, (Layer(kind, "per_frame", length=1, overlap=0),))
    assert all(torch.equal(frame, made[0]) for frame in made), "which comes again and again"


def test_shuffling_is_seeded():
    orders = [shuffled(64, length=16, overlap=4, seed=seed).tolist() for seed in (0, 0, 1, -1, 2**64 - 1)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[3] == orders[4] != orders[0], "64 bits of the seed count"


def test_shuffled_noise_that_is_shuffled_again_stays():
    layer = Layer("freenoise", **ALIKE)
    once = clip_noise(clip(), (layer,))
    assert torch.equal(clip_noise(Clip(once, SEED, tuple(range(FRAMES))), (layer,)), once)


@pytest.mark.comfy
@pytest.mark.parametrize("count", [10, 16, 17, 28, 33, 64])
def test_freenoise_equals_comfyuis_own(count):
    from comfy import context_windows

    if not hasattr(context_windows, "apply_freenoise"):
        pytest.skip("this ComfyUI has no FreeNoise")
    given = clip(count, shape=(4, 4, 4))
    theirs = context_windows.apply_freenoise(given.own.clone(), 0, 16, 4, SEED)
    assert torch.equal(clip_noise(given, (Layer("freenoise"),)), theirs)


@pytest.mark.comfy
def test_noise_drawn_together_is_comfyuis_bit_for_bit():
    import comfy.sample

    like = torch.zeros(5, 4, 9, 7)
    for seed in (0, 5, 2**64 - 1):
        assert torch.equal(joint_noise(like, seed), comfy.sample.prepare_noise(like, seed))


# Layers


def layer(combine, weight=0.3, **options):
    return Layer("independent", "per_frame", combine=combine, weight=weight, **options)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("combine", COMBINATIONS)
def test_variance_of_a_sum_is_that_of_the_closed_form(combine, weight):
    noise = clip_noise(clip(shape=(4, 64, 64)), (layer(combine, weight),))
    variance = {"replace": 1, "normalised_sum": 1, "weighted": (1 - weight) ** 2 + weight**2, "add": 1 + weight**2}[combine]
    assert COMBINATIONS[combine].unit is (combine in ("replace", "normalised_sum"))
    assert float(noise.var()) == pytest.approx(variance, abs=0.02)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_layers_by_hand(combine):
    given, one = clip(), layer(combine)
    new = frame_noise(SHAPE, SEED, range(FRAMES))
    old = given.own
    wanted = {
        "replace": new,
        "normalised_sum": (0.7 * old + 0.3 * new) / (0.7**2 + 0.3**2) ** 0.5,
        "weighted": 0.7 * old + 0.3 * new,
        "add": old + 0.3 * new,
    }[combine]
    torch.testing.assert_close(clip_noise(given, (one,)), wanted)
    second = clip_noise(given, (one, layer(combine)))
    again = clip_noise(Clip(wanted, SEED, given.frames), (one,))
    assert not torch.allclose(second, again), "a layer by number draws other noise than the one under it"


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("combine", [name for name, row in COMBINATIONS.items() if row.unit])
def test_masks_of_any_value_keep_unit_variance_where_it_is_promised(combine, value):
    noise = clip_noise(clip(shape=(4, 64, 64)), (layer(combine, mask=torch.full((1, 8, 8), value)),))
    assert float(noise.var()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_a_mask_says_where(combine):
    mask = torch.zeros(FRAMES, 24, 24)
    mask[3:, :, 12:] = 1
    given = clip()
    masked, everywhere = (clip_noise(given, (layer(combine, mask=m),)) for m in (mask, None))
    assert torch.equal(masked[:3], given.own[:3]) and torch.equal(masked[3:, ..., :12], given.own[3:, ..., :12])
    torch.testing.assert_close(masked[3:, ..., 12:], everywhere[3:, ..., 12:])
    assert not torch.equal(everywhere, given.own)


def test_masks_are_resized_and_one_serves_all_frames():
    half = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    given = clip()
    noise = clip_noise(given, (layer("replace", mask=half),))
    assert torch.equal(noise[..., 0], given.own[..., 0])
    torch.testing.assert_close(noise[..., -1], frame_noise(SHAPE, SEED, range(FRAMES))[..., -1])


def test_noise_with_more_axes_works_the_same():
    flat, deep = clip(shape=(4, 6, 6)), clip(shape=(1, 4, 6, 6))
    one = Layer("mixed", "per_frame", mask=torch.rand(1, 3, 3))
    assert torch.equal(clip_noise(deep, (one,))[:, 0], clip_noise(flat, (one,)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_is_the_samplers(dtype):
    given = clip()
    given = Clip(given.own.to(dtype), SEED, given.frames)
    for kind in KINDS:
        for source in SOURCES:
            assert clip_noise(given, (Layer(kind, source, combine="normalised_sum", seed_offset=1),)).dtype == dtype


def test_once_more_is_other_noise_and_repeats():
    like = torch.empty(FRAMES, *SHAPE)
    first, again, other = (Clip.again(like, SEED, iteration) for iteration in (1, 1, 2))
    assert torch.equal(first.own, again.own) and not torch.equal(first.own, other.own)
    assert torch.equal(Clip.again(like[:5], SEED, 1).own, first.own[:5])
    layered = clip_noise(first, (layer("normalised_sum", 0.5),))
    assert float(layered.var()) == pytest.approx(1, abs=0.03), "a layer is not the noise that it is mixed with"


# Bad input


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kind": "pink"}, "kind is 'pink': choose one of freenoise, repeated"),
        ({"source": "gpu"}, "source is 'gpu': choose one of comfyui, per_frame"),
        ({"combine": "multiply"}, "combine is 'multiply': choose one of replace"),
        ({"length": 0}, "length is 0: it must lie between 1"),
        ({"length": 8, "overlap": 8}, "windows of 8 frames cannot overlap by 8: use an overlap from 0 to 7"),
        ({"overlap": -1}, "overlap is -1: it must lie between 0"),
        ({"share": 1.5}, "share is 1.5: it must lie between 0 and 1"),
        ({"share": float("nan")}, "share is nan"),
        ({"weight": -1.0}, "weight is -1"),
        ({"weight": float("inf")}, "weight is inf: it must lie between 0 and 10"),
        ({"mask": torch.ones(4, 4)}, "the mask has the shape"),
        ({"mask": torch.full((1, 4, 4), 2.0)}, "values outside 0 to 1"),
        ({"mask": torch.full((1, 4, 4), float("nan"))}, "values outside 0 to 1"),
    ],
)
def test_bad_layers_are_refused_when_they_are_made(options, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        Layer(**options)
    assert "\n" not in str(error.value)


def test_overlap_counts_for_freenoise_alone():
    Layer("repeated", length=4, overlap=4)


def test_a_wrong_number_of_masks_is_refused():
    with pytest.raises(ValueError, match="3 masks for 14 frames"):
        clip_noise(clip(), (layer("replace", mask=torch.ones(3, 4, 4)),))


@pytest.mark.parametrize(("numbers", "sentence"), [((0, 1), "2 frame numbers were given for 3"), ((0, -1, 2), "-1 was given")])
def test_bad_frame_numbers_are_refused(numbers, sentence):
    with pytest.raises(ValueError, match=sentence):
        clip(3, numbers=numbers)


@pytest.mark.parametrize("options", [{"combine": "normalised_sum"}, {"combine": "add"}, {"mask": torch.ones(1, 2, 2)}])
def test_noise_is_never_mixed_with_itself(options):
    mixing = Layer("freenoise", "comfyui", **options)
    with pytest.raises(ValueError, match="seed offset 0 with itself: set another seed_offset, or per_frame"):
        with_layer((), mixing)
    with_layer((Layer("constant", "per_frame"),), mixing)  # what the sampler drew is no longer there
    with pytest.raises(ValueError, match="with itself"):
        with_layer((Layer("constant", "per_frame", combine="add"),), mixing)
    with_layer((), Layer("freenoise", "comfyui", seed_offset=1, **options))
    with_layer((), Layer("freenoise", "per_frame", **options))
