"""The Diffusion Forcing sampler as a SAMPLER, for ComfyUI's SamplerCustomAdvanced."""

from typing import Any

from ... import host
from ...modules.disk.recording import Recording
from ...modules.sampling.context_noise import ContextNoiseSettings
from ...modules.sampling.forcing import Forcing
from ...modules.sampling.plan import ClipPlan
from ..fields import inputs_of, settings_of
from ..node import LongTakeNode
from .forcing import CATEGORY, NoiseLevelsType
from .recording import recording_input

io = host.io


class LongTakeForcingSampler(LongTakeNode):
    """A noise level per frame, in ComfyUI's own graph of samplers."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeForcingSampler",
            display_name="Forcing Sampler",
            category=CATEGORY,
            description="Samples every frame at its own noise level, as a SAMPLER for SamplerCustomAdvanced: noise, guider, sigmas and"
            " latent come from there. It is for models trained with a noise level per frame; with full_sequence levels it is ComfyUI's own"
            " euler or heun.",
            inputs=[
                NoiseLevelsType.Input(
                    "noise_levels",
                    tooltip="The levels come from Noise Levels; their frames are those of the latent, and their steps those of the"
                    " scheduler.",
                ),
                *inputs_of(Forcing),
                *inputs_of(ContextNoiseSettings),
                io.Latent.Input(
                    "known_frames",
                    optional=True,
                    tooltip="These are the known frames of noise_levels, in order, or a whole clip with all of them in their places; they"
                    " come back unchanged. Where nothing is connected, the latent holds them, and its noise mask may mark them.",
                ),
                recording_input(),
            ],
            outputs=[io.Sampler.Output(tooltip="The sampler goes to SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls, noise_levels: ClipPlan, known_frames: dict | None = None, recording: Recording | None = None, **given: Any
    ) -> "io.NodeOutput":
        sampler = settings_of(
            Forcing,
            given,
            plan=noise_levels,
            context_noise=settings_of(ContextNoiseSettings, given).made(),
            known_frames=None if known_frames is None else known_frames["samples"],
        )
        return io.NodeOutput(host.forcing_sampler(sampler, recording))
