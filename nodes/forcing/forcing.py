"""A noise level for every frame: the schedule as a picture, and the long take itself."""

import logging
import time
from typing import Any

import torch

from ... import host
from ...modules.disk.recorder import Recording
from ...modules.draw.level_picture import cost_of, draw_levels
from ...modules.sampling.context_noise import ContextNoise
from ...modules.sampling.forcing import Forcing, frame_axis, take
from ...modules.sampling.known_frames import known_frames, numbers_of
from ...modules.sampling.level_matrix import CUSTOM, NAMES, planned
from ...modules.sampling.model_view import Guide, plain
from ...modules.sampling.plan import ClipPlan
from ..models.models import described, empty_clip, labelled
from ..node import LongTakeNode, checked
from .forcing_inputs import (
    context_noise_inputs,
    eta_input,
    noisy_frames_input,
    schedule_inputs,
    stepping_inputs,
    window_input,
)
from .recording import recording_input

io = host.io
log = logging.getLogger("longtake")
CATEGORY = "LongTake/forcing"
NoiseLevelsType = io.Custom("LONGTAKE_NOISE_LEVELS")
GuidanceType = io.Custom("LONGTAKE_GUIDANCE")


def levels_of(
    frames: int,
    schedule: str,
    steps: int,
    lag: float,
    block: int,
    known: int,
    known_at: str = "",
    custom: str = "",
    window: int = 0,
) -> ClipPlan:
    """The plan that Noise Levels is set to.

    Raises:
        ValueError: its widgets do not go together. One sentence.
    """
    given = known_at_all(frames, known, known_at) if schedule != CUSTOM else numbers_of(known_at) or known
    return planned(schedule, frames, steps, lag=lag, block=block, known=given, window=window, text=custom)


class LongTakeNoiseLevels(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeNoiseLevels",
            display_name="Noise Levels",
            category=CATEGORY,
            description="Which noise level each frame has at each model call, as an object for samplers and as a picture with its cost: "
            "frames to the right, model calls downwards, bright is noise.",
            inputs=[
                io.Int.Input("frames", default=32, min=1, max=100000, tooltip="Length of the clip, known frames included."),
                *schedule_inputs(NAMES),
                io.Int.Input("known", default=0, min=0, max=100000, tooltip="Frames at the start that are given and stay clean."),
                io.String.Input(
                    "known_at",
                    default="",
                    optional=True,
                    tooltip="Numbers of further frames that are given, such as 0, 16, -1 (the last). A trapezoid fills each gap between "
                    "them from its ends inward.",
                ),
                io.String.Input(
                    CUSTOM,
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="The matrix of schedule custom: a line per model call with the level of every frame, from noise down to 0; the "
                    "largest is the number of steps. 3 3 3 or 333; real numbers too. Columns of zeros are known frames.",
                ),
                io.Int.Input(
                    "window",
                    default=0,
                    min=0,
                    max=100000,
                    optional=True,
                    tooltip="Frames that the model sees at once, for the cost, and for a trapezoid between many known frames, which then "
                    "fills as many gaps at a time as fit; 0 is the least.",
                ),
            ],
            outputs=[
                NoiseLevelsType.Output(display_name="noise_levels"),
                io.Image.Output(),
                io.Int.Output(display_name="model_calls"),
                io.String.Output(display_name="report"),
            ],
        )

    validate_inputs = checked(levels_of)

    @classmethod
    def execute(cls, schedule: str, window: int = 0, **given: Any) -> "io.NodeOutput":
        levels = levels_of(schedule=schedule, window=window, **given)
        report = "\n".join([f"{schedule}, {levels.steps} steps", *cost_of(levels, window).lines()])
        return io.NodeOutput(levels, draw_levels(levels, window), levels.rows_total, report)


def known_at_all(frames: int, known: int, known_at: str) -> torch.Tensor | int:
    """Frames known at the start and elsewhere."""
    numbers = numbers_of(known_at)
    if not numbers:
        return known
    return known_frames([*range(min(known, frames)), *numbers], frames)


class LongTakeRollout(LongTakeNode):
    REPLACED = {"noise_levels": ("frames", "schedule", "steps", "lag", "block")}

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeRollout",
            display_name="Rollout (Long Take)",
            category=CATEGORY,
            description="Generate a clip of any length with a model that was trained with a noise level per frame (Diffusion Forcing): "
            "a window slides over the take, finished frames are its context. Same seed, same frames, whatever the length.",
            inputs=[
                io.Model.Input("model", tooltip="A model trained with a noise level per frame."),
                io.Conditioning.Input("positive", optional=True, tooltip="What to show; anything, where nothing is connected."),
                io.Conditioning.Input("negative", optional=True, tooltip="What CFG moves away from; needed when cfg is not 1."),
                io.Float.Input(
                    "cfg", default=1.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance scale; 1 is off and twice as fast."
                ),
                io.Int.Input("seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, tooltip="Of all noise."),
                io.Int.Input("frames", default=64, min=1, max=100000, tooltip="Length of the take, known frames included."),
                *schedule_inputs(),
                window_input(),
                eta_input(),
                *context_noise_inputs(0.2),
                io.Latent.Input(
                    "known_frames",
                    optional=True,
                    tooltip="Frames that the take starts with, or those that noise_levels takes as known, in order; a whole clip does too,"
                    " which has them in their places. They come back unchanged.",
                ),
                NoiseLevelsType.Input(
                    "noise_levels",
                    optional=True,
                    tooltip="A schedule from Noise Levels, used instead of frames, schedule, steps, lag and block here.",
                ),
                *stepping_inputs(optional=True),
                GuidanceType.Input(
                    "guidance", optional=True, tooltip="What is done around the model at every call; see the Guidance nodes."
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="An empty latent that says how large the frames are, for models that do not say it themselves; how many it has"
                    " does not matter.",
                ),
                noisy_frames_input(),
                recording_input(),
            ],
            outputs=[io.Latent.Output(), io.String.Output(display_name="report")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        cfg: float,
        seed: int,
        frames: int,
        schedule: str,
        steps: int,
        lag: float,
        block: int,
        window: int,
        eta: float,
        context_noise: float,
        context_noise_kind: str,
        positive: list | None = None,
        negative: list | None = None,
        known_frames: dict | None = None,
        noise_levels: ClipPlan | None = None,
        order: str = "euler",
        sink_frames: int = 0,
        guidance: Guide | None = None,
        latent: dict | None = None,
        context_noise_frames: str = "all",
        recording: Recording | None = None,
    ) -> "io.NodeOutput":
        if cfg != 1.0 and negative is None:
            raise ValueError(f"cfg is {cfg} and no negative conditioning is connected: connect one, or set cfg to 1")
        positive = anything(model) if positive is None else positive
        known = None if known_frames is None else known_frames["samples"]
        levels = noise_levels or planned(
            schedule, frames, steps, lag=lag, block=block, known=0 if known is None else known.shape[frame_axis(known)]
        )
        clip = take(levels, known, frame_size(model, known, latent))
        info = host.video_info(model)
        shown_with = ContextNoise(context_noise, context_noise_kind, context_noise_frames)
        algorithm = Forcing(levels, window or (info.frames if info else 0), eta, order, shown_with, sink_frames)
        sigmas, guide = host.level_sigmas(model, levels.steps), guidance or plain
        began = time.perf_counter()
        clip = host.sample(
            model,
            positive,
            negative,
            cfg=cfg,
            latent=clip,
            algorithm=algorithm,
            seed=seed,
            sigmas=sigmas,
            guide=guide,
            recording=recording,
        )
        report = f"seed {seed}, {levels.frames} frames, {algorithm.model_calls} model calls, {time.perf_counter() - began:.1f} s"
        log.debug(report)
        return io.NodeOutput({"samples": clip}, report, ui=host.ui.PreviewText(report))


def anything(model: Any) -> list:
    """CONDITIONING for no prompt, of models that know what that is."""
    if host.video_info(model) is None:
        raise ValueError("nothing is connected to positive, and only a LongTake video model can do without: connect a prompt")
    return labelled(model, "")


def frame_size(model: Any, known: torch.Tensor | None, latent: dict | None) -> torch.Tensor:
    """A clip whose frames are as large as those of a take on ``model``, in the layout that it takes."""
    info, size = host.video_info(model), None if latent is None else latent["samples"]
    if size is not None and size.any():
        raise ValueError(
            "latent only says how large the frames are, and it holds pictures: connect them to known_frames, or start from them with"
            " Forcing Sampler and SamplerCustomAdvanced"
        )
    given = known if known is not None else size
    if given is None and info is None:
        raise ValueError(
            "this MODEL does not say how large its clips are: connect an empty latent, known_frames, or a model from Load Video Model"
        )
    if given is None:
        return empty_clip(described(model), 1)
    if info is not None and given.ndim != 4:
        raise ValueError(f"the latent has the shape {list(given.shape)}: this model takes frames in the batch axis, f c h w")
    return given
