"""FIFO-Diffusion as a SAMPLER, for ComfyUI's SamplerCustomAdvanced."""

from ... import host
from ...modules.disk.recorder import Recording
from ...modules.sampling.fifo import Fifo
from ..node import LongTakeNode
from .recording import recording_input

io = host.io
STARTS = ("ramp_up", "base_clip")


class LongTakeFifoSampler(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeFifoSampler",
            display_name="FIFO Sampler",
            category="LongTake/forcing",
            description="Clips of any length from an ordinary motion module, in constant memory: frames stand in a queue, each a little"
            " noisier than the one before it, and leave it finished one by one. A SAMPLER for SamplerCustomAdvanced.",
            inputs=[
                io.Int.Input(
                    "partitions",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="Windows that the queue is divided into. The scheduler needs partitions x window steps. More: levels in a"
                    " window are closer together, which motion modules want, and frames cost more. 1 for models trained with a level per"
                    " frame.",
                ),
                io.Int.Input(
                    "window",
                    default=16,
                    min=0,
                    max=4096,
                    tooltip="Frames that the model sees at once: what its motion module was trained on, 16 for AnimateDiff. 0 takes that"
                    " from the model.",
                ),
                io.Boolean.Input(
                    "lookahead",
                    default=True,
                    tooltip="Windows overlap by half and only the noisier half moves, in sight of cleaner frames. Better, and twice the"
                    " time.",
                ),
                io.Float.Input(
                    "eta",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Fresh noise per step: 0 none (DDIM), 1 ancestral. Its authors use 0.5 to 1, which keeps long clips from"
                    " wearing out.",
                ),
                io.Combo.Input(
                    "init",
                    options=list(STARTS),
                    default="ramp_up",
                    tooltip="How the queue is filled. ramp_up: from noise, needs nothing. base_clip: from a finished clip of window frames,"
                    " as its authors do.",
                ),
                io.Latent.Input(
                    "base_clip",
                    optional=True,
                    tooltip="For init base_clip: as many frames as the window, of the size of the latent.",
                ),
                recording_input(),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=100_000_000,
                    optional=True,
                    tooltip="With a recording, frames is the length of the take whatever that of the latent, which then says how large the"
                    " frames are: an empty one of a single frame does, and memory does not grow with the take. 0 goes on until you cancel."
                    " Without a recording it is not used: the latent says how many frames there are.",
                ),
            ],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(
        cls,
        partitions: int,
        window: int,
        lookahead: bool,
        eta: float,
        init: str,
        base_clip: dict | None = None,
        recording: Recording | None = None,
        frames: int = 0,
    ) -> "io.NodeOutput":
        if init not in STARTS:
            raise ValueError(f"init is {init!r}: choose one of {', '.join(STARTS)}")
        if (init == "base_clip") != (base_clip is not None):
            connected = "no base clip is connected" if base_clip is None else "a base clip is connected, which it does not use"
            raise ValueError(f"init is {init} and {connected}: connect one for base_clip and none for ramp_up")
        base = None if base_clip is None else base_clip["samples"]
        length = None if recording is None else frames
        return io.NodeOutput(host.forcing_sampler(Fifo(partitions, window, lookahead, eta, base, length), recording))
