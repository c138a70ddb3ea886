"""Read a state dict from any file the community uses, and say what a file is when it is not what was asked for.

safetensors, and PyTorch's own format through ``weights_only``: nothing in a file is ever executed. To teach this pack another kind of
file, add a row to ``KINDS`` whose signature matches no other kind's files: the order of the rows then does not matter.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .pickled import read_pickled

PICKLED = (".ckpt", ".pt", ".pth", ".bin")
# where trainers put the weights in their files: AnimateDiff, CameraCtrl's image of it, CameraCtrl itself, SparseCtrl
WRAPPERS = ("state_dict", "motion_module_state_dict", "pose_encoder_state_dict", "attention_processor_state_dict", "controlnet")
PARTS = ("image_proj", "ip_adapter")  # dictionaries that IP-Adapter's files hold beside each other
MOST_KEYS, LONGEST_KEY = 50_000, 200  # ten times those of SDXL
PARALLEL = "module."  # what torch's data-parallel wrapper writes before each key


@dataclass(frozen=True)
class Signature:
    """How the keys of a file tell what it is.

    Attributes:
        needs: patterns, each of which some key matches.
        unless: patterns that no key matches.
    """

    needs: tuple[str, ...]
    unless: tuple[str, ...] = ()

    def matches(self, keys: Iterable[str]) -> bool:
        keys = list(keys)
        return all(_found(pattern, keys) for pattern in self.needs) and not any(_found(pattern, keys) for pattern in self.unless)


def _found(pattern: str, keys: list[str]) -> bool:
    search = re.compile(pattern).search
    return any(search(key) for key in keys)


MOTION_MODULE = "a motion module, for Load Motion Module"
SPARSECTRL = "a SparseCtrl encoder, for Load Sparse Control"
_MOTION = r"motion_modules|temporal_transformer|temporal_attentions"
_LORA = r"lora_(unet|te|up|down|A|B)|_lora\.|\.lora\.|\.hada_w1_a$"
_CONTROL = r"(^|\.)controlnet_(cond_embedding|down_blocks|mid_block)|^control_model\.|^input_hint_block\."
_CHECKPOINT = r"^model\.diffusion_model\."
_CAMERACTRL = r"\.qkv_merge\.|^encoder_down_conv_blocks\."
_MOTIONCTRL = r"\.cc_projection\."
_FANCYVIDEO = r"^(fps_embedding|motion_embedding)\."
_SEEING = r"^(vision_model|visual)\."

# (what a file is and which node takes it, how it is known)
KINDS: tuple[tuple[str, Signature], ...] = (
    (
        MOTION_MODULE,
        Signature(
            (rf"({_MOTION})(\.\d+)?(\.temporal_transformer)?\.(norm|proj_in|proj_out)\.(weight|bias)$",),
            (_LORA, _CONTROL, _CHECKPOINT, _CAMERACTRL, _MOTIONCTRL, _FANCYVIDEO),
        ),
    ),
    ("a MotionLoRA, for Apply Motion LoRA", Signature((rf"^(?=.*({_MOTION}))(?=.*({_LORA}))",))),
    ("a LoRA of an image model, for Apply Motion LoRA or ComfyUI's LoRA loader", Signature((_LORA,), (_MOTION,))),
    (
        "a CameraCtrl camera module, which is grafted onto a motion module such as v3_sd15_mm.ckpt",
        Signature((_CAMERACTRL,), (_LORA, _CONTROL)),
    ),
    ("a MotionCtrl camera module, which this pack does not read", Signature((_MOTIONCTRL,), (_LORA, _CONTROL))),
    ("a FancyVideo module, which this pack does not read", Signature((_FANCYVIDEO,), (_LORA, _CONTROL))),
    (SPARSECTRL, Signature((_CONTROL, _MOTION), (_LORA,))),
    ("a ControlNet, for Load ControlNet Model", Signature((_CONTROL,), (_LORA, _MOTION))),
    ("a whole checkpoint of an image model, for Load Checkpoint", Signature((_CHECKPOINT,))),
    (
        "the U-Net of an image model, for Load Diffusion Model",
        Signature((r"^(input_blocks\.\d+\.0\.in_layers|down_blocks\.\d+\.resnets)\.",), (_MOTION, _CONTROL, _LORA)),
    ),
    (
        "a VAE, for Load VAE",
        Signature((r"^(first_stage_model\.)?(encoder|decoder)\.(conv_in|down|down_blocks|up|up_blocks)\.",), (_CHECKPOINT,)),
    ),
    (
        "a text encoder, for Load CLIP",
        Signature((r"^(text_model|cond_stage_model|conditioner|transformer\.text_model)\.",), (_CHECKPOINT, _SEEING, _LORA)),
    ),
    ("an image encoder, for Load CLIP Vision", Signature((_SEEING,), (_CHECKPOINT, _LORA))),
    ("an IP-Adapter, for Load Image Prompt", Signature((r"^(image_proj|ip_adapter)\.",))),
)


def read_state(path: Path, wanted: Callable[[str], bool] = bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file by key, and its metadata; whatever else is in it is left out.

    Files that wrap their tensors in ``state_dict`` and the like are unwrapped; a ``module.`` before the keys is dropped.

    Args:
        path: of the file.
        wanted: whether the tensor of a key is; all are where nothing is said. What is not wanted of a safetensors file is not read.

    Raises:
        ValueError: there is no such file, it cannot be read, or its tensors are larger than itself. One sentence.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.suffix.lower() in PICKLED:
        found, metadata = {key: value for key, value in _tensors(read_pickled(path)).items() if wanted(key)}, {}
        _check_keys(found, path.name)
    else:
        found, metadata = _read_safetensors(path, wanted)
    size, room = sum(value.nbytes for value in found.values()), 2 * path.stat().st_size
    if size > room:  # two names for one tensor are usual, numbers that stand for any more are not
        raise ValueError(f"{path.name} is damaged: its weights are {size} bytes, more than it holds; download it again")
    bare = {key.removeprefix(PARALLEL): value.detach() for key, value in found.items()}
    if len(bare) < len(found):
        raise ValueError(
            f"{path.name} names the same weights with {PARALLEL!r} and without: use one of the two files it was made of"
        )
    return bare, metadata


def _read_safetensors(path: Path, wanted: Callable[[str], bool]) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            _check_keys(keys, path.name)
            return {key: file.get_tensor(key) for key in keys if wanted(key)}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        said = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{path.name} cannot be read: it is cut short or no safetensors file ({said}); download it again"
        ) from error


def _check_keys(keys: Collection[str], name: str) -> None:
    """Keys are shown in sentences and searched for patterns: what no program writes is refused before that."""
    if len(keys) > MOST_KEYS:
        raise ValueError(f"{name} is damaged: it names {len(keys)} weights, and {MOST_KEYS} are the most; download it again")
    strange = next((key for key in keys if len(key) > LONGEST_KEY or not key.isprintable()), None)
    if strange is not None:
        raise ValueError(f"{name} is damaged: it names a weight {strange[:60]!a}; download it again")


def _tensors(content: Any) -> dict[str, Tensor]:
    whole = _table(content)
    wrapped = [_table(whole[name]) for name in WRAPPERS if isinstance(whole.get(name), dict)]
    parts = {name: _table(whole[name]) for name in PARTS if isinstance(whole.get(name), dict)}
    wrapped += [{f"{name}.{key}": value for key, value in part.items()} for name, part in parts.items()]
    items = (item for part in wrapped or [whole] for item in part.items())
    return {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}


def _table(content: Any) -> dict[Any, Any]:
    """What is in a dictionary, whatever attributes the file gave it; nothing for anything else."""
    return dict(dict.items(content)) if isinstance(content, dict) else {}


def kind(keys: Iterable[str], metadata: Mapping[str, str]) -> str | None:
    """What a file with these keys is and which node takes it, in words; None if this pack cannot tell.

    >>> kind(["control_model.time_embed.0.weight"], {})
    'a ControlNet, for Load ControlNet Model'
    """
    if "longtake" in metadata:
        return "a LongTake video model, for Load Video Model"
    if "longtake_autoencoder" in metadata:
        return "an autoencoder, which Train Autoencoder made for Train Video Model"
    keys = list(keys)
    return next((words for words, signature in KINDS if signature.matches(keys)), None)
