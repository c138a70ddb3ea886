"""Keyframes as frames that a forced take keeps as they are and fills in between."""

from typing import Any

import torch

from ... import host
from ...modules.control.keyframes import Keyframes
from ...modules.sampling.forcing import frame_axis
from ..node import LongTakeNode
from .keyframes import CATEGORY, KeyframesType

io = host.io


class LongTakeKnownFrames(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeKnownFrames",
            display_name="Known Frames",
            category=CATEGORY,
            description="Keyframes for models with a noise level per frame: the images as frames that are given and stay as they are, and"
            " their numbers for known_at of Noise Levels.",
            inputs=[
                KeyframesType.Input(
                    "keyframes",
                    tooltip="Images of the size that the model makes. They are kept exactly, whatever their strength and reach.",
                ),
                io.Vae.Input("vae", tooltip="The model's own; each image is encoded by itself."),
                io.Int.Input("frames", default=16, min=1, max=100000, tooltip="Length of the clip, the same as in Noise Levels."),
            ],
            outputs=[
                io.Latent.Output(display_name="known_frames", tooltip="For known_frames of Rollout or Forcing Sampler."),
                io.String.Output(display_name="known_at", tooltip="For known_at of Noise Levels."),
            ],
        )

    @classmethod
    def execute(cls, keyframes: Keyframes, vae: Any, frames: int) -> "io.NodeOutput":
        at = keyframes.at(frames)
        if len(at) == frames:
            raise ValueError(f"all {frames} frames of the clip are keyframes: nothing is left to fill in, ask for more frames")
        samples = [vae.encode(image[None, ..., :3]) for image in at.images]
        return io.NodeOutput({"samples": torch.cat(samples, frame_axis(samples[0]))}, ", ".join(map(str, at.frames)))
