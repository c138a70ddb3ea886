"""Measures against closed forms: spectra of known motion, flow of known shifts, distances of known distributions."""

import importlib.util
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from pack.modules.data.flow import backward_flow, luminance, warped
from pack.modules.draw.clip_report import video_report
from pack.modules.measure.features import Features, random3d, samples_of, torchscript
from pack.modules.measure.metrics import difference, drift, even_buckets, frechet_distance, gaussian, inception_score, look
from pack.modules.measure.spectrum import Spectrum, check_clip, motion_compensated, motion_spectrum, second_difference_ratio

FRAMES = 16


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def static(seed=0):
    return drawn(1, 32, 32, 1, seed=seed).expand(FRAMES, -1, -1, -1)


def pan(speed=1.0, period=16):
    x = torch.arange(32.0)[None, :] + speed * torch.arange(FRAMES)[:, None]
    return (0.5 + 0.5 * torch.sin(2 * math.pi * x / period))[:, None, :, None].expand(-1, 32, -1, -1)


def alternating(amount=0.1):
    return static() * (1 + amount * (-1) ** torch.arange(FRAMES))[:, None, None, None]


def jitter(deviation=0.05):
    return static() + deviation * normal(FRAMES, 32, 32, 1).float()


# Spectrum


def test_what_stands_still_has_no_spectrum():
    spectrum = motion_spectrum(static())
    assert spectrum.total == pytest.approx(0, abs=1e-6)
    assert spectrum.high_share == 0
    assert spectrum.brightness == pytest.approx(static().mean().item(), abs=1e-6)
    assert second_difference_ratio(static()) == 0


def test_a_pan_over_a_sine_is_one_low_frequency():
    spectrum = motion_spectrum(pan())
    assert spectrum.amplitudes[0] == pytest.approx(0.5, abs=1e-5)
    assert spectrum.total == pytest.approx(0.5, abs=1e-5)
    assert spectrum.high_share == pytest.approx(0, abs=1e-5)
    assert motion_spectrum(pan(speed=3)).amplitudes[2] == pytest.approx(0.5, abs=1e-5)


def test_alternation_is_all_flicker():
    spectrum = motion_spectrum(alternating())
    assert spectrum.high_share == pytest.approx(1, abs=1e-5)
    assert spectrum.nyquist == pytest.approx(0.2 * static().mean().item(), abs=1e-5)
    assert second_difference_ratio(alternating()) == math.inf


def test_noise_is_everywhere():
    assert motion_spectrum(jitter()).high_share == pytest.approx(0.37, abs=0.01)


def test_the_spectrum_is_that_of_a_plain_sum():
    video = drawn(9, 3, 4, 2, dtype=torch.float64)
    spectrum = motion_spectrum(video)
    assert spectrum.nyquist is None
    for k, amplitude in enumerate(spectrum.amplitudes, 1):
        turn = torch.polar(torch.ones(9).double(), -2 * math.pi * k * torch.arange(9).double() / 9)[:, None, None, None]
        assert amplitude == pytest.approx((2 / 9 * (video * turn).sum(0).abs()).mean().item(), rel=1e-5)


def test_parts_of_the_picture_add_up(monkeypatch):
    whole = motion_spectrum(jitter())
    monkeypatch.setattr("pack.modules.measure.spectrum.PIXELS", 100)
    assert motion_spectrum(jitter()).amplitudes == pytest.approx(whole.amplitudes)


def test_fading_in_and_out_keeps_a_motion_that_does_not_return_low():
    slow = pan(speed=0.7)
    plain, faded = motion_spectrum(slow), motion_spectrum(slow, hann=True)
    assert faded.high_share < 0.02 < plain.high_share
    assert motion_spectrum(static(), hann=True).total < 1e-5, "what does not move is not faded"
    assert motion_spectrum(alternating(), hann=True).nyquist == pytest.approx(motion_spectrum(alternating()).nyquist, rel=1e-4)


def test_even_motion_bends_little_and_jitter_much():
    ramp = torch.linspace(0, 1, FRAMES)[:, None, None, None].expand(-1, 4, 4, 1)
    assert second_difference_ratio(ramp) == pytest.approx(0, abs=1e-5)
    assert second_difference_ratio(jitter()) == pytest.approx(math.sqrt(6) / math.sqrt(2), abs=0.05)


@pytest.mark.parametrize(
    ("video", "sentence"),
    [
        (torch.rand(1, 4, 4, 3), "the clip has 1 frame: this measure needs at least"),
        (torch.full((4, 4, 4, 3), math.nan), "pixels that are no numbers"),
    ],
)
def test_what_cannot_be_measured(video, sentence):
    for measure in (motion_spectrum, second_difference_ratio, motion_compensated):
        with pytest.raises(ValueError, match=sentence):
            measure(video)


@pytest.mark.parametrize("shape", [(4, 4, 3), (0, 4, 4, 3), (2, 4, 4, 4, 3)])
def test_what_is_no_clip(shape):
    with pytest.raises(ValueError, match="it must be frames, height, width, channels; connect IMAGE"):
        check_clip(torch.zeros(shape))


# Flow


TEXTURE = F.interpolate(drawn(1, 3, 24, 24), size=(128, 128), mode="bicubic", align_corners=False).clamp(0, 1)


def seen_from(x, y, side=48):
    """A camera's view of a texture at a place, bilinear."""
    places = torch.arange(side) + 40.0
    grid = torch.stack(torch.meshgrid(places + x, places + y, indexing="xy"), dim=-1)
    return F.grid_sample(TEXTURE, (2 * grid[None] + 1) / 128 - 1, align_corners=False)[0].movedim(0, -1)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 0), (2, -3), (-7, 7)])
def test_whole_shifts_are_found_exactly(x, y):
    before, after = seen_from(0, 0)[None], seen_from(x, y)[None]
    flow = backward_flow(luminance(before), luminance(after))
    inner = flow[0, 12:-12, 12:-12]
    torch.testing.assert_close(inner, torch.tensor([float(x), float(y)]).expand_as(inner), atol=1e-4, rtol=0)
    moved, inside = warped(before, flow)
    error = (moved - after).abs().amax(-1) * inside
    assert error[0, 12:-12, 12:-12].max() < 1e-4


def test_fractions_are_found_on_average():
    before, after = seen_from(0, 0)[None], seen_from(1.3, -0.4)[None]
    flow = backward_flow(luminance(before), luminance(after))[0, 12:-12, 12:-12]
    assert flow.flatten(0, 1).median(0).values.tolist() == pytest.approx([1.3, -0.4], abs=0.05)


def test_large_pictures_are_matched_small_and_told_in_their_own_pixels():
    large = F.interpolate(seen_from(0, 0).movedim(-1, 0)[None], scale_factor=6, mode="bilinear")
    moved = F.interpolate(seen_from(2, 1).movedim(-1, 0)[None], scale_factor=6, mode="bilinear")
    flow = backward_flow(large.mean(1), moved.mean(1))
    assert flow.shape == (1, 288, 288, 2)
    assert flow[0, 80:-80, 80:-80].mean((0, 1)).tolist() == pytest.approx([12, 6], abs=0.5)


def test_warping_knows_what_lies_outside():
    before = drawn(1, 8, 8, 3)
    moved, inside = warped(before, torch.tensor([2.0, 0.0]).expand(1, 8, 8, 2))
    assert torch.equal(moved[:, :, :6].round(decimals=5), before[:, :, 2:].round(decimals=5))
    assert inside[0, 0].tolist() == [True] * 6 + [False] * 2


def test_motion_taken_away_leaves_flicker():
    """A moving camera over a still world changes every pixel and leaves nothing; brightness that alternates stays."""
    travel = torch.stack([seen_from(frame, 0) for frame in range(6)])
    lamp = travel * (1 + 0.1 * (-1) ** torch.arange(6))[:, None, None, None]
    still, flicker = motion_compensated(travel), motion_compensated(lamp)
    assert still.speed == pytest.approx(1, abs=0.1)
    assert still.error < 0.003 < 0.05 < flicker.error
    assert (travel[1:] - travel[:-1]).abs().mean() > 0.03
    assert motion_compensated(static()).error == 0


# Frechet distance


def spread(d, seed):
    root = normal(d, d, seed=seed)
    return root @ root.T / d + 0.1 * torch.eye(d, dtype=torch.float64)


def test_equal_sets_are_at_distance_zero():
    rows = normal(400, 12)
    assert frechet_distance(gaussian(rows), gaussian(rows)) < 1e-8


def test_diagonal_gaussians_have_a_closed_form():
    m1, m2 = normal(6, seed=1), normal(6, seed=2)
    s1, s2 = drawn(6, seed=3, dtype=torch.float64) + 0.1, drawn(6, seed=4, dtype=torch.float64) + 0.1
    wanted = (m1 - m2).square().sum() + (s1.sqrt() - s2.sqrt()).square().sum()
    assert frechet_distance((m1, s1.diag()), (m2, s2.diag())) == pytest.approx(wanted.item(), abs=1e-10)


def test_it_is_symmetric_and_turns_with_the_axes():
    first, second = (normal(5, seed=1), spread(5, 2)), (normal(5, seed=3), spread(5, 4))
    turn = torch.linalg.qr(normal(5, 5, seed=5)).Q
    turned = [(turn @ mean, turn @ covariance @ turn.T) for mean, covariance in (first, second)]
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-9)
    assert frechet_distance(*turned) == pytest.approx(frechet_distance(first, second), rel=1e-9)


def test_fewer_samples_than_features_have_a_distance_too():
    """Covariances without full rank, where a plain matrix root turns complex."""
    few = gaussian(normal(3, 10, seed=1)), gaussian(normal(3, 10, seed=2) + 1)
    assert math.isfinite(frechet_distance(*few))
    assert frechet_distance(*few) > 5


@pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="scipy is not installed")
def test_it_agrees_with_scipys_matrix_root():
    from scipy.linalg import sqrtm

    first, second = (normal(8, seed=1), spread(8, 2)), (normal(8, seed=3), spread(8, 4))
    root = torch.from_numpy(sqrtm((first[1] @ second[1]).numpy()).real.copy())
    wanted = (first[0] - second[0]).square().sum() + (first[1] + second[1] - 2 * root).trace()
    assert frechet_distance(first, second) == pytest.approx(wanted.item(), abs=1e-6)


def test_covariance_is_torchs():
    rows = normal(50, 4)
    mean, covariance = gaussian(rows)
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(covariance, torch.cov(rows.T))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (torch.rand(1, 4), "at least 2 samples"),
        (torch.full((3, 4), math.inf), "some features are no numbers"),
    ],
)
def test_sets_that_have_no_distribution(rows, sentence):
    with pytest.raises(ValueError, match=sentence):
        gaussian(rows)
    with pytest.raises(ValueError, match="the sets have 3 and 4 features"):
        frechet_distance(gaussian(torch.rand(5, 3)), gaussian(torch.rand(5, 4)))


# Inception score


def test_inception_scores_of_known_classifiers():
    sure = torch.eye(5).repeat(4, 1) * 100
    assert inception_score(sure)[0] == pytest.approx(5)
    assert inception_score(sure[:1].expand(20, -1))[0] == pytest.approx(1)
    assert inception_score(torch.zeros(20, 5))[0] == pytest.approx(1)
    mean, deviation = inception_score(torch.cat([sure, sure[:1].expand(20, -1)]), splits=2)
    assert mean == pytest.approx(3)
    assert deviation == pytest.approx(2)
    with pytest.raises(ValueError, match="21 splits of 20 samples"):
        inception_score(torch.zeros(20, 5), splits=21)


# Features


def world(seed=0, count=12, noise=0.0, shuffled=False):
    """Clips of a drifting texture, damaged as asked."""
    g = torch.Generator().manual_seed(seed)
    clips = []
    for _ in range(count):
        x, y = (torch.rand(2, generator=g) * 20 - 10).tolist()
        clip = torch.stack([seen_from(x + frame, y, side=24) for frame in range(6)])
        order = torch.randperm(6, generator=g) if shuffled else torch.arange(6)
        clips.append(clip[order] + noise * torch.randn(clip.shape, generator=g))
    return torch.stack(clips).clamp(0, 1)


def test_the_proxy_tells_damage_and_its_size():
    network = random3d()
    real = gaussian(network.of(world()))
    distances = [frechet_distance(real, gaussian(network.of(world(noise=noise)))) for noise in (0, 0.02, 0.05, 0.1, 0.2)]
    assert distances[0] < 1e-9
    assert all(before < 0.5 * after for before, after in zip(distances, distances[1:], strict=False))
    assert frechet_distance(real, gaussian(network.of(world(shuffled=True)))) > 5 * distances[2], "order in time matters"
    assert distances[-1] > 3 * frechet_distance(real, gaussian(network.of(world(1)))), "more than other clips of the same kind"


def test_the_proxy_is_the_same_everywhere_and_says_that_it_is_one():
    clips = world(count=3)
    torch.manual_seed(1)
    first = random3d().of(clips)
    torch.manual_seed(2)
    torch.testing.assert_close(random3d().of(clips, batch=1), first)
    assert "proxy" in random3d().name


def test_clips_and_frames_reach_a_network_as_it_wants_them():
    came = []

    def network(x):
        came.append(x)
        return x.flatten(2).mean(2)

    clips = torch.stack([torch.zeros(5, 8, 6, 3), torch.ones(5, 8, 6, 3)])
    rows = Features("clips", network, clips=True, size=4, low=-1, high=1).of(clips)
    assert came[0].shape == (2, 3, 5, 4, 4)
    assert rows.tolist() == [[-1] * 3, [1] * 3]
    rows = Features("frames", network, clips=False, low=0, high=255).of(clips[..., :1])
    assert came[1].shape == (10, 3, 8, 6)
    assert rows[:, 0].tolist() == [0] * 5 + [255] * 5
    with pytest.raises(ValueError, match=r"the network bad gave \[3\] for 2 samples"):
        Features("bad", lambda x: torch.zeros(3)).of(clips)


@pytest.fixture
def script(tmp_path):
    """A TorchScript file with the switch that published feature networks have."""

    class Means(torch.nn.Module):
        def forward(self, x, return_features: bool = False):
            if return_features:
                return x.flatten(2).mean(2)
            return x.flatten(2).mean(2) * 100

    path = tmp_path / "means.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Means()).save(path)
    return path


def test_a_users_network_is_asked_for_features(script):
    clips = torch.full((2, 3, 4, 4, 3), 0.75)
    network = torchscript(script, clips=True, size=0, low=0, high=1)
    assert network.name == "means"
    torch.testing.assert_close(network.of(clips), torch.full((2, 3), 0.75))
    scores = torchscript(script, clips=False, size=0, low=0, high=1, scores=True)
    torch.testing.assert_close(scores.of(clips), torch.full((6, 3), 75.0))


def test_a_file_that_is_no_network(tmp_path):
    with pytest.raises(ValueError, match="there is no feature network"):
        torchscript(tmp_path / "none.pt", clips=True, size=0, low=0, high=1)
    (tmp_path / "broken.pt").write_bytes(b"not a zip")
    with pytest.raises(ValueError, match=r"broken.pt cannot be read: it is no TorchScript file"):
        torchscript(tmp_path / "broken.pt", clips=True, size=0, low=0, high=1)


def test_samples_are_cut_evenly():
    video = torch.arange(10.0)[:, None, None, None].expand(-1, 2, 2, 3)
    assert samples_of(video, 4, 3)[:, :, 0, 0, 0].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    with pytest.raises(ValueError, match="the clip has 10 frames: a sample takes 11"):
        samples_of(video, 11, 1)
    with pytest.raises(ValueError, match="both must be at least 1"):
        samples_of(video, 2, 0)


# Drift and differences


def test_looks_of_known_pictures():
    grey = look(torch.full((2, 4, 4, 3), 0.25))
    assert (grey.brightness, grey.contrast, grey.colour, grey.sharpness) == pytest.approx((0.25, 0, 0, 0), abs=1e-6)
    red = torch.zeros(1, 4, 4, 3)
    red[..., 0] = 1
    assert look(red).colour == pytest.approx(1)
    board = ((torch.arange(4)[:, None] + torch.arange(4)) % 2).float()[None, :, :, None].expand(-1, -1, -1, 3)
    assert look(board).contrast == pytest.approx(0.5, abs=1e-6)
    assert look(board).sharpness == pytest.approx(1, abs=1e-6)


def test_drift_is_told_against_the_first_part():
    base = drawn(4, 8, 8, 3) * 0.4 + 0.2
    flat = base.mean((1, 2, 3), keepdim=True)
    faded = (base - flat) * 0.5 + flat + 0.1
    rows = drift(torch.cat([base, faded]), [(0, 4), (4, 8)])
    assert (rows[0].brightness, rows[0].contrast, rows[0].colour, rows[0].sharpness) == (0, 1, 1, 1)
    assert rows[1].frames == (4, 8)
    assert rows[1].brightness == pytest.approx(0.1, abs=1e-2)
    assert (rows[1].contrast, rows[1].colour, rows[1].sharpness) == pytest.approx((0.5, 0.5, 0.5), abs=1e-3)
    black = drift(torch.cat([torch.zeros(1, 4, 4, 3), base[:1, :4, :4]]), [(0, 1), (1, 2)])[1]
    assert black.contrast == math.inf
    assert drift(torch.zeros(2, 4, 4, 3), [(0, 1), (1, 2)])[1].contrast == 1
    with pytest.raises(ValueError, match="there is no part from frame 2 up to 9"):
        drift(base, [(0, 2), (2, 9)])


@pytest.mark.parametrize(("frames", "count"), [(10, 3), (4, 9), (1, 1), (100, 7)])
def test_parts_cover_a_clip(frames, count):
    parts = even_buckets(frames, count)
    assert [part[0] for part in parts] == [0, *(part[1] for part in parts[:-1])]
    assert parts[-1][1] == frames
    lengths = [high - low for low, high in parts]
    assert max(lengths) - min(lengths) <= 1


def test_differences_of_known_size():
    first = torch.full((3, 4, 4, 3), 0.5)
    second = first.clone()
    second[1] += 0.3
    found = difference(first, second)
    assert found.mean == pytest.approx(0.1)
    assert (found.frame, found.worst) == (1, pytest.approx(0.3))
    assert found.psnr == pytest.approx(-10 * math.log10(0.09 / 3), abs=1e-4)
    assert difference(first, first).psnr == math.inf
    with pytest.raises(ValueError, match="give two of one length and size"):
        difference(first, second[:2])


def test_a_report_holds_every_measure():
    text = video_report(jitter(), alternating(), random3d(), length=8, stride=4, parts=2)
    for words in (
        "PSNR",
        "Frechet distance by random3d (a proxy: untrained)",
        "warp error",
        "second difference ratio",
        "drift of b",
    ):
        assert words in text
    short = video_report(static()[:4], pan()[:6], random3d(), length=4, stride=4, parts=1)
    assert "no Frechet distance: 1 and 1 samples of 4 frames, and it takes 2 of each" in short
    assert "PSNR" not in short, "clips of two lengths are not compared frame by frame"


def test_scores_need_no_second_sample():
    classes = Features("classes", lambda x: x.flatten(2).mean(2) * 100, clips=False)
    text = video_report(jitter(), alternating(), classes, length=8, stride=4, parts=1, scores=True)
    assert "inception score by classes: " in text
    assert "16 and 16 frames" in text


def test_the_upper_quarter_of_frequencies_is_flicker():
    """The first of them is three quarters of the highest."""
    assert Spectrum(0.5, (0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 4.0, 8.0), None).high_share == pytest.approx(14 / 15)
    assert Spectrum(0.5, (3.0,), None).high_share == 1
    assert Spectrum(0.5, (0.0, 0.0), None).high_share == 0
