"""What training nodes are connected to, and what they give."""

from typing import Any

from ... import host

io = host.io
CATEGORY = "LongTake/train"
ClipsType: Any = io.Custom("LONGTAKE_CLIPS")
OptionsType: Any = io.Custom("LONGTAKE_TRAINING_OPTIONS")


def clips_input() -> Any:
    """Clips to learn from."""
    return ClipsType.Input(
        "clips", tooltip="The clips come from Clip Folder, Clips From Images, Shapes Clips or Postcards Clips."
    )


def vae_input() -> Any:
    """What makes latents of them."""
    return io.Vae.Input("vae", tooltip="The VAE is the model's. Each clip goes through it once and is kept on disk.")


def clip_input() -> Any:
    """What reads the captions."""
    return io.Clip.Input("clip", optional=True, tooltip="The checkpoint's CLIP reads the captions.")


def conditioning_input() -> Any:
    """What stands for all captions."""
    return io.Conditioning.Input(
        "conditioning",
        optional=True,
        tooltip="This conditioning stands for the captions of all clips. The CLIP is needed beside it, for clips that are shown without"
        " text.",
    )


def options_input() -> Any:
    """Everything else."""
    return OptionsType.Input(
        "options", optional=True, tooltip="The options come from Training Options; without it all have their usual values."
    )


def trained_outputs(*first: Any) -> list[Any]:
    """What training gives, behind what was trained."""
    return [
        *first,
        io.String.Output(
            display_name="file_name", tooltip="The file has this name in the menu of the node that loads such files."
        ),
        io.Image.Output(display_name="loss_plot", tooltip="The plot shows the loss over the steps."),
        io.Image.Output(display_name="sample", tooltip="The sample is a clip made with the averaged weights."),
        io.String.Output(display_name="log", tooltip="The log has this name, for Loss Plot."),
        io.String.Output(display_name="report", tooltip="The report says how the training went."),
    ]
