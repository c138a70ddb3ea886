"""Pictures that a causal take begins with: as many as fill whole blocks of latent frames."""

from torch import Tensor

from .timed_prompts import PICTURES


def start_pictures(images: Tensor, block: int) -> Tensor:
    """One picture held for a block, or the last pictures of a clip that make whole blocks.

    A block of ``b`` latent frames is ``1 + 4 (b - 1)`` pictures at the start of a take, and further blocks ``4 b`` each.

    Args:
        images: ``...``, batches ``k h w c`` of pictures.
        block: latent frames in a block.

    Returns:
        pictures: ``n h w c``.

    Raises:
        ValueError: they are no pictures, or more than one and less than a block. One sentence.
    """
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"the images have the shape {list(images.shape)}: pictures are needed, height x width x 3 colours each")
    first = 1 + PICTURES * (block - 1)
    if len(images) == 1:
        return images.expand(first, *images.shape[1:])
    blocks = (len(images) - first) // (PICTURES * block) + 1
    if blocks < 1:
        raise ValueError(
            f"{len(images)} pictures are less than a block, which is {first} pictures for {block} latent frames: give {first} or more, or"
            " one alone, which is held for the block"
        )
    return images[-(first + PICTURES * block * (blocks - 1)) :]
