"""Where model files are looked for: this pack's ``models`` folder and the folders that ``LONGTAKE_MODELS`` lists.

Video models lie directly in them, the others in subfolders named like ComfyUI's folder keys. To add a kind, add a row to ``KINDS``.
"""

import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "LONGTAKE_MODELS"
PACK_MODELS = Path(__file__).resolve().parents[2] / "models"
TORCH_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Kind:
    """A kind of model file: its plain name, the subfolder it lies in, the endings it may have."""

    words: str
    folder: str
    endings: tuple[str, ...] = TORCH_FILES


KINDS = {
    "video_models": Kind("video model", "", (".safetensors",)),
    "pseudo3d_models": Kind("pseudo-3-D U-Net", "longtake"),
    "motion_modules": Kind("motion module", "animatediff_models"),
    "motion_loras": Kind("motion LoRA", "animatediff_motion_lora"),
    "loras": Kind("LoRA", "loras"),
    "feature_networks": Kind("feature network", "longtake_metrics", (".pt", ".torchscript")),
    "controlnets": Kind("ControlNet", "controlnet"),
    "diffusion_models": Kind("diffusion model", "diffusion_models"),
    "autoencoders": Kind("autoencoder", "longtake_autoencoders", (".safetensors",)),
    "image_prompts": Kind("image prompt", "ipadapter"),
}


def _kind(kind: str) -> Kind:
    if kind not in KINDS:
        raise ValueError(f"there is no kind of file called {kind!r}: choose one of {', '.join(KINDS)}")
    return KINDS[kind]


def _folders(kind: Kind) -> list[Path]:
    named = [Path(item).expanduser() for item in os.environ.get(VARIABLE, "").split(os.pathsep) if item]
    return [folder / kind.folder for folder in (PACK_MODELS, *named)]


def _found(kind: Kind) -> dict[str, Path]:
    """Every file by the name users see; the first folder that has a name wins."""
    found: dict[str, Path] = {}
    for folder in _folders(kind):
        for path in sorted(folder.rglob("*")) if kind.folder else sorted(folder.glob("*")):
            if path.suffix.lower() in kind.endings and path.is_file() and not path.name.startswith("."):
                found.setdefault(path.relative_to(folder).as_posix(), path)
    return found


def files(kind: str) -> list[str]:
    """The names of all files of a kind, for menus."""
    return sorted(_found(_kind(kind)))


def file(kind: str, name: str) -> Path:
    """The file of a kind that has a name.

    Raises:
        ValueError: there is none; the sentence says what there is and where to put it.
    """
    row = _kind(kind)
    found = _found(row)
    if name not in found:
        there = ", ".join(sorted(found)) or "none at all"
        places = " or ".join(str(folder) for folder in _folders(row))
        raise ValueError(f"there is no {row.words} {name!r}: there is {there}; put the file into {places}")
    return found[name]


def model_directory(kind: str) -> Path:
    """Where new files of a kind are written: the last folder that ``LONGTAKE_MODELS`` lists, or the pack's own."""
    return _folders(_kind(kind))[-1]
