"""Keyframes as frames that a forced take keeps as they are and fills in between."""

from typing import Any

import torch

from ... import host
from ...modules.control.keyframes import Keyframes
from ...modules.fields.setting import Setting
from ...modules.sampling.forcing import frame_axis
from ..fields import widget
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
            description="Makes keyframes into known frames of models with a noise level per frame: the images are given and stay as"
            " they are,"
            " and their numbers are for known_at of Noise Levels.",
            inputs=[
                KeyframesType.Input(
                    "keyframes",
                    tooltip="The images have the size that the model makes. They are kept exactly, whatever their strength and reach.",
                ),
                io.Vae.Input("vae", tooltip="The VAE is the model's own; it encodes each image by itself."),
                widget("frames", 16, Setting("The clip has so many frames, the same as in Noise Levels.", least=1, most=100000)),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="known_frames", tooltip="The frames go to known_frames of Rollout or Forcing Sampler."
                ),
                io.String.Output(display_name="known_at", tooltip="The numbers go to known_at of Noise Levels."),
            ],
        )

    @classmethod
    def execute(cls, keyframes: Keyframes, vae: Any, frames: int) -> "io.NodeOutput":
        at = keyframes.at(frames)
        if len(at) == frames:
            raise ValueError(f"all {frames} frames of the clip are keyframes: nothing is left to fill in, ask for more frames")
        samples = [vae.encode(image[None, ..., :3]) for image in at.images]
        return io.NodeOutput({"samples": torch.cat(samples, frame_axis(samples[0]))}, ", ".join(map(str, at.frames)))
