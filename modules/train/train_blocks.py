"""Which parts of a U-Net have modules that train."""

import re


def read_blocks(text: str) -> tuple[str, ...]:
    """Beginnings of slots' names from words such as ``down, mid, up.1``; none for an empty text.

    Raises:
        ValueError: a word is no part of a U-Net.

    >>> read_blocks("down, mid up.1")
    ('down_blocks', 'mid_block', 'up_blocks.1')
    """
    names = []
    for word in re.split(r"[,;\s]+", text.strip()):
        match = re.fullmatch(r"(down|up)(?:_blocks)?((?:\.\d+)?)|mid(?:_block)?", word)
        if word and match is None:
            raise ValueError(
                f"train_blocks names {word!r}, which is no part of a U-Net: write down, mid, up, or one level such as up.1; empty for all"
            )
        if match is not None:
            names.append(f"{match[1]}_blocks{match[2]}" if match[1] else "mid_block")
    return tuple(names)
