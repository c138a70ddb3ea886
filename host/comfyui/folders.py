"""Where files are: ComfyUI's folders, and this pack's among them."""

from pathlib import Path

import folder_paths

PACK = Path(__file__).resolve().parents[2]
SAFE, ANY = (".safetensors",), (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
SCRIPTS = (".pt", ".torchscript")

# kind -> (ComfyUI's key, folder below its models, further folders, endings)
KINDS: dict[str, tuple[str, str, tuple[Path, ...], tuple[str, ...]]] = {
    "video_models": ("longtake_models", "longtake", (PACK / "models",), SAFE),
    "pseudo3d_models": ("longtake_models", "longtake", (), ANY),  # diffusers folders, which are called as they please
    "motion_modules": ("animatediff_models", "animatediff_models", (), ANY),
    "motion_loras": ("animatediff_motion_lora", "animatediff_motion_lora", (), ANY),
    "loras": ("loras", "loras", (), ANY),
    "feature_networks": ("longtake_metrics", "longtake_metrics", (), SCRIPTS),
    "controlnets": ("controlnet", "controlnet", (), ANY),
    "diffusion_models": ("diffusion_models", "diffusion_models", (), ANY),
    "autoencoders": ("longtake_autoencoders", "longtake_autoencoders", (PACK / "models" / "longtake_autoencoders",), SAFE),
    "image_prompts": ("ipadapter", "ipadapter", (), ANY),
}


def register() -> None:
    """Tell ComfyUI of the folders; those that other packs or ``extra_model_paths.yaml`` named under the same keys stay."""
    for key, below, further, _ in KINDS.values():
        for path in (Path(folder_paths.models_dir) / below, *further):
            folder_paths.add_model_folder_path(key, str(path))


register()


def files(kind: str) -> list[str]:
    """Names of all files of a kind, for a menu."""
    key, _, _, endings = KINDS[kind]
    below = {row[1] for row in KINDS.values() if row[2]}  # folders of other kinds that the pack's own folder has
    names = folder_paths.get_filename_list(key)
    return [name for name in names if name.lower().endswith(endings) and Path(name).parts[0] not in below]


def file(kind: str, name: str) -> Path:
    """The path of a file by the name that ``files`` gives.

    Raises:
        ValueError: there is no such file.
    """
    key = KINDS[kind][0]
    found = folder_paths.get_full_path(key, name)
    if found is None:
        there = ", ".join(files(kind)) or "none yet"
        raise ValueError(
            f"there is no {name!r} in {' or '.join(folder_paths.get_folder_paths(key))}: put it there, or choose one of: {there}"
        )
    return Path(found)


def model_directory(kind: str) -> Path:
    """Where new files of a kind are written: its folder below ComfyUI's models."""
    return Path(folder_paths.models_dir) / KINDS[kind][1]


def output_directory() -> Path:
    return Path(folder_paths.get_output_directory())


def input_directory() -> Path:
    return Path(folder_paths.get_input_directory())


def temp_directory() -> Path:
    return Path(folder_paths.get_temp_directory())
