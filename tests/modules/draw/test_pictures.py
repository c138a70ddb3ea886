"""Pictures say what they should: brightness follows value, sheets hold the frames they claim, curves can be read back."""

import pytest
import torch
from pack.modules.draw.pictures import contact_sheet, curves, heat_map, marked, smoothed


def test_heat_map_brightens_with_the_value():
    image = heat_map(torch.arange(12).view(1, 12), top=11, cell=1)
    assert image.shape == (1, 1, 12, 3)
    luminance = (image[0, 0] * torch.tensor([0.2126, 0.7152, 0.0722])).sum(-1)
    assert (luminance.diff() > 0).all()
    assert image.min() >= 0
    assert image.max() <= 1


def test_heat_map_stays_in_bounds():
    assert max(heat_map(torch.zeros(10_000, 300), top=1).shape[1:3]) <= 2048
    assert heat_map(torch.zeros(4, 5), top=0, cell=8).shape == (1, 32, 40, 3)


def test_contact_sheet_shows_first_and_last_and_fills_with_white():
    frames = torch.arange(10).float().view(10, 1, 1, 1).expand(10, 4, 6, 3) / 10
    sheet = contact_sheet(frames, columns=3, count=4, gap=1)
    assert sheet.shape == (1, 2 * 5, 3 * 7, 3)
    assert sheet[0, 0, 0, 0] == 0
    assert sheet[0, 5, 0, 0] == pytest.approx(0.9)
    assert (sheet[0, 5:, 7:] == 1).all()
    assert contact_sheet(frames, columns=99, count=99, gap=0).shape == (1, 4, 60, 3)


def test_curves_put_the_lowest_value_lowest():
    image = curves({"loss": [10.0, 1.0, 0.1]}, size=(400, 300))
    assert image.shape == (1, 300, 400, 3)
    ink = ((image[0] - torch.tensor([0x1B, 0x6C, 0xA8]) / 255).abs().sum(-1) < 0.01).nonzero()
    left, right = ink[ink[:, 1] < 80], ink[ink[:, 1] > 360]
    assert left[:, 0].float().mean() < right[:, 0].float().mean()
    assert torch.isfinite(curves({"flat": [1.0, 1.0], "broken": [float("nan")], "none": []})).all()


def test_smoothed_starts_unbiased_and_follows():
    assert smoothed([5.0]) == [5.0]
    values = smoothed([0.0] * 10 + [1.0] * 500)
    assert values[-1] == pytest.approx(1, abs=1e-3)
    assert all(a <= b for a, b in zip(values, values[1:], strict=False))


def test_an_axis_tells_its_marks_apart():
    assert marked([0.5, 0.75, 1.0]) == ["0.5", "0.75", "1"]
    assert marked([0.99981, 0.99984, 0.99987]) == ["0.99981", "0.99984", "0.99987"]
    assert marked([1.0, 1.0]) == ["1", "1"]
