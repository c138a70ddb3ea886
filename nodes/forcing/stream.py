"""A take without an end, on disk frame by frame."""

import time
from typing import Any

import torch

from ... import host
from ...modules.disk.recording_settings import RecordingSettings
from ...modules.sampling.context_noise import ContextNoise
from ...modules.sampling.endless import Endless
from ...modules.sampling.forcing import frame_axis
from ...modules.sampling.model_view import Guide, plain
from ...modules.sampling.noise_levels import EndlessLevels
from ...modules.sampling.schedules import ENDLESS
from ..fields import inputs_of, settings_of
from ..node import LongTakeNode
from .forcing import CATEGORY, GuidanceType, anything, frame_size
from .forcing_inputs import (
    context_noise_inputs,
    eta_input,
    noisy_frames_input,
    schedule_inputs,
    stepping_inputs,
    window_input,
)
from .recording import on_disk, recording_of

io = host.io
ROOM = 16  # frames, where neither the user nor the model says how many are seen at once


class LongTakeStream(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeStream",
            display_name="Stream (Endless Take)",
            category=CATEGORY,
            description="A take of any length or without an end: finished frames are written to disk as they come, and memory does not "
            "grow. Goes on where it stopped: a run that was cancelled or killed makes the same frames when it is queued again.",
            inputs=[
                io.Model.Input("model", tooltip="A model trained with a noise level per frame."),
                io.Vae.Input("vae", tooltip="Turns finished frames into pictures, decode_batch at a time."),
                io.Conditioning.Input("positive", optional=True, tooltip="What to show; anything, where nothing is connected."),
                io.Conditioning.Input("negative", optional=True, tooltip="What CFG moves away from; needed when cfg is not 1."),
                io.Float.Input(
                    "cfg", default=1.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance scale; 1 is off and twice as fast."
                ),
                io.Int.Input("seed", default=0, min=0, max=2**64 - 1, control_after_generate=False, tooltip="Of all noise."),
                io.Int.Input(
                    "frames",
                    default=1000,
                    min=0,
                    max=100_000_000,
                    tooltip="Length of the take, known frames included; 0 goes on until you cancel. A take that was cancelled can be given "
                    "another length and goes on.",
                ),
                *schedule_inputs(ENDLESS),
                window_input(),
                eta_input(),
                *context_noise_inputs(0.2),
                *stepping_inputs(),
                *inputs_of(RecordingSettings),
                io.Latent.Input(
                    "known_frames", optional=True, tooltip="Frames that the take starts with; they are written first, unchanged."
                ),
                GuidanceType.Input(
                    "guidance", optional=True, tooltip="What is done around the model at every call; see the Guidance nodes."
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="An empty latent that says how large the frames are, for models that do not say it themselves; how many it "
                    "has does not matter.",
                ),
                noisy_frames_input(),
            ],
            outputs=[
                io.Image.Output(display_name="last_frames", tooltip="As many as decode_batch; the others are on disk."),
                io.String.Output(display_name="folder"),
                io.String.Output(display_name="report"),
                io.Latent.Output(display_name="latent", tooltip="The same last frames, which another take may go on from."),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **given: Any) -> str:
        return on_disk(given)

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
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
        order: str,
        sink_frames: int,
        positive: list | None = None,
        negative: list | None = None,
        known_frames: dict | None = None,
        guidance: Guide | None = None,
        latent: dict | None = None,
        context_noise_frames: str = "all",
        **given: Any,
    ) -> "io.NodeOutput":
        if cfg != 1.0 and negative is None:
            raise ValueError(f"cfg is {cfg} and no negative conditioning is connected: connect one, or set cfg to 1")
        positive = anything(model) if positive is None else positive
        start, known = beginning(model, known_frames, latent, window)
        info = host.video_info(model)
        plan = EndlessLevels(schedule, steps, lag, block, known, frames)
        shown_with = ContextNoise(context_noise, context_noise_kind, context_noise_frames)
        take = Endless(plan, window or (info.frames if info else 0), eta, order, shown_with, sink_frames)
        sigmas, began, reports = host.level_sigmas(model, steps), time.perf_counter(), []
        recording = recording_of(vae, settings_of(RecordingSettings, given), reports)
        latents = host.sample(
            model,
            positive,
            negative,
            cfg=cfg,
            latent=start,
            algorithm=take,
            seed=seed,
            sigmas=sigmas,
            guide=guidance or plain,
            recording=recording,
        )
        report = f"{reports[-1]}, seed {seed}, {plan.pace:.3g} model calls per frame, {time.perf_counter() - began:.1f} s"
        folder = str(recording.files.folder)
        return io.NodeOutput(vae.decode(latents), folder, report, {"samples": latents}, ui=host.ui.PreviewText(report))


def beginning(model: Any, known_frames: dict | None, latent: dict | None, window: int) -> tuple[torch.Tensor, int]:
    """What the take starts from, its known frames followed by empty ones, as many as the model sees at once; and how many are known."""
    given = None if known_frames is None else known_frames["samples"]
    size = frame_size(model, given, latent)
    if size.ndim != 4 or frame_axis(size) != 0:
        raise ValueError(
            f"the latent has the shape {list(size.shape)}, of a video model whose VAE turns several pictures into one frame: batches of"
            " such frames cannot be decoded on their own, so use Rollout and decode the whole take"
        )
    known = size[:0] if given is None else given
    info = host.video_info(model)
    room = window or (info.frames if info else ROOM)
    start = size.new_zeros(max(room, len(known) + 1), *size.shape[1:])
    start[: len(known)] = known
    return start, len(known)
