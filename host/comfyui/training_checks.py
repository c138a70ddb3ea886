"""Which MODELs something can be trained in, and what of a MODEL a checkpoint must agree with."""

from typing import Any

import comfy.model_sampling
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_model_advanced import LCM

from ...modules.temporal.settings import PLAIN
from ...modules.temporal.slots import widths
from ...modules.train.base import only_in_slots, refuse_hints
from .attach.model_sampling import has_timesteps
from .attach.motion_lora import SCHEDULED
from .attach.video import video_info
from .attached import KEY, unet_of
from .sampling.recording import identity, parts_of_model

# ComfyUI's class for what a network predicts -> our name; the first that fits
PREDICTED: tuple[tuple[type, str], ...] = (
    (LCM, ""),
    (comfy.model_sampling.EDM, ""),
    (comfy.model_sampling.V_PREDICTION, "v"),
    (comfy.model_sampling.IMG_TO_IMG, ""),
    (comfy.model_sampling.X0, "x0"),
    (comfy.model_sampling.EPS, "eps"),
)

# what a checkpoint says of a MODEL -> the part of it that this is made of
TOLD = {
    "weights": "weights",
    "LoRAs and other patches of weights": "patches",
    "hooks": "hooks",
    "replaced objects": "objects",
    "motion modules and other models": "additional models",
}


def check(model: ModelPatcher) -> None:
    """Refuse a MODEL that nothing can be trained in."""
    widths(unet_of(model))
    prediction_of(model)
    config, takes = model.model.model_config.unet_config, model.model.latent_format.latent_channels
    if config.get("in_channels", takes) != takes:
        raise ValueError(
            f"this MODEL takes {config['in_channels']} channels and its latents have {takes}, as inpainting models do: train on the"
            " ordinary checkpoint of the same base"
        )
    refuse_hints(video_info(model))
    scheduled = bool(model.get_additional_models_with_key(SCHEDULED))
    for patcher in model.get_additional_models_with_key(KEY):
        traits = patcher.get_attachment(KEY)
        if patcher.patches or traits.settings != PLAIN or scheduled:
            raise ValueError(
                f"the motion module {traits.name} of this MODEL has a MotionLoRA on it or does not act as it was trained: connect the MODEL"
                " without that"
            )
        if not only_in_slots(patcher.model) or traits.clip_norms:
            raise ValueError(
                f"the motion module {traits.name} of this MODEL works on more than its slots: connect the checkpoint as the MODEL, and the"
                " module as the motion module"
            )


def prediction_of(model: ModelPatcher) -> str:
    """What a MODEL's network predicts, a name in ``noise.PREDICTIONS``.

    Raises:
        ValueError: something else, as flow models do.
    """
    sampling = model.get_model_object("model_sampling")
    found = next((name for kind, name in PREDICTED if isinstance(sampling, kind)), "")
    if not found or not has_timesteps(sampling):
        raise ValueError(
            f"{type(model.model).__name__} adds noise or predicts otherwise than Stable Diffusion does, and motion modules are trained on"
            " its steps: use an SD1.5 or SDXL checkpoint, or a LongTake video model, without such a patch"
        )
    return found


def described(model: ModelPatcher) -> dict[str, Any]:
    """What of a MODEL a checkpoint must agree with: its shape, and in short its weights, what is patched into them and attached to it."""
    config, parts = model.model.model_config.unet_config, parts_of_model(model)
    return {
        "kind": type(model.model).__name__,
        "context": config.get("context_dim"),
        "widths": widths(unet_of(model)),
        "prediction": prediction_of(model),
        **{name: identity(parts[part]) for name, part in TOLD.items()},
    }
