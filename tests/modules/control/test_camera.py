"""A camera for a motion module: paths and rays against their definitions, the network against the paper's and AnimateDiff-Evolved's."""

import functools
import math
import sys
from pathlib import Path

import pytest
import tiny
import torch
import torch.nn.functional as F
from pack import host
from pack.modules.checkpoints.camera import load_camera
from pack.modules.checkpoints.motion import graft_camera, load_motion_module
from pack.modules.control.camera import LENS, MOVES, CameraPath, moved, parse_moves, rays, read_path
from pack.modules.control.camera_model import CameraModel, PoseEncoder, windows_of
from pack.modules.control.encoders import pose_encoder_shapes
from pack.modules.draw.camera_picture import draw_path
from pack.modules.temporal import transformer
from pack.modules.temporal.frames import Hint
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.positions import POSITIONS, sinusoid
from pack.modules.temporal.transformer import TemporalConfig
from pack.modules.temporal.windows import WindowPlan
from pack.nodes.motion.camera import FILE, LongTakeApplyCamera, LongTakeCameraPoses, LongTakeGraftCamera
from safetensors.torch import load_file
from sparing import sparing
from tiny_motion import camera_file, image_model, ksample, motion_file, randomized

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "data" / "ade_camera.safetensors"
comfy = pytest.mark.comfy
EXACT = {"rtol": 0, "atol": 1e-12}


def line(pose=None, lens=LENS, **changed):
    """A line of a pose file; ``changed`` are words by their place, as ``w7="x"``."""
    pose = torch.eye(4) if pose is None else pose
    words = ["0", *(f"{float(value):.12f}" for value in (*lens, 0, 0, *pose[:3].flatten()))]
    for place, word in changed.items():
        words[int(place[1:])] = word
    return " ".join(words)


def some_path(frames=7):
    """Turns and moves about all axes, from somewhere in the world, and changes its lens."""
    moves = [(name, 0.3 + 0.1 * place) for place, name in enumerate(MOVES) if "left" in name or "up" in name or " in" in name]
    path = moved([*moves, ("move forward", 0.5), ("roll clockwise", 0.4)], frames + 3)
    return path.at(torch.arange(3, frames + 3))


def centres(path):
    return torch.linalg.inv(path.poses)[:, :3, 3]


def looks(path):
    return torch.linalg.inv(path.poses)[:, :3, 2]


# Paths


WHERE = {  # which way a move goes: camera's place, camera's direction, its right hand, focal length
    "pan left": (0, "looks", 0, -1),
    "pan right": (0, "looks", 0, 1),
    "tilt up": (0, "looks", 1, -1),
    "tilt down": (0, "looks", 1, 1),
    "roll clockwise": (0, "right", 1, 1),
    "roll anticlockwise": (0, "right", 1, -1),
    "move left": (1, "place", 0, -1),
    "move right": (1, "place", 0, 1),
    "move up": (1, "place", 1, -1),
    "move down": (1, "place", 1, 1),
    "move forward": (1, "place", 2, 1),
    "move backward": (1, "place", 2, -1),
}


@pytest.mark.parametrize("name", WHERE)
def test_a_move_goes_where_its_name_says(name):
    shifts, what, axis, sign = WHERE[name]
    path = moved([(name, 1.0)], 17)
    world = torch.linalg.inv(path.poses)
    moving = {"place": world[:, :3, 3], "looks": world[:, :3, 2], "right": world[:, :3, 0]}[what][:, axis] * sign
    assert (moving.diff() > 0).all()
    assert torch.equal(world[:, :3, 3].abs().sum(1) > 0, torch.arange(17) * shifts > 0)
    if shifts:
        assert float(moving[-1]) == pytest.approx(3.0 if axis == 2 else 1.5)
    else:
        assert math.degrees(math.asin(float(moving[-1]))) == pytest.approx(60)


def test_every_move_has_a_direction_or_is_named_here():
    assert set(MOVES) == {*WHERE, "static", "zoom in", "zoom out"}


@pytest.mark.parametrize(("name", "factor"), [("zoom in", 2.0), ("zoom out", 0.5)])
def test_a_zoom_changes_the_lens_only(name, factor):
    path = moved([(name, 1.0)], 17)
    assert torch.equal(path.poses, torch.eye(4, dtype=torch.float64).expand(17, 4, 4))
    torch.testing.assert_close(path.lenses[-1], path.lenses[0] * torch.tensor([factor, factor, 1, 1]), **EXACT)


@pytest.mark.parametrize("name", MOVES)
def test_a_move_goes_on_where_the_one_before_it_ended(name):
    whole = moved([(name, 1.0)], 31)
    joined = moved([(name, 1.0)], 16).then(moved([(name, 1.0)], 16))
    torch.testing.assert_close(joined.poses, whole.poses, **EXACT)
    torch.testing.assert_close(joined.lenses, whole.lenses, **EXACT)


@pytest.mark.parametrize("name", MOVES)
def test_a_negative_speed_is_the_opposite(name):
    there, back = moved([(name, 1.0)], 9), moved([(name, 1.0)], 9, -1.0)
    torch.testing.assert_close(there.poses @ back.poses, torch.eye(4, dtype=torch.float64).expand(9, 4, 4), **EXACT)


@pytest.mark.parametrize("name", MOVES)
def test_an_even_move_stays_the_same_when_it_is_spread_over_other_frames(name):
    torch.testing.assert_close(moved([(name, 1.0)], 9).resampled(17).poses, moved([(name, 1.0)], 17, 0.5).poses, **EXACT)


@pytest.mark.parametrize("frames", [1, 5, 7, 40])
def test_spreading_keeps_where_a_path_begins_and_ends_and_rotations_stay_rotations(frames):
    path = some_path()
    spread = path.resampled(frames)
    assert len(spread) == frames and (spread is path) is (frames == 7)
    torch.testing.assert_close(spread.poses[0], path.poses[0], **EXACT)
    if frames > 1:
        torch.testing.assert_close(spread.poses[-1], path.poses[-1], **EXACT)
    turns = spread.poses[:, :3, :3]
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3, dtype=torch.float64).expand(frames, 3, 3), **EXACT)


def test_a_camera_that_turns_around_between_two_poses_is_not_guessed():
    path = moved([("pan left", 3.0)], 17).at(torch.tensor([0, 16]))
    with pytest.raises(ValueError, match="turns around from one pose to the next"):
        path.resampled(5)


def test_moves_at_the_same_time_are_read_from_text():
    assert parse_moves("pan left .5\n\nroll clockwise; zoom in -2") == (
        ("pan left", 0.5),
        ("roll clockwise", 1.0),
        ("zoom in", -2.0),
    )
    both = moved([("move left", 1.0), ("move up", 0.5)], 17)
    torch.testing.assert_close(centres(both)[-1], torch.tensor([-1.5, -0.75, 0], dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("text", ["fly", "pan left fast", "pan left 0.5 2", "0.5"])
def test_what_is_no_move_is_refused(text):
    with pytest.raises(ValueError, match=r"is no move: write one of static, pan left, .* zoom out, then a factor"):
        parse_moves(text)


@pytest.mark.parametrize("title", ["https://www.example.invalid/watch?v=1\n", "\n", ""])
def test_a_file_is_read(title):
    path = some_path()
    read = read_path(title + "\n".join(map(line, path.poses, path.lenses)) + "\n\n", "a.txt", 1.5)
    torch.testing.assert_close(read.poses, path.poses, rtol=0, atol=1e-11)
    torch.testing.assert_close(read.lenses, path.lenses, rtol=0, atol=1e-11)
    assert read.aspect == 1.5


STRETCHED = torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0]))
MIRRORED = torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0]))
BAD_FILES = {
    "empty": ("", r"a.txt holds no camera poses"),
    "only a title": ("https://www.example.invalid\n", r"a.txt holds no camera poses"),
    "cut short": (f"title\n{line()}\n{line()[:40]}", r"line 3 of a.txt has 4 entries: a camera pose is 19 numbers"),
    "a word": (f"title\n{line(w9='x')}", r"line 2 of a.txt is not all numbers"),
    "not finite": (f"title\n{line(w9='nan')}", r"line 2 of a.txt has a number that is not finite"),
    "no focal length": (f"title\n{line(w1='0')}", r"line 2 of a.txt has focal lengths 0 and 0.844111"),
    "stretched": (f"title\n{line()}\n\n{line(STRETCHED)}", r"line 4 of a.txt does not turn the camera but distorts it"),
    "mirrored": (f"title\n{line(MIRRORED)}", r"line 2 of a.txt does not turn the camera but distorts it"),
}


@pytest.mark.parametrize(("text", "said"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_broken_file_is_refused_in_one_sentence(text, said):
    with pytest.raises(ValueError, match=said) as caught:
        read_path(text, "a.txt")
    assert ". " not in str(caught.value)


# Rays


@pytest.mark.parametrize(("height", "width"), [(6, 8), (8, 6), (9, 16)])
def test_rays_are_pluecker_coordinates_of_each_pixel(height, width):
    """Written out for one pixel at a time, with a camera matrix in pixels; the picture is the middle of a 16:9 video's."""
    path = some_path()
    given = rays(path, height, width)
    full = (
        (width, width * 9 / 16) if width / height >= 16 / 9 else (height * 16 / 9, height)
    )  # the video's size, cut to the picture
    first = path.poses[0]
    for frame, (pose, lens) in enumerate(zip(path.poses, path.lenses, strict=True)):
        world = first @ torch.linalg.inv(pose)
        k = torch.tensor([[lens[0] * full[0], 0, lens[2] * width], [0, lens[1] * full[1], lens[3] * height], [0, 0, 1]])
        for y in range(height):
            for x in range(width):
                seen = torch.linalg.solve(k.double(), torch.tensor([x + 0.5, y + 0.5, 1], dtype=torch.float64))
                direction = world[:3, :3] @ (seen / seen.norm())
                wanted = torch.cat([torch.linalg.cross(world[:3, 3], direction), direction]).float()
                torch.testing.assert_close(given[frame, :, y, x], wanted, rtol=0, atol=2e-6)


def test_a_camera_that_stands_still_sees_the_same_rays_wherever_it_is():
    path = some_path()
    still = CameraPath(path.poses[2].expand(5, 4, 4), path.lenses[2].expand(5, 4))
    seen = rays(still, 8, 12)
    torch.testing.assert_close(seen, seen[:1].expand_as(seen), rtol=0, atol=1e-6)
    torch.testing.assert_close(seen[:, :3], torch.zeros(5, 3, 8, 12), rtol=0, atol=1e-6)
    torch.testing.assert_close(seen[:, 3:].norm(dim=1), torch.ones(5, 8, 12))


def test_rays_depend_on_how_the_camera_moved_and_not_on_where_the_world_is():
    path = some_path()
    elsewhere = CameraPath(path.poses @ torch.linalg.inv(path.poses[3]), path.lenses, path.aspect)
    torch.testing.assert_close(rays(elsewhere, 4, 6), rays(path, 4, 6), rtol=0, atol=1e-5)


# The encoder


def encoder(widths=(32, 64, 64), seed=5, most=16):
    return randomized(PoseEncoder(widths, most), seed).double().eval().requires_grad_(False)


def test_the_encoder_has_the_releases_keys():
    given = {key: tuple(value.shape) for key, value in encoder().state_dict().items()}
    assert given == pose_encoder_shapes((32, 64, 64))


def attended_by_hand(state, x):
    """A transformer block over frames with one attention, from the paper's formulas: ``x``: ``n f c``."""
    channels = x.shape[-1]
    normed = F.layer_norm(x, (channels,), state["norms.0.weight"], state["norms.0.bias"])
    normed = normed + sinusoid(torch.arange(x.shape[1]), channels).double()
    q, k, v = (
        (normed @ state[f"attention_blocks.0.to_{name}.weight"].T).unflatten(-1, (8, -1)).transpose(1, 2) for name in "qkv"
    )
    mixed = ((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = x + F.linear(mixed, state["attention_blocks.0.to_out.0.weight"], state["attention_blocks.0.to_out.0.bias"])
    normed = F.layer_norm(x, (channels,), state["ff_norm.weight"], state["ff_norm.bias"])
    hidden, gate = F.linear(normed, state["ff.net.0.proj.weight"], state["ff.net.0.proj.bias"]).chunk(2, -1)
    return x + F.linear(hidden * F.gelu(gate), state["ff.net.2.weight"], state["ff.net.2.bias"])


def encoded_by_hand(state, seen, levels, attended):
    """CameraCtrl's encoder from its release's keys: ``seen``: ``f 6 h w``, rays."""

    def conv(x, name, size):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=size // 2)

    x, features = conv(F.pixel_unshuffle(seen.double(), 8), "encoder_conv_in", 3), []
    for level in range(levels):
        for block in range(2):
            name = f"encoder_down_conv_blocks.{level}.{block}"
            if level and not block:
                x = F.avg_pool2d(x, 2)
            if f"{name}.in_conv.weight" in state:
                x = conv(x, f"{name}.in_conv", 1)
            x = x + conv(conv(x, f"{name}.block1", 3).relu(), f"{name}.block2", 1)
            prefix = f"encoder_down_attention_blocks.{level}.{block}."
            inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            x = attended(inside, x.permute(2, 3, 0, 1).flatten(0, 1)).unflatten(0, x.shape[2:]).permute(2, 3, 0, 1)
        features.append(x)
    return features


def test_features_are_the_papers():
    made, path = encoder(), some_path()
    wanted = encoded_by_hand(made.state_dict(), rays(path, 32, 64), 3, attended_by_hand)
    for a, b in zip(made(path, 4, 8), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_more_frames_than_it_knows_times_for_go_through_in_windows():
    """Each window's first half of the block by itself, weighted 1 2 3 ... 3 2 1, then the feed-forward once: as FreeNoise has it."""
    made, path = encoder(most=6), some_path(13)
    starts = (0, 3, 6, 7)

    def attended(state, x):
        no_ff = {key: torch.zeros_like(value) if key.startswith("ff.net.2") else value for key, value in state.items()}
        total, count = torch.zeros_like(x), torch.zeros(x.shape[1], 1, dtype=torch.float64)
        weight = torch.tensor([1, 2, 3, 3, 2, 1], dtype=torch.float64)[:, None]
        for start in starts:
            total[:, start : start + 6] += weight * attended_by_hand(no_ff, x[:, start : start + 6])
            count[start : start + 6] += weight
        no_attention = {key: torch.zeros_like(value) if ".to_out." in key else value for key, value in state.items()}
        return attended_by_hand(no_attention, total / count)

    wanted = encoded_by_hand(made.state_dict(), rays(path, 32, 32), 3, attended)
    for a, b in zip(made(path, 4, 4), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert windows_of(6, 6).groups == () and len(windows_of(7, 6).groups[0].index) == 2


def test_features_do_not_depend_on_how_much_is_computed_at_once(monkeypatch):
    made, path = encoder(), some_path(11)
    whole = made(path, 4, 4)
    monkeypatch.setattr("pack.modules.control.camera_model.FRAME_BATCH", 3)
    monkeypatch.setitem(transformer.WORKSPACE, "cpu", 1)
    for a, b in zip(made(path, 4, 4), whole, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_a_files_weights_reach_every_slot_of_its_level(tmp_path):
    camera = load_camera(camera_file(tmp_path))
    model = camera.build()
    assert model.encoder.max_frames == 16
    hints = model.hints(some_path(), 4, 8, strength=0.5)
    features = model.encoder(some_path(), 4, 8)
    levels = {f"{side}_blocks.{n}": level for side, order in (("down", (0, 1)), ("up", (1, 0))) for n, level in enumerate(order)}
    assert set(hints) == set(camera.merges)
    for slot, hint in hints.items():
        level = levels[slot.partition(".motion")[0]]
        torch.testing.assert_close(hint.features, features[level].flatten(2).permute(2, 0, 1))
        assert torch.equal(hint.layer.weight, camera.merges[slot]["weight"]) and hint.strength == 0.5


# Features in the motion module


COUNT, CHANNELS, SIZE = 11, 16, 3
SLOT = "down_blocks.0.motion_modules.0"


def motion_model(positions="sinusoid"):
    with tiny.seeded(3):
        config = TemporalConfig(heads=2, groups=4, positions=positions)
        made = MotionModel({SLOT: CHANNELS}, config).double().requires_grad_(False).eval()
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def hint(strength=0.7):
    with tiny.seeded(4):
        layer = torch.nn.Linear(CHANNELS, CHANNELS).double().requires_grad_(False)
        return Hint(torch.randn(SIZE * SIZE, COUNT, CHANNELS, dtype=torch.float64), layer, strength)


def clip(clips=2):
    with tiny.seeded(5):
        return torch.randn(clips * COUNT, CHANNELS, SIZE, SIZE, dtype=torch.float64)


def mixed_by_hand(attend, x, times, features, told):
    """One attention of one window of one pixel: ``x``: ``l c``; ``told`` is None where the camera has no say."""
    x = attend.pos_encoder.add(x[None], times)[0]
    if told is not None:
        x = F.linear(x + features, told.layer.weight, told.layer.bias) * told.strength + x
    q, k, v = ((x @ getattr(attend, f"to_{name}").weight.T).unflatten(-1, (2, -1)).transpose(0, 1)[None] for name in "qkv")
    q, k, bias = attend.pos_encoder.attend(q, k, times)
    scores = q @ k.mT / math.sqrt(q.shape[-1]) + (0 if bias is None else bias)
    return attend.to_out((scores.softmax(-1) @ v)[0].transpose(0, 1).flatten(1))


def by_hand(made, x, windows, told):
    """The module with a camera: every pixel, window and attention by itself."""
    module = made.at(SLOT)
    block = module.transformer_blocks[0]
    tokens = module.proj_in(module.norm(x).unflatten(0, (-1, COUNT)).permute(0, 3, 4, 1, 2).reshape(-1, COUNT, CHANNELS))
    groups = [(torch.arange(COUNT)[None], torch.ones(1, COUNT))] if windows is None else windows.groups
    rounds = [(0, 1)] if windows is not None and windows.fuse_at == "module" else [(0,), (1,)]
    for pixel in range(len(tokens)):
        features = told.features[pixel % (SIZE * SIZE)]
        for attentions in rounds:
            fused = torch.zeros_like(tokens[pixel])
            for index, weight in groups:
                for row, worth in zip(index, weight, strict=True):
                    steps = row[0] + torch.cat([torch.zeros(1), (row.diff() % COUNT).cumsum(0)]).long()
                    times = torch.arange(len(row)) if POSITIONS[made.config.positions].absolute else steps
                    inside = tokens[pixel][row]
                    for place in attentions:
                        merge = told if place == 0 else None
                        normed = block.norms[place](inside)
                        inside = inside + mixed_by_hand(block.attention_blocks[place], normed, times, features[row], merge)
                    fused[row] += worth.double()[:, None] * inside
            tokens[pixel] = fused
    tokens = tokens + block.ff(block.ff_norm(tokens))
    out = module.proj_out(tokens).reshape(-1, SIZE, SIZE, COUNT, CHANNELS).permute(0, 3, 4, 1, 2).flatten(0, 1)
    return x + out


def ran(made, x, windows=None, hints=None):
    (function,) = made.slot_functions().values()
    with made.during(made.frames_for(torch.arange(COUNT), None, windows)), made.hinted(hints or {}):
        return function(x.clone())


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("fuse_at", ["none", "attention", "module"])
@pytest.mark.parametrize("schedule", ["standard_static", "looped_uniform"])
def test_the_first_attention_is_told_of_the_camera_in_every_window(positions, fuse_at, schedule):
    made, told, x = motion_model(positions), hint(), clip()
    plan = None if fuse_at == "none" else WindowPlan(schedule, 5, 2, closed_loop=schedule == "looped_uniform", fuse_at=fuse_at)
    windows = plan and plan.windows(COUNT)
    given = ran(made, x, windows, {SLOT: told})
    torch.testing.assert_close(given, by_hand(made, x, windows, told), rtol=0, atol=2e-6)
    assert (given - ran(made, x, windows)).abs().max() > 0.01


@pytest.mark.parametrize("windows", [None, WindowPlan(length=5, overlap=2).windows(COUNT)], ids=["one", "several"])
def test_a_strength_of_0_changes_nothing_and_neither_do_hints_for_other_slots(windows):
    made, x = motion_model(), clip()
    for hints in ({SLOT: hint(0.0)}, {"up_blocks.0.motion_modules.0": hint()}):
        assert torch.equal(ran(made, x, windows, hints), ran(made, x, windows))


@pytest.mark.parametrize("windows", [None, WindowPlan(length=5, overlap=2).windows(COUNT)], ids=["one", "several"])
def test_a_told_module_does_not_depend_on_how_many_pixels_it_takes_at_once(monkeypatch, windows):
    made, told, x = motion_model(), hint(), clip()
    whole = ran(made, x, windows, {SLOT: told})
    monkeypatch.setitem(transformer.WORKSPACE, "cpu", COUNT * CHANNELS * 8 * transformer.COPIES * 2)
    torch.testing.assert_close(ran(made, x, windows, {SLOT: told}), whole, **EXACT)


def test_hints_are_forgotten_whatever_happens():
    made = motion_model()
    with pytest.raises(KeyError), made.hinted({SLOT: hint()}):
        raise KeyError
    assert made.hints == {}


def test_features_of_another_size_are_refused():
    with pytest.raises(ValueError, match="camera features of 9 pixels came to a motion module that works on 4"):
        ran(motion_model(), clip()[..., :2, :2], None, {SLOT: hint()})


# Nodes


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "input_directory", lambda: tmp_path, raising=False)
    return tmp_path


def test_the_node_makes_moves_and_a_picture_of_them():
    path, picture = LongTakeCameraPoses.execute(move="pan left", more_moves="move forward 0.5", frames=20, speed=2.0).result
    wanted = moved([("pan left", 1.0), ("move forward", 0.5)], 20, 2.0)
    assert torch.equal(path.poses, wanted.poses)
    assert picture.shape[0] == 1 and picture.shape[-1] == 3 and 0 <= float(picture.min()) < float(picture.max()) <= 1
    longer = LongTakeCameraPoses.execute(move="move left", frames=10, before=path).result[0]
    assert len(longer) == 30 and torch.equal(longer.poses[:20], path.poses)


@pytest.mark.parametrize("frames", [1, 2, 200])
def test_every_path_can_be_drawn(frames):
    for path in (moved([], frames), moved([("roll clockwise", 1.0)], frames), some_path(frames)):
        assert torch.isfinite(draw_path(path)).all()


def test_the_node_reads_a_file_and_spreads_it(inputs):
    path = some_path()
    (inputs / "a.txt").write_text("title\n" + "\n".join(map(line, path.poses, path.lenses)))
    read = LongTakeCameraPoses.execute(move=FILE, file="a.txt", frames=7, file_width=1000, file_height=500).result[0]
    torch.testing.assert_close(read.poses, path.poses, rtol=0, atol=1e-11)
    assert read.aspect == 2.0
    assert len(LongTakeCameraPoses.execute(move=FILE, file="a.txt", frames=21).result[0]) == 21
    before = LongTakeCameraPoses.fingerprint_inputs(move=FILE, file="a.txt")
    (inputs / "a.txt").write_text("other")
    assert LongTakeCameraPoses.fingerprint_inputs(move=FILE, file="a.txt") != before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"move": FILE}, "there is no camera file 'none' in .*: put it there, or choose one of: none yet"),
        ({"move": FILE, "file": "../secret.txt"}, "there is no camera file '../secret.txt'"),
        ({"move": "fly"}, "move is 'fly': choose one of static"),
        ({"move": FILE, "more_moves": "pan left"}, "a file says all moves: leave more_moves empty"),
    ],
)
def test_the_node_refuses_what_cannot_work(inputs, given, said):
    with pytest.raises(ValueError, match=said):
        LongTakeCameraPoses.execute(**given)


# On a model


@pytest.fixture
def model():
    return image_model()


@pytest.fixture
def grafted(tmp_path):
    return graft_camera(load_motion_module(motion_file(tmp_path)), load_camera(camera_file(tmp_path)))


@pytest.fixture
def animated(model, grafted):
    return host.apply_motion(model, grafted)


def turning(frames=6, name="pan left"):
    return moved([(name, 1.0)], frames, 4.0)


@pytest.fixture
def led(animated):
    return host.apply_camera(animated, turning())


def forgotten(model):
    motion = model.get_additional_models_with_key("longtake_motion")[-1].model
    return motion.frames is None and motion.hints == {}


@comfy
def test_the_camera_leads_and_the_models_before_it_stay_as_they_were(model, grafted, animated, led):
    plain, still = ksample(model), ksample(animated)
    moving = ksample(led)
    assert (moving - still).abs().max() > 0.01 * still.abs().max()
    assert torch.equal(ksample(animated), still) and torch.equal(ksample(model), plain) and torch.equal(ksample(led), moving)
    other = host.apply_camera(led, turning(name="tilt up"))
    assert not torch.equal(ksample(other), moving) and torch.equal(ksample(led), moving) and forgotten(led)
    again = host.apply_camera(other, turning())
    assert torch.equal(ksample(again), moving), "the camera applied last is the one that counts"


@comfy
def test_a_camera_that_was_grafted_and_not_applied_changes_nothing(tmp_path, model, animated):
    bare = host.apply_motion(model, load_motion_module(motion_file(tmp_path)))
    assert torch.equal(ksample(bare), ksample(animated))


@comfy
@pytest.mark.parametrize("mode", sparing(["one", "temporal", "views", "whole"], "one", "whole"))
def test_strength_0_changes_nothing(animated, mode):
    still = animated if mode == "one" else host.context_windows(animated, WindowPlan(length=6, overlap=2), mode)
    led = host.apply_camera(still, turning(10), 0.0)
    assert torch.equal(ksample(led, frames=10), ksample(still, frames=10))
    assert not torch.equal(ksample(host.apply_camera(still, turning(10)), frames=10), ksample(still, frames=10))


@comfy
def test_a_clone_keeps_the_camera(led):
    first = ksample(led)
    assert torch.equal(ksample(led.clone().clone()), first)


@comfy
def test_any_latent_size_works(led):
    assert torch.isfinite(ksample(led, size=9)).all()


@comfy
def test_the_module_applied_last_that_can_follow_follows(tmp_path, model, animated):
    bare = load_motion_module(motion_file(tmp_path, seed=9, name="other.safetensors"))
    both = host.apply_camera(host.apply_motion(animated, bare), turning())
    first, second = both.get_additional_models_with_key("longtake_motion")
    assert first.get_attachment("longtake_camera") is not None and second.get_attachment("longtake_camera") is None


@comfy
@pytest.mark.parametrize("kind", sparing(["error", "interrupt"], "interrupt"))
def test_after_an_error_or_a_cancel_nothing_is_left(model, animated, led, kind):
    from comfy.patcher_extension import WrappersMP

    plain, moving = ksample(model), ksample(led)
    exception = RuntimeError("on purpose") if kind == "error" else host.Interrupted()

    def fail(executor, *args, **kwargs):
        executor(*args, **kwargs)
        raise exception

    failing = led.clone()
    failing.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", fail)
    with pytest.raises(type(exception)):
        ksample(failing)
    assert forgotten(led) and torch.equal(ksample(model), plain) and torch.equal(ksample(led), moving)


@comfy
@pytest.mark.parametrize("frames", [5, 7])
def test_a_path_of_another_length_than_the_clip_is_refused_before_anything_runs(led, frames):
    from comfy.patcher_extension import WrappersMP

    calls = []
    led.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", lambda executor, *args, **kwargs: calls.append(1))
    said = f"the camera's path has 6 poses and the clip has {frames} frames: set frames of Camera Poses to {frames}"
    with pytest.raises(ValueError, match=said):
        ksample(led, frames=frames)
    assert not calls


@comfy
def test_a_model_that_cannot_follow_is_refused(tmp_path, model, animated):
    with pytest.raises(ValueError, match="the model has no motion module: put Graft Camera between"):
        LongTakeApplyCamera.execute(model=model, poses=turning())
    bare = host.apply_motion(model, load_motion_module(motion_file(tmp_path)))
    with pytest.raises(ValueError, match="the model has a motion module that follows no camera: put Graft Camera between"):
        LongTakeApplyCamera.execute(model=bare, poses=turning())
    with pytest.raises(ValueError, match="strength is 11: it must lie between 0 and 10; 1 is usual"):
        LongTakeApplyCamera.execute(model=animated, poses=turning(), strength=11.0)


@pytest.mark.skipif(host.name != "standalone", reason="on ComfyUI it works")
def test_without_comfyui_applying_a_camera_is_refused():
    with pytest.raises(ValueError, match="Apply Camera works on image models, which the standalone host cannot load"):
        LongTakeApplyCamera.execute(model=None, poses=turning())


@comfy
def test_features_are_computed_once_for_each_window_and_not_kept_without_end(monkeypatch, animated):
    from pack.host.comfyui.attach import camera

    lengths = []
    hints = CameraModel.hints

    def counted(self, path, *args, **kwargs):
        lengths.append(len(path))
        return hints(self, path, *args, **kwargs)

    monkeypatch.setattr(CameraModel, "hints", counted)
    whole = host.context_windows(animated, WindowPlan(length=6, overlap=2), "whole")
    led = host.apply_camera(whole, turning(10))
    few = ksample(led, frames=10)
    assert lengths == [6, 6], "two windows in three steps"
    monkeypatch.setattr(camera, "KEPT", 6)
    assert torch.equal(ksample(led, frames=10), few)
    assert lengths == [6] * (2 + 6)


# AnimateDiff-Evolved


@functools.cache
def stored():
    return load_file(GOLDEN)


@functools.cache
def parity():
    sys.path.append(str(ROOT / "benchmarks"))
    import parity_camera

    return parity_camera, parity_camera.Cameras(32)


def golden_names():
    from safetensors import safe_open

    with safe_open(GOLDEN, "pt") as file:
        return sorted({key.partition("/")[0] for key in file.keys()})  # noqa: SIM118  it is no dict


@comfy
@pytest.mark.parametrize("name", sparing(golden_names(), "four moves at once, wide", "views"))
def test_features_and_frames_are_animatediff_evolveds(name):
    cases, models = parity()
    (case,) = (case for case in cases.CASES if case.name == name and case.golden)
    features, frames = cases.ours(case.small(), models)
    assert cases.relative_difference(features[-1], stored()[f"{name}/features"]) < cases.LIMIT
    assert cases.relative_difference(frames, stored()[f"{name}/frames"]) < cases.LIMIT


@comfy
def test_the_graft_node_reads_both_files():
    models = parity()[1]
    motion = load_motion_module(models.modules / models.module("v3"))
    grafted = LongTakeGraftCamera.execute(motion_module=motion, camera=models.camera).result[0]
    assert grafted.camera is not None and grafted.camera.name == models.camera
