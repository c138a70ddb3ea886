"""Models of SkyReels-V2, which are Wan models trained with a noise level per frame."""

from typing import Any

from ... import host
from ...modules.checkpoints.skyreels import fps_modulation, read_fps
from ..node import LongTakeNode

io = host.io
CATEGORY = "LongTake/forcing"
NONE = "none"


class LongTakeSkyReels(LongTakeNode):
    """A Wan model run as SkyReels-V2's authors run theirs."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeSkyReels",
            display_name="SkyReels-V2 (Diffusion Forcing)",
            category=CATEGORY,
            description=(
                "Runs a SkyReels-V2-DF model, loaded with Load Diffusion Model, as its authors do: whole timesteps, attention that is"
                " causal by blocks of frames, and the frame rate that the 1.3B model wants to know. For samplers with a noise level per"
                " frame, and for KSampler."
            ),
            inputs=[
                io.Model.Input("model", tooltip="SkyReels-V2-DF, from Load Diffusion Model."),
                io.Int.Input(
                    "causal_block_size",
                    default=0,
                    min=0,
                    max=1024,
                    tooltip="Latent frames that see each other and what comes before them, but nothing behind them. 0: every frame sees"
                    " all, for synchronous sampling. For a schedule with a lag: as many as its block, 5 in the authors' examples.",
                ),
                io.Int.Input(
                    "fps",
                    default=24,
                    min=1,
                    max=240,
                    tooltip="Frames per second that the 1.3B model is told. It knows 16, and takes anything else for 24.",
                ),
                io.Combo.Input(
                    "fps_file",
                    options=[NONE, *host.files("diffusion_models")],
                    default=NONE,
                    optional=True,
                    tooltip="1.3B: the file that the model was loaded from; its frame-rate embedding is read from there. 14B: none.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model, for a sampler.")],
        )

    @classmethod
    def execute(cls, model: Any, causal_block_size: int, fps: int, fps_file: str) -> "io.NodeOutput":
        rate = None if fps_file == NONE else fps_modulation(read_fps(host.file("diffusion_models", fps_file)), fps)
        return io.NodeOutput(host.apply_skyreels(model, causal_block_size, rate))
