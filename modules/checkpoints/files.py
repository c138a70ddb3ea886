"""Read a state dict from any file the community uses, and say what a file is when it is not what was asked for.

safetensors, and PyTorch's own format through ``weights_only``: nothing in a file is ever executed. To teach this pack another kind of
file, add a row to ``KINDS``.
"""

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

PICKLED = (".ckpt", ".pt", ".pth", ".bin")

# (a pattern that some key matches, what the file then is); the first row that matches counts
KINDS: tuple[tuple[str, str], ...] = (
    (r"controlnet_cond_embedding\.|^controlnet_mid_block", "a SparseCtrl or ControlNet encoder"),
    (r"motion_modules\..*(_lora\.|\.lora_)", "a MotionLoRA, which goes on top of a motion module"),
    (r"(_lora\.|\.lora_|lora_unet|lora_te)|\.(lora_up|lora_A|hada_w1_a)\.", "a LoRA of an image model"),
    (r"^(control_model\.|input_hint_block\.)", "a ControlNet"),
    (r"^model\.diffusion_model\.", "a whole checkpoint of an image model"),
    (r"^(first_stage_model|encoder\.down|decoder\.up)", "a VAE"),
    (r"^(text_model|cond_stage_model|transformer\.text_model)\.", "a text encoder"),
    (r"^image_proj\.|^ip_adapter\.", "an IP-Adapter"),
)


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file by key, and its metadata; whatever else is in it is left out.

    Files that wrap their tensors in ``state_dict`` are unwrapped.

    Raises:
        ValueError: there is no such file, or it cannot be read. One sentence.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.suffix.lower() in PICKLED:
        return _tensors(_read_pickled(path)), {}
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise ValueError(
            f"{path.name} cannot be read: it is cut short or no safetensors file ({error}); download it again"
        ) from error


def _read_pickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} is damaged or holds Python objects beside its weights, which could run code and are not loaded:"
            " use a safetensors file"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError) as error:
        raise ValueError(f"{path.name} cannot be read: it is cut short or no PyTorch file; download it again") from error


def _tensors(content: Any) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    items = content.items() if isinstance(content, Mapping) else ()
    return {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}


def kind(keys: Iterable[str], metadata: Mapping[str, str]) -> str | None:
    """What a file with these keys is, in words; None if this pack cannot tell.

    >>> kind(["lora_unet_mid_block.lora_up.weight"], {})
    'a LoRA of an image model'
    """
    if "longtake" in metadata:
        return "a LongTake video model, for Load Video Model"
    keys = list(keys)
    return next((name for pattern, name in KINDS if any(re.search(pattern, key) for key in keys)), None)
