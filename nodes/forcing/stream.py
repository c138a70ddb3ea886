"""A take without an end, on disk frame by frame."""

import time
from pathlib import Path
from typing import Any

import torch

from ... import host
from ...host.mp4 import mp4
from ...modules.disk.fingerprint import fingerprint
from ...modules.disk.frame_files import FORMATS, FrameFiles
from ...modules.disk.recorder import Recorder
from ...modules.sampling.context_noise import ContextNoise
from ...modules.sampling.endless import Endless
from ...modules.sampling.forcing import frame_axis
from ...modules.sampling.job import Step
from ...modules.sampling.model_view import Guide, plain
from ...modules.sampling.noise_levels import EndlessLevels
from ...modules.sampling.schedules import ENDLESS
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
                io.String.Input("folder", default="endless_take", tooltip="Where frames go, below the output folder."),
                io.String.Input("filename_prefix", default="frame", tooltip="Frames are called PREFIX_00000.png and so on."),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default="png",
                    tooltip="png and webp: a picture per frame, without loss. mp4: a piece of video per decode_batch frames; needs PyAV.",
                ),
                io.Int.Input(
                    "decode_batch",
                    default=16,
                    min=1,
                    max=4096,
                    tooltip="Frames that are decoded and written together. More needs more memory; with mp4, more makes longer pieces.",
                ),
                io.Float.Input("fps", default=12.0, min=0.01, max=1000.0, step=0.01, tooltip="Frames per second of mp4."),
                io.Int.Input(
                    "save_every",
                    default=64,
                    min=1,
                    max=1_000_000,
                    tooltip="Frames after which the place to go on from is written. After a kill, those since then are made again.",
                ),
                io.Boolean.Input(
                    "resume",
                    default=True,
                    tooltip="On: go on with the take of this folder and prefix. Off: remove it, and begin anew.",
                ),
                io.Boolean.Input("preview", default=True, tooltip="Show the last frame of every batch while the take runs."),
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
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, filename_prefix: str | None = None, **_: Any) -> str:
        if folder is None or filename_prefix is None:  # they come from other nodes
            return ""
        state = FrameFiles(folder_of(folder), filename_prefix).state
        return f"{state.stat().st_mtime_ns}" if state.exists() else "none"

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
        folder: str,
        filename_prefix: str,
        format: str,
        decode_batch: int,
        fps: float,
        save_every: int,
        resume: bool,
        preview: bool,
        positive: list | None = None,
        negative: list | None = None,
        known_frames: dict | None = None,
        guidance: Guide | None = None,
        latent: dict | None = None,
        context_noise_frames: str = "all",
    ) -> "io.NodeOutput":
        if cfg != 1.0 and negative is None:
            raise ValueError(f"cfg is {cfg} and no negative conditioning is connected: connect one, or set cfg to 1")
        positive = anything(model) if positive is None else positive
        start, known = beginning(model, known_frames, latent, window)
        info = host.video_info(model)
        plan = EndlessLevels(schedule, steps, lag, block, len(known), frames)
        shown_with = ContextNoise(context_noise, context_noise_kind, context_noise_frames)
        take = Endless(plan, window or (info.frames if info else 0), eta, order, shown_with, sink_frames)
        files = FrameFiles(folder_of(folder), filename_prefix, format, fps, mp4)
        run = {
            "seed": seed,
            "cfg": cfg,
            "schedule": schedule,
            "steps": steps,
            "lag": lag,
            "block": block,
            "window": window,
            "eta": eta,
            "context_noise": context_noise,
            "context_noise_kind": context_noise_kind,
            "order": order,
            "sink_frames": sink_frames,
            "format": format,
            "decode_batch": decode_batch,
            "fps": fps if format == "mp4" else None,
            "model": fingerprint(info.json() if info else type(getattr(model, "model", model)).__name__),
            "positive": fingerprint(positive),
            "negative": fingerprint(negative if cfg != 1 else None),
            "known_frames": fingerprint(known),
            "guidance": fingerprint(guidance),
            "frames": frames,
            "context_noise_frames": context_noise_frames,
        }
        sigmas, began = host.level_sigmas(model, steps), time.perf_counter()
        recorder = Recorder(take, files, vae.decode, run, known, batch=decode_batch, every=save_every, resume=resume)
        with recorder:
            if not recorder.take.done:
                host.sample(
                    model,
                    positive,
                    negative,
                    cfg=cfg,
                    latent=start,
                    algorithm=recorder.take,
                    seed=seed,
                    sigmas=sigmas,
                    guide=guidance or plain,
                    watch=recorder.watch if preview else silent(recorder),
                )
            images = recorder.finish()
        report = f"{recorder.text()}, seed {seed}, {plan.pace:.3g} model calls per frame, {time.perf_counter() - began:.1f} s"
        return io.NodeOutput(images, str(files.folder), report, ui=host.ui.PreviewText(report))


def folder_of(name: str) -> Path:
    """A folder below the output folder.

    Raises:
        ValueError: it lies elsewhere.
    """
    output = host.output_directory()
    folder = (output / name.strip()).resolve()
    if not name.strip() or output.resolve() not in folder.parents:
        raise ValueError(f"the folder {name!r} does not lie below {output}: give a plain name such as endless_take")
    return folder


def beginning(model: Any, known_frames: dict | None, latent: dict | None, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the take starts from, its known frames followed by empty ones, as many as the model sees at once; and the known frames."""
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
    return start, known


def silent(recorder: Recorder) -> Any:
    """Watch, and show nothing."""

    def watch(step: Step) -> None:
        recorder.watch(step)

    return watch
