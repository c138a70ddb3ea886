"""Motion modules as a training begins with them: from nothing, or from a file."""

from dataclasses import replace
from typing import Any

import torch

from ..checkpoints.families import Contents, family_of
from ..checkpoints.motion import MotionModule, check_base
from ..temporal.motion import MotionModel
from ..temporal.slot_names import MIDDLE, levels
from ..temporal.slots import widths
from ..temporal.transformer import TemporalConfig

KNOWN_FRAMES = 32  # that a new motion module knows times for
SAVED_FAMILIES = ("v1", "v2", "v3", "AnimateLCM", "SDXL-beta")  # whose files hold nothing but temporal transformers


def new_module(unet: Any, seed: int, frames: int) -> MotionModule:
    """A motion module for a U-Net that does nothing yet: AnimateDiff's v3 for SD1.5's family, its beta for SDXL's.

    Args:
        unet: that it is for.
        seed: of the weights.
        frames: of the clips that it will be trained on.

    Raises:
        ValueError: the U-Net has widths that such modules cannot have.
    """
    there = {name: width for name, width in widths(unet).items() if name != MIDDLE}
    odd = next((width for width in there.values() if width % 32), None)
    if odd is not None:
        raise ValueError(
            f"this U-Net has a level of {odd} channels, and motion modules have 32 groups of channels: use another base"
        )
    frames = max(frames, KNOWN_FRAMES)
    contents = Contents("AnimateDiff", len(levels(there)), False, frames)
    family = family_of(contents, "the new motion module", "SDXL-beta" if contents.large else "v3")
    config = TemporalConfig()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = MotionModel(there, config).zero().state_dict()
    return MotionModule(
        "the new motion module",
        family.name,
        there,
        config,
        state,
        family.noise_schedule,
        family.clip_norms,
        frames,
        family.trained_frames,
        module_norms=family.module_norms,
    )


def check_start(motion: MotionModule | None, frames: int, unet: Any, *, module: bool) -> None:
    """Refuse a motion module that cannot be trained, or trained on, in this U-Net with clips of so many frames.

    Raises:
        ValueError: why.
    """
    if motion is None:
        return
    check_base(motion, unet)
    if motion.conv_in is not None or motion.image_encoder is not None or motion.camera is not None:
        raise ValueError(
            f"{motion.name} follows a picture or a camera, which is not trained here: use a plain module, such as v3_sd15_mm.ckpt"
        )
    if module and motion.family not in SAVED_FAMILIES:
        raise ValueError(
            f"{motion.name} is a {motion.family} module, whose files cannot be written: start from one of {', '.join(SAVED_FAMILIES)}, or"
            " from nothing"
        )
    if frames > motion.max_frames:
        raise ValueError(
            f"the clips have {frames} frames and {motion.name} knows times for {motion.max_frames}: cut clips of {motion.max_frames} or"
            " fewer"
        )


def built(motion: MotionModule, device: torch.device) -> MotionModel:
    """The network of a motion module in plain torch and float32, with weights of its own."""
    network = MotionModel(motion.widths, replace(motion.config, clip_norm=motion.module_norms))
    network.load_state_dict({key: value.detach().clone().float() for key, value in motion.state.items()})
    return network.to(device)
