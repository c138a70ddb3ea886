"""Recurrent and pseudo-3D modules: their equations, causality, state that goes along a take, files, training, both hosts."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pack
import pytest
import tiny
import tiny_training
import torch
from pack import host
from pack.modules.checkpoints.video_model import VideoModelInfo, load_video_model
from pack.modules.sampling import rollout as rollouts
from pack.modules.sampling.context_noise import ContextNoise
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.modules.temporal import pseudo3d, transformer
from pack.modules.temporal.frames import Frames, Gain, Hint
from pack.modules.temporal.kinds import KINDS
from pack.modules.temporal.masks import MASKS
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.past import Memory
from pack.modules.temporal.transformer import TemporalConfig
from pack.modules.train.engine import Run, train
from pack.modules.train.native import two_streams
from pack.modules.train.native_models import TEMPORAL
from pack.modules.train.tasks.video_model import DEFAULTS
from pack.nodes.forcing import forcing as forcing_nodes
from pack.nodes.models import models as model_nodes
from safetensors import safe_open
from sparing import sparing
from tiny_training import held_out_loss, native, shapes_model

SLOT, CHANNELS, COUNT, SIZE = "mid_block.motion_modules.0", 8, 9, 3
RECURRENT = TemporalConfig(kind="recurrent", groups=4, mask="causal", hidden=5)
CAUSAL = {
    "recurrent": RECURRENT,
    "pseudo3d": TemporalConfig(kind="pseudo3d", heads=2, groups=4, mask="causal", positions="rotary"),
    "transformer": TemporalConfig(heads=2, groups=4, mask="causal", positions="rotary"),
}


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one(config=RECURRENT, seed=1):
    """A motion model of one slot whose every weight is random."""
    with tiny.seeded(seed):
        made = MotionModel({SLOT: CHANNELS}, config).double().eval().requires_grad_(False)
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def run(made, x, ids=None, *, past=None, frames=None, gain=None, windows=None):
    """The slot's output for clips of the frames ``ids``."""
    ids = torch.arange(len(x)) if ids is None else torch.as_tensor(ids)
    frames = frames or made.frames_for(ids, None, windows)
    with made.during(frames, None if gain is None else {SLOT: gain}, past=past):
        return made.slot_functions()[SLOT](x)


def clip(clips=1, count=COUNT, seed=0):
    return drawn(clips * count, CHANNELS, SIZE, SIZE, seed=seed)


# The equations, by loops


def conv(x, weight, bias=None):
    """A convolution of one picture ``c h w`` with zeros around it, one product at a time."""
    outputs, _, side, _ = weight.shape
    reach, height, width = side // 2, *x.shape[1:]
    out = torch.zeros(outputs, height, width, dtype=x.dtype)
    for o in range(outputs):
        for row in range(height):
            for column in range(width):
                total = 0.0 if bias is None else bias[o]
                for i in range(-reach, reach + 1):
                    for j in range(-reach, reach + 1):
                        if 0 <= row + i < height and 0 <= column + j < width:
                            total = total + (weight[o, :, i + reach, j + reach] * x[:, row + i, column + j]).sum()
                out[o, row, column] = total
    return out


def normed(x, norm):
    """Group norm of one picture ``c h w``."""
    groups = x.reshape(norm.num_groups, -1)
    mean, spread = groups.mean(1, keepdim=True), groups.var(1, unbiased=False, keepdim=True)
    flat = ((groups - mean) / (spread + norm.eps).sqrt()).reshape(x.shape)
    return flat * norm.weight[:, None, None] + norm.bias[:, None, None]


def by_hand(module, x, state=None):
    """One clip ``f c h w`` through a recurrent module: Ballas et al.'s four equations, gate by gate. Gives frames and states."""
    gru, hidden = module.gru, len(module.start)
    w_update, w_reset, w_new = gru.inputs.weight.chunk(3)
    b_update, b_reset, b_new = gru.inputs.bias.chunk(3)
    u_update, u_reset = gru.gates.weight.chunk(2)
    state = module.start[:, None, None].expand(hidden, *x.shape[-2:]) if state is None else state
    frames, states = [], []
    for frame in x:
        told = conv(normed(frame, module.norm), module.proj_in.weight, module.proj_in.bias)
        update = 1 / (1 + torch.exp(-(conv(told, w_update, b_update) + conv(state, u_update))))
        reset = 1 / (1 + torch.exp(-(conv(told, w_reset, b_reset) + conv(state, u_reset))))
        new = torch.tanh(conv(told, w_new, b_new) + conv(reset * state, gru.candidate.weight))
        state = (1 - update) * state + update * new
        states.append(state)
        frames.append(frame + conv(state, module.proj_out.weight, module.proj_out.bias))
    return torch.stack(frames), torch.stack(states)


def test_the_recurrent_module_is_its_equations():
    made, x = one(), clip(2, 4)
    wanted = torch.cat([by_hand(made.at(SLOT), part)[0] for part in x.chunk(2)])
    given = run(made, x, range(4))
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-12)
    assert (given - x).abs().max() > 0.1


def test_the_state_may_be_as_wide_as_the_slot():
    made = one(replace(RECURRENT, hidden=0))
    assert made.at(SLOT).start.shape == (CHANNELS,)
    x = clip(count=2)
    torch.testing.assert_close(run(made, x), by_hand(made.at(SLOT), x)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("mask", ["full", "causal"])
def test_the_pseudo_3d_convolution_is_three_taps_over_time(mask):
    """With the attention silenced: under a causal mask the frame and two before it, else its neighbours."""
    made = one(replace(CAUSAL["pseudo3d"], mask=mask))
    module = made.at(SLOT)
    torch.nn.init.zeros_(module.attn_temporal.to_out[0].weight)
    torch.nn.init.zeros_(module.attn_temporal.to_out[0].bias)
    x = clip(2)
    wanted = torch.zeros_like(x).unflatten(0, (2, COUNT))
    frames = x.unflatten(0, (2, COUNT))
    for frame in range(COUNT):
        for tap in range(3):
            other = frame + tap - (2 if mask == "causal" else 1)
            if 0 <= other < COUNT:
                wanted[:, frame] += torch.einsum("oi,bihw->bohw", module.temporal_conv.weight[:, :, tap], frames[:, other])
        wanted[:, frame] += module.temporal_conv.bias[:, None, None]
    torch.testing.assert_close(run(made, x, range(COUNT)), wanted.flatten(0, 1), rtol=0, atol=1e-12)


def test_the_pseudo_3d_attention_comes_after_the_convolution_and_is_added():
    made = one(CAUSAL["pseudo3d"])
    module, x = made.at(SLOT), clip(2)
    frames = made.frames_for(torch.arange(COUNT))
    tokens = x.unflatten(0, (2, COUNT)).permute(0, 3, 4, 1, 2).reshape(-1, COUNT, CHANNELS)
    padded = torch.cat([tokens.new_zeros(len(tokens), 2, CHANNELS), tokens], dim=1).transpose(1, 2)
    tokens = torch.nn.functional.conv1d(padded, module.temporal_conv.weight, module.temporal_conv.bias).transpose(1, 2)
    tokens = tokens + module.attn_temporal(module.norm_temporal(tokens), frames)
    wanted = tokens.reshape(2, SIZE, SIZE, COUNT, CHANNELS).permute(0, 3, 4, 1, 2).flatten(0, 1)
    torch.testing.assert_close(run(made, x, range(COUNT)), wanted, rtol=0, atol=1e-12)


def test_parts_of_the_picture_do_not_change_a_pseudo_3d_module(monkeypatch):
    made, x = one(CAUSAL["pseudo3d"]), clip(2)
    scale = torch.linspace(0.5, 2, COUNT * 4, dtype=torch.float64).view(COUNT, 2, 2)
    gain = Gain(torch.linspace(0, 1, COUNT), (scale,))
    whole = run(made, x, range(COUNT), gain=gain)
    monkeypatch.setitem(transformer.WORKSPACE, "cpu", 2 * COUNT * CHANNELS * 8 * transformer.COPIES)
    assert len(list(pseudo3d.pixel_parts(x.unflatten(0, (2, COUNT)).flatten(3), Frames.of(COUNT), 2))) > 2
    torch.testing.assert_close(run(made, x, range(COUNT), gain=gain), whole, rtol=0, atol=1e-12)
    assert torch.equal(whole[::COUNT], x[::COUNT]), "no effect on frame 0"
    assert (run(made, x, range(COUNT), gain=Gain(None, (scale,))) - run(made, x, range(COUNT))).abs().max() > 1e-3


# What every kind must do


@pytest.mark.parametrize("kind", KINDS)
def test_zero_is_the_identity(kind):
    made, x = one(CAUSAL[kind]), clip(2)
    assert (run(made, x, range(COUNT)) - x).abs().max() > 0.1
    assert torch.equal(run(made.zero(), x, range(COUNT)), x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frame", [0, 4, COUNT - 1])
def test_nothing_leaks_from_later_frames(kind, frame):
    made, x = one(CAUSAL[kind]), clip()
    other = x.clone()
    other[frame] += drawn(CHANNELS, SIZE, SIZE, seed=9)
    change = (run(made, other) - run(made, x)).abs().amax((1, 2, 3))
    assert (change[:frame] == 0).all()
    assert (change[frame:] > 1e-9).all(), "and every later frame hears of it"


def test_a_pseudo_3d_module_that_sees_everything_sees_the_next_frame():
    made, x = one(replace(CAUSAL["pseudo3d"], mask="full")), clip()
    other = x.clone()
    other[5] += 1
    assert ((run(made, other) - run(made, x)).abs().amax((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_clips_of_a_batch_do_not_mix(kind):
    made, x = one(CAUSAL[kind]), clip(3)
    alone = torch.cat([run(made, part) for part in x.chunk(3)])
    torch.testing.assert_close(run(made, x, range(COUNT)), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["recurrent", "pseudo3d"])
def test_the_effect_scales_the_change(kind):
    made, x = one(CAUSAL[kind]), clip(2)
    effect = torch.linspace(0, 2, COUNT)
    change = (run(made, x, range(COUNT)) - x) * effect.repeat(2)[:, None, None, None]
    torch.testing.assert_close(run(made, x, range(COUNT), gain=Gain(effect)), x + change, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frame", [0, 1, COUNT - 1])
def test_beside_the_true_clip_a_noisy_frame_sees_the_true_past_and_itself(kind, frame):
    """As the method ``teacher`` trains: equal to the clip whose frame ``frame`` is the noisy one."""
    made, true, noisy = one(CAUSAL[kind]), clip(), clip(seed=7)
    both = run(made, torch.cat([true, noisy]), frames=two_streams(COUNT))
    torch.testing.assert_close(both[:COUNT], run(made, true), rtol=0, atol=1e-12)
    mixed = torch.cat([true[:frame], noisy[frame : frame + 1]])
    torch.testing.assert_close(both[COUNT + frame], run(made, mixed)[-1], rtol=0, atol=1e-12)


def test_windows_of_the_temporal_modules_do_not_cut_a_scan():
    from pack.modules.temporal.windows import WindowPlan

    made, x = one(), clip()
    windows = WindowPlan(length=4, overlap=2).windows(COUNT, 0)
    assert torch.equal(run(made, x, windows=windows), run(made, x))


# State that goes along a take


SEGMENTS = {
    "one after the other": [(0, 4), (4, 7), (7, 9)],
    "overlapping": [(0, 5), (3, 8), (4, 9)],
    "one frame at a time": [(frame, frame + 1) for frame in range(COUNT)],
    "growing": [(0, 4), (2, 5), (2, 6), (2, 8), (5, 9)],
    "again and again": [(0, 4), (0, 4), (2, 6), (2, 6), (5, 9), (5, 9)],
}


@pytest.mark.parametrize("segments", SEGMENTS.values(), ids=SEGMENTS)
def test_segments_with_their_state_are_the_whole_clip(segments):
    made, x, memory = one(), clip(2), Memory()
    whole = run(made, x, range(COUNT)).unflatten(0, (2, COUNT))
    frames = x.unflatten(0, (2, COUNT))
    for low, high in segments:
        ids = torch.arange(low, high) + 30
        given = run(made, frames[:, low:high].flatten(0, 1), ids, past=memory.call(ids, ("a", "b")))
        torch.testing.assert_close(given.unflatten(0, (2, -1)), whole[:, low:high], rtol=0, atol=1e-12)
    alone = run(made, x[5:9], range(5, 9))
    assert (alone - whole[0, 5:9]).abs().max() > 1e-3, "without it they are not"


def test_segments_of_a_whole_network():
    """U-Net and all slots, in float32, to 1e-6 of the largest value; and a plain scan where one call shows everything."""
    unet, motion = tiny.video_model(temporal=replace(RECURRENT, groups=8)).build()
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 48, 4, 4, generator=g), torch.rand(12, 4, generator=g)
    t = torch.randint(0, 1000, (12,), generator=g)
    with motion.during(motion.frames_for(torch.arange(12))):
        whole = unet(x, t, None, y)
    memory = Memory()
    for low, high in ((0, 12), (0, 6), (4, 10), (9, 12)):
        ids = torch.arange(low, high)
        with motion.during(motion.frames_for(ids), past=memory.call(ids)):
            given = unet(x[ids], t[ids], None, y[ids])
        torch.testing.assert_close(given, whole[ids], rtol=0, atol=1e-6 * float(whole.abs().max()))
    with motion.during(motion.frames_for(ids)):
        assert (unet(x[ids], t[ids], None, y[ids]) - whole[ids]).abs().max() > 1e-4 * float(whole.abs().max())


def test_the_state_is_that_of_the_last_call_about_a_frame():
    made, x, memory = one(), clip(), Memory()
    other = clip(seed=3)
    for shown in (other, x):
        ids = torch.arange(5)
        run(made, shown[:5], ids, past=memory.call(ids))
    ids = torch.arange(5, COUNT)
    torch.testing.assert_close(run(made, x[5:], ids, past=memory.call(ids)), run(made, x)[5:], rtol=0, atol=1e-12)


def test_frames_whose_past_is_unknown_begin_anew():
    made, x, memory = one(), clip(), Memory()
    run(made, x[:3], range(3), past=memory.call(torch.arange(3)))
    ids = torch.arange(5, 9)
    assert torch.equal(run(made, x[5:9], ids, past=memory.call(ids)), run(made, x[5:9], ids))


def test_behind_anchors_a_frame_goes_on_from_the_frame_before_it():
    """Frames 0 and 1 stay in the window for good, then there is a gap."""
    made, x, memory = one(), clip(), Memory()
    whole = run(made, x)
    for ids in ([0, 1, 2, 3, 4], [0, 1, 3, 4, 5], [0, 1, 6, 7, 8]):
        ids = torch.tensor(ids)
        torch.testing.assert_close(run(made, x[ids], ids, past=memory.call(ids)), whole[ids], rtol=0, atol=1e-12)


def test_clips_are_told_apart_by_name_whatever_their_order():
    made, x, memory = one(), clip(2), Memory()
    whole = run(made, x, range(COUNT)).unflatten(0, (2, COUNT))
    yes, no = x.chunk(2)
    ids = torch.arange(5)
    run(made, torch.cat([yes[:5], no[:5]]), ids, past=memory.call(ids, ("yes", "no")))
    ids = torch.arange(5, 7)
    given = run(made, torch.cat([no[5:7], yes[5:7]]), ids, past=memory.call(ids, ("no", "yes")))
    torch.testing.assert_close(given.unflatten(0, (2, 2)), whole[[1, 0], 5:7], rtol=0, atol=1e-12)
    ids = torch.arange(7, 9)
    for name, mine, wanted in (("no", no, whole[1]), ("yes", yes, whole[0])):  # in calls of their own
        torch.testing.assert_close(run(made, mine[7:], ids, past=memory.call(ids, (name,))), wanted[7:], rtol=0, atol=1e-12)


def test_windows_from_the_noisy_end_to_the_clean_one():
    """As FIFO-Diffusion goes: each pass shows the last frames first, and each frame goes on from the pass before."""
    made, x, memory = one(), drawn(40, CHANNELS, SIZE, SIZE), Memory()
    whole, sizes = run(made, x), []
    ids = torch.arange(12)
    run(made, x[ids], ids, past=memory.call(ids))
    for first in range(1, 28):
        for low in (first + 8, first + 4, first):
            ids = torch.arange(low, low + 4)
            torch.testing.assert_close(run(made, x[ids], ids, past=memory.call(ids)), whole[ids], rtol=0, atol=1e-12)
        sizes.append(len(memory))
    assert len(set(sizes[5:])) == 1
    assert sizes[-1] <= 12 + 2


@pytest.mark.parametrize("sink_frames", [0, 2])
def test_memory_does_not_grow_with_the_take(sink_frames):
    """A window of 8 over 200 frames, three calls for each place."""
    memory, sizes = Memory(), []
    for first in range(200):
        for _ in range(3):
            ids = torch.tensor([*range(min(sink_frames, first)), *range(first, first + 8)])
            past = memory.call(ids, ("yes", "no")).at(SLOT)
            past.keep([torch.zeros(2, 1, 1, 1) for _ in ids])
        sizes.append(len(memory))
    assert max(sizes) <= 2 * (8 + 2 + sink_frames)
    assert len(set(sizes[10:])) == 1


def test_states_hold_no_graph():
    made, memory, ids = one(), Memory(), torch.arange(3)
    made.requires_grad_(True)
    run(made, clip(count=3), ids, past=memory.call(ids))
    assert not memory.known(SLOT, 0, 2).requires_grad


def test_whatever_happens_the_module_forgets_the_call():
    made, memory, ids = one(), Memory(), torch.arange(3)
    with pytest.raises(RuntimeError, match="broken"), made.during(Frames.of(3), past=memory.call(ids)):
        assert made.past is not None
        raise RuntimeError("broken")
    assert made.past is None
    assert made.frames is None


# Files


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_every_kind_comes_back(kind, tmp_path):
    video = tiny.video_model(temporal=replace(CAUSAL[kind], groups=8))
    video.save(tmp_path / "model.safetensors")
    again = load_video_model(tmp_path / "model.safetensors")
    assert again.info == video.info
    assert all(torch.equal(again.temporal[name], value) for name, value in video.temporal.items())
    name = {"transformer": "temporal_transformer"}.get(kind, kind)
    assert all(f".motion_modules.0.{name}." in key or f".motion_modules.1.{name}." in key for key in video.temporal)
    _, motion = again.build()
    assert type(motion.at(motion.names[0])) is KINDS[kind]


def test_files_of_transformers_say_what_they_said_before():
    about = json.loads(tiny.info().json())
    assert about["version"] == 1
    assert about["temporal"] == {
        "heads": 2,
        "attentions": 1,
        "ff_mult": 4,
        "groups": 8,
        "positions": "rotary",
        "mask": "causal",
        "mask_frames": 0,
        "clip_norm": False,
    }
    assert json.loads(tiny.info(temporal=RECURRENT).json())["version"] == 2


def test_the_bundled_file_is_a_transformer_and_is_written_as_it_was_read():
    path = Path(pack.__file__).parent / "models" / "longtake_shapes.safetensors"
    with safe_open(path, framework="pt") as file:
        text = file.metadata()["longtake"]
    info = VideoModelInfo.parse(text)
    assert info.temporal.kind == "transformer"
    then, now = json.loads(text), json.loads(info.json())
    assert now["temporal"].pop("clip_norm") is False  # this file is older than that
    assert now == then


# Training


SMALL = {kind: replace(shapes_model(16, kind), frames=4) for kind in TEMPORAL}
SHORT = replace(tiny_training.SHORT, steps=4, warmup=1)


def test_the_transformer_recipe_is_what_it_was():
    assert shapes_model() == shapes_model(temporal="transformer")
    assert list(TEMPORAL) == list(KINDS)


def run_on(kind, path=None, settings=SHORT, **choices):
    return Run(native(SMALL[kind], settings, **choices), settings, path)


@pytest.mark.parametrize(
    ("kind", "method"), [("recurrent", "forcing"), ("recurrent", "teacher"), ("recurrent", "full"), ("pseudo3d", "full")]
)
def test_training_lowers_the_loss_and_moves_every_weight(kind, method):
    run = run_on(kind, settings=replace(SHORT, steps=12, learning_rate=4e-3, warmup=3), method=method)
    trained = run.task
    before = held_out_loss(trained, 12)
    first = {name: value.detach().clone() for name, value in trained.motion.named_parameters()}
    list(run.steps())
    assert held_out_loss(trained, 12) < 0.7 * before
    still = [name for name, value in trained.motion.named_parameters() if torch.equal(value, first[name])]
    assert still == [], "the gradient reaches everything through time, the first state among it"
    assert trained.info.temporal.mask == ("full" if kind == "pseudo3d" and method == "full" else "causal")


@pytest.mark.parametrize("kind", ["recurrent", "pseudo3d"])
def test_a_resumed_run_gives_the_weights_of_an_unbroken_one(kind, tmp_path):
    unbroken = run_on(kind)
    list(unbroken.steps())
    path = tmp_path / "run.safetensors"
    steps = train(run_on(kind, path), every=1)
    next(steps), next(steps)
    steps.close()
    resumed = run_on(kind, path)
    assert resumed.done == 2
    list(train(resumed))
    assert all(torch.equal(value, resumed.average[name]) for name, value in unbroken.average.items())
    with pytest.raises(ValueError, match="belongs to another run .temporal"):
        run_on("transformer", path)


def test_a_transformer_s_checkpoint_says_nothing_of_what_came_later(tmp_path):
    """So descriptions from before there were kinds are those of today's transformers."""
    path = tmp_path / "run.safetensors"
    list(train(run_on("transformer", path)))
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["longtake_run"])["task"]
    assert "kind" not in about["temporal"] and "qk_norm" not in about["temporal"]
    assert run_on("transformer", path).done == 4


def test_the_gradient_goes_back_through_time():
    made = one()
    x = clip().requires_grad_(True)
    (gradient,) = torch.autograd.grad(run(made, x)[-1].square().sum(), x)
    assert (gradient.abs().amax((1, 2, 3)) > 1e-9).all()


def node_model(monkeypatch, folder, kind, steps=2):
    """A file that the training node has made; nodes of both hosts find it by its name."""
    from pack.nodes.train.train_video_model import LongTakeTrainVideoModel

    monkeypatch.setattr(host, "model_directory", lambda kind: folder)
    monkeypatch.setattr(host, "output_directory", lambda: folder)
    with torch.inference_mode():
        name = LongTakeTrainVideoModel.execute(
            name="mine", steps=steps, temporal=kind, width=16, options=replace(DEFAULTS, batch=1)
        ).args[2]
    return folder / name


def louder(path):
    """The file with networks that do something: after a few steps they still hardly do."""
    video = load_video_model(path)
    g = torch.Generator().manual_seed(3)

    def shaken(state):
        return {name: value + 0.05 * torch.randn(value.shape, generator=g) for name, value in state.items()}

    replace(video, unet=shaken(video.unet), temporal=shaken(video.temporal)).save(path)
    return path


def take(monkeypatch, path, which, **values):
    """Load Video Model and Rollout on one host."""
    for file in (forcing_nodes, model_nodes):
        monkeypatch.setattr(file, "host", which)
    monkeypatch.setattr(which, "file", lambda kind, name: path)
    model = model_nodes.LongTakeLoadVideoModel.execute(model_name=path.name).args[0]
    prompts = [model_nodes.LongTakeLabelPrompt.execute(model=model, prompt=text).args[0] for text in ("red disk", "blue")]
    with torch.inference_mode():
        return forcing_nodes.LongTakeRollout.execute(
            model=model, positive=prompts[0], negative=prompts[1], **{"window": 6, "steps": 4, "lag": 2.0, "seed": 4} | values
        ).args[0]["samples"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_nodes_train_load_and_roll_out(kind, monkeypatch, tmp_path):
    from pack.host import standalone

    path = louder(node_model(monkeypatch, tmp_path, kind))
    assert load_video_model(path).info.temporal.kind == kind
    short = take(monkeypatch, path, standalone, frames=9, cfg=2.0)
    assert torch.isfinite(short).all()
    assert short.std() > 0.1
    longer = take(monkeypatch, path, standalone, frames=12, cfg=2.0)[:9]
    torch.testing.assert_close(longer, short, rtol=0, atol=1e-5 * float(short.abs().max()), msg="whatever the length")


# The take without ComfyUI


class Counted(Memory):
    """A memory that says how large it was at each call."""

    made: list = []

    def __init__(self):
        super().__init__()
        self.sizes = []
        self.made.append(self)

    def call(self, ids, rows=(0,)):
        self.sizes.append(len(self))
        return super().call(ids, rows)


@pytest.fixture
def counted(monkeypatch):
    Counted.made = []
    return Counted


def video(kind="recurrent", seed=0):
    """As small as it goes: attention in the middle only, pictures of 8x8, two slots."""
    none = {"transformer_depth": (0, 0), "transformer_depth_output": (0, 0, 0, 0)}
    unet = tiny.config(in_channels=48, out_channels=48, label_channels=4, model_channels=24, groups=4, **none)
    return tiny.video_model(seed, unet=unet, temporal=CAUSAL[kind], size=(8, 8), slots=(SLOT, "up_blocks.1.motion_modules.1"))


def rolled(which, model, *, frames=24, window=8, cfg=1.0, latent=None, **options):
    """A take without nodes: 3 steps for each frame, a call per frame."""
    levels = NoiseLevels.named("pyramid", frames, 3, lag=1.0, known=0 if latent is None else len(latent))
    clip = torch.zeros(frames, 48, 2, 2)
    if latent is not None:
        clip[: len(latent)] = latent
    y = torch.rand(2, 1, 4, generator=torch.Generator().manual_seed(2))
    conds = [[[torch.zeros(1, 1, 1), {"pooled_output": row}]] for row in y]
    algorithm = Forcing(levels, window, context_noise=ContextNoise(0.1))
    sigmas = which.level_sigmas(model, levels.steps)
    with torch.inference_mode():
        return which.sample(model, *conds, cfg=cfg, latent=clip, algorithm=algorithm, seed=5, sigmas=sigmas, **options)


def test_a_long_take_takes_constant_memory(counted, monkeypatch):
    from pack.host import standalone
    from pack.host.standalone import sampling

    monkeypatch.setattr(sampling, "Memory", counted)
    model = standalone.video_model(video())
    slots = len(model.motions[0].names)
    out = rolled(standalone, model, frames=200, cfg=2.0)
    assert torch.isfinite(out).all()
    (memory,) = counted.made
    assert len(memory.sizes) >= 200
    assert max(memory.sizes) <= slots * 2 * (8 + 2), "states of the window and of the frame before it, for two prompts"
    assert len(set(memory.sizes[40:-40])) <= 2
    assert model.motions[0].past is None


def test_what_has_left_the_window_still_acts(monkeypatch):
    """A take whose frames forget what left the window is another one, from the first frame on that has left something behind."""
    from pack.host import standalone

    model = standalone.video_model(video())
    take = rolled(standalone, model, frames=16, window=4)
    monkeypatch.setattr(Memory, "known", lambda *args: None)
    change = (rolled(standalone, model, frames=16, window=4) - take).abs().amax((1, 2, 3))
    assert (change[:2] == 0).all()
    assert (change[4:] > 1e-3).all()


def test_two_samplings_share_nothing(monkeypatch):
    from pack.host import standalone

    model = standalone.video_model(video())
    monkeypatch.setattr(rollouts, "unseen", lambda *args: ())
    later = {"window": 4, "latent": torch.ones(10, 48, 2, 2)}  # so its first call is about frames whose past was never shown
    alone = rolled(standalone, model, frames=16, **later)
    rolled(standalone, model, frames=12)
    assert torch.equal(rolled(standalone, model, frames=16, **later), alone)


def test_known_frames_that_no_window_shows_are_seen_first():
    """The first new frame is what it is in a window that shows all known ones, and hangs on the first of them."""
    from pack.host import standalone

    model, given = standalone.video_model(video()), torch.randn(9, 48, 2, 2, generator=torch.Generator().manual_seed(1))
    begun = partial(rolled, standalone, model, frames=12, latent=given)
    wide, narrow = begun(window=12), begun(window=4)
    assert torch.equal(wide[:9], given) and torch.equal(narrow[:9], given)
    torch.testing.assert_close(narrow[9:], wide[9:], rtol=1e-4, atol=1e-5)
    given[0] += 1
    assert (begun(window=4)[9:] - narrow[9:]).abs().max() > 1e-4


# ComfyUI


@pytest.mark.comfy
@pytest.mark.parametrize("kind", sparing(["recurrent", "pseudo3d"], "recurrent"))
def test_the_nodes_make_the_same_frames_on_both_hosts(kind, monkeypatch, tmp_path):
    from pack.host import standalone

    assert host.name == "comfyui"
    path = louder(node_model(monkeypatch, tmp_path, kind))
    inside = take(monkeypatch, path, host, frames=24, cfg=2.0)
    alone = take(monkeypatch, path, standalone, frames=24, cfg=2.0)
    worst = (inside - alone).abs().amax((1, 2, 3))
    assert worst.max() < 1e-3, f"frame {worst.argmax()} differs by {worst.max()}"
    assert inside.std() > 0.1


@pytest.mark.comfy
def test_a_long_take_in_comfyui_takes_constant_memory(counted, monkeypatch):
    from pack.host.comfyui import attached

    monkeypatch.setattr(attached, "Memory", counted)
    model = host.video_model(video())
    slots = len(model.get_additional_models_with_key(attached.KEY)[0].model.names)
    rolled(host, model, frames=200, cfg=2.0)
    (memory,) = counted.made
    assert max(memory.sizes) <= slots * 2 * (8 + 2)
    assert len(set(memory.sizes[40:-40])) <= 2
    rolled(host, model, frames=10)
    assert len(counted.made) == 2, "the next sampling has its own"


@pytest.mark.comfy
def test_conditions_in_calls_of_their_own_keep_their_own_state(monkeypatch):
    """ComfyUI runs positive and negative apart when memory is short."""
    import comfy.model_base
    from pack.host import standalone

    model = host.video_model(video())
    together = rolled(host, model, cfg=2.0)
    alone = rolled(standalone, standalone.video_model(video()), cfg=2.0)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4 * float(together.abs().max()))
    calls = []
    inner = comfy.model_base.BaseModel.apply_model

    def counting(self, x, *args, **kwargs):
        calls.append(len(x))
        return inner(self, x, *args, **kwargs)

    monkeypatch.setattr(comfy.model_base.BaseModel, "apply_model", counting)
    monkeypatch.setattr(comfy.model_base.BaseModel, "memory_required", lambda *args, **kwargs: 1e30)
    apart = rolled(host, model, cfg=2.0)
    assert max(calls) <= 8, "one condition's window at a time"
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-4 * float(together.abs().max()))


@pytest.mark.comfy
@pytest.mark.parametrize("kind", ["recurrent", "transformer"])
def test_windows_of_the_whole_model_give_a_recurrent_model_the_whole_clip(kind, counted, monkeypatch):
    """Each window goes on from the one before it at the same step, so all of them agree with a single call about all frames."""
    from pack.host.comfyui import attached
    from pack.host.comfyui.parts.windows import whole_windows
    from pack.modules.temporal.windows import WindowPlan
    from tiny_motion import ksample

    monkeypatch.setattr(attached, "Memory", counted)
    model = host.video_model(video(kind))
    y = torch.rand(2, 1, 4, generator=torch.Generator().manual_seed(2))
    conds = [[[torch.zeros(1, 1, 1), {"pooled_output": row}]] for row in y]
    sample = partial(ksample, steps=3, latent=torch.zeros(20, 48, 2, 2), positive=conds[0], negative=conds[1])
    whole = sample(model)
    assert counted.made == [], "one call shows everything: nothing to remember"
    windowed = sample(whole_windows(model, WindowPlan(length=6, overlap=2, schedule="standard_static")))
    same = (windowed - whole).abs().max() <= 2e-5 * whole.abs().max()
    assert same if kind == "recurrent" else not same
    assert len(counted.made) == (3 if kind == "recurrent" else 0), "one for each step"


@pytest.mark.comfy
def test_an_interrupted_take_leaves_no_state(monkeypatch):
    import comfy.model_management
    from pack.host.comfyui import attached
    from pack.host.comfyui.options import SAMPLING
    from pack.host.comfyui.sampling.sampling import Progress

    model = host.video_model(video())
    network = model.get_additional_models_with_key(attached.KEY)[0].model
    count = []

    def stop(*args):
        count.append(1)
        if len(count) == 5:
            raise comfy.model_management.InterruptProcessingException

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "update", stop)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            rolled(host, model)
    assert network.past is None
    assert SAMPLING not in model.model_options.get("transformer_options", {})


# What cannot work


def test_bad_configurations_are_one_sentence():
    with pytest.raises(ValueError, match="kind of temporal module is 'lstm': choose one of transformer, recurrent, pseudo3d"):
        MotionModel({SLOT: 8}, TemporalConfig(kind="lstm"))
    with pytest.raises(ValueError, match="kind of temporal module is 'lstm'"):
        tiny.info(temporal=TemporalConfig(kind="lstm"))
    for mask in set(MASKS) - {"causal"}:
        with pytest.raises(ValueError, match=f"mask is '{mask}' and a recurrent module sees the past only"):
            MotionModel({SLOT: 8}, replace(RECURRENT, mask=mask))
    with pytest.raises(ValueError, match="hidden is -1"):
        replace(RECURRENT, hidden=-1)
    with pytest.raises(ValueError, match="'lstm' is not known: choose one of transformer, recurrent, pseudo3d"):
        shapes_model(temporal="lstm")
    with pytest.raises(ValueError, match="5 frames do not divide into 2 streams"):
        Frames(5, torch.arange(5), streams=2)


def test_a_file_of_an_unknown_kind_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    video().save(path)
    about = {**json.loads(video().info.json()), "temporal": {**asdict(RECURRENT), "kind": "lstm"}}
    with pytest.raises(ValueError, match="kind of temporal module is 'lstm'"):
        VideoModelInfo.parse(json.dumps(about))


@pytest.mark.parametrize("kind", ["recurrent", "pseudo3d"])
def test_bad_calls_are_one_sentence(kind):
    made = one(CAUSAL[kind])
    with pytest.raises(ValueError, match="7 images came to a motion module that was told of clips of 3 frames"):
        run(made, clip(count=7), frames=made.frames_for(torch.arange(3)))
    hint = Hint(torch.zeros(1), lambda x: x)
    with (
        made.during(Frames.of(COUNT)),
        made.hinted({SLOT: hint}),
        pytest.raises(ValueError, match="camera features were given to a"),
    ):
        made.slot_functions()[SLOT](clip())


def test_a_memory_of_other_clips_is_refused():
    made, memory, ids = one(), Memory(), torch.arange(4)
    with pytest.raises(ValueError, match="2 clips came to a recurrent module that was told of 1"):
        run(made, clip(2, 4), ids, past=memory.call(ids))
    run(made, clip(count=4), ids, past=memory.call(ids))
    ids = ids + 4
    with pytest.raises(ValueError, match=r"state after frame 3 is of \[5, 3, 3\] and this call works on \[5, 2, 2\]"):
        run(made, drawn(4, CHANNELS, 2, 2), ids, past=memory.call(ids))
