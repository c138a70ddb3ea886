"""A rectangle of the picture: what is cut lies where it lay."""

import pytest
import torch
import torch.nn.functional as F
from pack.modules.temporal.frames import Gain, resized
from pack.modules.temporal.picture_part import PicturePart

WHOLE = (8, 12)
PART = PicturePart(top=4, left=2, height=4, width=6, whole=WHOLE)


def numbered(height, width):
    return torch.arange(height * width, dtype=torch.float32).view(1, height, width)


def test_latents_and_pixels_are_cut_where_they_lie():
    assert torch.equal(PART.cut(numbered(8, 12)), numbered(8, 12)[:, 4:8, 2:8])
    assert torch.equal(PART.cut(numbered(64, 96)), numbered(64, 96)[:, 32:64, 16:64])


@pytest.mark.parametrize("whole", [(8, 12), (7, 9), (5, 16)])
@pytest.mark.parametrize("part", [(0, 0, 3, 4), (1, 3, 4, 5), (2, 2, 3, 7)])
def test_feature_maps_are_halved_upwards_as_the_u_net_halves_them(whole, part):
    top, left, height, width = part
    cut = PicturePart(top, left, height, width, whole)
    x, inside = numbered(*whole), cut.cut(numbered(*whole))
    while min(x.shape[-2:]) > 1:
        x, inside = (F.avg_pool2d(level, 2, ceil_mode=True) for level in (x, inside))
        assert cut.cut(x).shape == inside.shape


def test_on_even_places_a_part_of_the_next_level_is_the_next_level_of_the_part():
    x = numbered(*WHOLE)
    assert torch.equal(PART.cut(F.avg_pool2d(x, 2)), F.avg_pool2d(PART.cut(x), 2))


def test_a_map_of_another_picture_is_refused():
    with pytest.raises(ValueError, match="a map of 5x5 belongs to no picture of 8x12 latents"):
        PART.cut(numbered(5, 5))


@pytest.mark.parametrize("size", [(8, 12), (64, 96), (5, 5), (4, 6)])
def test_a_mask_of_any_size_acts_in_a_part_as_in_the_whole(size):
    """What it is multiplied with inside the part, at the size of the latents."""
    mask = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    gain = Gain(mask, (torch.ones(3), mask))
    within = gain.within(PART)
    assert within.scales[0] is gain.scales[0], "one number per frame has no places"
    change = torch.ones(3, 2, 4, 6)
    expected = resized(mask, *WHOLE)[:, None, 4:8, 2:8].expand(-1, 2, -1, -1)
    torch.testing.assert_close(within.applied(change), expected)
    torch.testing.assert_close(within.scales[1], within.effect)
