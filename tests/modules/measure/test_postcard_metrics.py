"""What is recognised in postcards, against the truth about them."""

import numpy as np
import pytest
import torch
from pack.modules.data.postcards import COLOURS, SCENES, TIMES, TRAVELLERS, Postcard, drawn
from pack.modules.measure.postcard_metrics import recognise, scroll_speed, sharpness


def images(cards, **options):
    return torch.from_numpy(np.stack([card.draw(7 * number % 31, **options) for number, card in enumerate(cards)])).float() / 255


@pytest.fixture(scope="module")
def seen():
    cards = [drawn(3, number) for number in range(60)]
    return cards, recognise(images(cards))


@pytest.mark.parametrize(
    ("what", "table", "least"), [("traveller", TRAVELLERS, 1), ("colour", COLOURS, 1), ("time", TIMES, 1), ("scene", SCENES, 0.9)]
)
def test_truth_is_recognised(seen, what, table, least):
    cards, found = seen
    names = tuple(table)
    right = [names[index] == getattr(card, what) for index, card in zip(getattr(found, what), cards, strict=True)]
    assert np.mean(right) >= least


def test_truth_is_valid_and_in_its_place(seen):
    cards, found = seen
    assert found.valid.float().mean() >= 0.95
    places = torch.tensor([card.where(7 * number % 31) for number, card in enumerate(cards)])
    assert (places - found.place).norm(dim=1).max() < 1.5


def test_nobody_is_recognised_where_nobody_is(seen):
    cards, _ = seen
    assert recognise(images(cards, traveller=False)).valid.float().mean() <= 0.05


def test_a_washed_out_traveller_is_not_valid(seen):
    cards, _ = seen
    mixed = 0.5 * images(cards) + 0.5 * images(cards, traveller=False)
    assert recognise(mixed).valid.float().mean() <= 0.2


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("speed", [0.0, 0.9, 1.45, 2.0])
def test_the_camera_s_speed_is_measured(scene, speed):
    card = Postcard(scene, "sunset", "bird", "blue", seed=2, speed=speed)
    clip = torch.from_numpy(np.stack([card.draw(frame) for frame in range(12)])).float() / 255
    assert abs(float(scroll_speed(clip).mean()) - speed) < 0.05


def test_blur_is_less_sharp(seen):
    clip = images(seen[0][:4])
    soft = torch.nn.functional.avg_pool2d(clip.permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1)
    assert (sharpness(soft) < 0.8 * sharpness(clip)).all()


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match="postcards are 64 by 64 pixels"):
        recognise(torch.zeros(2, 32, 32, 3))
