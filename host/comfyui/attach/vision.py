"""What an image encoder of ComfyUI makes of pictures, as image prompts look at them."""

from typing import Any

import torch
from torch import Tensor

from ....modules.checkpoints.image_prompt import ImagePrompt
from ....modules.control.image_prompt import KINDS
from ....modules.control.keyframes import Keyframes


def pictures_of(
    prompt: ImagePrompt, clip_vision: Any, images: Tensor | None, keyframes: Keyframes | None, encoded: Any
) -> tuple[Tensor, Tensor]:
    """(``k ... e``, the pictures as the image prompt looks at them; ``1 ... e``, no picture)."""
    named = {"images": images, "keyframes": keyframes, "clip_vision_output": encoded}
    connected = [name for name, value in named.items() if value is not None]
    if connected not in (["images"], ["keyframes"], ["clip_vision_output"], ["keyframes", "clip_vision_output"]):
        said = "no picture is connected" if not connected else f"{' and '.join(connected)} are both connected"
        raise ValueError(f"{said}: connect images for all frames, keyframes for pictures with times, or a clip_vision_output")
    kind = prompt.shape.kind
    if clip_vision is None and (encoded is None or kind != "plain"):
        what = (
            "pictures are looked at through an image encoder"
            if encoded is None
            else f"a {kind} image prompt needs it for no picture"
        )
        raise ValueError(f"no CLIP vision model is connected, and {what}: connect Load CLIP Vision to clip_vision")
    if encoded is None:
        pictures = images if keyframes is None else keyframes.images
        assert pictures is not None
        return see(clip_vision, pictures, kind)
    seen = given(encoded, kind)
    if keyframes is not None and len(seen) != len(keyframes):
        raise ValueError(f"{len(keyframes)} keyframes and {len(seen)} encoded pictures were given: each keyframe needs its own")
    return seen, torch.zeros_like(seen[:1]) if kind == "plain" else see(clip_vision, torch.zeros(1, 8, 8, 3), kind)[1]


def check_seen(prompt: ImagePrompt, seen: Tensor) -> None:
    """Refuse what another image encoder gave."""
    if seen.shape[-1] != prompt.shape.clip:
        raise ValueError(
            f"{prompt.name} was trained with an image encoder that gives {prompt.shape.clip} features and this one gives"
            f" {seen.shape[-1]}: load the CLIP vision model that its authors name, CLIP-ViT-H-14 for most"
        )
    if not bool(torch.isfinite(seen).all()):
        raise ValueError("what the image encoder gave is not finite (NaN or infinite): encode the picture again")


def see(clip_vision: Any, images: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Pictures, and no picture, as an image encoder of ComfyUI gives them to a kind of image prompt.

    No picture is zero for a plain one, and for the others what the encoder makes of a picture of its mean colour, which is zero after
    its own normalisation: as IP-Adapter was trained.

    Args:
        clip_vision: CLIP_VISION.
        images: ``k h w c`` in 0..1.
        kind: a name in ``KINDS``.
    """
    seen = given(clip_vision.encode_image(images[..., :3]), kind)
    if kind == "plain":
        return seen, torch.zeros_like(seen[:1])
    mean = torch.tensor(getattr(clip_vision, "image_mean", (0.48145466, 0.4578275, 0.40821073)))
    return seen, given(clip_vision.encode_image(mean.expand(1, 224, 224, 3).clone()), kind)


def given(output: Any, kind: str) -> Tensor:
    """What a kind of image prompt looks at in ComfyUI's CLIP_VISION_OUTPUT: ``k ... e``.

    Raises:
        ValueError: it is not there.
    """
    seen = getattr(output, KINDS[kind], None)
    if not isinstance(seen, Tensor):
        raise ValueError(f"the CLIP vision output has no {KINDS[kind]}, which a {kind} image prompt looks at: use CLIP-ViT-H-14")
    return seen
