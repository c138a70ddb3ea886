"""Inputs that several forcing nodes have: which schedule, how frames step, how finished ones are shown."""

from collections.abc import Sequence

from ... import host
from ...modules.sampling.context_noise import KINDS, WHICH
from ...modules.sampling.level_matrix import CUSTOM, NAMES
from ...modules.sampling.stepping import ORDERS

io = host.io

TOLD = {
    "pyramid": "each frame a little noisier than the one before it, for takes of any length",
    "autoregressive": "one block after the other",
    "full_sequence": "all frames together, up to the window",
    "trapezoid": "both ends first, the middle last; fills gaps between known frames",
    "chunked": "a pyramid inside each block, and one block after the other",
    "ar_step": "as SkyReels-V2: lag is its ar_step, block its causal_block_size",
    "fifo": "a queue of as many frames as steps, one call per frame; lag and block do nothing",
    "rolling": "as Rolling Diffusion: steps / lag frames in flight",
    "progressive": "as PA-VDM: steps / lag blocks in flight",
    "ar_diffusion": "as AR-Diffusion for text: each frame at a speed of its own; the window holds the clip, lag and block do nothing",
    "custom": "the matrix written below",
}


def schedule_inputs(names: Sequence[str] = tuple(name for name in NAMES if name != CUSTOM)) -> list:
    """The widgets that say which schedule; several nodes have them."""
    return [
        io.Combo.Input(
            "schedule",
            options=list(names),
            default="pyramid",
            tooltip=". ".join(f"{name}: {TOLD[name]}" for name in names) + ".",
        ),
        io.Int.Input("steps", default=12, min=1, max=1000, tooltip="Denoising steps that each frame takes from noise to clean."),
        io.Float.Input(
            "lag",
            default=3.0,
            min=0.0,
            max=1000.0,
            step=0.25,
            tooltip="Steps that a block is behind its neighbour. It is also the number of model calls per frame: small is fast, as large "
            "as steps is autoregressive, 0 is full_sequence.",
        ),
        io.Int.Input("block", default=1, min=1, max=1024, tooltip="Frames that move together."),
    ]


def stepping_inputs(optional: bool = False) -> list:
    """The widgets that say how frames step; two nodes have them."""
    return [
        io.Combo.Input(
            "order",
            options=list(ORDERS),
            default="euler",
            optional=optional,
            tooltip="euler: one model call per row. heun: two, with a smaller error for the same steps. unipc: one, and the smaller error:"
            " each frame goes on from its own earlier calls; SkyReels-V2 and Wan are sampled so. heun and unipc need eta 0.",
        ),
        io.Int.Input(
            "sink_frames",
            default=0,
            min=0,
            max=1024,
            optional=optional,
            tooltip="First frames of the clip that stay in the window for good, so that a long take does not forget how it began. They take"
            " room in the window.",
        ),
    ]


def window_input() -> "io.Input":
    """How much of a take the model sees at once."""
    return io.Int.Input(
        "window",
        default=0,
        min=0,
        max=4096,
        tooltip="Most frames that the model sees at once; 0 is the length it was trained with. Frames in flight must fit: about "
        "steps / lag.",
    )


def eta_input() -> "io.Input":
    """How much of each step is fresh noise."""
    return io.Float.Input(
        "eta", default=0.0, min=0.0, max=1.0, step=0.05, tooltip="Fresh noise per step: 0 none (DDIM), 1 ancestral."
    )


def context_noise_inputs(default: float) -> list:
    """How finished frames are shown to the model."""
    return [
        io.Float.Input(
            "context_noise",
            default=default,
            min=0.0,
            max=10.0,
            step=0.01,
            tooltip="Sigma of the noise that the model sees finished frames with, so that small errors do not add up (Diffusion Forcing and"
            " DFoT call it stabilisation). 0 is off, 0.2 suits the bundled model, 0.02 SkyReels-V2, whose authors warn of more than 0.05.",
        ),
        io.Combo.Input(
            "context_noise_kind",
            options=list(KINDS),
            default="noise",
            tooltip="How it is shown. noise: finished frames really get that noise, the same at every call. addnoise: other noise at every"
            " call. label: the model is only told so. The frames themselves never change.",
        ),
    ]


def noisy_frames_input() -> "io.Input":
    """Which frames ``context_noise`` is about."""
    return io.Combo.Input(
        "context_noise_frames",
        options=list(WHICH),
        default="all",
        optional=True,
        tooltip="Finished frames that context_noise is about. all: known ones and those made here. known: only those that are given, as"
        " SkyReels-V2 does with the frames that a clip begins with. generated: only those made here, as DFoT does.",
    )
