"""Training a SparseCtrl encoder: what leads a clip by a few of its frames."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ... import host
from ...modules.checkpoints.sparsectrl import DEPTH, MOST, RGB, SCRIBBLE, load_sparse_control
from ...modules.control.sparsectrl import SparseConfig
from ...modules.data.cache import EncodedClips
from ...modules.data.clips import ClipDataset
from ...modules.fields.setting import Setting
from ...modules.train.in_base import Setup
from ...modules.train.options import BasicSettings, Options
from ...modules.train.tasks import TRAINABLES, check_options
from ...modules.train.tasks.sparse_control import as_maps, image_config, scribbles, sparse_config
from ...modules.train.trainable import Trainable
from ..fields import inputs_of, settings_of, widget
from ..keyframes.sparsectrl import SparseType
from ..node import LongTakeNode
from . import train_inputs as inputs
from .train_in_model import cache_of, encoded_clips, files_of, filled, outputs, train_in

io = host.io
DEFAULTS, WHAT = Options(), "sparse_control"


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
                    "model",
                    tooltip="The model is an SD1.5 one from behind Apply Motion Module, LoRAs included, or a LongTake video model.",
                ),
                inputs.clips_input(),
                inputs.vae_input(),
                widget(
                    "pictures",
                    RGB,
                    Setting(
                        "The pictures are what the encoder is shown of its keyframes; a video model takes rgb.",
                        menu={
                            RGB: "It is shown their colours.",
                            SCRIBBLE: "It is shown their outlines, which are drawn here.",
                            DEPTH: "It is shown what condition_clips have.",
                        },
                    ),
                ),
                *inputs_of(BasicSettings, name="my_sparse_control", steps=2000),
                inputs.clip_input(),
                inputs.conditioning_input(),
                inputs.ClipsType.Input(
                    "condition_clips",
                    optional=True,
                    tooltip="These are the same clips as depth maps or scribbles: as many videos in the same order, of the same lengths,"
                    " cut with the same settings. They are not for rgb.",
                ),
                inputs.options_input(),
            ],
            outputs=inputs.trained_outputs(
                SparseType.Output(display_name="sparse_control", tooltip="What was trained goes to Apply Sparse Control.")
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
        clip: Any,
        conditioning: Any,
        condition_clips: ClipDataset | None,
        options: Options | None,
        **given: Any,
    ) -> "io.NodeOutput":
        chosen, basic = options or DEFAULTS, settings_of(BasicSettings, given)
        check_options(WHAT, chosen)
        settings, files = chosen.run(basic), files_of(WHAT, basic.name)
        config = encoder_for(model, clips, pictures)
        drawn = drawn_by(pictures, condition_clips)
        encoded, facts = encoded_clips(model, clips, vae, clip, conditioning, chosen)
        shown = None if drawn is None else maps_of(encoded, condition_clips, drawn, pictures)
        if shown is not None:
            facts["shown"] = shown.dataset.fingerprint()

        def make(setup: Setup) -> Trainable:
            return TRAINABLES[WHAT].make(setup, config, pictures, shown)

        made = train_in(model, vae, make, (encoded, facts), chosen, settings, files, chosen.schedule(None), restart=basic.restart)
        return outputs(made, host.sparse_control(load_sparse_control(made.path)))


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


def maps_of(clips: EncodedClips, others: ClipDataset | None, drawn: Callable[[Tensor], Tensor], pictures: str) -> EncodedClips:
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
    key = f"{pictures} {drawn.__name__}"
    made = EncodedClips(theirs, drawn, lambda caption: {}, folder=cache_of(mine), video_key=key, text_key="nothing")
    filled(made)
    return made


def _cut(clips: ClipDataset, source: int, variant: int) -> tuple[Any, ...]:
    take = clips.take(source, variant)
    return take.indices, take.box, take.size, take.flipped
