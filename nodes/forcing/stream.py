"""A take without an end, on disk frame by frame."""

import time
from typing import Any

import torch

from ... import host
from ...modules.disk.recording_settings import RecordingSettings
from ...modules.sampling.context_noise import ContextNoiseSettings
from ...modules.sampling.endless import Endless
from ...modules.sampling.forcing import frame_axis
from ...modules.sampling.model_view import Guide, plain
from ...modules.sampling.plan_settings import EndlessPlanSettings
from ...modules.sampling.sampling_settings import EndlessSamplingSettings
from ..fields import inputs_of, settings_of
from ..node import LongTakeNode
from ..prompting import check_negative, prompt_inputs
from .forcing import CATEGORY, anything, frame_size, guide_input, model_input, size_input, window_of
from .recording import DECODES, on_disk, recording_of, shown

io = host.io
ROOM = 16  # frames, where neither the user nor the model says how many are seen at once


class LongTakeStream(LongTakeNode):
    """A take that need not end."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeStream",
            display_name="Stream (Endless Take)",
            category=CATEGORY,
            description="Makes a take of any length or without an end: finished frames are written to disk as they come, and memory does"
            " not grow. Goes on where it stopped: a run that was cancelled or killed makes the same frames when it is queued again.",
            inputs=[
                model_input(),
                io.Vae.Input(
                    "vae",
                    tooltip=DECODES,
                ),
                *prompt_inputs(),
                *inputs_of(EndlessSamplingSettings),
                *inputs_of(EndlessPlanSettings),
                *inputs_of(Endless),
                *inputs_of(ContextNoiseSettings),
                *inputs_of(RecordingSettings),
                io.Latent.Input(
                    "known_frames",
                    optional=True,
                    tooltip="The take starts with these frames; they are written first, unchanged.",
                ),
                guide_input(),
                size_input(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="last_frames",
                    tooltip="They are the last frames, as many as decode_batch or of video models fewer; the others are on disk.",
                ),
                io.String.Output(display_name="folder", tooltip="The frames are in this folder."),
                io.String.Output(
                    display_name="report", tooltip="The report says what was made, how long it took and what it cost."
                ),
                io.Latent.Output(
                    display_name="latent", tooltip="It holds the same last frames, for another take that goes on from them."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **given: Any) -> str | float:
        return on_disk(given)

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        cfg: float,
        seed: int,
        positive: list | None = None,
        negative: list | None = None,
        known_frames: dict | None = None,
        guidance: Guide | None = None,
        latent: dict | None = None,
        **given: Any,
    ) -> "io.NodeOutput":
        check_negative(cfg, negative)
        positive = anything(model) if positive is None else positive
        start, known = beginning(model, known_frames, latent, given["window"])
        settings = settings_of(EndlessPlanSettings, given)
        plan, shown_with = settings.endless(known), settings_of(ContextNoiseSettings, given).made()
        window = window_of(model, given["window"])
        take = settings_of(Endless, given, plan=plan, context_noise=shown_with, window=window)
        sigmas, began, made = host.level_sigmas(model, settings.steps), time.perf_counter(), []
        cost = host.sampling_cost(model, take, start, steps=settings.steps, cfg=cfg, guide=guidance or plain)
        recording = recording_of(vae, settings_of(RecordingSettings, given), made)
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
        report = f"{made[-1].text()}, seed {seed}, {plan.pace:.3g} model calls per frame, {time.perf_counter() - began:.1f} s"
        report = "\n".join([report, *cost.lines()])
        folder = str(recording.files.folder)
        pictures = vae.decode(latents) if latents.ndim == 4 else made[-1].last
        if pictures is None:  # stopped before any was decoded in this run
            pictures = host.piece_decoder(vae)(latents, last=True)
        return io.NodeOutput(pictures, folder, report, {"samples": latents}, ui=shown(report, recording))


def beginning(model: Any, known_frames: dict | None, latent: dict | None, window: int) -> tuple[torch.Tensor, int]:
    """What the take starts from, its known frames followed by empty ones, as many as the model sees at once; and how many are known."""
    given = None if known_frames is None else known_frames["samples"]
    size = frame_size(model, given, latent)
    axis = frame_axis(size)
    known = size.narrow(axis, 0, 0) if given is None else given
    info, count = host.video_info(model), known.shape[axis]
    room = window or (info.frames if info else ROOM)
    empty = torch.zeros_like(size.narrow(axis, 0, 1)).repeat_interleave(max(room - count, 1), axis)
    return torch.cat([known, empty], axis), count
