"""Training a SparseCtrl encoder: what leads a clip by a few of its frames."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from ... import host
from ...modules.checkpoints.sparsectrl import DEPTH, MOST, PICTURES, RGB, SCRIBBLE, load_sparse_control
from ...modules.control.sparsectrl import SparseConfig
from ...modules.data.cache import EncodedClips
from ...modules.data.clips import ClipDataset
from ...modules.train.base import Base
from ...modules.train.options import SPARSE, Options
from ...modules.train.sparse import as_maps, image_config, scribbles, sparse_config, sparse_teaching
from ...modules.train.teaching import Teaching
from ..keyframes.sparsectrl import SparseType
from ..node import LongTakeNode
from . import train_inputs as inputs
from .train_in_model import encoded_clips, files_of, filled, latent_shape, taught, training_folder

io = host.io
DEFAULTS = Options()


class LongTakeTrainSparseControl(LongTakeNode):
    """Train an encoder that leads a model by keyframes."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeTrainSparseControl",
            display_name="Train Sparse Control",
            category=inputs.CATEGORY,
            description="Trains a SparseCtrl encoder for an SD1.5 model with a motion module, or for a LongTake video model: it is shown"
            " clips by a few of their frames, drawn anew each time. The model itself stays as it is. A run that was cancelled goes on from"
            " its last checkpoint when it is queued again with the same settings.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="An SD1.5 model from behind Apply Motion Module, LoRAs included; or a LongTake video model."
                ),
                inputs.clips_input(),
                inputs.vae_input(),
                io.Combo.Input(
                    "pictures",
                    options=list(PICTURES),
                    default=RGB,
                    tooltip="What it is shown of its keyframes. rgb: their colours. scribble: their outlines, drawn here. depth: what"
                    " condition_clips have. A video model takes rgb.",
                ),
                inputs.shared("name", "my_sparse_control", "Of the file, and of what a cancelled run goes on from."),
                inputs.shared("steps", 2000, "Steps in all. It leads after hundreds, and well after thousands."),
                inputs.shared("learning_rate", 1e-4, "The highest. 1e-4 is usual; small video models take 2e-3."),
                inputs.shared("seed", 0, "Of new weights, noise, which frames are shown, and the samples' noise."),
                inputs.start_anew_input(),
                inputs.clip_input(),
                inputs.conditioning_input(),
                inputs.ClipsType.Input(
                    "condition_clips",
                    optional=True,
                    tooltip="The same clips as depth maps or scribbles: as many videos in the same order, of the same lengths, cut with the"
                    " same settings. Not for rgb.",
                ),
                inputs.options_input(),
            ],
            outputs=inputs.trained_outputs(
                SparseType.Output(display_name="sparse_control", tooltip="What was trained, for Apply Sparse Control.")
            ),
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clips: ClipDataset,
        vae: Any,
        pictures: str,
        name: str,
        steps: int,
        learning_rate: float,
        seed: int,
        start_anew: bool,
        clip: Any,
        conditioning: Any,
        condition_clips: ClipDataset | None,
        options: Options | None,
    ) -> "io.NodeOutput":
        chosen = DEFAULTS if options is None else options
        settings = chosen.run(steps, learning_rate, seed)
        files, cache = files_of(SPARSE, name), training_folder() / "cache"
        config = encoder_for(model, clips, pictures)
        drawn = drawn_by(pictures, condition_clips)
        encoded, facts = encoded_clips(model, clips, vae, clip, conditioning, chosen, cache)
        shown = None if drawn is None else maps_of(encoded, condition_clips, drawn, pictures, cache)
        if shown is not None:
            facts["shown"] = shown.dataset.fingerprint()
        if start_anew:
            files.forget()

        def make(base: Base) -> Teaching:
            return sparse_teaching(
                *(base, config, encoded, chosen, settings, files, facts, host.check_interrupt), pictures=pictures, shown=shown
            )

        made = taught(make, model, vae, chosen, settings, latent_shape(encoded, chosen), chosen.schedule(None))
        return made.outputs(host.sparse_control(load_sparse_control(made.path)))


def encoder_for(model: Any, clips: ClipDataset, pictures: str) -> SparseConfig:
    """How an encoder for this model is built.

    Raises:
        ValueError: nothing moves in the model or the clips, or there are no such encoders for it.
    """
    if clips.settings.frames < 2:
        raise ValueError("the clips are single frames, in which nothing is between: cut clips of 2 frames or more, 16 as a rule")
    if not host.motion_models(model):
        raise ValueError("SparseCtrl leads a clip, and nothing moves in this model: connect it from behind Apply Motion Module")
    info = host.video_info(model)
    if info is None:
        if clips.settings.frames > MOST:
            raise ValueError(
                f"the clips have {clips.settings.frames} frames and SparseCtrl's temporal modules know times for {MOST}: cut clips of"
                f" {MOST} or fewer"
            )
        return image_config(host.unet_of(model), pictures)
    if pictures != RGB:
        raise ValueError(f"a LongTake video model is led by what it works on itself: choose {RGB} for it, not {pictures}")
    return sparse_config(info)


def drawn_by(pictures: str, condition_clips: ClipDataset | None) -> Callable[[Tensor], Tensor] | None:
    """What makes the maps that an encoder is shown of a clip's pixels; None where it is shown the clip's own latents.

    Raises:
        ValueError: they are missing, or there is nothing to do with them.
    """
    if pictures == RGB:
        if condition_clips is not None:
            raise ValueError("condition_clips are connected and rgb is shown the clips themselves: choose scribble or depth")
        return None
    if pictures == DEPTH and condition_clips is None:
        raise ValueError("depth maps are not made here: connect clips of them to condition_clips, or choose scribble")
    return scribbles if pictures == SCRIBBLE and condition_clips is None else as_maps


def maps_of(
    clips: EncodedClips, others: ClipDataset | None, drawn: Callable[[Tensor], Tensor], pictures: str, cache: Path
) -> EncodedClips:
    """The maps of clips, on disk where they can be; those of ``others`` if there are any.

    Raises:
        ValueError: the others are not cut alike.
    """
    mine, theirs = clips.dataset, clips.dataset if others is None else others
    if theirs.settings.variants != mine.settings.variants:
        theirs = theirs.cut_anew(variants=mine.settings.variants)
    cuts = [(source, variant) for source in range(len(mine)) for variant in range(mine.settings.variants or 1)]
    if len(theirs) != len(mine) or any(_cut(mine, *at) != _cut(theirs, *at) for at in cuts):
        raise ValueError(
            f"condition_clips are {len(theirs)} clips that are not cut as the {len(mine)} clips are: give the same videos as maps, in the"
            " same order, with the same settings"
        )
    kept = cache if mine.settings.variants else None
    key = f"{pictures} {drawn.__name__}"
    made = EncodedClips(theirs, drawn, lambda caption: {}, folder=kept, video_key=key, text_key="nothing")
    filled(made)
    return made


def _cut(clips: ClipDataset, source: int, variant: int) -> tuple[Any, ...]:
    take = clips.take(source, variant)
    return take.indices, take.box, take.size, take.flipped
