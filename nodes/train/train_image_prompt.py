"""Training an image prompt: what lets a model look at a picture beside its text."""

from typing import Any

from ... import host
from ...modules.checkpoints.image_prompt import load_image_prompt
from ...modules.data.cache import EncodedClips
from ...modules.data.clips import ClipDataset
from ...modules.fields.setting import Setting
from ...modules.train.in_base import Setup
from ...modules.train.options import BasicSettings, Options
from ...modules.train.tasks import TRAINABLES, check_options
from ...modules.train.tasks.image_prompt import check_text, shown_frames
from ...modules.train.trainable import Trainable
from ..fields import inputs_of, settings_of, widget
from ..keyframes.image_prompt import ClipVisionType, ImagePromptType
from ..node import LongTakeNode
from . import train_inputs as inputs
from .train_in_model import cache_of, encoded_clips, files_of, filled, outputs, train_in

io = host.io
DEFAULTS, WHAT, TOKENS = Options(), "image_prompt", 4


class LongTakeTrainImagePrompt(LongTakeNode):
    """Train keys and values of pictures beside those of the text."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeTrainImagePrompt",
            display_name="Train Image Prompt",
            category=inputs.CATEGORY,
            description="Trains an image prompt for any SD1.5 or SDXL model: attention to a picture beside the text (IP-Adapter, MoonShot),"
            " from pictures or from clips. The model itself stays as it is. A run that was cancelled goes on from its last checkpoint when"
            " it is queued again with the same settings.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model is an image model, with any LoRA that shall be part of it. From behind Apply Motion Module it"
                    " learns to look at pictures while it moves, as MoonShot.",
                ),
                inputs.clips_input(),
                inputs.vae_input(),
                ClipVisionType.Input(
                    "clip_vision",
                    tooltip="It looks through this image encoder, from Load CLIP Vision; CLIP-ViT-H-14 is usual.",
                ),
                widget(
                    "kind",
                    "plain",
                    Setting(
                        "The kind says what becomes of a picture.",
                        menu={
                            "plain": "A few tokens say what it is about.",
                            "plus": "A resampler looks at everything that the encoder sees, and is closer to the picture.",
                            "full": "Every token of the encoder is used.",
                        },
                    ),
                ),
                widget(
                    "tokens",
                    TOKENS,
                    Setting("A picture becomes so many tokens: 4 for plain, 16 for plus. full has its own.", 1, 256),
                ),
                *inputs_of(BasicSettings, name="my_image_prompt", steps=2000),
                inputs.clip_input(),
                inputs.conditioning_input(),
                inputs.options_input(),
            ],
            outputs=inputs.trained_outputs(
                ImagePromptType.Output(display_name="image_prompt", tooltip="What was trained goes to Apply Image Prompt.")
            ),
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clips: ClipDataset,
        vae: Any,
        clip_vision: Any,
        kind: str,
        tokens: int,
        clip: Any,
        conditioning: Any,
        options: Options | None,
        **given: Any,
    ) -> "io.NodeOutput":
        chosen, basic = options or DEFAULTS, settings_of(BasicSettings, given)
        check_options(WHAT, chosen)
        settings, files = chosen.run(basic), files_of(WHAT, basic.name)
        looking, nothing = host.image_encoder(clip_vision, kind)
        check_text(host.unet_of(model))
        encoded, facts = encoded_clips(model, clips, vae, clip, conditioning, chosen)
        seen = EncodedClips(
            encoded.dataset,
            lambda pixels: looking.encode(pixels[shown_frames(len(pixels))]),
            lambda caption: {},
            folder=cache_of(encoded.dataset) if looking.key else None,
            video_key=f"seen {looking.key}",
            text_key="nothing",
        )
        filled(seen)

        def make(setup: Setup) -> Trainable:
            return TRAINABLES[WHAT].make(setup, kind, tokens, seen, nothing)

        facts["clip_vision"] = looking.key
        made = train_in(model, vae, make, (encoded, facts), chosen, settings, files, chosen.schedule(None), restart=basic.restart)
        return outputs(made, load_image_prompt(made.path))
