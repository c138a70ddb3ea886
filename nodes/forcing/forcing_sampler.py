"""The Diffusion Forcing sampler as a SAMPLER, for ComfyUI's SamplerCustomAdvanced."""

from ... import host
from ...modules.disk.recorder import Recording
from ...modules.sampling.context_noise import ContextNoise
from ...modules.sampling.forcing import Forcing
from ...modules.sampling.plan import ClipPlan
from ..node import LongTakeNode
from .forcing import CATEGORY, NoiseLevelsType
from .forcing_inputs import context_noise_inputs, eta_input, noisy_frames_input, stepping_inputs, window_input
from .recording import recording_input

io = host.io


class LongTakeForcingSampler(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeForcingSampler",
            display_name="Forcing Sampler",
            category=CATEGORY,
            description="Every frame at its own noise level, as a SAMPLER for SamplerCustomAdvanced: noise, guider, sigmas and latent come"
            " from there. For models trained with a noise level per frame; with full_sequence levels it is ComfyUI's own euler or heun.",
            inputs=[
                NoiseLevelsType.Input(
                    "noise_levels",
                    tooltip="From Noise Levels; its frames are those of the latent, and its steps those of the scheduler.",
                ),
                window_input(),
                eta_input(),
                *stepping_inputs(),
                *context_noise_inputs(0.0),
                io.Latent.Input(
                    "known_frames",
                    optional=True,
                    tooltip="The frames that noise_levels takes as known, in order, or a whole clip that has them in their places; they"
                    " come back unchanged. Left out, the latent holds them, and its noise mask may say which.",
                ),
                noisy_frames_input(),
                recording_input(),
            ],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(
        cls,
        noise_levels: ClipPlan,
        window: int,
        eta: float,
        order: str,
        sink_frames: int,
        context_noise: float,
        context_noise_kind: str,
        known_frames: dict | None = None,
        context_noise_frames: str = "all",
        recording: Recording | None = None,
    ) -> "io.NodeOutput":
        shown_with = ContextNoise(context_noise, context_noise_kind, context_noise_frames)
        known = None if known_frames is None else known_frames["samples"]
        sampler = Forcing(noise_levels, window, eta, order, shown_with, sink_frames, known)
        return io.NodeOutput(host.forcing_sampler(sampler, recording))
