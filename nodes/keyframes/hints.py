"""Filling in between keyframes, and between the frames of a finished clip."""

import logging
from typing import Any

from torch import Tensor

from ... import host
from ...modules.control.hints import HINTS, LAYOUTS, MASKS, Layout, layout_named, length, told
from ...modules.control.keyframes import Keyframes
from ...modules.control.retiming import blended, retimed
from ..node import LongTakeNode
from .keyframes import KeyframesType

io = host.io
log = logging.getLogger("longtake")
CATEGORY = "LongTake/keyframes"
CUSTOM = "custom"
MODEL, BLEND = "model", "blend"
InterpolationModelType: Any = io.Custom("INTERP_MODEL,FRAME_INTERPOLATION_MODEL")  # ComfyUI's names for it, by version


class LongTakeHintLatents(LongTakeNode):
    """Keyframes beside the noisy latents of an inpainting model."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeHintLatents",
            display_name="Hint Latents",
            category=CATEGORY,
            description="Tells a model that fills in between keyframes what they are: an inpainting checkpoint with a motion module that"
            " was trained so, make-a-stable-diffusion-video, TempoFunk, or a LongTake model with hints. Five keyframes become a clip of 17"
            " frames; put its result in again, and it becomes 65.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="The prompt."),
                io.Conditioning.Input("negative", tooltip="The negative prompt; it is told of the keyframes, too."),
                io.Latent.Input(
                    "samples",
                    optional=True,
                    tooltip="Keyframes as latents, such as the result of the pass before. Or connect images or keyframes, with a VAE.",
                ),
                io.Image.Input("images", optional=True, tooltip="Keyframes as images, in order, factor frames apart; needs vae."),
                KeyframesType.Input(
                    "keyframes",
                    optional=True,
                    tooltip="Keyframes at frames of their own choice; needs vae and frames. Strength and reach do nothing here.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Encodes images and keyframes; the one that goes with the model."),
                io.Int.Input(
                    "factor",
                    default=4,
                    min=2,
                    max=1024,
                    tooltip="Frames from one keyframe to the next: with 4, 5 keyframes become 17 frames. What the model was trained with.",
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="Length of the clip. 0: so long that the last keyframe is its last frame; tempofunk: 22.",
                ),
                io.Combo.Input(
                    "layout",
                    options=[*LAYOUTS, CUSTOM],
                    default="article",
                    tooltip="How the model was trained. article: each keyframe is held until the next, mask 0. make_a_video: zeros between"
                    " keyframes, mask 1 there. moonshot: held, mask 1 on keyframes. tempofunk: one keyframe that comes before the clip,"
                    " held, mask 0. custom: hint and mask below.",
                ),
                io.Combo.Input(
                    "hint",
                    options=list(HINTS),
                    default="hold",
                    tooltip="For layout custom: what stands beside each frame. hold: the last keyframe. nearest: the nearest. linear: a"
                    " blend of its neighbours. blank: nothing but on keyframes.",
                ),
                io.Combo.Input(
                    "mask",
                    options=list(MASKS),
                    default="zeros",
                    tooltip="For layout custom: 1 on no frame, on frames between keyframes, or on keyframes.",
                ),
                io.Latent.Input(
                    "clip",
                    optional=True,
                    tooltip="A clip to sample over with less than full noise, such as a video of which one frame was edited: keyframes are"
                    " put into it. Left out: everything is made new.",
                ),
                io.Boolean.Input(
                    "pin",
                    default=True,
                    tooltip="On: the sampler keeps keyframes as they are. Off: it makes them again like all others, as the article does.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(
                    display_name="latent", tooltip="The clip to sample over, with a noise mask that keeps pinned keyframes."
                ),
                io.Int.Output(display_name="frames", tooltip="Its length."),
                io.String.Output(display_name="known_at", tooltip="The numbers of pinned keyframes, for Noise Levels."),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive: list,
        negative: list,
        factor: int,
        frames: int,
        layout: str,
        hint: str,
        mask: str,
        pin: bool,
        samples: dict | None = None,
        images: Tensor | None = None,
        keyframes: Keyframes | None = None,
        vae: Any = None,
        clip: dict | None = None,
    ) -> "io.NodeOutput":
        how = Layout(hint, mask) if layout == CUSTOM else layout_named(layout)
        latents, numbers, count = placed(samples, images, keyframes, vae, factor, frames, how)
        result = told(latents, numbers, count, how, pin=pin, over=None if clip is None else clip["samples"])
        facts = {"concat_latent_image": result.hints.latents, "concat_mask": result.hints.mask}
        positive, negative = ([[tokens, {**more, **facts}] for tokens, more in given] for given in (positive, negative))
        latent = {"samples": result.clip} | ({} if result.made is None else {"noise_mask": result.made})
        return io.NodeOutput(positive, negative, latent, len(result.clip), result.numbers)


def placed(
    samples: dict | None, images: Tensor | None, keyframes: Keyframes | None, vae: Any, factor: int, frames: int, layout: Layout
) -> tuple[Tensor, tuple[int, ...], int]:
    """(latents of the keyframes, their numbers, frames of the clip), from whichever is connected.

    Raises:
        ValueError: none of them is, or more than one, or what it takes to encode them is missing.
    """
    given = [name for name, value in (("samples", samples), ("images", images), ("keyframes", keyframes)) if value is not None]
    if len(given) != 1:
        raise ValueError(
            f"{', '.join(given) or 'nothing'} is connected: connect exactly one of samples (a latent), images or keyframes (each with vae)"
        )
    if samples is not None:
        latents = samples["samples"]
        count = length(len(latents), factor, frames, layout)
        return latents, tuple(range(0, len(latents) * factor, factor)), count
    if vae is None:
        raise ValueError(f"{given[0]} is connected and no vae: connect the VAE that goes with the model, or samples instead")
    if keyframes is None:
        assert images is not None, "one of the three is there"
        count = length(len(images), factor, frames, layout)
        return vae.encode(images[..., :3]), tuple(range(0, len(images) * factor, factor)), count
    count = frames or keyframes.clip or (length(1, factor, 0, layout) if layout.before else 0)
    if not count:
        raise ValueError(
            "frames is 0 and the keyframes say nothing of the clip's length: set frames, or clip_frames of Keyframes"
        )
    resolved = keyframes.at(count)
    if set(resolved.strengths) != {1.0} or any(resolved.reach):
        log.warning("hint latents have no strength and no reach: all keyframes are told alike")
    return vae.encode(resolved.images[..., :3]), resolved.frames, count


class LongTakeInterpolateTo(LongTakeNode):
    """A clip at another frame rate."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeInterpolateTo",
            display_name="Interpolate To",
            category=CATEGORY,
            description="A finished clip at another frame rate: ComfyUI's own interpolation (RIFE, FILM) makes as many frames in between as"
            " it takes, and those that are at the right times are kept. Up or down, by any ratio; the clip stays as long as it was.",
            inputs=[
                io.Image.Input("images", tooltip="The frames of the clip."),
                io.Float.Input(
                    "from_fps",
                    default=8.0,
                    min=0.01,
                    max=1000.0,
                    step=0.01,
                    round=False,
                    tooltip="Frames per second that it is meant for.",
                ),
                io.Float.Input(
                    "to_fps", default=24.0, min=0.01, max=1000.0, step=0.01, round=False, tooltip="Frames per second wanted."
                ),
                io.Combo.Input(
                    "method",
                    options=[MODEL, BLEND],
                    default=MODEL,
                    tooltip="model: ComfyUI's frame interpolation with the connected model. blend: mixtures of neighbours, which show"
                    " ghosts where things move; it needs no model.",
                ),
                InterpolationModelType.Input(
                    "interp_model",
                    optional=True,
                    tooltip="From Load Frame Interpolation Model; not needed to go to fewer frames.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images"),
                io.Float.Output(display_name="fps", tooltip="Of the result, for Create Video."),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def execute(cls, images: Tensor, from_fps: float, to_fps: float, method: str, interp_model: Any = None) -> "io.NodeOutput":
        retiming = retimed(len(images), from_fps, to_fps)
        frames, made = len(images), images
        if retiming.multiplier > 1 and frames > 1:
            between = blended if method == BLEND else lambda given, times: host.interpolated(interp_model, given, times)
            made = between(images, retiming.multiplier)
        kept = retiming.chosen(made, frames)
        report = f"{frames} frames at {from_fps:g} to {len(kept)} at {to_fps:g} per second, {retiming.times[-1]:.3f} s; "
        report += f"{retiming.multiplier} times by {method}; " if retiming.multiplier > 1 else "no frames in between; "
        report += "every frame at its time" if retiming.error == 0 else f"at most {retiming.error * 1000:.1f} ms off"
        return io.NodeOutput(kept, to_fps, report, ui=host.ui.PreviewText(report))
