"""What can be trained: a file each, and a row in ``TRAINABLES``."""

from ..options import Options
from . import (
    autoencoder,
    domain_adapter,
    image_prompt,
    motion_lora,
    motion_lora_dual,
    motion_module,
    sparse_control,
    video_model,
)
from .row import Row

TRAINABLES: dict[str, Row] = {
    "motion_module": motion_module.ROW,
    "motion_lora": motion_lora.ROW,
    "motion_lora_dual": motion_lora_dual.ROW,
    "domain_adapter": domain_adapter.ROW,
    "sparse_control": sparse_control.ROW,
    "image_prompt": image_prompt.ROW,
    "video_model": video_model.ROW,
    "autoencoder": autoencoder.ROW,
}


def check_options(what: str, options: Options) -> None:
    """Refuse what this trainable cannot do.

    Args:
        what: a name in ``TRAINABLES``.
        options: that are asked for.

    Raises:
        ValueError: it has no temporal attentions of its own that could be reparametrised.
    """
    if options.sigma_reparam and not TRAINABLES[what].sigma_reparam:
        can = " and ".join(f"{name.replace('_', ' ')}s" for name, row in TRAINABLES.items() if row.sigma_reparam)
        raise ValueError(
            f"sigma_reparam is for {can}, and a {what.replace('_', ' ')} is trained: turn it off in Training Options"
        )
