"""Position tables in files: how long they are, and whether they are what this pack computes.

Every published family stores the sinusoid of Vaswani et al. and nothing else (``families.py``), rounded as the file's other numbers are, so
that is computed: it has no rounding, and no end. A table with other contents was trained, and is kept.
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
        ValueError: the tables differ in length, or are not sound.
    """
    if not tables:
        return None
    lengths = sorted({shape_of(tables, key, 3, name)[:2] for key in tables})
    if len(lengths) != 1 or lengths[0][0] != 1:
        raise ValueError(f"the position tables in {name} have different shapes {lengths}: the file is broken; download it again")
    sound_weights(tables, name)
    return lengths[0][1]


def trained(tables: Mapping[str, Tensor]) -> str | None:
    """The first table that is not the sinusoid, however coarse its numbers are; None where all are."""
    for key, table in tables.items():
        expected = sinusoid(torch.arange(table.shape[1]), table.shape[2])[:, : table.shape[2]]
        if not torch.allclose(table[0].float(), expected, rtol=torch.finfo(table.dtype).eps / 2, atol=TOLERANCE):
            return key
    return None
