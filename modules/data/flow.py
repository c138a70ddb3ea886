"""Where things in one frame come from in another: block matching, and frames moved along its answer.

For measuring, not for making frames: no training and no weights, whole pixels refined to fractions, on a picture made small first.
Its flow is ``backward``: a place in frame ``b`` shows what frame ``a`` has at that place plus the flow. It is exact for what moves by whole
pixels or not at all, as a warp error needs it; ``data/motion_strength.py`` looks coarse to fine instead, for any speed and in little time.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

WORKING = 96  # pixels of the longer side at which flow is looked for
REACH = 7  # pixels of that size that things may move between two frames
BLOCK = 7  # pixels to a side that are compared
REFINEMENTS = 2
SOFT = 1e-5  # squared slope below which a direction cannot be told
PAIRS = 8  # frames at once: each holds a number for every displacement
TIE = 1e-4  # what a pixel further away must be better by: flat areas stay where they are


def luminance(video: Tensor) -> Tensor:
    """How bright (Rec. 709): ``video``: ``f h w c`` in 0..1. Returns ``f h w``."""
    if video.shape[-1] < 3:
        return video[..., 0]
    return video[..., :3] @ video.new_tensor([0.2126, 0.7152, 0.0722])


def backward_flow(before: Tensor, after: Tensor, *, reach: int = REACH, working: int = WORKING) -> Tensor:
    """For each pixel of ``after``, where in ``before`` it is, relative to where it stands.

    Args:
        before: ``n h w``, brightness.
        after: ``n h w``.
        reach: the furthest that is looked for, in pixels of the small picture.
        working: its longer side.

    Returns:
        flow: ``n h w 2``, x then y, in pixels of the full picture.
    """
    height, width = before.shape[-2:]
    scale = min(1.0, working / max(height, width))
    small = max(1, round(height * scale)), max(1, round(width * scale))
    sources, targets = (_resized(x, small).split(PAIRS) for x in (before, after))
    found = torch.cat([_matched(one, other, reach) for one, other in zip(sources, targets, strict=True)])
    sizes = found.new_tensor([width / small[1], height / small[0]])
    full = _resized(rearrange(found * sizes, "n h w k -> (n k) h w"), (height, width))
    return rearrange(full, "(n k) h w -> n h w k", k=2)


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """``x``: ``n h w``. Returns ``n p q``."""
    if tuple(x.shape[-2:]) == size:
        return x
    smaller = size[0] < x.shape[-2] or size[1] < x.shape[-1]
    return F.interpolate(x[:, None], size=size, mode="bilinear", align_corners=False, antialias=smaller)[:, 0]


def _matched(before: Tensor, after: Tensor, reach: int) -> Tensor:
    """``before``: ``n h w``, ``after``: ``n h w``. Returns ``n h w 2``."""
    height, width = before.shape[-2:]
    padded = F.pad(before[:, None], [reach] * 4, mode="replicate")[:, 0]
    side = 2 * reach + 1
    costs = after.new_empty(side, side, *after.shape)
    for y in range(side):  # one displacement after the other: all at once would hold a copy of the clip for each
        for x in range(side):
            difference = (padded[:, y : y + height, x : x + width] - after).abs()
            costs[y, x] = _box(difference) + TIE * ((y - reach) ** 2 + (x - reach) ** 2) ** 0.5
    best = costs.flatten(0, 1).argmin(0)
    return _refined(before, after, torch.stack([best % side - reach, best // side - reach], dim=-1).to(after))


def _refined(before: Tensor, after: Tensor, whole: Tensor) -> Tensor:
    """Fractions of pixels by Lucas and Kanade's method, where they explain the frame better than whole pixels do.

    So what moves by whole pixels, or not at all, is found exactly.

    Args:
        before: ``n h w``.
        after: ``n h w``.
        whole: ``n h w 2``.

    Returns:
        flow: ``n h w 2``.
    """
    flow, (moved, left) = whole, _explained(before, after, whole)
    first = left
    for _ in range(REFINEMENTS):
        gx, gy = _slope(moved, 2), _slope(moved, 1)
        rest = after - moved
        xx, xy, yy = (_box(product) + SOFT * same for product, same in ((gx * gx, 1), (gx * gy, 0), (gy * gy, 1)))
        x, y, area = _box(gx * rest), _box(gy * rest), xx * yy - xy * xy
        step = torch.stack([yy * x - xy * y, xx * y - xy * x], dim=-1) / area[..., None]
        flow = whole + (flow + step - whole).clamp(-1, 1)
        moved, left = _explained(before, after, flow)
    return torch.where((left < first)[..., None], flow, whole)


def _explained(before: Tensor, after: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """``before``: ``n h w``, moved along ``flow``: ``n h w 2``, and how far it then is from ``after``: ``n h w``."""
    moved = warped(before[..., None], flow)[0][..., 0]
    return moved, _box((moved - after).abs())


def _slope(x: Tensor, axis: int) -> Tensor:
    """Half the difference of the neighbours on both sides: ``x``: ``n h w``. Returns ``n h w``."""
    ends = [x.narrow(axis, 0, 1), x, x.narrow(axis, x.shape[axis] - 1, 1)]
    longer = torch.cat(ends, dim=axis)
    return (longer.narrow(axis, 2, x.shape[axis]) - longer.narrow(axis, 0, x.shape[axis])) / 2


def _box(x: Tensor) -> Tensor:
    """The mean of each pixel's surroundings: ``x``: ``n h w``. Returns ``n h w``."""
    return F.avg_pool2d(x[:, None], BLOCK, stride=1, padding=BLOCK // 2, count_include_pad=False)[:, 0]


def warped(before: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Frames as they should look after the motion, if nothing but motion happened.

    Args:
        before: ``n h w c``.
        flow: ``n h w 2``, from ``backward_flow``.

    Returns:
        moved: ``n h w c``, bilinear.
        inside: ``n h w``, bool, False where the flow leads out of the picture.
    """
    height, width = before.shape[1:3]
    rows = torch.arange(height, dtype=flow.dtype, device=flow.device)
    columns = torch.arange(width, dtype=flow.dtype, device=flow.device)
    x, y = columns + flow[..., 0], rows[:, None] + flow[..., 1]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    moved = F.grid_sample(before.movedim(-1, 1), grid.to(before), mode="bilinear", padding_mode="border", align_corners=False)
    return moved.movedim(1, -1), (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
