"""What motion modules mean beside their weights: generations and their authors' numbers, each a row of ``FAMILIES``.

A file of this pack's says which generation it is, and a user may say it. Of others ``Contents`` is what can be seen, and a row fits what
its authors' files really have: v1's tables are 24 frames long and v3's 32, v2's modules and AnimateLCM's have one in the middle block, and
AnimateLCM's have no tables in their authors' files; LongAnimateDiff is v2 with tables of 64. Where a file is none of these, such as a
retrained one with tables of 40 frames, the user is asked. The numbers are those of the authors' own configurations and code:

- AnimateDiff v1 and PIA ran the norms of the U-Net's residual blocks and its last norm over all frames of a clip
  (``use_inflated_groupnorm: false``); v2, v3 and AnimateLCM saw one frame at a time. HotshotXL ran them over all frames as well.
- AnimateDiff's SDXL beta keeps the U-Net's norms to one frame and lets the norm inside its motion modules see the clip: its
  ``TemporalTransformer3DModel`` normalises before it folds the frames into the batch.
- All position tables are Vaswani's sinusoid, HotshotXL's, AnimateLCM's and CameraCtrl's too: buffers that no trainer touches.
"""

from collections.abc import Callable
from dataclasses import dataclass

TABLELESS = 64  # frames of the table that AnimateLCM makes in code; its files have none
FAMILY = "longtake_family"  # in metadata: which one a module that was trained here is of


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
        lcm: whether spelling or name say that it is AnimateLCM: diffusers writes tables for it, and nothing else tells it from v2.
    """

    layout: str
    levels: int
    middle: bool
    frames: int | None
    conv_in: bool = False
    image_encoder: bool = False
    lcm: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is nothing but AnimateDiff's transformers for SD1.5."""
        return not (self.conv_in or self.image_encoder or self.layout == "HotshotXL" or self.levels == 3)

    @property
    def large(self) -> bool:
        """Whether it is nothing but transformers for SDXL."""
        return (self.levels == 3 or self.layout == "HotshotXL") and not (self.conv_in or self.image_encoder)

    @property
    def lcm_like(self) -> bool:
        """A module in the middle, and no table or AnimateLCM's name."""
        return self.middle and (self.frames is None or self.lcm)


@dataclass(frozen=True)
class Family:
    """One generation of motion modules.

    Attributes:
        name: of the generation.
        could: whether a file with these contents could be of it, if somebody says so.
        fits: whether one that could is of it by what the authors' files have.
        noise_schedule: a name in ``noise.NOISE_SCHEDULES``.
        clip_norms: whether the norms of the U-Net's residual blocks and its last one ran over all frames of a clip in training.
        module_norms: whether the norm inside each motion module did.
        trained_frames: length of the clips it was trained on.
        max_frames: how many times it knows where its file has no table.
        lcm_steps: steps of the schedule it was distilled from; None where it was not.
    """

    name: str
    could: Callable[[Contents], bool]
    fits: Callable[[Contents], bool] = lambda contents: True
    noise_schedule: str = "linear"
    clip_norms: bool = False
    module_norms: bool = False
    trained_frames: int = 16
    max_frames: int = 32
    lcm_steps: int | None = None


FAMILIES: tuple[Family, ...] = (
    Family("v1", lambda c: c.plain, lambda c: not c.middle and c.frames == 24, clip_norms=True, max_frames=24),
    Family("v2", lambda c: c.plain, lambda c: c.middle and not c.lcm_like),
    Family("v3", lambda c: c.plain, lambda c: not c.middle and c.frames == 32),
    Family("AnimateLCM", lambda c: c.plain, lambda c: c.lcm_like, max_frames=TABLELESS, lcm_steps=100),
    Family(
        "AnimateLCM-I2V",
        lambda c: c.image_encoder and not c.conv_in,
        noise_schedule="animatelcm_i2v",
        max_frames=TABLELESS,
        lcm_steps=200,
    ),
    Family("PIA", lambda c: c.conv_in and not c.image_encoder, clip_norms=True),
    Family(
        "SDXL-beta", lambda c: c.large, lambda c: c.layout != "HotshotXL", noise_schedule="animatediff_sdxl", module_norms=True
    ),
    Family(
        "HotshotXL",
        lambda c: c.large,
        lambda c: c.layout == "HotshotXL",
        noise_schedule="scaled_linear",
        clip_norms=True,
        trained_frames=8,
        max_frames=24,
    ),
)


def family_of(contents: Contents, name: str, said: str = "") -> Family:
    """The row of ``FAMILIES`` that a file is of.

    Args:
        contents: of the file.
        name: of the file.
        said: by the user or by the file itself: a family's name; empty where nothing is said.

    Raises:
        ValueError: it cannot be of the one that is said; or nothing is said, and the file has not what the authors' files of any have.
    """
    if contents.conv_in and contents.image_encoder:
        raise ValueError(
            f"{name} holds both PIA's input layer and AnimateLCM's picture encoder: it was put together from two modules; use one of them"
        )
    able = [family for family in FAMILIES if family.could(contents)]
    names = ", ".join(family.name for family in able)
    if said:
        found = next((family for family in able if family.name == said), None)
        if found is None:
            raise ValueError(
                f"{name} cannot be a module of {said}: by what it holds it is one of {names}; choose one of these or auto"
            )
        return found
    found = next((family for family in able if family.fits(contents)), None)
    if found is None:
        tables = f"position tables of {contents.frames} frames" if contents.frames else "no position tables"
        raise ValueError(
            f"{name} has {tables} and no module in the middle block, which no release has (v1: 24 frames, v3: 32), so how its norms ran is"
            f" not known: set family to what it was trained as, one of {names}"
        )
    return found
