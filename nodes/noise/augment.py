"""Noise on what a clip is conditioned on, with its level told to models that take one."""

import logging
from functools import partial
from typing import Any

import torch

from ... import host
from ...modules.fields.setting import Setting, sentences
from ...modules.noise.augment import FORMS, augmented, augmented_pictures, check_level, fitted, tell
from ..fields import widget
from ..node import LongTakeNode

io = host.io
log = logging.getLogger("longtake")


class LongTakeNoiseAugment(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeNoiseAugment",
            display_name="Noise Augment",
            category="LongTake/conditioning",
            description="Adds noise to the frames that a clip goes on from, so that their small errors are not taken for truth, and tells"
            " the level to models that were trained to know it (Stable Video Diffusion, unCLIP, upscalers).",
            inputs=[
                widget(
                    "level",
                    0.02,
                    Setting(
                        "The level is the standard deviation of the noise: of pictures in -1..1, of latents in their own numbers, or"
                        " in the"
                        " model's if one is connected. 0 is off; 0.02 suits Stable Video Diffusion, and 0.05 to 0.15 suits going on from"
                        " frames that a model made.",
                        least=0.0,
                        most=10.0,
                        step=0.01,
                        exact=True,
                    ),
                ),
                widget("form", "additive", Setting("The form says how noise is put in.", menu=sentences(FORMS), advanced=True)),
                widget(
                    "seed",
                    0,
                    Setting("The seed decides the noise of each frame.", least=0, most=2**64 - 1, control=True),
                ),
                io.Latent.Input(
                    "latent", optional=True, tooltip="Noise is added to these frames, such as known frames of a rollout."
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Noise is added to these pictures; with positive and vae also to those of the conditioning.",
                ),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="The conditioning is told the level, for instance that of SVD_img2vid_Conditioning.",
                ),
                io.Conditioning.Input("negative", optional=True, tooltip="The negative conditioning is told the level, too."),
                io.Vae.Input("vae", optional=True, tooltip="The VAE encodes the noisy image for the conditioning."),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model is the one that the latent is for: the level is in its numbers then.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="It is the latent with noise."),
                io.Image.Output(display_name="image", tooltip="It is the image with noise."),
                io.Conditioning.Output(display_name="positive", tooltip="The conditioning knows the level."),
                io.Conditioning.Output(display_name="negative", tooltip="The conditioning knows the level."),
            ],
        )

    @classmethod
    def execute(
        cls,
        level: float,
        form: str,
        seed: int,
        latent: dict | None = None,
        image: torch.Tensor | None = None,
        positive: list | None = None,
        negative: list | None = None,
        vae: Any = None,
        model: Any = None,
    ) -> "io.NodeOutput":
        check_level(level, form)
        if latent is None and image is None and positive is None and negative is None:
            raise ValueError("nothing is connected to add noise to: connect a latent, an image, or a conditioning")

        encode = None if image is None or vae is None else partial(encoded, image, vae, level, form, seed)
        told = [None if given is None else tell(given, level, encode) for given in (positive, negative)]
        if level > 0 and any(one is not None and one[1] for one in told):
            log.warning(
                "the conditioning has no input for the level of noise augmentation: the model does not know of the noise and may show it"
            )
        conditionings = [None if one is None else one[0] for one in told]
        return io.NodeOutput(noisy(latent, model, level, form, seed), pictures(image, level, form, seed), *conditionings)


def encoded(image: torch.Tensor, vae: Any, level: float, form: str, seed: int, height: int, width: int) -> torch.Tensor:
    """The noisy pictures in another size, as a latent."""
    return vae.encode(augmented_pictures(fitted(image[..., :3], height, width), level, form, seed))


def noisy(latent: dict | None, model: Any, level: float, form: str, seed: int) -> dict | None:
    """A LATENT with noise; everything else in it stays."""
    if latent is None:
        return None
    ids = latent.get("batch_index")

    def change(samples: torch.Tensor) -> torch.Tensor:
        return augmented(samples, level, form, seed, ids)

    samples = latent["samples"]
    return {
        **latent,
        "samples": change(samples) if model is None or level == 0 else host.in_model_numbers(model, samples, change),
    }


def pictures(image: torch.Tensor | None, level: float, form: str, seed: int) -> torch.Tensor | None:
    """IMAGE with noise, or None."""
    return None if image is None else augmented_pictures(image, level, form, seed)
