"""Prompts with times: what a take shows from when on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SHOT = "longtake_shot"  # an option of a conditioning: number of the prompt that it belongs to; absent for the first
PICTURES = 4  # of a latent frame of Wan's VAEs, but the first, which is one


@dataclass(frozen=True, eq=False)
class TimedPrompt:
    """A prompt and when it begins.

    Attributes:
        seconds: from the take's beginning.
        conditioning: as the host has it, entries of which each holds options by name.
    """

    seconds: float
    conditioning: list[Any]

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):
            raise ValueError(
                f"a prompt begins at {self.seconds:g} seconds: later prompts begin after 0; what the take begins with is its positive"
                " conditioning"
            )


def starts(prompts: Sequence[TimedPrompt], fps: float, block: int, frames: int = 0) -> list[int]:
    """The latent frame at which each prompt begins: the first frame of a block, not before its time.

    Args:
        prompts: in order of their times.
        fps: pictures per second.
        block: latent frames in a block.
        frames: of the take; 0 for no end.

    Raises:
        ValueError: one begins behind the end of the take, or two in the same block. One sentence.
    """
    found: list[int] = []
    for prompt in prompts:
        latent = (round(prompt.seconds * fps) + PICTURES - 1) // PICTURES
        start = -(-latent // block) * block
        if frames and start >= frames:
            raise ValueError(
                f"a prompt begins at {prompt.seconds:g} seconds and the take ends at {(1 + PICTURES * (frames - 1)) / fps:.4g}:"
                " no block is left for it; let it begin earlier, or use a longer latent"
            )
        if start <= (found[-1] if found else 0):
            raise ValueError(
                f"the prompt at {prompt.seconds:g} seconds begins in the same block of {block} latent frames as the one before it: blocks"
                f" are {PICTURES * block / fps:.3g} seconds long, let it begin later"
            )
        found.append(start)
    return found


def joined(first: list[Any], prompts: Sequence[TimedPrompt]) -> list[Any]:
    """All prompts as one conditioning, whose entries say which prompt they belong to.

    Args:
        first: what the take begins with.
        prompts: later ones.

    Raises:
        ValueError: one is combined of more, or fewer, conditionings than the first.
    """
    entries = list(first)
    for number, prompt in enumerate(prompts, 1):
        if len(prompt.conditioning) != len(first):
            raise ValueError(
                f"the prompt at {prompt.seconds:g} seconds is combined of {len(prompt.conditioning)} conditionings and the first prompt of"
                f" {len(first)}: each has a cache of its own, so use as many in all prompts"
            )
        entries += [[what, {**options, SHOT: number}] for what, options in prompt.conditioning]
    return entries
