"""The workflows with image prompts and first frames in ComfyUI's own executor, from the loaders to the video file.

Stand-ins: the checkpoint, the ControlNet and the image encoder, which ComfyUI recognises at full size only. The other model files are
small ones under the published names. Pictures are 64x64, two steps are sampled.
"""

import copy
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_workflows import Keep, Pixels, SmallControlNet, Words, nodes_of, read_video, titled
from tiny_motion import PUBLISHED, UNET, image_model
from tiny_prompt import SmallVision, prompt_file, prompt_state

API = Path(__file__).resolve().parents[2] / "workflows" / "api"
NAMES = ("image_prompt_video", "moonshot", "pia")
WORKFLOWS = {name: json.loads((API / f"{name}.json").read_text(encoding="utf-8")) for name in NAMES}
COLOURS = {"first.png": (220, 40, 30), "last.png": (20, 60, 230)}


@pytest.mark.parametrize("graph", WORKFLOWS.values(), ids=WORKFLOWS)
def test_a_workflow_explains_itself(graph):
    (note,) = [node["_meta"]["note"] for node in graph.values() if "note" in node["_meta"]]
    titles = [node["_meta"]["title"] for node in graph.values()]
    assert len(set(titles)) == len(titles), "--set finds nodes by title"
    assert all(title in titles for title in note.split('"')[1::2]), "what the note names is there"
    files = [
        value for node in graph.values() for value in node["inputs"].values() if isinstance(value, str) and value.endswith(FILES)
    ]
    assert "To try:" in note and all(name in note for name in files if not name.endswith(".png") and not name.startswith("v1-5"))


FILES = (".safetensors", ".ckpt", ".bin", ".png")


class SmallCheckpoint:
    """In the place of CheckpointLoaderSimple; an inpainting one has nine channels."""

    RETURN_TYPES, FUNCTION = ("MODEL", "CLIP", "VAE"), "load"
    INPUT_TYPES = staticmethod(lambda: {"required": {"ckpt_name": ("STRING", {})}})

    def load(self, ckpt_name):
        model = image_model(in_channels=9 if "inpainting" in ckpt_name else 4)
        if "inpainting" in ckpt_name:
            model.model.set_inpaint()
        return model, Words(), Pixels()


class SmallEncoder:
    """In the place of CLIPVisionLoader."""

    RETURN_TYPES, FUNCTION = ("CLIP_VISION",), "load"
    INPUT_TYPES = staticmethod(lambda: {"required": {"clip_name": ("STRING", {})}})

    def load(self, clip_name):
        return (SmallVision(),)


STAND_INS = {"CheckpointLoaderSimple": SmallCheckpoint, "ControlNetLoader": SmallControlNet, "CLIPVisionLoader": SmallEncoder}


@pytest.fixture(scope="module")
def files(comfyui):
    """The workflows' files, and the stand-ins among ComfyUI's nodes."""
    import folder_paths
    import nodes

    models, inputs = Path(folder_paths.models_dir), Path(folder_paths.get_input_directory())
    unet = image_model(config=UNET).model.diffusion_model
    made = [inputs / name for name in COLOURS]
    for path in made:
        Image.new("RGB", (96, 64), COLOURS[path.name]).save(path)
    for folder in ("animatediff_models", "ipadapter"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    for family, name in (("v3", "v3_sd15_mm.ckpt"), ("PIA", "pia.ckpt")):
        made.append(models / "animatediff_models" / name)
        torch.save(PUBLISHED[family](), made[-1])
    for kind, name in (("plain", "ip-adapter_sd15.safetensors"), ("plus", "ip-adapter-plus_sd15.safetensors")):
        made.append(prompt_file(models / "ipadapter", prompt_state(unet, kind), name=name))
    classes = {f"Image{cls.__name__}": cls for cls in (*STAND_INS.values(), Keep)}
    nodes.NODE_CLASS_MAPPINGS.update(classes)
    yield
    for name in classes:
        del nodes.NODE_CLASS_MAPPINGS[name]
    for path in made:
        path.unlink()


def run(name, folder, changes=()):
    """What a workflow saved and showed, and its frames: ``f h w c``."""
    from pack.host.comfyui.executor import run_workflow

    graph = copy.deepcopy(WORKFLOWS[name])
    for node in graph.values():
        if node["class_type"] in STAND_INS:
            node["class_type"] = f"Image{STAND_INS[node['class_type']].__name__}"
        small = {"width": 64, "height": 64, "steps": 2}
        node["inputs"] |= {key: value for key, value in small.items() if isinstance(node["inputs"].get(key), int)}
    for (title, key), value in changes:
        node = graph[titled(graph, title)]
        assert key in node["inputs"]
        node["inputs"][key] = value
    (video,) = nodes_of(graph, "CreateVideo")
    graph["keep"] = {"class_type": "ImageKeep", "inputs": {"images": video["inputs"]["images"]}}
    Keep.frames = None
    return run_workflow(graph, folder), Keep.frames


@pytest.fixture(scope="module")
def as_shipped(files, tmp_path_factory):
    """What each workflow gives without a change, computed once."""
    return {name: run(name, tmp_path_factory.mktemp(name)) for name in NAMES}


@pytest.mark.comfy
@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_makes_its_video(name, as_shipped):
    results, frames = as_shipped[name]
    (video,) = [item["path"] for item in results if item["class_type"] == "SaveVideo"]
    assert read_video(video) == (16, 8)
    assert frames.shape == (16, 64, 64, 3) and torch.isfinite(frames).all()
    assert (frames[1:] - frames[:-1]).abs().amax(dim=(1, 2, 3)).min() > 1e-3, "no frame is a copy of the one before"


KNOBS = [
    ("image_prompt_video", ("Look at the pictures", "scale"), 0.0),
    ("image_prompt_video", ("Look at the pictures", "blend"), "nearest"),
    ("image_prompt_video", ("Last picture", "image"), "first.png"),
    ("moonshot", ("Look at the picture", "scale"), 0.0),
    ("moonshot", ("First frame", "mode"), "moonshot"),
    ("moonshot", ("Keep the shape of the picture", "strength"), 0.0),
    ("moonshot", ("Model that draws clips", "effect"), 0.0),
    ("pia", ("Picture and motion", "motion"), "large"),
    ("pia", ("Your picture", "image"), "last.png"),
]


@pytest.mark.comfy
@pytest.mark.parametrize(("name", "knob", "value"), KNOBS, ids=lambda value: value if isinstance(value, str) else None)
def test_what_the_workflow_is_about_reaches_the_frames(name, knob, value, as_shipped, tmp_path):
    _, other = run(name, tmp_path, [(knob, value)])
    assert (as_shipped[name][1] - other).abs().max() > 1e-3
