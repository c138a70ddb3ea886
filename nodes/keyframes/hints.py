"""Filling in between keyframes, and between the frames of a finished clip."""

import logging
from typing import Any

from torch import Tensor

from ... import host
from ...modules.control.hint_tables import HINTS, MASKS
from ...modules.control.hints import LAYOUTS, Layout, layout_named, length, told
from ...modules.control.keyframes import Keyframes
from ...modules.control.retiming import at_times, mixtures, retimed
from ...modules.fields.setting import Setting, sentences
from ..fields import widget
from ..node import LongTakeNode
from .keyframes import KeyframesType

io = host.io
log = logging.getLogger("longtake")
CATEGORY = "LongTake/keyframes"
CUSTOM = "custom"
MODEL, BLEND = "model", "blend"
RATE: dict[str, Any] = {"least": 0.01, "most": 1000.0, "step": 0.01, "exact": True}
InterpolationModelType: Any = io.Custom("INTERP_MODEL,FRAME_INTERPOLATION_MODEL")  # ComfyUI's names for it, by version


class LongTakeHintLatents(LongTakeNode):
    """Keyframes beside the noisy latents of an inpainting model."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        layouts = {**{name: layout.text for name, layout in LAYOUTS.items()}, CUSTOM: "It is as hint and mask say."}
        return io.Schema(
            node_id="LongTakeHintLatents",
            display_name="Hint Latents",
            category=CATEGORY,
            description="Tells a model that fills in between keyframes what they are: an inpainting checkpoint with a motion module that"
            " was trained so, make-a-stable-diffusion-video, TempoFunk, or a LongTake model with hints. Five keyframes become a clip"
            " of 17"
            " frames; put its result in again, and it becomes 65.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="The prompt says what the clip shows."),
                io.Conditioning.Input(
                    "negative", tooltip="The negative prompt says what it does not show; it is told of the keyframes, too."
                ),
                io.Latent.Input(
                    "samples",
                    optional=True,
                    tooltip="The keyframes come as latents, such as the result of the pass before. Images or keyframes may come instead,"
                    " with a VAE.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="The keyframes come as images, in order, factor frames apart; this needs vae.",
                ),
                KeyframesType.Input(
                    "keyframes",
                    optional=True,
                    tooltip="The keyframes have frames of their own choice; this needs vae and frames. Strength and reach do nothing"
                    " here.",
                ),
                io.Vae.Input(
                    "vae", optional=True, tooltip="The VAE encodes images and keyframes; it is the one that goes with the model."
                ),
                widget(
                    "factor",
                    4,
                    Setting(
                        "So many frames lie from one keyframe to the next, as the model was trained: with 4, 5 keyframes become 17"
                        " frames.",
                        least=2,
                        most=1024,
                    ),
                ),
                widget(
                    "frames",
                    0,
                    Setting(
                        "The clip has so many frames. 0 makes the last keyframe its last frame; for tempofunk it is 22.",
                        least=0,
                        most=1_000_000,
                    ),
                ),
                widget(
                    "layout",
                    "article",
                    Setting("The layout says how the model was trained.", menu=layouts),
                ),
                widget(
                    "hint",
                    "hold",
                    Setting("In the layout custom, this stands beside each frame.", menu=sentences(HINTS), advanced=True),
                ),
                widget(
                    "mask",
                    "zeros",
                    Setting("In the layout custom, this is the mask of each frame.", menu=sentences(MASKS), advanced=True),
                ),
                io.Latent.Input(
                    "clip",
                    optional=True,
                    tooltip="The clip is sampled over with less than full noise, such as a video of which one frame was edited:"
                    " keyframes are"
                    " put into it. Where nothing is connected, everything is made new.",
                ),
                widget(
                    "pin",
                    True,
                    Setting(
                        "The sampler keeps keyframes as they are; otherwise it makes them again like all others, as the article does.",
                        advanced=True,
                    ),
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The conditioning holds the hints, for the sampler."),
                io.Conditioning.Output(display_name="negative", tooltip="The conditioning holds the hints, for the sampler."),
                io.Latent.Output(
                    display_name="latent",
                    tooltip="The latent is the clip to sample over, with a noise mask that keeps pinned keyframes.",
                ),
                io.Int.Output(display_name="frames", tooltip="The number is its length."),
                io.String.Output(display_name="known_at", tooltip="The numbers of pinned keyframes are for Noise Levels."),
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
            f"{', '.join(given) or 'nothing'} is connected: connect exactly one of samples (a latent), images or keyframes (each with"
            f" vae)"
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
            description="Gives a finished clip another frame rate: ComfyUI's own interpolation (RIFE, FILM) makes the frames at the new"
            " times, and no others; frames that already are at one of them are kept. Any ratio works, up or down; the clip stays as"
            " long as it was.",
            inputs=[
                io.Image.Input("images", tooltip="The images are the frames of the clip."),
                widget("from_fps", 8.0, Setting("The clip is meant for so many frames per second.", **RATE)),
                widget("to_fps", 24.0, Setting("The result has so many frames per second.", **RATE)),
                widget(
                    "method",
                    MODEL,
                    Setting(
                        "The method makes the frames in between.",
                        menu={
                            MODEL: "ComfyUI's frame interpolation makes them with the connected model.",
                            BLEND: "They are mixtures of neighbours, which show ghosts where things move; this needs no model.",
                        },
                    ),
                ),
                InterpolationModelType.Input(
                    "interp_model",
                    optional=True,
                    tooltip="The model comes from Load Frame Interpolation Model; it is not needed where each new frame is at the time of"
                    " an old one, as from 24 to 12.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The images are the clip at the new rate."),
                io.Float.Output(display_name="fps", tooltip="The number is the result's rate, for Create Video."),
                io.String.Output(display_name="report", tooltip="The report says which frames were kept and which were made."),
            ],
        )

    @classmethod
    def execute(cls, images: Tensor, from_fps: float, to_fps: float, method: str, interp_model: Any = None) -> "io.NodeOutput":
        times = retimed(len(images), from_fps, to_fps)
        count = sum(time.denominator > 1 for time in times)
        if not count:
            made = images[[int(time) for time in times]]
        elif method == BLEND:
            made = at_times(images, times, mixtures(images))
        else:
            with host.interpolator(interp_model, images, count) as between:
                made = at_times(images, times, between)
        seconds = float(times[-1]) / from_fps
        report = f"{len(images)} frames at {from_fps:g} to {len(made)} at {to_fps:g} per second, {seconds:.3f} s; "
        report += f"{count} made by {method}, {len(made) - count} kept" if count else "no frames in between"
        return io.NodeOutput(made, to_fps, report, ui=host.ui.PreviewText(report))
