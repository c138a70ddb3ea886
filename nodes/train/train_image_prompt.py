"""Training an image prompt: what lets a model look at a picture beside its text."""

from typing import Any

from ... import host
from ...modules.checkpoints.image_prompt import load_image_prompt
from ...modules.control.image_prompt import KINDS
from ...modules.data.cache import EncodedClips
from ...modules.data.clips import ClipDataset
from ...modules.train.base import Base
from ...modules.train.image_prompt import check_text, prompt_teaching, shown_frames
from ...modules.train.options import PROMPT, Options
from ...modules.train.teaching import Teaching
from ..keyframes.image_prompt import ClipVisionType, ImagePromptType
from ..node import LongTakeNode
from . import train_inputs as inputs
from .train_in_model import encoded_clips, files_of, filled, latent_shape, taught, training_folder

io = host.io
DEFAULTS = Options()


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
                    tooltip="The image model, with any LoRA that shall be part of it. From behind Apply Motion Module it learns to look at"
                    " pictures while it moves, as MoonShot.",
                ),
                inputs.clips_input(),
                inputs.vae_input(),
                ClipVisionType.Input(
                    "clip_vision",
                    tooltip="From Load CLIP Vision: the image encoder through which it looks, CLIP-ViT-H-14 as a rule.",
                ),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default="plain",
                    tooltip="plain: what the picture is about, in a few tokens. plus: a resampler of everything the encoder sees, closer to"
                    " the picture. full: every one of its tokens.",
                ),
                io.Int.Input(
                    "tokens",
                    default=4,
                    min=1,
                    max=256,
                    tooltip="That a picture becomes: 4 for plain, 16 for plus. full has its own.",
                ),
                inputs.shared("name", "my_image_prompt", "Of the file, and of what a cancelled run goes on from."),
                inputs.shared("steps", 2000, "Steps in all."),
                inputs.shared("learning_rate", 1e-4, "The highest. 1e-4 is usual."),
                inputs.shared("seed", 0, "Of new weights, noise, which frame is shown, and the samples' noise."),
                inputs.start_anew_input(),
                inputs.clip_input(),
                inputs.conditioning_input(),
                inputs.options_input(),
            ],
            outputs=inputs.trained_outputs(
                ImagePromptType.Output(display_name="image_prompt", tooltip="What was trained, for Apply Image Prompt.")
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
        name: str,
        steps: int,
        learning_rate: float,
        seed: int,
        start_anew: bool,
        clip: Any,
        conditioning: Any,
        options: Options | None,
    ) -> "io.NodeOutput":
        chosen = DEFAULTS if options is None else options
        settings = chosen.run(steps, learning_rate, seed)
        files, cache = files_of(PROMPT, name), training_folder() / "cache"
        looking, nothing = host.image_encoder(clip_vision, kind)
        check_text(host.unet_of(model))
        encoded, facts = encoded_clips(model, clips, vae, clip, conditioning, chosen, cache)
        kept = cache if encoded.videos is not None and looking.key else None
        seen = EncodedClips(
            encoded.dataset,
            lambda pixels: looking.encode(pixels[shown_frames(len(pixels))]),
            lambda caption: {},
            folder=kept,
            video_key=f"seen {looking.key}",
            text_key="nothing",
        )
        filled(seen)
        if start_anew:
            files.forget()

        def make(base: Base) -> Teaching:
            return prompt_teaching(
                *(base, kind, tokens, encoded, seen, nothing, chosen, settings, files),
                {**facts, "clip_vision": looking.key},
                host.check_interrupt,
            )

        made = taught(make, model, vae, chosen, settings, latent_shape(encoded, chosen), chosen.schedule(None))
        return made.outputs(load_image_prompt(made.path))
