"""Workflows in API format: reading them, what each is about, and what it needs."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from .words import listed, meant

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "workflows" / "api"
Workflow = Mapping[str, Mapping[str, Any]]

# Inputs that name a file, with their class where others have an input of that name -> the folder for such files
FOLDERS = {
    "CLIPVisionLoader.clip_name": "models/clip_vision",
    "FrameInterpolationModelLoader.model_name": "models/frame_interpolation",
    "LoadImage.image": "input",
    "LoadVideo.file": "input",
    "LongTakeConvertCausal.ckpt_name": "models/diffusion_models",
    "ckpt_name": "models/checkpoints",
    "clip_name": "models/text_encoders",
    "control_net_name": "models/controlnet",
    "image_prompt": "models/ipadapter",
    "lora_name": "models/loras",
    "LongTakeApplyMotionLora.lora_name": "models/animatediff_motion_lora",
    "model_name": "models/longtake",
    "motion_module": "models/animatediff_models",
    "sparse_control": "models/controlnet",
    "unet_name": "models/diffusion_models",
    "vae_name": "models/vae",
}


def names() -> list[str]:
    """The workflows that come with the pack."""
    return sorted(path.stem for path in API.glob("*.json"))


def read(name: str) -> dict[str, Any]:
    """The workflow of a path or name.

    Raises:
        ValueError: there is none, or it is not in API format.
    """
    candidates = (Path(name), API / name, API / f"{name}.json")
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        guess = meant(Path(name).stem, names()) or f"give a file in API format, or one of {', '.join(names()) or '(none here)'}; "
        raise ValueError(f"there is no workflow {name!r}: {guess}--list says what each does")
    try:
        workflow = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no JSON ({error}): export the workflow in API format") from None
    if isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list):
        ready = API / path.name
        use = f"run {ready.relative_to(ROOT)} instead" if ready.is_file() else "export it with Workflow > Export (API)"
        raise ValueError(f"{path} is in the format of ComfyUI's editor, which only the editor reads: {use}")
    if not isinstance(workflow, dict):
        raise ValueError(f"{path} holds no workflow: API format is a table of nodes")
    return {id: node for id, node in workflow.items() if not id.startswith("_")}


def about(workflow: Workflow) -> str:
    """The first sentence of its first note."""
    notes = (node.get("_meta", {}).get("note") for node in workflow.values())
    match = re.match(r".+?[.!?](?=\s|$)|.+", next((note for note in notes if note), ""))
    return match[0] if match else ""


def files(workflow: Workflow) -> list[str]:
    """The files that its loaders name, each once, after the folder for it."""
    return list(dict.fromkeys(_files(workflow)))


def _files(workflow: Workflow) -> Iterator[str]:
    for node in workflow.values():
        for key, value in node["inputs"].items():
            folder = FOLDERS.get(f"{node['class_type']}.{key}", FOLDERS.get(key))
            if folder is not None and isinstance(value, str) and "." in value:
                yield f"{folder}/{value}"


def bundled(file: str) -> bool:
    """Whether one of ``files`` comes with the pack."""
    return (ROOT / "models" / Path(file).name).is_file()


def of_comfyui(workflow: Workflow, here: Collection[str]) -> list[str]:
    """The classes of its nodes that are not among those here, each once."""
    return [name for name in dict.fromkeys(node["class_type"] for node in workflow.values()) if name not in here]


def needs(workflow: Workflow, here: Collection[str]) -> str:
    """What it needs, in words.

    Args:
        workflow: what may be run.
        here: the classes of nodes that run without ComfyUI.
    """
    wanted = [file for file in files(workflow) if not bundled(file)]
    host = "needs ComfyUI" if of_comfyui(workflow, here) else "runs without ComfyUI too"
    return f"{host}; {', '.join(wanted)}" if wanted else f"{host}; nothing to download"


def refusal(workflow: Workflow, here: Collection[str]) -> str | None:
    """The sentence for a workflow that only ComfyUI can run, where there is none; or None.

    A class that looks like one of this pack's is not counted: it is mistyped, and whoever checks the workflow says so.
    """
    missing = [name for name in of_comfyui(workflow, here) if not name.startswith("LongTake")]
    if not missing:
        return None
    nodes = f"node{'s' if len(missing) > 1 else ''} {listed(missing)}"
    return (
        f"this workflow needs ComfyUI, for its {nodes}, and none was found or wanted: set COMFYUI_PATH to ComfyUI's folder, or give"
        " --server the address of one that runs"
    )


def listing(here: Collection[str]) -> str:
    """All workflows that come with the pack: two lines each."""
    lines = []
    for name in names():
        workflow = read(name)
        lines += [f"{name}: {about(workflow)}", f"    {needs(workflow, here)}"]
    return "\n".join(lines)
