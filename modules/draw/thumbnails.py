"""Small copies of pictures, for editors that show them."""

from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate


def thumbnails(images: Tensor, side: int = 96) -> Tensor:
    """Pictures whose longer side has at most so many pixels; smaller ones stay as they are.

    Args:
        images: ``k h w c`` in 0..1.
        side: pixels, at least 1.

    Returns:
        small: ``k p q c`` in 0..1.
    """
    height, width = images.shape[1:3]
    scale = side / max(height, width)
    if scale >= 1:
        return images
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    small = interpolate(rearrange(images.float(), "k h w c -> k c h w"), size, mode="bilinear", antialias=True)
    return rearrange(small, "k c p q -> k p q c").clamp(0, 1)
