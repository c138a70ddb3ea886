"""A noise level for every frame: the schedule as a picture, and the long take itself."""

import logging
import time
from functools import partial
from typing import Any

import torch

from .. import host
from ..modules.pictures import heat_map
from ..modules.samplers import forcing
from ..modules.schedules import SCHEDULES, Levels, NoiseLevels
from ..modules.view import KINDS, History
from .models import empty_clip, labelled
from .node import LongTakeNode

io = host.io
log = logging.getLogger("longtake")
CATEGORY = "LongTake/forcing"
NoiseLevelsType = io.Custom("LONGTAKE_NOISE_LEVELS")


def schedule_inputs() -> list:
    """The widgets that say which schedule; two nodes have them."""
    return [
        io.Combo.Input(
            "schedule",
            options=list(SCHEDULES),
            default="pyramid",
            tooltip="pyramid: each frame a little noisier than the one before it, for takes of any length. autoregressive: one block after "
            "the other. full_sequence: all frames together, up to the window. trapezoid: both ends first, the middle last.",
        ),
        io.Int.Input("steps", default=12, min=1, max=1000, tooltip="Denoising steps that each frame takes from noise to clean."),
        io.Float.Input(
            "lag",
            default=3.0,
            min=0.0,
            max=1000.0,
            step=0.25,
            tooltip="pyramid and trapezoid: steps that a block is behind its neighbour. It is also the number of model calls per frame: "
            "small is fast, as large as steps is autoregressive, 0 is full_sequence.",
        ),
        io.Int.Input("block", default=1, min=1, max=1024, tooltip="Frames that move together."),
    ]


class LongTakeNoiseLevels(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeNoiseLevels",
            display_name="Noise Levels",
            category=CATEGORY,
            description="Which noise level each frame has at each model call, as an object for samplers and as a picture: "
            "frames to the right, model calls downwards, bright is noise.",
            inputs=[
                io.Int.Input("frames", default=32, min=1, max=100000, tooltip="Length of the clip, known frames included."),
                *schedule_inputs(),
                io.Int.Input("known", default=0, min=0, max=100000, tooltip="Frames at the start that are given and stay clean."),
            ],
            outputs=[
                NoiseLevelsType.Output(display_name="noise_levels"),
                io.Image.Output(),
                io.Int.Output(display_name="model_calls"),
            ],
        )

    @classmethod
    def execute(cls, frames: int, schedule: str, steps: int, lag: float, block: int, known: int) -> "io.NodeOutput":
        levels = NoiseLevels.named(schedule, frames, steps, lag=lag, block=block, known=known)
        return io.NodeOutput(levels, heat_map(levels.matrix(), top=steps), levels.calls_total)


class LongTakeRollout(LongTakeNode):
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
                io.Int.Input(
                    "window",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Most frames that the model sees at once; 0 is the length it was trained with. Frames in flight must fit: "
                    "about steps / lag.",
                ),
                io.Float.Input(
                    "eta", default=0.0, min=0.0, max=1.0, step=0.05, tooltip="Fresh noise per step: 0 none (DDIM), 1 ancestral."
                ),
                io.Float.Input(
                    "stabilise",
                    default=0.2,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Finished frames are shown to the model as if they had noise of this sigma, so that small errors do not "
                    "add up; 0 is off.",
                ),
                io.Combo.Input(
                    "stabilise_with",
                    options=list(KINDS),
                    default="noise",
                    tooltip="noise: they really get that noise, the same at every call. label: the model is only told so.",
                ),
                io.Latent.Input(
                    "known_frames", optional=True, tooltip="Frames that the take starts with; they come back unchanged."
                ),
                NoiseLevelsType.Input(
                    "noise_levels",
                    optional=True,
                    tooltip="A schedule from Noise Levels, used instead of frames, schedule, steps, lag and block here.",
                ),
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
        stabilise: float,
        stabilise_with: str,
        positive: list | None = None,
        negative: list | None = None,
        known_frames: dict | None = None,
        noise_levels: NoiseLevels | None = None,
    ) -> "io.NodeOutput":
        if cfg != 1.0 and negative is None:
            raise ValueError(f"cfg is {cfg} and no negative conditioning is connected: connect one, or set cfg to 1")
        positive = labelled(model, "") if positive is None else positive
        known = None if known_frames is None else known_frames["samples"]
        levels = noise_levels or NoiseLevels.named(
            schedule, frames, steps, lag=lag, block=block, known=0 if known is None else len(known)
        )
        latent = start_latent(model, levels, known)
        info = host.video_info(model)
        window = window or (info.frames if info else 16)
        levels.calls(window)  # refuses a window that is too short, before anything is loaded
        algorithm = partial(
            forcing,
            levels=levels,
            window=window,
            eta=eta,
            history=History(stabilise, stabilise_with, seed),
        )
        sigmas = host.level_sigmas(model, levels.steps)
        began = time.perf_counter()
        clip = host.sample(model, positive, negative, cfg=cfg, latent=latent, algorithm=algorithm, seed=seed, sigmas=sigmas)
        report = f"seed {seed}, {levels.frames} frames, {levels.calls_total} model calls, {time.perf_counter() - began:.1f} s"
        log.debug(report)
        return io.NodeOutput({"samples": clip}, report, ui=host.ui.PreviewText(report))


def start_latent(model: Any, levels: Levels, known: torch.Tensor | None) -> torch.Tensor:
    """The known frames followed by zeros, ``f c h w``."""
    if known is None:
        if levels.known.any():
            raise ValueError(
                f"the noise levels are for a take with {int(levels.known.sum())} known frames and none are connected: connect known_frames"
            )
        info = host.video_info(model)
        if info is None:
            raise ValueError(
                "this MODEL does not say how large its clips are: connect known_frames, or a model from Load Video Model"
            )
        return empty_clip(info, levels.frames)
    if known.ndim != 4:
        raise ValueError(f"known_frames has shape {list(known.shape)}: this sampler takes frames in the batch axis, f c h w")
    count = int(levels.known.sum())
    if len(known) != count:
        raise ValueError(f"{len(known)} known frames are connected and the noise levels are for {count}: they must agree")
    latent = known.new_zeros(levels.frames, *known.shape[1:])
    latent[levels.known] = known
    return latent
