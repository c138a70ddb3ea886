"""A noise level for every frame: the schedule as a picture, and the long take itself."""

import logging
import time
from typing import Any

import torch

from ... import host
from ...modules.disk.recording import Recording
from ...modules.draw.level_picture import cost_of, draw_levels
from ...modules.sampling.context_noise import ContextNoiseSettings
from ...modules.sampling.forcing import Forcing, frame_axis, take
from ...modules.sampling.model_view import Guide, plain
from ...modules.sampling.plan import ClipPlan
from ...modules.sampling.plan_settings import ClipPlanSettings, NoiseLevelSettings
from ...modules.sampling.sampling_settings import SamplingSettings
from ..fields import inputs_of, settings_of
from ..guidance.guidance import GuidanceType
from ..models.models import described, empty_clip, labelled
from ..node import LongTakeNode, checked
from ..prompting import check_negative, prompt_inputs
from .recording import recording_input, shown

io = host.io
log = logging.getLogger("longtake")
CATEGORY = "LongTake/forcing"
NoiseLevelsType = io.Custom("LONGTAKE_NOISE_LEVELS")


class LongTakeNoiseLevels(LongTakeNode):
    """The schedule as a picture."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeNoiseLevels",
            display_name="Noise Levels",
            category=CATEGORY,
            description="Says which noise level each frame has at each model call, as an object for samplers and as a picture with its"
            " cost: frames to the right, model calls downwards, bright is noise.",
            inputs=inputs_of(NoiseLevelSettings, frames=32),
            outputs=[
                NoiseLevelsType.Output(display_name="noise_levels", tooltip="The levels go to Rollout or Forcing Sampler."),
                io.Image.Output(tooltip="The picture has a row per model call and a column per frame."),
                io.Int.Output(display_name="model_calls", tooltip="The clip takes so many model calls."),
                io.String.Output(display_name="report", tooltip="The report says what the schedule costs."),
            ],
        )

    validate_inputs = checked(NoiseLevelSettings)

    @classmethod
    def execute(cls, **given: Any) -> "io.NodeOutput":
        settings = settings_of(NoiseLevelSettings, given)
        levels = settings.levels()
        report = "\n".join([f"{settings.schedule}, {levels.steps} steps", *cost_of(levels, settings.window).lines()])
        return io.NodeOutput(levels, draw_levels(levels, settings.window), levels.rows_total, report)


class LongTakeRollout(LongTakeNode):
    """A take of a length that is known."""

    REPLACED = {"noise_levels": ("frames", "schedule", "steps", "lag", "block")}

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeRollout",
            display_name="Rollout (Long Take)",
            category=CATEGORY,
            description="Generates a clip of any length with a model that was trained with a noise level per frame (Diffusion Forcing):"
            " a window slides over the take, finished frames are its context. The same seed gives the same frames, whatever the length.",
            inputs=[
                model_input(),
                *prompt_inputs(),
                *inputs_of(SamplingSettings),
                *inputs_of(ClipPlanSettings),
                *inputs_of(Forcing),
                *inputs_of(ContextNoiseSettings),
                io.Latent.Input(
                    "known_frames",
                    optional=True,
                    tooltip="The take starts with these frames, or they are the known frames of noise_levels, in order; a whole clip does"
                    " too, with all of them in their places. They come back unchanged.",
                ),
                NoiseLevelsType.Input(
                    "noise_levels",
                    optional=True,
                    tooltip="This schedule, from Noise Levels, is used instead of frames, schedule, steps, lag and block here.",
                ),
                guide_input(),
                size_input(),
                recording_input(),
            ],
            outputs=[
                io.Latent.Output(tooltip="It is the whole clip, or with a recording its end."),
                io.String.Output(
                    display_name="report", tooltip="The report says what was made, how long it took and what it cost."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        cfg: float,
        seed: int,
        positive: list | None = None,
        negative: list | None = None,
        known_frames: dict | None = None,
        noise_levels: ClipPlan | None = None,
        guidance: Guide | None = None,
        latent: dict | None = None,
        recording: Recording | None = None,
        **given: Any,
    ) -> "io.NodeOutput":
        check_negative(cfg, negative)
        positive = anything(model) if positive is None else positive
        known = None if known_frames is None else known_frames["samples"]
        levels = noise_levels or settings_of(ClipPlanSettings, given).plan(0 if known is None else known.shape[frame_axis(known)])
        clip = take(levels, known, frame_size(model, known, latent))
        shown_with = settings_of(ContextNoiseSettings, given).made()
        window = window_of(model, given["window"])
        algorithm = settings_of(Forcing, given, plan=levels, context_noise=shown_with, window=window)
        sigmas, guide = host.level_sigmas(model, levels.steps), guidance or plain
        cost = host.sampling_cost(model, algorithm, clip, steps=levels.steps, cfg=cfg, guide=guide)
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
        report = "\n".join([report, *cost.lines()])
        log.debug(report)
        return io.NodeOutput({"samples": clip}, report, ui=shown(report, recording))


def model_input() -> Any:
    """What makes a take."""
    return io.Model.Input("model", tooltip="The model was trained with a noise level per frame.")


def guide_input() -> Any:
    """What is done around the model."""
    return GuidanceType.Input(
        "guidance", optional=True, tooltip="The guidance is put around the model at every call; it comes from a guidance node."
    )


def size_input() -> Any:
    """How large the frames are."""
    return io.Latent.Input(
        "latent",
        optional=True,
        tooltip="This empty latent says how large the frames are, for models that do not say it themselves; its length does not matter.",
    )


def window_of(model: Any, window: int) -> int:
    """A window as it was asked for, or what the model was trained with; 0 where that is not known."""
    info = host.video_info(model)
    return window or (info.frames if info else 0)


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
    if info is not None and given.shape[1] != info.latent_channels:
        raise ValueError(
            f"the latent has {given.shape[1]} channels and this model takes {info.latent_channels}: encode the frames with its own VAE"
        )
    return given
