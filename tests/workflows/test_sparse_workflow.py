"""The workflow sparse_keyframes in ComfyUI's own executor, from the loaders to the video file: small files under the published names."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_workflows import Keep, Pixels, Words, nodes_of, read_video, spatial_lora, titled
from tiny_motion import PUBLISHED, image_model
from tiny_sparse import PIXELS, sparse_state

pytestmark = pytest.mark.comfy
WORKFLOW = Path(__file__).resolve().parents[2] / "workflows" / "api" / "sparse_keyframes.json"


class SizedPixels(Pixels):
    """Says how many pixels are one latent."""

    def spacial_compression_encode(self):
        return 8


class SmallSparseCheckpoint:
    """In the place of CheckpointLoaderSimple."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"

    INPUT_TYPES = staticmethod(lambda: {"required": {"ckpt_name": ("STRING", {})}})

    def load(self, ckpt_name):
        return image_model(), Words(), SizedPixels()


@pytest.fixture(scope="module")
def files(comfyui):
    import folder_paths
    import nodes

    models, inputs = Path(folder_paths.models_dir), Path(folder_paths.get_input_directory())
    made = {
        models / "animatediff_models" / "v3_sd15_mm.ckpt": lambda path: torch.save(PUBLISHED["v3"](), path),
        models / "loras" / "v3_sd15_adapter.ckpt": lambda path: torch.save(spatial_lora(), path),
        models / "controlnet" / "v3_sd15_sparsectrl_rgb.ckpt": lambda path: torch.save({"controlnet": sparse_state()}, path),
        models / "controlnet" / "v3_sd15_sparsectrl_scribble.safetensors": lambda path: save_file(sparse_state(PIXELS), path),
        inputs / "first.png": lambda path: picture(200).save(path),
        inputs / "last.png": lambda path: picture(40).save(path),
    }
    for path, write in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    classes = {cls.__name__: cls for cls in (SmallSparseCheckpoint, Keep)}
    nodes.NODE_CLASS_MAPPINGS.update(classes)
    yield
    for name in classes:
        del nodes.NODE_CLASS_MAPPINGS[name]
    for path in made:
        path.unlink()


def picture(value):
    pixels = np.full((80, 96, 3), value, dtype=np.uint8)
    pixels[20:50, 30:60] = (250, 120, 30)
    return Image.fromarray(pixels)


def run(folder, changes=()):
    """What the workflow saved and showed, and its frames: ``f h w c``."""
    from pack.host.comfyui.executor import run_workflow

    graph = copy.deepcopy(json.loads(WORKFLOW.read_text(encoding="utf-8")))
    (checkpoint,) = nodes_of(graph, "CheckpointLoaderSimple")
    checkpoint["class_type"] = SmallSparseCheckpoint.__name__
    for node in graph.values():
        small = {"width": 64, "height": 64, "steps": 2}
        node["inputs"] |= {key: value for key, value in small.items() if isinstance(node["inputs"].get(key), int)}
    for (title, key), value in changes:
        assert key in graph[titled(graph, title)]["inputs"]
        graph[titled(graph, title)]["inputs"][key] = value
    (video,) = nodes_of(graph, "CreateVideo")
    graph["keep"] = {"class_type": "Keep", "inputs": {"images": video["inputs"]["images"]}}
    Keep.frames = None
    return run_workflow(graph, folder), Keep.frames


@pytest.fixture(scope="module")
def shipped(files, tmp_path_factory):
    return run(tmp_path_factory.mktemp("shipped"))


def test_it_makes_its_video_and_shows_the_timeline(shipped):
    results, frames = shipped
    (video,) = [item["path"] for item in results if item["class_type"] == "SaveVideo"]
    assert read_video(video) == (16, 8)
    assert frames.shape == (16, 64, 64, 3) and torch.isfinite(frames).all()
    assert [item for item in results if item["class_type"] == "PreviewImage"]


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        (("Lead the clip by them", "strength"), 0.0),
        (("Lead the clip by them", "motion"), False),
        (("When the last is met", "frames"), "8"),
        (("When the last is met", "strength"), "0.2"),
        (("First picture", "image"), "last.png"),
        (("SparseCtrl", "sparse_control"), "v3_sd15_sparsectrl_scribble.safetensors"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_what_the_workflow_is_about_reaches_the_frames(knob, value, shipped, tmp_path):
    assert (shipped[1] - run(tmp_path, [(knob, value)])[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ([(("When the last is met", "frames"), "16")], "a keyframe is at frame 16 and the clip has 16 frames"),
        ([(("When the first is met", "frames"), "15")], "two images are keyframes of frame 15"),
        ([(("When the last is met", "frames"), "8, -1")], "1 image was given and 2 frame numbers"),
        ([(("SparseCtrl", "pictures"), "scribble")], "takes latents of colour pictures, and scribble was asked for"),
        ([(("16 frames", "batch_size"), 20)], "the clip has 20 frames and its keyframes were laid out for 16"),
    ],
)
def test_bad_input_stops_the_workflow_with_one_sentence(changes, sentence, files, tmp_path):
    with pytest.raises(Exception, match=sentence):
        run(tmp_path, changes)
