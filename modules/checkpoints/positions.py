"""Position tables in files: how long they are, and that they are what this pack computes.

Every published family stores the sinusoid of Vaswani et al. and nothing else (``families.py``), so tables are not loaded but computed. A
table with other contents is refused, since ignoring it would change the motion.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..temporal.positions import sinusoid
from .sound import shape_of, sound_weights

TOLERANCE = 0.01  # bfloat16 rounds 1 by at most 0.004


def table_length(tables: Mapping[str, Tensor], name: str) -> int | None:
    """How many frames the tables of a file are for; None if there are none.

    Raises:
        ValueError: the tables differ in length, are not sound, or are not the sinusoid.
    """
    if not tables:
        return None
    lengths = sorted({shape_of(tables, key, 3, name)[:2] for key in tables})
    if len(lengths) != 1 or lengths[0][0] != 1:
        raise ValueError(f"the position tables in {name} have different shapes {lengths}: the file is broken; download it again")
    length = lengths[0][1]
    sound_weights(tables, name)
    for key, table in tables.items():
        expected = sinusoid(torch.arange(length), table.shape[-1])
        if not torch.allclose(table[0].float(), expected, atol=TOLERANCE):
            raise ValueError(
                f"{key} in {name} is not AnimateDiff's sinusoid: a module with positions of its own cannot be used faithfully"
            )
    return length
