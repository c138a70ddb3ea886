"""Encoded prompts as one conditioning that changes from frame to frame."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

HELD = "longtake_held"  # an option of a conditioning: it has a row per frame, and frames behind the last one have its row
MOST_REPEATS = 4  # of a prompt's tokens, beside longer ones; ComfyUI itself goes no further
Encoded = Sequence[Sequence[Any]]  # a conditioning: entries of what was encoded, ``1 n d``, and options by name
Changing = list[list[Any]]


def mixed_encodings(prompts: Sequence[Encoded], shares: Tensor) -> Changing:
    """Each frame has a row of its own: its prompts' encodings, in its shares.

    Args:
        prompts: encoded; each has as many entries.
        shares: ``f k``, of each prompt in each frame, rows summing to 1.

    Returns:
        conditioning: of each entry ``f n d``; its options are those of the first prompt, with ``pooled_output``: ``f l``.

    Raises:
        ValueError: the prompts have different options, or lengths that do not go together.
    """
    if len(prompts) == 1:
        return [list(entry) for entry in prompts[0]]
    made = []
    for entries in zip(*prompts, strict=True):
        tokens, pooled = [entry[0] for entry in entries], [entry[1].get("pooled_output") for entry in entries]
        options = {name: value for name, value in entries[0][1].items() if name != "pooled_output"}
        per_prompt = [name for name, value in options.items() if isinstance(value, Tensor)]
        if per_prompt:
            raise ValueError(
                f"this text encoder also gives {per_prompt[0]}, which is one for all frames: set blend to predictions, or to shots"
            )
        options |= {HELD: True}
        if pooled[0] is not None:
            options["pooled_output"] = _mixed(pooled, shares)
        made.append([_mixed(_of_one_length(tokens), shares), options])
    return made


def mixed_predictions(prompts: Sequence[Encoded], shares: Tensor) -> Changing:
    """Each prompt is a condition of its own, with a mask per frame that says its share: the model is asked once for each.

    Args:
        prompts: encoded.
        shares: ``f k``, of each prompt in each frame.

    Returns:
        conditioning: every entry of every prompt, with ``mask``: ``f 8 8``, as ComfyUI's Set Mask makes it.
    """
    if len(prompts) == 1:
        return [list(entry) for entry in prompts[0]]
    return [
        [
            tokens,
            {
                **options,
                "mask": share[:, None, None].expand(-1, 8, 8).clone(),
                "mask_strength": 1.0,
                "set_area_to_bounds": False,
                HELD: True,
            },
        ]
        for prompt, share in zip(prompts, shares.T, strict=True)
        for tokens, options in prompt
    ]


def first_prompt(prompts: Sequence[Encoded], shares: Tensor) -> Changing:
    """The first frame's prompt alone, for a sampler that is given the later ones one by one: ``shares``: ``f k``."""
    return [list(entry) for entry in prompts[int(shares[0].argmax())]]


def _mixed(rows: Sequence[Tensor], shares: Tensor) -> Tensor:
    """``rows``: ``1 ...`` each, ``shares``: ``f k``. Returns ``f ...``."""
    every = torch.cat(list(rows))
    return torch.einsum("fk,k...->f...", shares.to(every), every)


def _of_one_length(tokens: Sequence[Tensor]) -> list[Tensor]:
    """Prompts of the same length, ``1 n d`` each: whole repetitions leave what attention makes of a prompt as it is."""
    lengths = sorted({part.shape[1] for part in tokens})
    length = math.lcm(*lengths)
    if length > MOST_REPEATS * lengths[0]:
        raise ValueError(
            f"the prompts have {lengths[0]} and {lengths[-1]} tokens, which cannot be mixed: write them about as long as each other, or set"
            " blend to predictions"
        )
    return [part.repeat(1, length // part.shape[1], 1) for part in tokens]


def row_ids(ids: Tensor, rows: int, held: bool) -> Tensor:
    """Which of so many rows belong to some frames: behind the last it is held, or they start over, as ComfyUI lets them.

    Args:
        ids: ``f``, int64, absolute frame numbers.
        rows: how many there are.
        held: whether the last one holds.

    Returns:
        places: ``f``, int64.
    """
    return ids.clamp_max(rows - 1) if held else ids % rows


Blend = Callable[[Sequence[Encoded], Tensor], Changing]
BLENDS: dict[str, Blend] = {"text": mixed_encodings, "predictions": mixed_predictions, "shots": first_prompt}
