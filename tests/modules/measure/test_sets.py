"""Measures of two sets of clips, beside formulas written out here."""

import numpy as np
import pytest
import torch
from clip_files import grey_frames, write_animation
from pack.modules.data.clips import ClipDataset
from pack.modules.data.find import find_clips
from pack.modules.data.settings import ClipSettings
from pack.modules.measure.features import Features, torchscript
from pack.modules.measure.sets import set_features, set_report
from pack.nodes.measure.networks import PROXY
from pack.nodes.measure.sets import LongTakeSetMetrics

SETTINGS = ClipSettings(frames=4, stride=1, width=32, height=24, sizes="crop", missing_captions="train without")


def folder(place, count, seed):
    for number in range(count):
        write_animation(place / f"{number}.gif", grey_frames(4, seed=100 * seed + number))
    return ClipDataset(find_clips(place), SETTINGS)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return [folder(tmp_path_factory.mktemp("set"), count, seed) for seed, count in enumerate((9, 11))]


def means(clips):
    """Six numbers of a clip: ``b 3 f h w``."""
    return torch.nn.functional.adaptive_avg_pool3d(clips[:, :1], (1, 2, 3)).flatten(1)


NETWORK = Features("means", means, clips=True, low=0.0, high=1.0)


def frechet(a, b):
    """As cd-fvd and pytorch-fid have it, the trace of the root by the eigenvalues of the product."""
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(first @ second).astype(complex)).real.sum()
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * root


def by_hand(count, seed):
    clips = [torch.from_numpy(grey_frames(4, seed=100 * seed + number) / 255) for number in range(count)]
    return np.stack([means(clip.permute(3, 0, 1, 2)[None])[0].numpy() for clip in clips])


def test_the_distance_is_that_of_the_formula(sets):
    made = [set_features(each, NETWORK, batch=4) for each in sets]
    expected = frechet(by_hand(9, 0), by_hand(11, 1))
    text = set_report(made[0], made[1], NETWORK)
    told = float(text.split("Frechet distance: ")[1].split("\n")[0])
    assert told == pytest.approx(expected, rel=1e-4)
    assert "a: 9 clips, b: 11 clips; 9 and 11 clips by means" in text
    assert "give both as many" in text and "fewer than 2048 samples" in text


@pytest.mark.parametrize("batch", [1, 2, 20])
def test_the_batch_changes_nothing_and_bounds_what_is_in_memory(sets, batch):
    most = []

    def network(clips):
        most.append(len(clips))
        return means(clips)

    rows = set_features(sets[0], Features("n", network, low=0.0, high=1.0), batch=batch).rows
    torch.testing.assert_close(rows, set_features(sets[0], NETWORK).rows)
    assert max(most) <= batch and sum(most) == 9


def test_some_of_a_set(sets):
    whole = set_features(sets[1], NETWORK).rows
    torch.testing.assert_close(set_features(sets[1], NETWORK, most=3).rows, whole[[0, 3, 7]])


def test_inception_scores_of_sets(sets):
    scores = Features("classes", lambda frames: frames.mean(dim=(2, 3)) * torch.tensor([9.0, -9.0, 0.0]), clips=False)
    made = [set_features(each, scores) for each in sets]
    chances = np.exp(made[0].rows.double().numpy())
    chances /= chances.sum(1, keepdims=True)
    expected = []
    for part in np.array_split(chances, 2):
        expected.append(np.exp((part * (np.log(part) - np.log(part.mean(0)))).sum(1).mean()))
    text = set_report(made[0], made[1], scores, scores=True, splits=2)
    assert f"inception score of a: {np.mean(expected):.4f} +- {np.std(expected):.4f} (2 splits)" in text
    assert "36 and 44 frames" in text


def test_a_network_that_takes_something_else(tmp_path, sets):
    path = tmp_path / "frames.pt"
    torch.jit.trace(torch.nn.Conv2d(3, 2, 3), torch.zeros(1, 3, 8, 8)).save(path)
    network = torchscript(path, clips=True, size=0, low=0, high=1)
    with pytest.raises(
        ValueError, match=r"frames.pt does not take clips of the shape \[8, 3, 4, 24, 32\] .*: set looks_at and size"
    ):
        set_features(sets[0], network)


def test_a_damaged_clip_is_passed_over(tmp_path):
    data = folder(tmp_path, 4, 2)
    (tmp_path / "2.gif").write_bytes(b"GIF89a")
    assert set_features(data, NETWORK).clips == 3
    assert "2.gif" in data.report.text()


def test_the_node_reports_and_refuses_sets_that_are_cut_otherwise(sets):
    given = {"features": PROXY, "looks_at": "clips", "size": 0, "pixels": "-1..1", "videos_per_set": 4, "splits": 1}
    text = LongTakeSetMetrics.execute(clips_a=sets[0], clips_b=sets[1], **given).args[0]
    assert "4 and 4 clips by random3d (a proxy: untrained)" in text and "Frechet distance: " in text
    other = sets[1].cut_anew(frames=3)
    with pytest.raises(
        ValueError, match="clips_a are 4 frames of 32x24 and clips_b are 3 of 32x24: set frames, width and height alike"
    ):
        LongTakeSetMetrics.execute(clips_a=sets[0], clips_b=other, **given)
