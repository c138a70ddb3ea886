"""What a training step sees: a function of seed, step and place alone, cut as asked."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from clip_files import caption, grey_frames, write_animation, write_exact_video, write_sequence
from numbered import SMALL, Numbers, dataset, seen, several
from pack.modules.data.captions import names_a_side, with_sides_swapped
from pack.modules.data.clips import ClipDataset
from pack.modules.data.find import Search, find_clips
from pack.modules.data.lengths import Pace
from pack.modules.data.motion_strength import _seen, flow, motion_strength
from pack.modules.data.procedural import PATHS, MovingShape, moving_shapes
from pack.modules.data.report import LISTED, LeftOut, Report
from pack.modules.data.settings import ClipSettings
from pack.modules.data.shapes import COLOURS, SHAPES
from pack.modules.data.sheet import clip_sheet, sample_clips
from pack.modules.data.sizes import SIZES, Box, Size, buckets, crop, resized
from pack.modules.data.source import ClipSource, Found, from_images

# What a step sees


def test_a_step_sees_the_same_whatever_was_asked_before(tmp_path):
    write_exact_video(tmp_path / "a.mkv", grey_frames(40))
    write_animation(tmp_path / "b.gif", grey_frames(30, seed=1))
    write_sequence(tmp_path / "c", grey_frames(25, seed=2))
    settings = replace(SMALL, crop="random", flip="always allowed", width=24)
    unbroken = [ClipDataset(find_clips(tmp_path), settings).batch(step, 3) for step in range(6)]
    resumed = ClipDataset(find_clips(tmp_path), settings)
    for step in (4, 1, 5):
        again = resumed.batch(step, 3)
        assert seen(again) == seen(unbroken[step])
        assert torch.equal(again.pixels, unbroken[step].pixels)
    other = ClipDataset(find_clips(tmp_path), replace(settings, seed=1))
    assert seen(other.batch(0, 3)) != seen(unbroken[0])


def test_a_large_batch_of_few_clips():
    batch = several(count=1).batch(0, 5)
    assert batch.pixels.shape == (5, 4, 3, 24, 32)
    assert len({clip.take.indices for clip in batch.clips}) > 1, "the same source, cut differently"
    assert batch.captions == ["clip 0"] * 5


@pytest.mark.parametrize(("step", "batch"), [(-1, 2), (0, 0)])
def test_steps_that_cannot_be(step, batch):
    with pytest.raises(ValueError, match="steps count from 0, and a batch is one clip at least"):
        several().takes(step, batch)


def test_variants_are_a_finite_set():
    data = several(count=2, variants=3, crop="random", flip="always allowed", width=24)
    possible = {data.take(source, variant) for source in range(2) for variant in range(3)}
    drawn = {take for step in range(60) for take in data.takes(step, 2)}
    assert drawn == possible
    assert len(drawn) == 6
    free = several(count=2, crop="random", flip="always allowed", width=24)
    assert len({take for step in range(60) for take in free.takes(step, 2)}) > 60


def test_the_seed_chooses_the_variants():
    one, other = ([several(count=1, variants=3, seed=seed)._variant(step, 0) for step in range(30)] for seed in (0, 1))
    assert one != other


def test_variants_begin_in_places_of_their_own():
    """20 frames hold 7 at 14 places, which five variants divide between them."""
    data = several(count=3, length=20, variants=5)
    for source in range(3):
        for variant, (low, high) in enumerate([(0, 2), (2, 5), (5, 8), (8, 11), (11, 14)]):
            assert low <= data.take(source, variant).indices[0] < high
    crowded = several(count=1, length=8, variants=5)
    assert [crowded.take(0, variant).indices[0] for variant in range(5)] == [0, 0, 0, 1, 1], "two places for five"


def test_a_clip_of_a_source():
    data = several()
    for step in range(3):
        for place, take in enumerate(data.takes(step, 2)):
            assert data.clip(take.source, step, place).take == take


# Which frames


def test_frames_are_a_stride_apart_and_begin_anywhere():
    data = dataset(footage := Numbers(11))
    starts = Counter()
    for step in range(200):
        (take,) = data.takes(step, 1)
        assert np.diff(take.indices).tolist() == [2, 2, 2]
        starts[take.indices[0]] += 1
    assert set(starts) == {0, 1, 2, 3, 4}, "11 frames hold 7 at five places"
    assert min(starts.values()) > 20
    clip = data.clip(0)
    assert torch.equal(clip.pixels[:, 0, 0, 0], torch.tensor(clip.take.indices) / 1000 * 2 - 1)
    assert footage.given == list(clip.take.indices), "and no other frame is read"
    assert clip.fps == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("fps", "wanted", "indices"),
    [(24, 8, [0, 3, 6, 9]), (30, 8, [0, 4, 7, 11]), (24, 24, [0, 1, 2, 3]), (23.976, 24, [0, 1, 2, 3])],
)
def test_a_frame_rate_instead_of_a_stride(fps, wanted, indices):
    data = dataset(Numbers(indices[-1] + 1, fps=fps), clip_fps=wanted)
    assert data.take(0).indices == tuple(indices)
    assert data.take(0).fps == pytest.approx(wanted, rel=0.01)


def test_clips_slower_than_asked_are_left_out():
    data = dataset(Numbers(30, "slow", fps=12), Numbers(30, "fine", fps=24), clip_fps=24)
    assert [source.name for source in data.sources] == ["fine"]
    assert "slow: it has 12 frames per second, and 24 are asked for" in data.report.text()
    assert len(dataset(Numbers(30, "slow", fps=12), clip_fps=24, frames=1)) == 1, "a single picture has no rate"


def animatediff(count, frames, stride, start):
    """Indices as AnimateDiff's training takes them, from the numbers of its published code's formula."""
    length = min(count, (frames - 1) * stride + 1)
    return tuple(np.linspace(start, start + length - 1, frames, dtype=int).tolist())


@pytest.mark.parametrize("count", [1, 2, 5, 16, 20, 60, 61])
def test_squeezing_is_animatediff_s(count):
    data = dataset(Numbers(count), frames=16, stride=4, short="squeeze")
    assert data.take(0).indices == animatediff(count, 16, 4, 0)


def test_long_clips_are_animatediff_s_too():
    data = dataset(Numbers(200), frames=16, stride=4, short="squeeze")
    for step in range(20):
        (take,) = data.takes(step, 1)
        assert take.indices == animatediff(200, 16, 4, take.indices[0])


@pytest.mark.parametrize(
    ("count", "stride", "indices"),
    [(5, 1, [0, 1, 2, 3, 4, 3, 2, 1]), (1, 1, [0] * 8), (2, 1, [0, 1] * 4), (5, 3, [0, 3, 2, 1, 4, 1, 2, 3])],
)
def test_back_and_forth(count, stride, indices):
    data = dataset(Numbers(count), frames=8, stride=stride, short="back and forth")
    clip = data.clip(0)
    assert clip.take.indices == tuple(indices)
    assert torch.equal(clip.pixels[:, 1, 2, 3], torch.tensor(indices) / 1000 * 2 - 1)


def test_short_clips():
    footage = Numbers(6, "short"), Numbers(7, "long")
    with pytest.raises(ValueError, match=r"1 clip of 2 is too short \(short: it has 6 frames, and 7 are needed\): ask for fewer"):
        dataset(*footage, short="refuse")
    data = dataset(*footage, short="leave out")
    assert [source.name for source in data.sources] == ["long"]
    assert "  short: it has 6 frames, and 7 are needed" in data.report.text()
    with pytest.raises(ValueError, match=r"no clip is left to train on \(short: it has 6 frames"):
        dataset(footage[0], short="leave out")
    assert len(dataset(*footage, short="squeeze")) == 2


def test_a_stretch_is_all_that_is_seen():
    source = ClipSource.of(footage := Numbers(100), "part", "x", start=1, end=2)
    data = ClipDataset(Found([source]), SMALL)
    for step in range(30):
        data.batch(step, 1)
    assert min(footage.given) >= 24
    assert max(footage.given) < 48


def test_needed_frames():
    for frames, stride in itertools.product((1, 2, 16), (1, 4)):
        assert Pace(frames, stride).needed() == (frames - 1) * stride + 1


# Memory


def test_one_frame_in_its_own_size_at_a_time():
    footage = Numbers(100, size=(240, 320))
    data = dataset(footage, frames=20, stride=3)
    assert data.clip(0).pixels.shape == (20, 3, 24, 32)
    assert len(footage.given) == 20
    assert footage.most <= 2, "the one that is being made smaller, and the next"


# Sizes


@pytest.mark.parametrize("target", [Size(512, 512), Size(256, 256), Size(512, 320), Size(384, 640)])
@pytest.mark.parametrize("multiple", [8, 64])
def test_buckets(target, multiple):
    found = buckets(target, multiple)
    assert target in found
    for size in found:
        assert size.width * size.height <= target.width * target.height
        assert size == target or (size.width % multiple == size.height % multiple == 0)
        assert size == target or 0.5 <= size.width / size.height <= 2
    ratios = [size.width / size.height for size in found]
    assert ratios == sorted(set(ratios))


def test_a_clip_goes_to_the_nearest_shape():
    whole = [Size(w, h) for w in range(100, 1000, 23) for h in (90, 360, 400, 1000)]
    for size, chosen in zip(whole, SIZES["buckets"](whole, Size(512, 512), 64), strict=True):
        distances = {
            bucket: abs(math.log(size.width / size.height / (bucket.width / bucket.height)))
            for bucket in buckets(Size(512, 512), 64)
        }
        assert distances[chosen] == pytest.approx(min(distances.values()))


def test_mixed_sizes():
    footage = Numbers(9, "a"), Numbers(9, "b", size=(32, 24)), Numbers(9, "c", size=(48, 64))
    with pytest.raises(
        ValueError, match=r"the clips have 3 sizes \(32x24, 24x32, 64x48\): make them one, or choose buckets or crop"
    ):
        dataset(*footage, sizes="refuse")
    assert dataset(*footage, sizes="crop").sizes == [(32, 24)] * 3
    data = dataset(*footage)
    assert data.sizes == [(32, 24), (24, 32), (32, 24)]
    assert "Sizes: 1 at 24x32, 2 at 32x24." in data.report.notes
    assert dataset(footage[0], sizes="refuse").sizes == [(32, 24)]


def test_small_clips_are_said_to_be_enlarged():
    data = dataset(Numbers(9, "a"), Numbers(9, "b", size=(480, 640)), width=64, height=48, multiple=16)
    assert "1 clip smaller than that: enlarged." in data.report.notes


def test_pixels_are_untouched_where_nothing_is_to_be_resized():
    images = torch.rand(7, 24, 48, 3)
    data = ClipDataset(from_images(images, "", 8.0), replace(SMALL, sizes="crop"))
    clip = data.clip(0)
    assert torch.equal(clip.pixels, images[::2, :, 8:40].movedim(-1, 1) * 2 - 1)


def test_a_resized_clip_covers_the_frame():
    gradient = torch.linspace(0, 1, 64)[None, None, :, None].expand(7, 48, 64, 3)
    clip = ClipDataset(from_images(gradient, "", 8.0), replace(SMALL, sizes="crop")).clip(0)
    expected = (torch.arange(32) + 0.5) / 32 * 2 - 1
    torch.testing.assert_close(clip.pixels[0, 0, 5, 2:-2], expected[2:-2], atol=0.02, rtol=0)


@pytest.mark.parametrize("whole", [Size(640, 360), Size(360, 640), Size(500, 500), Size(33, 1000), Size(8, 8)])
@pytest.mark.parametrize("target", [Size(512, 512), Size(384, 640), Size(640, 384)])
def test_a_crop_is_the_largest_of_its_shape(whole, target):
    for x, y in itertools.product((0.0, 0.37, 1.0), repeat=2):
        box = crop(whole, target, x, y)
        assert 0 <= box.left <= whole.width - box.width
        assert 0 <= box.top <= whole.height - box.height
        assert box.width == whole.width or box.height == whole.height
        assert abs(box.width - box.height * target.width / target.height) <= 1 + target.width / target.height


def test_a_random_crop_lies_anywhere():
    data = dataset(Numbers(30, size=(24, 64)), sizes="crop", crop="random")
    lefts = {data.takes(step, 1)[0].box.left for step in range(200)}
    assert lefts <= set(range(33))
    assert len(lefts) > 25
    assert {take.box.left for step in range(9) for take in dataset(Numbers(30, size=(24, 64)), sizes="crop").takes(step, 1)} == {
        16
    }


def test_resizing_does_not_alias():
    """A chequered board of single pixels becomes grey, not stripes."""
    board = ((torch.arange(96)[:, None] + torch.arange(96)) % 2).float()[..., None].expand(-1, -1, 3)
    small = resized(board, Box(0, 0, 96, 96), Size(32, 32))
    assert (small - 0.5).abs().max() < 0.1


# Flips


def test_every_second_clip_is_mirrored():
    images = torch.rand(30, 24, 32, 3)
    data = ClipDataset(from_images(images, "", 8.0), replace(SMALL, flip="always allowed"))
    clips = [data.clip(0, step) for step in range(200)]
    assert 70 < sum(clip.flipped for clip in clips) < 130
    for clip in clips:
        written = images[list(clip.take.indices)].movedim(-1, 1) * 2 - 1
        assert torch.equal(clip.pixels, written.flip(-1) if clip.flipped else written)
    assert not any(several().take(0, variant).flipped for variant in range(50)), "never, unless asked"


@pytest.mark.parametrize(
    ("text", "sided", "swapped"),
    [
        ("a dog runs", False, "a dog runs"),
        ("a dog runs to the left", True, "a dog runs to the right"),
        ("Leftwards, then RIGHT", True, "Rightwards, then Left"),
        ("turning clockwise", True, "turning counterclockwise"),
        ("turning anti-clockwise", True, "turning clockwise"),
        ("counterclockwise", True, "clockwise"),
        ("a bright copyright aleft", False, "a bright copyright aleft"),
        ("left-handed, rightmost", True, "right-handed, leftmost"),
        ("leftovers and human rights", False, "leftovers and human rights"),
    ],
)
def test_sides_in_captions(text, sided, swapped):
    assert names_a_side(text) is sided
    assert with_sides_swapped(text) == swapped


@pytest.mark.parametrize(
    ("flip", "flipped", "heard"),
    [
        ("never", {0: 0, 1: 0, 2: 0}, {"to the left", "still", "a sign"}),
        ("unless a side is named", {0: 0, 1: 1, 2: 0}, {"to the left", "still", "a sign"}),
        ("swap left and right in captions", {0: 1, 1: 1, 2: 0}, {"to the left", "to the right", "still", "a sign"}),
        ("always allowed", {0: 1, 1: 1, 2: 1}, {"to the left", "still", "a sign"}),
    ],
)
def test_flips_and_captions(flip, flipped, heard):
    data = dataset(*(Numbers(9, f"n{n}") for n in range(3)), captions=["to the left", "still", "a sign"], flip=flip)
    takes = {number: [data.take(number, variant) for variant in range(30)] for number in range(3)}
    assert {number: int(any(take.flipped for take in some)) for number, some in takes.items()} == flipped
    assert {take.caption for some in takes.values() for take in some} == heard
    if flip.startswith("swap"):
        assert all(take.flipped == (take.caption == "to the right") for take in takes[0])


# Captions


def test_captions_of_all():
    footage = Numbers(9, "a"), Numbers(9, "b")
    both = {"captions": ["a cat", None]}
    with pytest.raises(ValueError, match=r"1 clip of 2 has no caption \(b\): write a text file of the clip's name beside it"):
        dataset(*footage, **both, missing_captions="refuse")
    with pytest.raises(ValueError, match=r"2 clips of 2 have no caption \(a and others\)"):
        dataset(*footage, captions=[None, None], missing_captions="refuse")
    assert dataset(*footage, **both).captions == ["a cat", ""]
    assert dataset(*footage, **both, missing_captions="refuse", caption="an animal").captions == ["a cat", "an animal"]
    assert dataset(*footage, **both, caption_before="zoom,").captions == ["zoom, a cat", "zoom,"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"frames": 0}, "frames is 0: it must lie between 1 and 4096; 16 is usual"),
        ({"stride": 0}, "stride is 0: it must lie between 1 and 1024"),
        ({"clip_fps": -1}, "clip_fps is -1: it must lie between 0 and 1000"),
        ({"width": 4}, "width is 4: it must lie between 8 and 8192"),
        ({"height": 100}, "height is 100: it must be a multiple of 8"),
        ({"variants": -1}, "variants is -1"),
        ({"sizes": "any"}, "sizes is 'any': choose one of buckets, crop, refuse"),
        ({"crop": "left"}, "crop is 'left': choose one of centre, random"),
        ({"flip": "yes"}, "flip is 'yes': choose one of never"),
        ({"short": "loop"}, "short is 'loop': choose one of refuse, leave out, squeeze, back and forth"),
        ({"missing_captions": "guess"}, "missing_captions is 'guess': choose one of refuse, train without"),
    ],
)
def test_settings_that_cannot_be(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        ClipSettings(**wrong)


@pytest.mark.parametrize("fps", [0, -1, 1001])
def test_a_search_that_cannot_be(fps):
    with pytest.raises(ValueError, match="picture_fps is .*: it must be above 0 and at most 1000"):
        Search(picture_fps=fps)


# Keys


def files(folder, change=0):
    content = grey_frames(9)
    content[4, 3, 3] ^= change
    write_sequence(folder, content)
    caption(folder, "a cat")
    return find_clips(folder)


def test_keys_are_of_pixels(tmp_path):
    one, elsewhere = (ClipDataset(files(tmp_path / name), SMALL) for name in ("a", "b"))
    take = one.take(0)
    assert one.key(take) == elsewhere.key(take)
    assert ClipDataset(files(tmp_path / "c", change=1), SMALL).key(take) != one.key(take)
    others = [
        replace(take, indices=(0, 1, 2, 3)),
        replace(take, box=Box(0, 0, 31, 24)),
        replace(take, size=Size(24, 24)),
        replace(take, flipped=True),
    ]
    assert len({one.key(other) for other in [take, *others]}) == 5
    assert one.key(replace(take, caption="another", fps=1.0)) == one.key(take)


def test_the_fingerprint_of_a_data_set(tmp_path):
    found = files(tmp_path / "a")
    prints = {
        ClipDataset(found, SMALL).fingerprint(),
        ClipDataset(files(tmp_path / "b"), SMALL).fingerprint(),
    }
    assert len(prints) == 1, "the same, wherever it lies"
    (tmp_path / "a.txt").write_text("a dog", encoding="utf-8")
    prints |= {
        ClipDataset(find_clips(tmp_path / "a"), SMALL).fingerprint(),
        ClipDataset(files(tmp_path / "c", change=1), SMALL).fingerprint(),
        ClipDataset(found, SMALL).cut_anew(seed=1).fingerprint(),
        ClipDataset(found, SMALL).cut_anew(caption_before="x").fingerprint(),
        ClipDataset(found, SMALL).with_more(from_images(torch.rand(9, 8, 8, 3), "", 8.0)).fingerprint(),
    }
    assert len(prints) == 6


# Frames of a graph, which ComfyUI makes in inference mode


def test_clips_can_be_trained_on_in_any_mode():
    with torch.inference_mode():
        data = ClipDataset(from_images(torch.rand(9, 24, 32, 3), "", 8.0), SMALL)
        weights = torch.nn.Conv2d(3, 1, 1)
    with torch.inference_mode(False), torch.enable_grad():
        weights = torch.nn.Conv2d(3, 1, 1)
        for pixels in (data.clip(0).pixels, data.batch(0, 1).pixels[0]):
            assert not pixels.is_inference()
            weights(pixels).sum().backward()


# How much moves


def texture(height, width, seed=0):
    g = torch.Generator().manual_seed(seed)
    layers = [
        torch.nn.functional.interpolate(torch.rand(1, 1, n, n, generator=g), (height, width), mode="bicubic") / n**0.7
        for n in (4, 8, 16, 32, 64, 128)
    ]
    whole = sum(layers)
    return (whole - whole.min()) / (whole.max() - whole.min()) * 2 - 1


def filmed(scene, frames, height, width, dx=0.0, dy=0.0, zoom=1.0):
    """A camera over a still scene: what it shows moves by ``(dx, dy)`` pixels per frame and grows by ``zoom``."""
    shown = []
    y = torch.arange(height)[:, None] - (height - 1) / 2
    x = torch.arange(width) - (width - 1) / 2
    for frame in range(frames):
        time = frame - (frames - 1) / 2
        gx = (x / zoom**time - dx * time).expand(height, width) * 2 / (scene.shape[-1] - 1)
        gy = (y / zoom**time - dy * time).expand(height, width) * 2 / (scene.shape[-2] - 1)
        grid = torch.stack([gx, gy], -1)[None]
        shown.append(torch.nn.functional.grid_sample(scene, grid, mode="bicubic", align_corners=True)[0])
    return torch.stack(shown).clamp(-1, 1).expand(-1, 3, -1, -1)


@pytest.mark.parametrize("angle", [0.7, 2.0, 3.5])
@pytest.mark.parametrize("speed", [0.25, 0.5, 1, 2.5, 6, 12])
def test_a_pan_is_measured(speed, angle):
    clip = filmed(texture(300, 400), 4, 96, 128, dx=speed * math.cos(angle), dy=speed * math.sin(angle))
    assert motion_strength(clip) == pytest.approx(speed, rel=0.12 if speed < 0.5 else 0.08)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("place", "away"), [(0, -1.0), (-1, 1.0)])
def test_what_leaves_the_picture_is_not_counted(axis, place, away):
    shift = torch.zeros(1, 2, 6, 6)
    shift[0, axis].select(1 - axis, place)[2] = 50 * away
    assert _seen(shift) == 0
    shift[0, axis].select(1 - axis, place)[2] = -2 * away
    assert _seen(shift) == pytest.approx(2 / 36)


@pytest.mark.parametrize("zoom", [1.02, 0.96])
def test_a_zoom_is_measured(zoom):
    """From one frame to the next a point at distance r goes ``r (zoom - 1)``."""
    clip = filmed(texture(300, 400), 4, 96, 128, zoom=zoom)
    y, x = torch.meshgrid(torch.arange(96) - 47.5, torch.arange(128) - 63.5, indexing="ij")
    assert motion_strength(clip) == pytest.approx(float((x**2 + y**2).sqrt().mean()) * abs(zoom - 1), rel=0.15)


def test_flow_has_the_direction():
    clip = filmed(texture(300, 400), 2, 96, 128, dx=3, dy=-2)[:, :1] / 2 + 0.5
    found = flow(clip[:1], clip[1:])[0, :, 10:-10, 10:-10].mean(dim=(1, 2))
    torch.testing.assert_close(found, torch.tensor([3.0, -2.0]), rtol=0.05, atol=0)


def test_pixels_are_those_of_the_clip():
    """The same scene filmed in twice the resolution moves twice as many pixels."""
    scene = texture(600, 800)
    large = filmed(scene, 3, 192, 256, dx=8, dy=2)
    assert motion_strength(large) == pytest.approx(math.hypot(8, 2), rel=0.1)


def test_what_does_not_move():
    still = texture(96, 128).expand(5, 3, -1, -1)
    assert motion_strength(still) == 0
    assert motion_strength(still[:1]) == 0
    assert motion_strength(torch.zeros(3, 3, 40, 40)) == 0
    fade = torch.stack([still[0] * 0.5 + 0.02 * number for number in range(5)])
    assert motion_strength(fade) < 0.02, "a fade is no motion"


def test_a_small_thing_that_moves():
    """A square of 24 pixels goes 3 pixels per frame over a flat or textured ground that does not: a sixteenth of the picture moves."""
    for ground in (torch.zeros(1, 96, 96), texture(96, 96)[0]):
        frames = []
        for number in range(5):
            frame = ground.clone()
            frame[:, 30:54, 10 + 3 * number : 34 + 3 * number] = texture(24, 24, 5)[0]
            frames.append(frame.expand(3, -1, -1))
        assert motion_strength(torch.stack(frames)) == pytest.approx(3 / 16, rel=0.5)


@pytest.mark.parametrize("size", [(8, 8), (16, 200), (25, 31)])
def test_small_and_narrow_clips_are_measured(size):
    assert math.isfinite(motion_strength(torch.rand(3, 3, *size)))


def test_motion_grows_with_the_stride():
    settings = replace(SMALL, frames=6, width=64, height=64, variants=1)
    found = [ClipDataset(moving_shapes(4, 41, 64), replace(settings, stride=stride)) for stride in (1, 4)]
    slow, fast = (sum(data.measure_motion()) / 4 for data in found)
    assert slow * 1.7 < fast


def test_motion_is_measured_once_and_damage_is_said():
    data = dataset(Numbers(9, "a"), Numbers(9, "b", broken=range(9)))
    told = []
    first = data.measure_motion(lambda done, total: told.append((done, total)))
    assert first[0] < 0.05
    assert math.isnan(first[1])
    assert told == [(1, 2), (2, 2)]
    assert data.measure_motion(told.append) is first
    assert list(data.report.passed_over) == ["b"]
    assert data.clip(0).motion == pytest.approx(first[0])


# Shapes


def test_shapes_are_what_their_captions_say():
    found = moving_shapes(12, 5, 64)
    for source in found.sources:
        colour, shape, path = source.caption.removeprefix("a ").replace(",", "").split()
        assert colour in COLOURS and shape in SHAPES and path in PATHS
        frames = source.frames(range(5))
        paint = torch.tensor(COLOURS[colour]) / 2 + 0.5
        covered = ((frames - paint).abs().amax(-1) < 0.02).float().mean()
        assert 0.01 < covered < 0.2
        corner = frames[:, 0, 0]
        assert (corner.amax(-1) - corner.amin(-1)).max() < 1e-6, "the ground is grey"
    assert {path for source in moving_shapes(60, 1, 16).sources for path in PATHS if path in source.caption} == set(PATHS)


def test_shapes_move_as_fast_as_they_say():
    """Centres of mass, which are the centre of disks, squares and rings, go at constant speed until a wall is met."""
    speeds = []
    for source in moving_shapes(40, 3, 128).sources:
        shape = source.footage
        if shape.path == "growing" or shape.shape == "triangle":
            continue
        frames = source.frames(range(3))
        weight = (frames.amax(-1) - frames.amin(-1)).double()
        grid = torch.arange(128, dtype=torch.float64)
        total = weight.sum((1, 2))
        centre = torch.stack([(weight * grid).sum((1, 2)) / total, (weight * grid[:, None]).sum((1, 2)) / total], -1)
        told = torch.stack([PATHS[shape.path](shape.draw, torch.tensor([float(t)]))[0][0] for t in range(3)]) * 128 - 0.5
        torch.testing.assert_close(centre.float(), told, atol=0.05, rtol=0)
        speeds.append(float((told[1] - told[0]).norm()) / 128)
    assert len(speeds) > 10
    assert all(0.015 < speed < 0.0501 for speed in speeds)


def test_a_shape_depends_on_seed_and_number_only():
    few, many = moving_shapes(2, 4, 32, seed=7), moving_shapes(9, 30, 32, seed=7)
    assert torch.equal(few.sources[1].frames([3]), many.sources[1].frames([3]))
    assert few.sources[1].caption == many.sources[1].caption
    assert not torch.equal(few.sources[0].frames([0]), moving_shapes(2, 4, 32, seed=8).sources[0].frames([0]))
    assert len({source.key for source in [*few.sources, *many.sources]}) == 11, "another length is another clip"
    large, small = (MovingShape(3, 2, side, 0) for side in (96, 32))
    shrunk = torch.nn.functional.avg_pool2d(next(large.pictures([1])).movedim(-1, 0), 3).movedim(0, -1)
    assert (shrunk - next(small.pictures([1]))).abs().mean() < 0.02, "the same picture in any size"


@pytest.mark.parametrize(("clips", "count", "side"), [(0, 4, 32), (1, 0, 32), (1, 4, 8)])
def test_shapes_that_cannot_be(clips, count, side):
    with pytest.raises(ValueError, match="cannot be: at least one, of one frame, 16 pixels wide"):
        moving_shapes(clips, count, side)


# What the user sees


def test_the_report():
    report = Report(found=40, used=3, notes=["A note."])
    for number in range(LISTED + 5):
        assert report.broken(f"{number}.mp4", "it is broken")
    assert not report.broken("3.mp4", "it is broken in another way")
    report.unusable.append(LeftOut("short.gif", "it has 3 frames, and 7 are needed"))
    lines = report.text().splitlines()
    assert lines[:3] == ["40 clips found, 3 used.", "Cannot be read (25):", "  0.mp4: it is broken"]
    assert lines[-4:] == ["  and 5 more", "Left out (1):", "  short.gif: it has 3 frames, and 7 are needed", "A note."]
    assert len(lines) == 2 + LISTED + 4


def test_data_sets_of_the_same_search_do_not_share_a_report():
    found = Found([ClipSource.of(Numbers(9), "a", "x")], Report(found=1))
    one, other = ClipDataset(found, SMALL), ClipDataset(found, SMALL)
    one.report.broken("a", "gone")
    assert not other.report.unreadable
    assert not found.report.notes
    assert other.report.text().splitlines()[0] == "1 clip found, 1 used."


def test_more_clips_are_cut_like_the_others():
    data = several(count=2, flip="always allowed")
    more = data.with_more(from_images(torch.rand(9, 24, 32, 3), "a cat", 8.0))
    assert more.settings == data.settings
    assert [source.name for source in more.sources] == ["n0", "n1", "images"]
    assert more.report.text().splitlines()[0] == "3 clips found, 3 used."
    assert len(data) == 2


def test_the_sheet():
    data = dataset(
        Numbers(30, "a"), Numbers(30, "b", size=(32, 24)), Numbers(30, "c", broken=range(30)), captions=["größer 猫", None, "c"]
    )
    clips = sample_clips(data, 5)
    assert len(clips) == 2, "the damaged one is left out"
    sheet = clip_sheet(clips, pictures=3)
    assert sheet.shape[0] == 1 and sheet.shape[-1] == 3
    assert 0 <= sheet.min() < sheet.max() <= 1
    assert clip_sheet([]).shape[-1] == 3
