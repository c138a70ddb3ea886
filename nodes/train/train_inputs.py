"""Inputs that training nodes share: one place says how each is declared; a node says where it begins and how it is meant there."""

from typing import Any

from ... import host
from ...modules.train.levels import LEVELS
from ...modules.train.losses import LOSSES
from ...modules.train.recorder import LOGS
from ...modules.train.settings import OPTIMIZERS, PRECISIONS
from ...modules.train.weights import WEIGHTS

io = host.io
CATEGORY = "LongTake/train"
ClipsType: Any = io.Custom("LONGTAKE_CLIPS")
OptionsType: Any = io.Custom("LONGTAKE_TRAINING_OPTIONS")
EVER = 10**6  # steps

# name -> (type, everything about it that does not hang on the node)
SHARED: dict[str, tuple[Any, dict[str, Any]]] = {
    "name": (io.String, {}),
    "steps": (io.Int, {"min": 1, "max": 10_000_000}),
    "batch": (io.Int, {"min": 1, "max": 4096}),
    "at_once": (io.Int, {"min": 0, "max": 4096}),
    "learning_rate": (io.Float, {"min": 1e-8, "max": 1.0, "step": 1e-5, "round": False}),
    "seed": (io.Int, {"min": 0, "max": 2**64 - 1, "control_after_generate": False}),
    "frames": (io.Int, {"min": 1, "max": 4096}),
    "stride": (io.Int, {"min": 1}),
    "optimizer": (io.Combo, {"options": list(OPTIMIZERS)}),
    "precision": (io.Combo, {"options": list(PRECISIONS)}),
    "recompute": (io.Boolean, {}),
    "ema": (io.Float, {"min": 0.0, "max": 0.999999, "step": 0.0001, "round": False}),
    "loss": (io.Combo, {"options": list(LOSSES)}),
    "loss_share": (io.Float, {"min": 0.0, "max": 1.0, "step": 0.05}),
    "levels": (io.Combo, {"options": list(LEVELS)}),
    "weight": (io.Combo, {"options": list(WEIGHTS)}),
    "save_every": (io.Int, {"min": 1, "max": EVER}),
    "sample_every": (io.Int, {"min": 0, "max": EVER}),
    "sample_prompt": (io.String, {}),
    "watch_every": (io.Int, {"min": 0, "max": EVER}),
    "lower_rate": (io.Boolean, {}),
    "log": (io.Combo, {"options": list(LOGS)}),
    "sigma_reparam": (io.Boolean, {}),
}


def shared(name: str, default: Any, tooltip: str, **further: Any) -> Any:
    """An input of ``SHARED``.

    Args:
        name: of the input.
        default: what a new node has.
        tooltip: what it means there.
        further: what is otherwise at this node, such as ``optional``, or ``options`` with one more.
    """
    kind, declared = SHARED[name]
    return kind.Input(name, default=default, tooltip=tooltip, **{**declared, **further})


def with_more(name: str, *more: str) -> dict[str, list[str]]:
    """The options of a menu of ``SHARED`` behind more, for ``shared``."""
    return {"options": [*more, *SHARED[name][1]["options"]]}


# What all that train in a frozen model are connected to


def clips_input() -> Any:
    """Clips to learn from."""
    return ClipsType.Input("clips", tooltip="From Clip Folder, Clips From Images or Shapes Clips.")


def vae_input() -> Any:
    """What makes latents of them."""
    return io.Vae.Input("vae", tooltip="The model's VAE. Each clip goes through it once and is kept on disk.")


def start_anew_input() -> Any:
    """Whether a checkpoint is forgotten."""
    return io.Boolean.Input(
        "start_anew", default=False, tooltip="Forget the checkpoint of this name instead of going on from it."
    )


def clip_input() -> Any:
    """What reads the captions."""
    return io.Clip.Input("clip", optional=True, tooltip="The checkpoint's CLIP, for the captions.")


def conditioning_input() -> Any:
    """What stands for all captions."""
    return io.Conditioning.Input("conditioning", optional=True, tooltip="One text for all clips, instead of their captions.")


def options_input() -> Any:
    """Everything else."""
    return OptionsType.Input("options", optional=True, tooltip="From Training Options; usual values without.")


def trained_outputs(*first: Any) -> list[Any]:
    """What training in a frozen model gives, behind what was trained."""
    return [
        *first,
        io.String.Output(display_name="file_name", tooltip="In the menu of the node that loads such files."),
        io.Image.Output(display_name="loss_plot"),
        io.Image.Output(display_name="sample", tooltip="A clip by the averaged weights."),
        io.String.Output(display_name="report", tooltip="How it went."),
    ]
