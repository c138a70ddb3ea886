"""What motion modules mean beside their weights: generations and their authors' numbers, each a row of ``FAMILIES``.

A file does not say which generation it is; ``Contents`` is what can be seen of it, and exactly one row fits what can be seen. The numbers
are those of the authors' own configurations and code:

- AnimateDiff v1 and PIA ran the norms of the U-Net's residual blocks and its last norm over all frames of a clip
  (``use_inflated_groupnorm: false``); v2, v3 and AnimateLCM saw one frame at a time. HotshotXL ran them over all frames as well.
- AnimateDiff's SDXL beta keeps the U-Net's norms to one frame and lets the norm inside its motion modules see the clip: its
  ``TemporalTransformer3DModel`` normalises before it folds the frames into the batch.
- All position tables are Vaswani's sinusoid, HotshotXL's, AnimateLCM's and CameraCtrl's too: buffers that no trainer touches.
"""

from collections.abc import Callable
from dataclasses import dataclass

TABLELESS = 64  # frames of the table that AnimateLCM makes in code; its files have none


@dataclass(frozen=True)
class Contents:
    """What can be seen of a motion module file.

    Attributes:
        layout: a name in ``FORMATS``.
        levels: how many levels the U-Net has: 4 for SD1.5, 3 for SDXL.
        middle: whether there is a module in the middle block.
        frames: length of the position tables; None if there are none.
        conv_in: whether there is an input layer for 9 channels.
        image_encoder: whether there is an encoder for a reference picture.
    """

    layout: str
    levels: int
    middle: bool
    frames: int | None
    conv_in: bool = False
    image_encoder: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is nothing but AnimateDiff's transformers for SD1.5."""
        return not (self.conv_in or self.image_encoder or self.layout == "HotshotXL" or self.levels == 3)

    @property
    def lcm_like(self) -> bool:
        """AnimateLCM has a module in the middle and no table, or a table of its own length where its trainer saved one."""
        return self.middle and self.frames in (None, TABLELESS)


@dataclass(frozen=True)
class Family:
    """One generation of motion modules.

    Attributes:
        name: of the generation.
        fits: whether a file with these contents is of it.
        noise_schedule: a name in ``noise.NOISE_SCHEDULES``.
        clip_norms: whether the norms of the U-Net's residual blocks and its last one ran over all frames of a clip in training.
        module_norms: whether the norm inside each motion module did.
        trained_frames: length of the clips it was trained on.
        max_frames: how many times it knows where its file has no table.
        lcm_steps: steps of the schedule it was distilled from; None where it was not.
    """

    name: str
    fits: Callable[[Contents], bool]
    noise_schedule: str = "linear"
    clip_norms: bool = False
    module_norms: bool = False
    trained_frames: int = 16
    max_frames: int = 32
    lcm_steps: int | None = None


FAMILIES: tuple[Family, ...] = (
    Family("v1", lambda c: c.plain and not c.middle and c.frames == 24, clip_norms=True, max_frames=24),
    Family("v2", lambda c: c.plain and c.middle and not c.lcm_like),
    # 32 frames as released; retrained ones of other lengths are per frame as well
    Family("v3", lambda c: c.plain and not c.middle and c.frames not in (None, 24)),
    Family("AnimateLCM", lambda c: c.plain and c.lcm_like, max_frames=TABLELESS, lcm_steps=100),
    Family("AnimateLCM-I2V", lambda c: c.image_encoder and not c.conv_in, "animatelcm_i2v", max_frames=TABLELESS, lcm_steps=200),
    Family("PIA", lambda c: c.conv_in and not c.image_encoder, clip_norms=True),
    Family(
        "SDXL-beta", lambda c: c.levels == 3 and c.layout != "HotshotXL" and not _extra(c), "animatediff_sdxl", module_norms=True
    ),
    Family(
        "HotshotXL",
        lambda c: c.layout == "HotshotXL" and not _extra(c),
        "scaled_linear",
        clip_norms=True,
        trained_frames=8,
        max_frames=24,
    ),
)


def _extra(contents: Contents) -> bool:
    return contents.conv_in or contents.image_encoder


def family_of(contents: Contents, name: str) -> Family:
    """The row of ``FAMILIES`` that fits.

    Raises:
        ValueError: none does: the file lacks what tells the generations apart, or was put together from two.
    """
    if contents.conv_in and contents.image_encoder:
        raise ValueError(
            f"{name} holds both PIA's input layer and AnimateLCM's picture encoder: it was put together from two modules; use one of them"
        )
    found = next((family for family in FAMILIES if family.fits(contents)), None)
    if found is None:
        raise ValueError(
            f"{name} has neither position tables nor a module in the middle block, so v1 and v3, whose norms differ, cannot be told"
            " apart: use the file as its authors released it"
        )
    return found
