"""The two commands that show what training does (``benchmarks/miniature.py``, ``frame_difference.py``): the worlds and measures that they
stand on, and that they run from end to end in small."""

import json
import math
import sys

import pytest
import torch
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import frame_difference
from frame_difference import cosines
from miniature import FALL, LABELS, QUICK, SIZE, Miniature, Report, clips, falls, folded, lines, sheet, table, video
from PIL import Image


def pixels(batch):
    return video(batch.clips).movedim(-1, 2) * 2 - 1


def test_clips_are_the_same_every_time_and_others_elsewhere():
    one, again, other = (clips(3, 4, seed, 5, "clips") for seed in (0, 0, 1))
    assert torch.equal(one.clips, again.clips) and torch.equal(one.labels, again.labels)
    assert not torch.equal(one.clips, other.clips)
    assert not torch.equal(one.clips, clips(3, 4, 0, 5, "held out").clips)
    assert one.labels.shape == (3, len(LABELS)) and (one.labels.sum(1) == 2).all()
    torch.testing.assert_close(folded(pixels(one)), one.clips)


def test_scan_lines_are_in_every_frame_and_are_measured():
    plain, marked = clips(12, 3, 0, 0, "clips"), clips(12, 3, 0, 0, "clips", marked=True)
    difference = pixels(marked) - pixels(plain)
    dark = torch.arange(SIZE) % 4 == 0
    assert difference[..., ~dark, :].abs().max() < 1e-5 and difference[..., dark, :].min() < -0.5
    assert abs(lines(plain.clips)) < 0.02 and abs(lines(marked.clips) - 1) < 0.02
    assert abs(lines(torch.lerp(plain.clips, marked.clips, 0.5)) - 0.5) < 0.02


def test_things_that_fall_do_and_are_measured():
    held, falling, rising = (video(clips(32, 8, 0, 0, "clips", fall).clips) for fall in (0.0, FALL, -FALL))
    assert abs(falls(falling) - FALL) < 0.05 * FALL and abs(falls(rising) + FALL) < 0.05 * FALL
    assert abs(falls(held)) < 0.2 * FALL
    assert falls(falling.mean(-1, keepdim=True).expand_as(falling)) == 0, "grey alone is ground"


def test_the_camera_drifts_and_the_ground_with_it():
    still, drifting = (pixels(clips(16, 8, 0, 0, "clips", FALL, drift=drift)) for drift in (0.0, 0.5))
    grey = ((still.amax(2) - still.amin(2)) < 0.05).all(1) & ((drifting.amax(2) - drifting.amin(2)) < 0.05).all(1)
    assert grey.float().mean() > 0.4
    change = lambda clip: (clip[:, 0] - clip[:, 7]).abs().mean(1)[grey].mean()  # noqa: E731
    assert change(still) < 1e-4 < 0.02 < change(drifting)
    middle = lambda clip: (clip[:, 3] + clip[:, 4]) / 2  # noqa: E731, where the camera is in the middle
    assert (middle(still) - middle(drifting)).abs().mean(1)[grey].mean() < 0.2 * change(drifting)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    report = Report(Miniature(QUICK, tmp_path_factory.mktemp("miniature"), say=lambda line: None))
    report.all_of_it()
    return report


def test_every_stage_runs_and_is_measured(small):
    numbers = [value for stage in small.figures.values() for value in stage.values()]
    assert all(isinstance(value, bool) or math.isfinite(value) for value in numbers)
    assert small.figures["afterwards"]["pictures without the module are the same"] is True
    assert small.figures["afterwards"]["weights of the image model are the same"] is True
    assert {path.name for path in small.small.folder.glob("*[a-z].safetensors") if ".run." not in path.name} == {
        f"{name}.safetensors" for name in ("image_model", "domain_adapter", "motion_module", "fall_lora")
    }
    assert table(small.figures).count("\n") == 13
    paper = sheet(small.shown, count=1)
    assert paper.height == len(small.shown) * (2 * SIZE + 2 + 6)


def test_a_run_that_was_stopped_goes_on(small):
    """The checkpoints of all stages are there: nothing is trained again, and the figures are the same."""
    said = []
    again = Report(Miniature(QUICK, small.small.folder, say=said.append))
    again.all_of_it()
    assert not any("step" in line for line in said)
    assert again.figures == small.figures


def test_cosines_are_the_eigenvectors_of_squared_differences():
    frames = 9
    basis = cosines(frames).double()
    difference = torch.eye(frames, dtype=torch.float64).diff(dim=0)
    torch.testing.assert_close(basis @ basis.T, torch.eye(frames, dtype=torch.float64), atol=1e-6, rtol=0)
    values = 4 * torch.sin(math.pi * torch.arange(frames, dtype=torch.float64) / (2 * frames)) ** 2
    torch.testing.assert_close(basis @ difference.T @ difference @ basis.T, values.diag(), atol=1e-5, rtol=0)


def test_the_article_is_answered_in_small(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--quick", "--out", str(tmp_path / "x.json"), "--picture", str(tmp_path / "x.png")])
    frame_difference.main()
    printed = capsys.readouterr().out
    figures = json.loads((tmp_path / "x.json").read_text())["figures"]
    assert {row["loss"] for row in figures["runs"]} == {"mse", "chain", "blend"}
    assert frame_difference.table(figures) in printed and printed.count("| blend |") == 1
    for row in figures["losses"].values():
        assert row["sharpness"] > 0
        assert row["threshold of gradient descent"] is not None, "so large a step must be seen to diverge"
    assert figures["losses"]["mse"]["sharpness"] == 1
    assert figures["losses"]["blend"]["sharpness"] <= 1
    assert Image.open(tmp_path / "x.png").size == (1600, 960)
