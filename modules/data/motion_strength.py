"""How much moves in a clip: the mean length of its optical flow, in pixels per frame.

The flow is found as Lucas and Kanade do (IJCAI 1981), from coarse to fine (Bouguet, 2001): around each pixel, the shift that explains
best, by least squares, how the picture changes. What did not change, did not move: where a shift explains a pixel no better than standing
still, its flow is 0, so that flat surfaces do not borrow the motion of what passes by. Parts that leave the picture are not counted.

Pans of textured pictures are measured to a tenth from half a pixel per frame to an eighth of the picture per frame. What moves faster, or
has no texture, is measured too low; noise counts as some motion, and the ground that a small thing uncovers as moving with it.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from .flow import warped

SHORT_SIDE = 96  # pixels: flow is found in a smaller picture and told in pixels of the clip
COARSEST = 12  # pixels of the shorter side in the coarsest picture
RADIUS, ROUNDS = 3, 3  # of the neighbourhood; of least squares at each scale
FLAT = 1e-4  # squared slopes that count as none
BETTER, CHANGED = 1.2, 3e-7  # how much better a shift must explain a pixel than standing still, in squared brightness


def motion_strength(pixels: Tensor) -> float:
    """Mean length of the flow of ``pixels``: ``f c h w`` in -1..1, over all pixels and all pairs of frames, in pixels per frame.

    A clip of one frame does not move.
    """
    if len(pixels) < 2:
        return 0.0
    grey = reduce(pixels.float(), "f c h w -> f 1 h w", "mean") / 2 + 0.5
    shrunk = max(1.0, min(grey.shape[-2:]) / SHORT_SIDE)
    if shrunk > 1:
        grey = F.interpolate(grey, [round(side / shrunk) for side in grey.shape[-2:]], mode="bilinear", antialias=True)
    grey = grey - grey.mean(dim=(1, 2, 3), keepdim=True)  # a fade is no motion
    return float(_seen(flow(grey[:-1], grey[1:]))) * shrunk


def flow(before: Tensor, after: Tensor) -> Tensor:
    """Where each pixel of ``before``: ``n 1 h w`` went in ``after``: ``n 1 h w``, in pixels to the right and down. Returns ``n 2 h w``."""
    scales = max(1, int(math.log2(max(1.0, min(before.shape[-2:]) / COARSEST))) + 1)
    pairs = [(before, after)]
    while len(pairs) < scales:
        pairs.append((F.avg_pool2d(pairs[-1][0], 2), F.avg_pool2d(pairs[-1][1], 2)))
    shift = before.new_zeros(len(before), 2, 1, 1)
    for one, other in reversed(pairs):
        shift = _enlarged(shift, one.shape[-2], one.shape[-1])
        for _ in range(ROUNDS):
            shift = _mean(shift + _correction(one, _shifted(other, shift)), 1)
    still, moved = (_mean((image - before) ** 2, 1) for image in (after, _shifted(after, shift)))
    return torch.where(still <= BETTER * moved + CHANGED, torch.zeros_like(shift), shift)


def _correction(one: Tensor, other: Tensor) -> Tensor:
    """The small shift by which ``other`` is one's neighbourhood; at most two pixels, beyond which slopes tell nothing."""
    around = F.pad((one + other) / 2, (1, 1, 1, 1), mode="replicate")
    across = (around[..., 1:-1, 2:] - around[..., 1:-1, :-2]) / 2
    down = (around[..., 2:, 1:-1] - around[..., :-2, 1:-1]) / 2
    change = other - one
    products = (across * across, down * down, across * down, across * change, down * change)
    xx, yy, xy, xt, yt = _mean(torch.cat(products, dim=1), RADIUS).chunk(5, dim=1)
    xx, yy = xx + FLAT, yy + FLAT
    return torch.cat([xy * yt - yy * xt, xy * xt - xx * yt], dim=1).div(xx * yy - xy * xy).clamp(-2, 2)


def _mean(values: Tensor, radius: int) -> Tensor:
    return F.avg_pool2d(F.pad(values, [radius] * 4, mode="replicate"), 2 * radius + 1, 1)


def _enlarged(shift: Tensor, height: int, width: int) -> Tensor:
    scale = shift.new_tensor([width / shift.shape[-1], height / shift.shape[-2]])
    return F.interpolate(shift, (height, width), mode="bilinear", align_corners=False) * scale[:, None, None]


def _shifted(image: Tensor, shift: Tensor) -> Tensor:
    """What ``image`` shows where its pixels went."""
    return warped(rearrange(image, "n c h w -> n h w c"), rearrange(shift, "n k h w -> n h w k"))[0].movedim(-1, 1)


def _seen(shift: Tensor) -> Tensor:
    """Mean length of the shifts that stay in the picture."""
    lengths = torch.linalg.vector_norm(shift, dim=1)
    _, inside = warped(lengths[..., None], rearrange(shift, "n k h w -> n h w k"))
    return (lengths * inside).sum() / inside.sum().clamp_min(1)
