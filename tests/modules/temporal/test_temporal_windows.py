"""Windows inside the temporal modules, against each window computed by itself; how strongly modules act; spatial layers in chunks."""

import pytest
import tiny
import torch
from pack.modules.temporal.frames import Frames, Gain, way_back
from pack.modules.temporal.masks import MASKS
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.positions import POSITIONS
from pack.modules.temporal.transformer import TemporalConfig, TemporalTransformer
from pack.modules.temporal.window_schedules import FUSES, SCHEDULES
from pack.modules.temporal.windows import WindowPlan

COUNT, CHANNELS = 11, 16
ONE = {"down_blocks.0.motion_modules.0": CHANNELS}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def model(seed=3, **values):
    with tiny.seeded(seed):
        made = MotionModel(ONE, TemporalConfig(heads=2, groups=4, **values)).double().requires_grad_(False).eval()
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def clip(clips=2, size=3, seed=0):
    return torch.randn(clips * COUNT, CHANNELS, size, size, generator=generator(seed), dtype=torch.float64)


def plan(**values):
    return WindowPlan(**{"length": 5, "overlap": 2, **values})


def by_hand(made, x, windows, ids):
    """The module with windows, one window, one clip and one attention at a time."""
    module = made.at(next(iter(ONE)))
    block = module.transformer_blocks[0]
    frames = made.frames_for(ids)
    size = x.shape[-1]
    tokens = module.proj_in(module.norm(x).unflatten(0, (-1, COUNT)).permute(0, 3, 4, 1, 2).reshape(-1, COUNT, CHANNELS))

    def attended(tokens, layers):
        for place in layers:
            attend, norm = block.attention_blocks[place], block.norms[place]
            tokens = tokens + attend(norm(tokens), Frames(tokens.shape[1], *inside))
        return tokens

    rounds = [(0,), (1,)] if windows.fuse_at == "attention" else [(0, 1)]
    for layers in rounds:
        fused = torch.zeros_like(tokens)
        for index, weight in windows.groups:
            for row, worth in zip(index, weight, strict=True):
                steps = row[0] + torch.cat([torch.zeros(1), (row.diff() % COUNT).cumsum(0)]).long()
                times = torch.arange(len(row)) if POSITIONS[made.config.positions].absolute else steps
                mask = None if made.config.mask == "full" else MASKS[made.config.mask](ids[row], made.config.mask_frames)
                inside = times, mask
                fused[:, row] += worth.double()[:, None] * attended(tokens[:, row], layers)
        tokens = fused
    assert frames.count == COUNT
    tokens = module.proj_out(tokens + block.ff(block.ff_norm(tokens)))
    return x + tokens.reshape(-1, size, size, COUNT, CHANNELS).permute(0, 3, 4, 1, 2).flatten(0, 1)


@pytest.mark.parametrize("fuse_at", ["attention", "module"])
@pytest.mark.parametrize(("positions", "mask"), [("sinusoid", "full"), ("rotary", "causal"), ("shaw", "full")])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_windows_by_hand(schedule, positions, mask, fuse_at):
    made, x, ids = model(positions=positions, mask=mask), clip(), torch.arange(COUNT)
    windows = plan(schedule=schedule, fuse_at=fuse_at).windows(COUNT, 3)
    wanted = by_hand(made, x, windows, ids)
    with made.during(made.frames_for(ids, None, windows)):
        given = made.slot_functions()[next(iter(ONE))](x)
    torch.testing.assert_close(given, wanted, rtol=1e-6, atol=1e-6)  # weights are float32
    with made.during(made.frames_for(ids)):
        whole = made.slot_functions()[next(iter(ONE))](x)
    assert (given - whole).abs().max() > 1e-3


@pytest.mark.parametrize("fuse", FUSES)
def test_one_window_that_holds_the_clip_is_no_window(fuse):
    assert plan(length=COUNT, fuse=fuse).windows(COUNT, 0) is None
    made, x, ids = model(), clip(), torch.arange(COUNT)
    whole = torch.arange(COUNT)[None]
    frames = made.frames_for(ids, None, type(plan().windows(COUNT, 0))(((whole, torch.ones(1, COUNT)),), "attention"))
    with made.during(frames):
        given = made.slot_functions()[next(iter(ONE))](x)
    with made.during(made.frames_for(ids)):
        torch.testing.assert_close(given, made.slot_functions()[next(iter(ONE))](x))


def test_the_way_back_by_brute_force():
    windows = plan(schedule="standard_uniform", stride=2).windows(COUNT, 5)
    places, weights = way_back(list(windows.groups), COUNT)
    flat = torch.cat([index.flatten() for index, _ in windows.groups])
    worth = torch.cat([weight.flatten() for _, weight in windows.groups])
    torch.testing.assert_close(weights.sum(0), torch.ones(COUNT))
    for frame in range(COUNT):
        real = [(int(place), float(weight)) for place, weight in zip(places[:, frame], weights[:, frame], strict=True) if weight]
        assert sorted(real) == [(int(place), float(worth[place])) for place in (flat == frame).nonzero().flatten()]


def test_parts_of_the_picture_change_nothing(monkeypatch):
    """Few bytes of workspace mean a pixel at a time."""
    from pack.modules.temporal import transformer

    made, x, ids = model(), clip(), torch.arange(COUNT)
    function = made.slot_functions()[next(iter(ONE))]
    for windows in (None, plan().windows(COUNT, 0)):
        with made.during(made.frames_for(ids, None, windows)):
            whole = function(x)
            monkeypatch.setitem(transformer.WORKSPACE, "cpu", 1)
            torch.testing.assert_close(function(x), whole, rtol=1e-12, atol=1e-12)
            monkeypatch.undo()


def test_gradients_flow_the_same_through_parts(monkeypatch):
    from pack.modules.temporal import transformer

    made, ids = model(), torch.arange(COUNT)
    function = made.slot_functions()[next(iter(ONE))]
    found = []
    for size in (2**30, 1):
        monkeypatch.setitem(transformer.WORKSPACE, "cpu", size)
        x = clip().requires_grad_(True)
        with made.during(made.frames_for(ids)):
            function(x).square().sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


# How strongly


def run(made, x, gain, windows=None):
    name = next(iter(ONE))
    with made.during(made.frames_for(torch.arange(COUNT), None, windows), {name: gain}):
        return made.slot_functions()[name](x)


def test_effect_blends():
    made, x = model(), clip()
    full, mask = run(made, x, Gain()), torch.rand(COUNT, 6, 6, generator=generator(), dtype=torch.float64)
    per_frame = torch.rand(COUNT, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(run(made, x, Gain(per_frame)), torch.lerp(x, full, per_frame.repeat(2)[:, None, None, None]))
    small = torch.nn.functional.interpolate(mask[:, None].float(), size=(3, 3), mode="bilinear").double()
    torch.testing.assert_close(run(made, x, Gain(mask)), torch.lerp(x, full, small.repeat(2, 1, 1, 1)))
    assert run(made, x, None) is x


@pytest.mark.parametrize("fuse_at", ["attention", "module"])
@pytest.mark.parametrize("windowed", [False, True])
def test_scale_multiplies_keys(fuse_at, windowed):
    """Against the same module with larger key weights, whose table is added before the projection all the same."""
    made, x = model(), clip()
    windows = plan(fuse_at=fuse_at).windows(COUNT, 0) if windowed else None
    given = run(made, x, Gain(None, (torch.full((COUNT,), 1.7, dtype=torch.float64), None)), windows)
    first = made.at(next(iter(ONE))).transformer_blocks[0].attention_blocks[0]
    first.to_k.weight.mul_(1.7)
    torch.testing.assert_close(given, run(made, x, Gain(), windows), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("windowed", [False, True])
def test_scale_by_mask_is_scale_where_it_is_even(windowed):
    """A mask that is the same everywhere in the picture is a list per frame; a mask with two halves acts on each."""
    made, x = model(), clip(size=4)
    windows = plan().windows(COUNT, 0) if windowed else None
    per_frame = torch.rand(COUNT, generator=generator(1), dtype=torch.float64) + 0.5
    even = per_frame[:, None, None].expand(-1, 4, 4)
    listed = run(made, x, Gain(None, (per_frame, per_frame)), windows)
    torch.testing.assert_close(run(made, x, Gain(None, (even, even)), windows), listed)
    halves = torch.cat([even[..., :2], torch.ones_like(even[..., 2:])], dim=-1)
    mixed = run(made, x, Gain(None, (halves, halves)), windows)
    torch.testing.assert_close(mixed[..., :2], listed[..., :2])
    torch.testing.assert_close(mixed[..., 2:], run(made, x, Gain(), windows)[..., 2:])


def test_runs_are_counted_even_where_they_are_not_wanted():
    made, x = model(), clip()
    ran = torch.zeros(1, dtype=torch.int32)
    with made.during(made.frames_for(torch.arange(COUNT)), {}, ran):
        made.slot_functions()[next(iter(ONE))](x)
        made.slot_functions()[next(iter(ONE))](x)
    made.slot_functions()[next(iter(ONE))](x)
    assert ran.tolist() == [2] and made.ran is None


# Times


@pytest.mark.parametrize(
    ("positions", "most", "last"), [("trained", 32, 10.0), ("stretch", 6, 5.0), ("stretch", 32, 10.0), ("extend", 6, 10.0)]
)
def test_times_are_squeezed_or_go_on(positions, most, last):
    times = model().frames_for(torch.arange(COUNT) + 40, None, None, positions, most).positions
    assert times[0] == 0 and times[-1] == pytest.approx(last) and (times.diff() > 0).all()


def test_a_norm_over_the_clip_is_a_group_norm_of_five_axes():
    with tiny.seeded(1):
        module = TemporalTransformer(CHANNELS, TemporalConfig(heads=2, groups=4, clip_norm=True)).double().requires_grad_(False)
    x = clip() + torch.linspace(-3, 3, 2 * COUNT, dtype=torch.float64)[:, None, None, None]
    five = x.unflatten(0, (2, COUNT)).transpose(1, 2)
    normed = torch.nn.functional.group_norm(five, 4, module.norm.weight, module.norm.bias, 1e-6).transpose(1, 2).flatten(0, 1)
    assert (normed - module.norm(x)).abs().max() > 0.1
    wanted = module(x, Frames.of(COUNT)) - x
    module.clip_norm, module.norm = False, torch.nn.Identity()
    torch.testing.assert_close(wanted, module(normed, Frames.of(COUNT)) - normed)
