"""Temporal modules: who sees whom, when a frame is, and where the modules sit."""

import itertools
import math

import pytest
import tiny
import torch
from pack.modules.nets.unet import UNet
from pack.modules.nets.unet_config import UNetConfig
from pack.modules.temporal.frames import Frames
from pack.modules.temporal.masks import MASKS, local, with_sink_frames
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.positions import POSITIONS, Shaw, sinusoid
from pack.modules.temporal.slots import MARK, empty, fill, slots, widths
from pack.modules.temporal.transformer import TemporalConfig, TemporalTransformer

FRAMES = 6


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Masks


@pytest.fixture(params=MASKS)
def mask(request):
    return MASKS[request.param]


def test_every_frame_sees_itself(mask):
    assert mask(torch.arange(9), 3).diagonal().all()


def test_a_window_has_its_part_of_the_whole_mask(mask):
    whole = mask(torch.arange(20), 4)
    assert torch.equal(mask(torch.arange(5, 14), 4), whole[5:14, 5:14])


def test_masks_follow_frame_numbers_not_places(mask):
    ids = torch.tensor([7, 2, 11, 3])
    assert torch.equal(mask(ids, 2), mask(torch.arange(12), 2)[ids][:, ids])


@pytest.mark.parametrize(
    ("name", "sees"),
    [
        ("full", lambda i, j: True),
        ("causal", lambda i, j: j <= i),
        ("block_causal", lambda i, j: j // 3 <= i // 3),
        ("local", lambda i, j: abs(i - j) <= 3),
        ("local_causal", lambda i, j: 0 <= i - j <= 3),
    ],
)
def test_masks_by_brute_force(name, sees):
    expected = [[sees(i, j) for j in range(10)] for i in range(10)]
    assert MASKS[name](torch.arange(10), 3).tolist() == expected


def test_every_mask_is_tried_by_brute_force():
    marks = test_masks_by_brute_force.pytestmark[0]
    assert {row[0] for row in marks.args[1]} == set(MASKS)


def test_anchors_are_seen_by_all_and_nothing_else_changes():
    ids = torch.arange(4, 10)
    before = local(ids, 1)
    after = with_sink_frames(before, ids, torch.tensor([0, 5]))  # 0 lies outside the window
    assert after[:, 1].all()
    assert torch.equal(after[:, [0, 2, 3, 4, 5]], before[:, [0, 2, 3, 4, 5]])


# Positions


def test_sinusoid_is_the_closed_form():
    channels, places = 10, [0, 1, 7, 31, 2.5]
    expected = [
        [(math.sin, math.cos)[c % 2](place / 10000 ** ((c - c % 2) / channels)) for c in range(channels)] for place in places
    ]
    torch.testing.assert_close(sinusoid(torch.tensor(places), channels), torch.tensor(expected), atol=1e-5, rtol=0)


def transformer(seed=3, *, channels=16, **values):
    values = {"heads": 2, "groups": 4, **values}
    with tiny.seeded(seed):
        module = TemporalTransformer(channels, TemporalConfig(**values)).requires_grad_(False)
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # far from where training starts, so that everything counts
    return module


@pytest.mark.parametrize("name", POSITIONS)
def test_relative_positions_forget_where_the_clip_starts(name):
    module, x = transformer(positions=name), torch.randn(FRAMES, 16, 2, 2, generator=generator())
    here, there = (module(x, Frames(FRAMES, torch.arange(FRAMES) + start)) for start in (0, 40))
    apart = (here - there).abs().max()
    assert apart > 1e-2 if POSITIONS[name].absolute else apart < 1e-4


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_tell_the_frames_apart(name):
    """Without them attention could not know the order of the frames."""
    module, x = transformer(positions=name), torch.randn(FRAMES, 16, 2, 2, generator=generator())
    order = torch.tensor([1, 0, 2, 5, 4, 3])
    moved = module(x[order], Frames.of(FRAMES))
    assert (moved - module(x, Frames.of(FRAMES))[order]).abs().max() > 1e-2


@pytest.mark.parametrize("name", POSITIONS)
def test_the_order_of_the_batch_does_not_matter_when_times_go_along(name):
    module, x = transformer(positions=name), torch.randn(FRAMES, 16, 2, 2, generator=generator())
    order = torch.tensor([1, 0, 2, 5, 4, 3])
    moved = module(x[order], Frames(FRAMES, order))
    torch.testing.assert_close(moved, module(x, Frames.of(FRAMES))[order], atol=1e-5, rtol=1e-5)


def test_shaw_by_brute_force():
    """Equation 5 of arXiv:1803.02155, one query and one key at a time, in float64."""
    heads, frames, d = 2, 5, 4
    with tiny.seeded(4):
        shaw = Shaw(heads * d, heads, reach=2).double().requires_grad_(False)
    q, k, v = (torch.randn(3, heads, frames, d, dtype=torch.float64, generator=generator(i)) for i in range(3))
    places = torch.tensor([0, 1, 2, 5, 9])
    turned, keys, bias = shaw.attend(q, k, places)
    got = torch.nn.functional.scaled_dot_product_attention(turned, keys, v, attn_mask=bias)
    expected = torch.zeros_like(got)
    for b, h, i in itertools.product(range(3), range(heads), range(frames)):
        logits = []
        for j in range(frames):
            distance = max(-2, min(2, int(places[j] - places[i])))
            logits.append(float(q[b, h, i] @ (k[b, h, j] + shaw.relative[distance + 2])) / math.sqrt(d))
        expected[b, h, i] = torch.tensor(logits, dtype=torch.float64).softmax(0) @ v[b, h]
    torch.testing.assert_close(got, expected)


# The transformer


def test_attention_by_brute_force():
    """The whole module with one attention and no feed-forward weight, written out in float64."""
    module = transformer(attentions=1, mask="causal").double()
    block = module.transformer_blocks[0]
    block.ff.net[2].weight.zero_()
    block.ff.net[2].bias.zero_()
    x = torch.randn(FRAMES, 16, 1, 1, dtype=torch.float64, generator=generator())
    got = module(x, Frames(FRAMES, torch.arange(FRAMES), MASKS["causal"](torch.arange(FRAMES), 0)))
    tokens = module.proj_in(module.norm(x)[..., 0, 0])
    attend = block.attention_blocks[0]
    inner = block.norms[0](tokens) + sinusoid(torch.arange(FRAMES), 16).double()
    q, k, v = attend.to_q(inner), attend.to_k(inner), attend.to_v(inner)
    mixed = torch.zeros_like(tokens)
    for i, part in itertools.product(range(FRAMES), (slice(0, 8), slice(8, 16))):
        weights = (k[: i + 1, part] @ q[i, part] / math.sqrt(8)).softmax(0)
        mixed[i, part] = weights @ v[: i + 1, part]
    expected = x[..., 0, 0] + module.proj_out(tokens + attend.to_out(mixed))
    torch.testing.assert_close(got[..., 0, 0], expected)


def test_clips_of_a_batch_do_not_see_each_other():
    module, x = transformer(), torch.randn(2 * FRAMES, 16, 2, 2, generator=generator())
    both = module(x, Frames.of(FRAMES))
    torch.testing.assert_close(both[:FRAMES], module(x[:FRAMES], Frames.of(FRAMES)), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="7 images came to a motion module that was told of clips of 6 frames"):
        module(x[:7], Frames.of(FRAMES))


@pytest.mark.parametrize(
    ("values", "sentence"), [({"mask": "none"}, "mask is 'none'"), ({"positions": "alibi"}, "choose one of sinusoid")]
)
def test_unknown_kinds_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        TemporalConfig(**values)


def test_frames_must_agree_with_positions():
    with pytest.raises(ValueError, match="3 frames were announced and 2 positions given"):
        Frames(3, torch.arange(2))


# In the U-Net


def joined(mask="causal", positions="rotary", mask_frames=0, seed=0):
    """A U-Net with strong temporal modules in all its slots."""
    unet = tiny.unet(seed)
    config = TemporalConfig(heads=2, attentions=2, groups=8, positions=positions, mask=mask, mask_frames=mask_frames)
    with tiny.seeded(seed + 1):
        motion = MotionModel(widths(unet), config).requires_grad_(False)
        for parameter in motion.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    fill(unet, motion.slot_functions())
    return unet, motion


def run(unet, motion, x, t):
    with motion.during(motion.frames_for(torch.arange(len(x)))):
        return unet(x, t)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("changed", [1, 3, FRAMES - 1])
def test_causality_is_real(positions, changed):
    """A later frame, or its noise level, changes no bit of the earlier ones; and it does change itself."""
    unet, motion = joined("causal", positions)
    x, t = torch.randn(FRAMES, 4, 8, 8, generator=generator()), torch.full((FRAMES,), 500.0)
    before = run(unet, motion, x, t)
    x, t = x.clone(), t.clone()
    x[changed:] += torch.randn(x[changed:].shape, generator=generator(1))
    t[changed:] = 20.0
    after = run(unet, motion, x, t)
    assert torch.equal(after[:changed], before[:changed])
    assert ((after - before)[changed:].abs().amax(dim=(1, 2, 3)) > 1e-3).all()


@pytest.mark.parametrize(
    ("mask", "touched"),
    [
        ("full", range(6)),
        ("causal", range(3, 6)),
        ("block_causal", range(2, 6)),
        ("local", range(6)),
        ("local_causal", range(3, 6)),
    ],
)
def test_reach_of_one_frame(mask, touched):
    """Which frames change with frame 3. Layers stack, so a local window reaches further through the network than through one layer."""
    unet, motion = joined(mask, mask_frames=2)
    x, t = torch.randn(FRAMES, 4, 8, 8, generator=generator()), torch.full((FRAMES,), 500.0)
    before = run(unet, motion, x, t)
    x = x.clone()
    x[3] += 1
    apart = (run(unet, motion, x, t) - before).abs().amax(dim=(1, 2, 3)) > 0
    assert apart.nonzero().flatten().tolist() == list(touched)


def test_a_causal_prefix_is_what_the_longer_clip_had():
    unet, motion = joined("causal")
    x, t = torch.randn(FRAMES, 4, 8, 8, generator=generator()), torch.full((FRAMES,), 500.0)
    whole = run(unet, motion, x, t)
    torch.testing.assert_close(run(unet, motion, x[:4], t[:4]), whole[:4], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("positions", POSITIONS)
def test_zero_changes_nothing(positions):
    unet, motion = joined(positions=positions)
    x, t = torch.randn(FRAMES, 4, 8, 8, generator=generator()), torch.full((FRAMES,), 500.0)
    bare = unet(x, t)
    assert not torch.equal(run(unet, motion, x, t), bare)
    assert torch.equal(run(unet, motion.zero(), x, t), bare)


def test_without_a_call_the_modules_rest():
    unet, motion = joined()
    x, t = torch.randn(FRAMES, 4, 8, 8, generator=generator()), torch.full((FRAMES,), 500.0)
    with pytest.raises(RuntimeError, match="broken"), motion.during(Frames.of(FRAMES)):
        raise RuntimeError("broken")
    assert motion.frames is None
    assert torch.equal(unet(x, t), tiny.unet()(x, t))


def test_frames_for_counts_tables_from_the_window_and_relative_ones_from_the_video():
    ids, sink_frames = torch.arange(30, 34), torch.tensor([31])
    with torch.device("meta"):
        table, relative = (MotionModel({}, TemporalConfig(positions=p, mask="causal")) for p in ("sinusoid", "rotary"))
    assert table.frames_for(ids).positions.tolist() == [0, 1, 2, 3]
    assert relative.frames_for(ids).positions.tolist() == [30, 31, 32, 33]
    assert relative.frames_for(ids, sink_frames).mask[:, 1].all()
    assert MotionModel({}, TemporalConfig()).frames_for(ids).mask is None


# Slots


def expected_names(down, up):
    """``down`` and ``up`` are slots per level, in AnimateDiff's order: coarsest first on the way up."""
    names = [f"down_blocks.{level}.motion_modules.{i}" for level, count in enumerate(down) for i in range(count)]
    names += ["mid_block.motion_modules.0"]
    return names + [f"up_blocks.{level}.motion_modules.{i}" for level, count in enumerate(up) for i in range(count)]


def test_slots_of_stable_diffusion():
    with torch.device("meta"):
        unet = UNet(UNetConfig(context_dim=768))
    found = widths(unet)
    assert list(found) == expected_names((2, 2, 2, 2), (3, 3, 3, 3))
    assert len(found) == 20 + 1  # v1 and v3 leave the middle empty
    assert [found[f"down_blocks.{i}.motion_modules.0"] for i in range(4)] == [320, 640, 1280, 1280]
    assert [found[f"up_blocks.{i}.motion_modules.2"] for i in range(4)] == [1280, 1280, 640, 320]
    assert slots(unet)["down_blocks.0.motion_modules.0"] is unet.input_blocks[1][1]  # after the attention
    assert (
        slots(unet)["down_blocks.3.motion_modules.1"] is unet.input_blocks[11][0]
    )  # no attention there: after the residual block
    assert slots(unet)["up_blocks.0.motion_modules.2"] is unet.output_blocks[2][0]  # before the enlargement


def test_slots_of_the_tiny_unet():
    assert widths(tiny.unet()) == dict(zip(expected_names((1, 1), (2, 2)), (32, 64, 64, 64, 64, 32, 32), strict=True))


@pytest.mark.comfy
def test_slots_of_comfyuis_unet_are_the_same():
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.ops import disable_weight_init

    with torch.device("meta"):
        ours = UNet(UNetConfig(context_dim=768))
        theirs = UNetModel(**ours.config.comfyui(), dtype=torch.float32, device="meta", operations=disable_weight_init)
    assert widths(theirs) == widths(ours)
    where = [{id(layer): name for name, layer in unet.named_modules()} for unet in (ours, theirs)]
    assert [where[0][id(layer)] for layer in slots(ours).values()] == [where[1][id(layer)] for layer in slots(theirs).values()]


def test_other_networks_have_no_slots():
    with pytest.raises(ValueError, match="Linear is built differently"):
        slots(torch.nn.Linear(1, 1))


def snapshot(unet):
    return {name: dict(layer.__dict__) for name, layer in unet.named_modules()}


def test_empty_undoes_fill_however_often():
    unet, x, t = tiny.unet(), torch.randn(2, 4, 8, 8, generator=generator()), torch.zeros(2)
    before, bare, keys = snapshot(unet), unet(x, t), list(unet.state_dict())
    empty(unet)
    for _ in range(2):
        fill(unet, dict.fromkeys(slots(unet), lambda h: h + 1))
        assert not torch.equal(unet(x, t), bare)
    assert list(unet.state_dict()) == keys
    for _ in range(2):
        empty(unet)
        assert snapshot(unet) == before
    assert torch.equal(unet(x, t), bare)


def test_filling_again_replaces():
    unet, x, t = tiny.unet(), torch.randn(2, 4, 8, 8, generator=generator()), torch.zeros(2)
    name = next(iter(slots(unet)))
    fill(unet, {name: lambda h: h + 1})
    once = unet(x, t)
    fill(unet, {name: lambda h: h + 1})
    assert torch.equal(unet(x, t), once)


def test_a_failing_fill_leaves_nothing():
    unet = tiny.unet()
    before, name = snapshot(unet), next(iter(slots(unet)))
    with pytest.raises(ValueError, match=r"no slot for down_blocks.9.motion_modules.0 \(1 of 2"):
        fill(unet, {name: lambda h: h, "down_blocks.9.motion_modules.0": lambda h: h})
    assert snapshot(unet) == before


class Fickle(dict):
    """A mapping that breaks in the middle of being read."""

    def items(self):
        yield next(iter(super().items()))
        raise RuntimeError("broken")


def test_a_fill_that_breaks_halfway_leaves_nothing():
    unet = tiny.unet()
    before = snapshot(unet)
    with pytest.raises(RuntimeError, match="broken"):
        fill(unet, Fickle.fromkeys(slots(unet), lambda h: h + 1))
    assert snapshot(unet) == before


def test_another_packs_swap_beneath_ours_survives():
    unet, x, t = tiny.unet(), torch.randn(2, 4, 8, 8, generator=generator()), torch.zeros(2)
    bare = unet(x, t)
    name, layer = next(iter(slots(unet).items()))
    inner = layer.forward

    def theirs(*args, **kwargs):
        return inner(*args, **kwargs) * 2

    layer.forward = theirs
    swapped = unet(x, t)
    assert not torch.equal(swapped, bare)
    fill(unet, {name: lambda h: h + 1})
    assert not torch.equal(unet(x, t), swapped)
    empty(unet)
    assert layer.__dict__["forward"] is theirs
    assert torch.equal(unet(x, t), swapped)
    assert MARK not in layer.__dict__
