"""The postcards world: known at any time, scrolling as fast as it says, with words that name what is in the picture."""

import numpy as np
import pytest
from pack.modules.data.postcards import COLOURS, LABELS, SCENES, TIMES, TRAVELLERS, Postcard, drawn

CAR = Postcard("hills", "day", "car", "red", seed=3)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("time", TIMES)
def test_every_scene_at_every_time_is_a_picture_of_its_own(scene, time):
    cards = [Postcard(scene, other, "bird", "red", seed=5) for other in TIMES]
    pictures = [card.draw(0) for card in cards]
    assert all(picture.shape == (64, 64, 3) and picture.dtype == np.uint8 for picture in pictures)
    own = Postcard(scene, time, "bird", "red", seed=5).draw(0)
    assert sum(np.array_equal(own, picture) for picture in pictures) == 1


@pytest.mark.parametrize("who", TRAVELLERS)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_traveller_is_where_it_says_and_has_its_colour(who, colour):
    card = Postcard(TRAVELLERS[who].scenes[0], "day", who, colour)
    for frame in (0, 40):
        changed = (card.draw(frame) != card.draw(frame, traveller=False)).any(-1)
        rows, columns = changed.nonzero()
        x, y = card.where(frame)
        assert columns.min() - 1 <= x <= columns.max() + 1 and rows.min() - 1 <= y <= rows.max() + 1
        nearest = np.abs(card.draw(frame)[changed].astype(int) - np.array(COLOURS[colour])).sum(-1).min()
        assert nearest < 60


def test_the_land_moves_as_fast_as_the_camera():
    """The road's marks, of which there is one every 16 pixels, lie one pixel further to the left for each pixel of the camera."""
    card = Postcard("hills", "day", "balloon", "red", speed=1.0)
    rows = [card.draw(frame)[59] for frame in (0, 3)]
    assert np.array_equal(rows[0][3:], rows[1][:-3])


def test_a_frame_is_the_same_in_any_order_and_costs_the_same_anywhere():
    last = CAR.draw(10_000)
    CAR.draw(0)
    assert np.array_equal(CAR.draw(10_000), last)
    assert not np.array_equal(CAR.draw(9_999), last)


def test_clips_of_a_seed_stay_the_same_and_fit_their_scene():
    cards = [drawn(1, number) for number in range(200)]
    assert cards == [drawn(1, number) for number in range(200)]
    assert all(card.scene in TRAVELLERS[card.traveller].scenes for card in cards)
    assert {word for card in cards for word in card.prompt.replace(",", "").split()} == set(LABELS)
    assert drawn(1, 5, scene="sea", colour="blue", speed=1.0).prompt.startswith("blue ")


@pytest.mark.parametrize("change", [{"scene": "moon"}, {"time": "noon"}, {"traveller": "tram"}, {"colour": "pink"}])
def test_what_is_not_in_this_world_is_refused(change):
    (value,) = change.values()
    with pytest.raises(ValueError, match=f"'{value}' is not in this world: choose one of"):
        Postcard(**{"scene": "hills", "time": "day", "traveller": "car", "colour": "red"} | change)
