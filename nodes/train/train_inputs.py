"""What training nodes are connected to, and what they give; and inputs that clips' nodes share."""

from typing import Any

from ... import host

io = host.io
CATEGORY = "LongTake/train"
ClipsType: Any = io.Custom("LONGTAKE_CLIPS")
OptionsType: Any = io.Custom("LONGTAKE_TRAINING_OPTIONS")

# name -> (type, everything about it that does not hang on the node)
SHARED: dict[str, tuple[Any, dict[str, Any]]] = {
    "seed": (io.Int, {"min": 0, "max": 2**64 - 1, "control_after_generate": False}),
    "frames": (io.Int, {"min": 1, "max": 4096}),
    "stride": (io.Int, {"min": 1}),
}


def shared(name: str, default: Any, tooltip: str, **further: Any) -> Any:
    """An input of ``SHARED``.

    Args:
        name: of the input.
        default: what a new node has.
        tooltip: what it means there.
        further: what is otherwise at this node, such as ``optional``.
    """
    kind, declared = SHARED[name]
    return kind.Input(name, default=default, tooltip=tooltip, **{**declared, **further})


def clips_input() -> Any:
    """Clips to learn from."""
    return ClipsType.Input("clips", tooltip="From Clip Folder, Clips From Images, Shapes Clips or Postcards Clips.")


def vae_input() -> Any:
    """What makes latents of them."""
    return io.Vae.Input("vae", tooltip="The model's VAE. Each clip goes through it once and is kept on disk.")


def clip_input() -> Any:
    """What reads the captions."""
    return io.Clip.Input("clip", optional=True, tooltip="The checkpoint's CLIP, for the captions.")


def conditioning_input() -> Any:
    """What stands for all captions."""
    return io.Conditioning.Input(
        "conditioning",
        optional=True,
        tooltip="One text for all clips, instead of their captions. The CLIP is needed beside it, for clips that are shown without text.",
    )


def options_input() -> Any:
    """Everything else."""
    return OptionsType.Input("options", optional=True, tooltip="From Training Options; usual values without.")


def trained_outputs(*first: Any) -> list[Any]:
    """What training gives, behind what was trained."""
    return [
        *first,
        io.String.Output(display_name="file_name", tooltip="In the menu of the node that loads such files."),
        io.Image.Output(display_name="loss_plot"),
        io.Image.Output(display_name="sample", tooltip="A clip by the averaged weights."),
        io.String.Output(display_name="log", tooltip="The log's name, for Loss Plot."),
        io.String.Output(display_name="report", tooltip="How it went."),
    ]
