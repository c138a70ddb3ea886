"""Watching attentions: entropies of known distributions, the model's own attention untouched, alarms at their thresholds."""

import json
import math
from functools import reduce

import pytest
import torch
import torch.nn.functional as F
from pack.modules.measure.alarms import Finding, Lowering, Snapshot, findings
from pack.modules.measure.attention import Reading, attention_weights, attentions_of, gradient_norms, normalised_entropy, watching
from pack.modules.temporal.frames import Frames, Gain
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.transformer import TemporalConfig
from pack.modules.temporal.windows import WindowPlan
from tiny_motion import randomized, slot_widths
from torch import nn

COUNT = 6
WIDTHS = {"down_blocks.0.motion_modules.0": 32, "mid_block.motion_modules.0": 32, "up_blocks.1.motion_modules.2": 32}


def motion(seed=0, **config):
    return randomized(MotionModel(WIDTHS, TemporalConfig(heads=4, groups=8, **config)), seed)


def pixels(seed=2, f=COUNT, size=4):
    return torch.randn(f, 32, size, size, generator=torch.Generator().manual_seed(seed))


def run(model, frames=None, x=None, gain=None):
    x = pixels() if x is None else x
    for name in WIDTHS:
        x = model.at(name)(x, frames or Frames.of(len(x)), gain)
    return x


# Entropy


def test_entropies_of_known_distributions():
    even, single = torch.full((1, 16), 1 / 16), torch.eye(16)[:1]
    half = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    assert normalised_entropy(even).item() == pytest.approx(1.0)
    assert normalised_entropy(single).item() == 0.0
    assert normalised_entropy(half).item() == pytest.approx(0.5)


def test_only_keys_that_a_row_may_look_at_count():
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    weights, _, _ = attention_weights(torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 4, 8), mask=mask)
    entropy = normalised_entropy(weights, mask)[0, 0]
    assert math.isnan(entropy[0]), "one key is no choice"
    torch.testing.assert_close(entropy[1:], torch.ones(3))


@pytest.mark.parametrize(("deviation", "expected"), [(0.5, 0.96), (1, 0.85), (2, 0.59), (4, 0.32), (8, 0.15)])
def test_entropy_falls_with_the_spread_of_logits(deviation, expected):
    logits = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0)) * deviation
    assert normalised_entropy(logits.softmax(-1)).mean().item() == pytest.approx(expected, abs=0.01)


def test_weights_are_those_of_pytorchs_attention():
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 3, 5, 8, generator=g), torch.randn(2, 3, 5, 8, generator=g)
    bias, mask = torch.randn(2, 3, 5, 5, generator=g), torch.ones(5, 5, dtype=torch.bool).tril()
    seen = F.scaled_dot_product_attention(q, k, torch.eye(5).expand(2, 3, 5, 5), attn_mask=bias.masked_fill(~mask, -math.inf))
    torch.testing.assert_close(attention_weights(q, k, bias, mask)[0], seen)


# Watching


def by_hand(model, name, x, mask=None):
    """Weights of the first attention of the first module, as PyTorch's attention has them on an identity of values."""
    seen = []

    def spy(q, k, v, **kwargs):
        seen.append(F.scaled_dot_product_attention(q, k, torch.eye(q.shape[-2]).expand(*q.shape[:2], -1, -1), **kwargs))
        return F.scaled_dot_product_attention(q, k, v, **kwargs)

    attend = model.at(name).transformer_blocks[0].attention_blocks[0]
    attend.attention, before = spy, attend.attention
    model.at(name)(x, Frames(len(x), torch.arange(len(x)), mask))
    attend.attention = before
    return seen[0]


def test_what_is_told_is_what_the_attention_did():
    model = motion()
    weights = by_hand(model, "down_blocks.0.motion_modules.0", pixels())
    with watching(model) as watch:
        run(model)
    reading = watch.readings()[0]
    assert reading.block == "down.0.0/0"
    wanted = normalised_entropy(weights).mean((0, 2))
    torch.testing.assert_close(torch.tensor(reading.entropy), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(watch.map("down.0.0/0"), weights.mean(0), atol=1e-6, rtol=1e-5)
    assert reading.mean == pytest.approx(wanted.mean().item())


def test_blocks_have_the_names_of_block_rules():
    assert list(attentions_of(motion())) == ["down.0.0/0", "down.0.0/1", "mid.0/0", "mid.0/1", "up.1.2/0", "up.1.2/1"]
    assert len(attentions_of(MotionModel(slot_widths(middle=True), TemporalConfig()))) == 2 * len(slot_widths(middle=True))


@pytest.mark.parametrize("mask", ["full", "causal"])
def test_the_model_computes_the_same_to_the_last_bit(mask):
    model = motion(mask=mask, positions="rotary")
    frames = model.frames_for(torch.arange(COUNT))
    plain = run(model, frames)
    with watching(model):
        assert torch.equal(run(model, frames), plain)
    assert torch.equal(run(model, frames), plain)
    assert not any("_mixed" in vars(item) for item in model.modules())


def test_it_is_undone_after_an_error_and_inside_another():
    model = motion()
    with watching(model) as outer:
        with pytest.raises(RuntimeError, match="stop"), watching(model) as inner:
            run(model)
            raise RuntimeError("stop")
        run(model)
    assert not any("_mixed" in vars(item) for item in model.modules())
    assert outer.tallies["mid.0/0"].rows[0] == 2 * inner.tallies["mid.0/0"].rows[0]


def test_a_causal_mask_is_seen():
    model = motion(mask="causal", positions="rotary")
    with watching(model) as watch:
        run(model, model.frames_for(torch.arange(COUNT)))
    assert (watch.map("mid.0/1").triu(1) == 0).all()
    torch.testing.assert_close(watch.map("mid.0/1").sum(-1), torch.ones(4, COUNT))


def test_windows_and_scales_are_seen():
    model = motion()
    windows = WindowPlan("standard_static", length=4, overlap=2).windows(COUNT)
    frames = model.frames_for(torch.arange(COUNT), windows=windows)
    with watching(model) as plain:
        run(model, frames)
    assert plain.map("mid.0/0").shape == (4, 4, 4)
    with watching(model) as sharp:
        run(model, frames, gain=Gain(scales=(torch.full((COUNT,), 8.0), None)))
    for first, second in zip(plain.readings()[::2], sharp.readings()[::2], strict=True):
        assert second.mean < first.mean
        assert second.max_logit > 2 * first.max_logit


def test_few_rows_tell_about_the_same_as_all():
    model, x = motion(), pixels(size=24)
    with watching(model, rows=10_000) as every:
        run(model, x=x)
    with watching(model, rows=64) as some:
        run(model, x=x)
    assert some.tallies["mid.0/0"].rows[0] == 64 * COUNT
    for first, second in zip(every.readings(), some.readings(), strict=True):
        assert first.mean == pytest.approx(second.mean, abs=0.03)


def test_normalised_queries_are_seen_as_they_are():
    model = motion(qk_norm="l2")
    for attend in attentions_of(model).values():
        attend.to_q.weight.data.mul_(1e3)
    with watching(model) as watch:
        run(model)
    for reading, attend in zip(watch.readings(), attentions_of(model).values(), strict=True):
        assert reading.max_logit <= abs(attend.qk_norm.gain.item()) * 1.0001


def test_gradients_are_told_after_a_backward_pass():
    model = motion()
    with watching(model) as watch:
        run(model).square().mean().backward()
        readings = watch.readings()
    for reading, attend in zip(readings, attentions_of(model).values(), strict=True):
        assert reading.grad_q == pytest.approx(attend.to_q.weight.grad.norm().item())
        assert reading.grad_k == pytest.approx(attend.to_k.weight.grad.norm().item())
    assert gradient_norms(next(iter(attentions_of(motion()).values()))) == (None, None)


def test_it_can_start_anew():
    model = motion()
    with watching(model) as watch:
        run(model)
        watch.reset()
        assert watch.readings() == ()
        with pytest.raises(ValueError, match="up.1.2/0 has not run while it was watched"):
            watch.map("up.1.2/0")
        run(model)
        assert len(watch.readings()) == 6
    with pytest.raises(ValueError, match="no attention 'up.9.9/0': choose one of down.0.0/0"):
        watch.map("up.9.9/0")


def test_what_has_no_attention_cannot_be_watched():
    with pytest.raises(ValueError, match="no temporal attention to watch"), watching(nn.Linear(2, 2)):
        pass


def test_half_precision_is_watched_in_single():
    model = motion()
    with watching(model) as watch, torch.autocast("cpu", dtype=torch.bfloat16):
        run(model)
    assert watch.tallies["mid.0/0"].map.dtype == torch.float32
    with watching(model) as exact:
        run(model)
    for rough, fine in zip(watch.readings(), exact.readings(), strict=True):
        assert rough.mean == pytest.approx(fine.mean, abs=0.02)


# Alarms


def snapshot(step=0, entropy=0.8, heads=8, blocks=4, logit=5.0, norm=1.0, low=0):
    """Heads of one entropy, of which the first ``low`` have collapsed."""
    values = [0.05 if place < low else entropy for place in range(heads * blocks)]
    readings = [Reading(f"up.0.{block}/0", tuple(values[block * heads : (block + 1) * heads]), logit) for block in range(blocks)]
    return Snapshot(step, norm, tuple(readings))


def rate_factor(history, **how):
    """Where the learning rate stands after these snapshots."""
    return reduce(lambda state, now: state.after(now, **how), history, Lowering()).factor


def test_a_healthy_model_is_left_alone():
    history = [snapshot(step, entropy=0.9 - step / 10_000) for step in range(0, 4000, 50)]
    assert all(not findings(history[: end + 1]) for end in range(len(history)))
    assert rate_factor(history) == 1.0
    assert findings([]) == []


@pytest.mark.parametrize(("low", "grave"), [(8, False), (9, True)])
def test_more_than_a_quarter_of_the_heads(low, grave):
    found = findings([snapshot(low=low)])
    assert any(item.grave for item in found) is grave
    if grave:
        assert found[0] == Finding(
            True,
            "step 0: 9 of 32 attention heads look at a single frame (entropy below 0.15): lower the learning rate and go back to an"
            " earlier checkpoint",
        )


@pytest.mark.parametrize(("entropy", "count"), [(0.35, 0), (0.349, 4)])
def test_a_low_block_is_a_warning(entropy, count):
    found = findings([snapshot(entropy=entropy)])
    assert len(found) == count
    assert not any(item.grave for item in found)


@pytest.mark.parametrize(("logit", "count"), [(50.0, 0), (50.1, 4), (math.nan, 4)])
def test_a_large_logit_is_grave(logit, count):
    found = findings([snapshot(logit=logit)])
    assert len(found) == count
    assert all(item.grave for item in found)


@pytest.mark.parametrize(
    ("later", "warned"),
    [
        ({"step": 200, "entropy": 0.69, "norm": 2.0}, True),
        ({"step": 201, "entropy": 0.69, "norm": 2.0}, False),
        ({"step": 200, "entropy": 0.71, "norm": 2.0}, False),
        ({"step": 200, "entropy": 0.69, "norm": 1.9}, False),
    ],
)
def test_a_fast_fall_with_rising_gradients_is_a_warning(later, warned):
    found = findings([snapshot(), snapshot(**later)])
    assert bool(found) is warned
    if warned:
        assert "entropy fell from 0.80 to 0.69 since step 0 while the gradient norm rose from 1 to 2" in found[0].sentence


def test_the_learning_rate_is_lowered_once_per_settling():
    history = [snapshot(step, logit=60.0 if step >= 300 else 5.0) for step in range(0, 1000, 50)]
    assert rate_factor(history[:6]) == 1.0
    assert rate_factor(history[:7]) == 0.5
    assert rate_factor(history[:10]) == 0.5
    assert rate_factor(history[:11]) == 0.25
    assert rate_factor(history) == 0.0625
    assert rate_factor(history, least=0.2) == 0.2
    assert rate_factor(history, factor=0.1, wait=10_000) == 0.1


def test_a_snapshot_goes_through_json():
    model = motion()
    with watching(model) as watch:
        run(model).square().mean().backward()
        taken = Snapshot(7, 1.5, watch.readings())
    assert Snapshot.of(json.loads(json.dumps(taken.record()))) == taken
    with pytest.raises(ValueError, match="this is no record of attentions"):
        Snapshot.of({"step": 1})
