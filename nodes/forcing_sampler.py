"""The Diffusion Forcing sampler as a SAMPLER, for ComfyUI's SamplerCustomAdvanced."""

from .. import host
from ..modules.forcing import Forcing
from ..modules.schedules import NoiseLevels
from ..modules.view import KINDS, History
from .forcing import CATEGORY, NoiseLevelsType, stabilised, stabilised_input, stepping_inputs
from .node import LongTakeNode

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
                io.Int.Input(
                    "window",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Most frames that the model sees at once; 0 is the length it was trained with. Frames in flight must fit.",
                ),
                io.Float.Input(
                    "eta", default=0.0, min=0.0, max=1.0, step=0.05, tooltip="Fresh noise per step: 0 none (DDIM), 1 ancestral."
                ),
                *stepping_inputs(),
                io.Float.Input(
                    "stabilise",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Finished frames are shown to the model as if they had noise of this sigma, so that small errors do not add up;"
                    " 0 is off, 0.2 suits the bundled model.",
                ),
                io.Combo.Input(
                    "stabilise_with",
                    options=list(KINDS),
                    default="noise",
                    tooltip="noise: they really get that noise, the same at every call. addnoise: other noise at every call. label: the"
                    " model is only told so. The frames themselves never change.",
                ),
                io.Latent.Input(
                    "known_frames",
                    optional=True,
                    tooltip="The frames that noise_levels takes as known, in order, or a whole clip that has them in their places; they"
                    " come back unchanged. Left out, the latent holds them, and its noise mask may say which.",
                ),
                stabilised_input(),
            ],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(
        cls,
        noise_levels: NoiseLevels,
        window: int,
        eta: float,
        order: str,
        anchors: int,
        stabilise: float,
        stabilise_with: str,
        known_frames: dict | None = None,
        stabilise_frames: str = "all",
    ) -> "io.NodeOutput":
        history = History(stabilise, stabilise_with, only=stabilised(stabilise_frames, noise_levels.known))
        known = None if known_frames is None else known_frames["samples"]
        return io.NodeOutput(host.forcing_sampler(Forcing(noise_levels, window, eta, order, history, anchors, known)))
