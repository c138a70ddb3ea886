"""Image prompts as files: IP-Adapter's plain, plus and full ones for SD1.5 and SDXL, and those trained here.

Both layouts are read: safetensors with ``image_proj.`` and ``ip_adapter.`` before the keys, and PyTorch files with a dictionary for each.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..control.image_prompt import HEAD, ImagePromptModel, PromptShape, cross_layers, widths_of
from ..nets.unfilled import unfilled
from ..temporal.slots import BlockedUNet
from .files import kind, read_state
from .sound import check_weights, shape_of

LAYER = re.compile(r"^ip_adapter\.(\d+)\.to_([kv])_ip\.weight$")
FACE = 512  # features of InsightFace's embedding, which FaceID, Portrait and InstantID take in the place of a picture
# base model -> (attentions to the text, features of a text token)
BASES = {"SD1.5": (16, 768), "SDXL": (70, 2048), "SD2": (16, 1024)}
ADVICE = "use a plain, plus or full IP-Adapter such as ip-adapter_sd15.safetensors"


@dataclass(frozen=True)
class ImagePrompt:
    """An image prompt file's contents.

    Attributes:
        name: of the file.
        shape: the sizes of its network.
        state: weights by ``ImagePromptModel``'s keys, in the precision of the file.
    """

    name: str
    shape: PromptShape
    state: Mapping[str, Tensor]

    def build(self, ops: Any = nn, attention: Callable[..., Tensor] = F.scaled_dot_product_attention) -> ImagePromptModel:
        """The network with these weights; it shares their memory."""
        with unfilled():
            model = ImagePromptModel(self.shape, ops, attention)
        model.load_state_dict(self.state, assign=True)
        return model.eval().requires_grad_(False)

    @property
    def described(self) -> str:
        """The base model that it is for, in words."""
        return described(len(self.shape.widths), self.shape.context)


def load_image_prompt(path: Path) -> ImagePrompt:
    """Read an IP-Adapter file, or one trained here.

    Raises:
        ValueError: it cannot be read, is something else, wants a face's embedding, or is not complete. One sentence each.
    """
    state, metadata = read_state(path)
    _check_no_face(state, path.name)
    what = kind(state, metadata)
    if what is None or "IP-Adapter" not in what:
        said = f"it is {what}" if what else f"its first keys are {', '.join(list(state)[:3]) or 'none'}"
        raise ValueError(f"{path.name} cannot be loaded as an image prompt: {said}; {ADVICE}")
    projection = {key.removeprefix("image_proj."): value for key, value in state.items() if key.startswith("image_proj.")}
    shape = _shape(projection, *_layers(state, path.name), path.name)
    with unfilled():
        network = ImagePromptModel(shape)
    check_weights(state, {key: tuple(value.shape) for key, value in network.state_dict().items()}, path.name)
    return ImagePrompt(path.name, shape, state)


def check_base(prompt: ImagePrompt, unet: BlockedUNet) -> None:
    """Refuse a U-Net that an image prompt was not made for.

    Raises:
        ValueError: number or widths of the attentions to the text, or its width, differ. Says which base model each is.
    """
    if not isinstance(prompt, ImagePrompt):
        raise ValueError(f"{prompt!r} was given for an image prompt: connect Load Image Prompt")
    layers = cross_layers(unet)
    if not layers or not hasattr(layers[0].attention.to_k, "in_features"):
        raise ValueError("the model has no attention to the text, beside which a picture could be looked at: use SD1.5 or SDXL")
    widths, context = widths_of(layers)
    if (widths, context) != (prompt.shape.widths, prompt.shape.context):
        raise ValueError(
            f"{prompt.name} is for {prompt.described} and the model is {described(len(widths), context)}: load an image prompt"
            " of the model's base"
        )


def described(layers: int, context: int) -> str:
    """A U-Net with so many attentions to the text, in words."""
    base = next((name for name, sizes in BASES.items() if sizes == (layers, context)), "a U-Net")
    return f"{base} ({layers} attentions to text tokens of {context} features)"


def _check_no_face(state: Mapping[str, Tensor], name: str) -> None:
    """Refuse files whose picture is a face's embedding by InsightFace, each by its name."""
    lora = any(key.startswith("ip_adapter.") and "_lora." in key for key in state)
    resampler = any(key.startswith("image_proj.perceiver_resampler.") for key in state)
    entry = state.get("image_proj.proj.0.weight", state.get("image_proj.proj_in.weight"))
    face = entry is not None and entry.ndim == 2 and entry.shape[1] == FACE
    if not (lora or resampler or face):
        return
    which = (
        "a FaceID Plus"
        if resampler
        else "a FaceID"
        if lora
        else "an InstantID"
        if "image_proj.latents" in state
        else "a Portrait"
    )
    raise ValueError(f"{name} is {which} file, which takes a face's embedding by InsightFace, and not a picture: {ADVICE}")


def _layers(state: Mapping[str, Tensor], name: str) -> tuple[tuple[int, ...], int]:
    """(width of each layer, features of a token)."""
    keys = {int(match[1]): match[0] for match in map(LAYER.match, state) if match and match[2] == "k"}
    found = {number: shape_of(state, key, 2, name) for number, key in keys.items()}
    if not found:
        raise ValueError(f"{name} is not complete: none of its keys is ip_adapter.1.to_k_ip.weight; download it again")
    absent = sorted(set(range(1, 2 * len(found), 2)) - set(found))
    if absent:
        raise ValueError(f"{name} is not complete: it has {len(found)} layers and not number {absent[0]}; download it again")
    return tuple(found[number][0] for number in sorted(found)), found[1][1]


def _shape(projection: Mapping[str, Tensor], widths: tuple[int, ...], context: int, name: str) -> PromptShape:
    """The sizes that the weights say; whether they agree is asked afterwards."""
    if "proj.weight" in projection:
        out, clip = shape_of(projection, "proj.weight", 2, name)
        return PromptShape("plain", clip, context, max(1, out // context), widths)
    if "proj.3.weight" in projection:
        _, clip = shape_of(projection, "proj.0.weight", 2, name)
        return PromptShape("full", clip, context, 0, widths)
    if "latents" in projection:
        _, tokens, hidden = shape_of(projection, "latents", 3, name)
        _, clip = shape_of(projection, "proj_in.weight", 2, name)
        inner, _ = shape_of(projection, "layers.0.0.to_q.weight", 2, name)
        depth = len({key.split(".")[1] for key in projection if key.startswith("layers.")})
        return PromptShape("plus", clip, context, tokens, widths, hidden, depth, max(1, inner // HEAD))
    first = ", ".join(list(projection)[:3]) or "none"
    raise ValueError(f"{name} has a projection of pictures that this pack does not know (its first keys are {first}); {ADVICE}")
