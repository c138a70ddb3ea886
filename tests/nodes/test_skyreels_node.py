"""The SkyReels-V2 node, and its workflow in ComfyUI's own executor: a small Wan file through ComfyUI's loader, to the video file.

Only the text encoder and the VAE are stand-ins. Pictures are 64x32, and six steps are sampled.
"""

import copy
import importlib
import json
from pathlib import Path

import pytest
import torch
from pack import host
from pack.nodes.forcing.skyreels import LongTakeSkyReels
from safetensors.torch import save_file
from small_skyreels import fps_weights
from small_wan_graphs import WIDTH, SmallTextEncoder, titled, wan_state
from tiny_motion import image_model
from tiny_wan import wan_model

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = json.loads((ROOT / "workflows" / "api" / "skyreels_long_video.json").read_text(encoding="utf-8"))


def of_class(graph, name):
    (found,) = [node for node in graph.values() if node["class_type"] == name]
    return found["inputs"]


# Without ComfyUI


@pytest.mark.skipif(host.name != "standalone", reason="ComfyUI is here")
def test_the_standalone_host_says_where_it_works():
    with pytest.raises(ValueError, match="SkyReels-V2 works on image models|SkyReels-V2 .* use it in ComfyUI"):
        LongTakeSkyReels.execute(model=object())


def test_the_workflow_says_the_same_everywhere():
    """Numbers that stand in two nodes agree, and what the window needs is there."""
    levels, sampler = of_class(WORKFLOW, "LongTakeNoiseLevels"), of_class(WORKFLOW, "LongTakeForcingSampler")
    assert levels["frames"] == (of_class(WORKFLOW, "EmptyHunyuanLatentVideo")["length"] - 1) // 4 + 1
    assert levels["frames"] % levels["block"] == 0
    assert levels["steps"] == of_class(WORKFLOW, "BasicScheduler")["steps"]
    assert levels["block"] == of_class(WORKFLOW, "LongTakeSkyReels")["causal_block_size"]
    assert of_class(WORKFLOW, "LongTakeSkyReels")["fps_file"] == of_class(WORKFLOW, "UNETLoader")["unet_name"]
    assert of_class(WORKFLOW, "CreateVideo")["fps"] == of_class(WORKFLOW, "LongTakeSkyReels")["fps"]
    schedules = importlib.import_module("pack.modules.sampling.noise_levels")
    given = {name: levels[name] for name in ("frames", "steps", "lag", "block", "known")}
    in_flight = schedules.NoiseLevels.named(levels["schedule"], **given).in_flight()
    assert in_flight == 15
    assert sampler["window"] - in_flight == 2 * levels["block"]


def test_the_workflows_note_names_what_is_there():
    (note,) = [node["_meta"]["note"] for node in WORKFLOW.values() if "note" in node["_meta"]]
    titles = [node["_meta"]["title"] for node in WORKFLOW.values()]
    assert len(set(titles)) == len(titles)
    assert all(title in titles for title in note.split('"')[1::2])
    assert "To try:" in note and "models/diffusion_models" in note


# What the node refuses


@pytest.fixture
def fps_file(comfyui):
    import folder_paths

    path = Path(folder_paths.models_dir) / "diffusion_models" / "fps.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(fps_weights(24), path)
    yield path
    path.unlink()


@pytest.mark.comfy
def test_the_node_gives_a_patched_clone(fps_file):
    from comfy.patcher_extension import WrappersMP

    model = wan_model()
    (patched,) = LongTakeSkyReels.execute(model=model, causal_attention=True, fps=16, fps_file=fps_file.name).result
    (wrapper,) = patched.get_wrappers(WrappersMP.DIFFUSION_MODEL, "longtake_skyreels")
    assert (wrapper.block, wrapper.fps.shape) == (5, (6, 24))
    assert not model.wrappers
    (other,) = LongTakeSkyReels.execute(model=model, fps=24, fps_file=fps_file.name).result
    assert other.get_wrappers(WrappersMP.DIFFUSION_MODEL, "longtake_skyreels")[0].block == 0
    assert not torch.equal(other.get_wrappers(WrappersMP.DIFFUSION_MODEL, "longtake_skyreels")[0].fps, wrapper.fps)


@pytest.mark.comfy
@pytest.mark.parametrize(
    ("make", "given", "sentence"),
    [
        (image_model, {}, "BaseModel takes one timestep for the whole clip"),
        (wan_model, {"causal_attention": True, "causal_block_size": -1}, "causal_block_size is -1"),
        (lambda: wan_model(dim=48), {"fps_file": "fps.safetensors"}, "is for a model of width 24 and this one has 48"),
        (wan_model, {"fps_file": "gone.safetensors"}, "there is no 'gone.safetensors' in"),
    ],
)
def test_the_node_refuses_in_one_sentence(make, given, sentence, fps_file):
    with pytest.raises(ValueError, match=sentence) as refusal:
        LongTakeSkyReels.execute(model=make(), **given)
    assert "\n" not in str(refusal.value)


# The workflow


class Pixels:
    """Stands in for Wan's VAE: the first latent frame is one picture, every further one four."""

    def decode(self, latent):
        pictures = latent[0, :3].sigmoid().movedim(0, -1)
        return torch.cat([pictures[:1], pictures[1:].repeat_interleave(4, dim=0)])


class SmallVae:
    """In the place of VAELoader."""

    RETURN_TYPES, FUNCTION = ("VAE",), "load"
    INPUT_TYPES = staticmethod(lambda: {"required": {"vae_name": ("STRING", {})}})

    def load(self, vae_name):
        return (Pixels(),)


class KeepPictures:
    """Holds on to the pictures before the video is compressed."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "keep", True
    INPUT_TYPES = staticmethod(lambda: {"required": {"images": ("IMAGE",)}})
    kept = None

    def keep(self, images):
        type(self).kept = images.clone()
        return {}


STAND_INS = {"CLIPLoader": SmallTextEncoder, "VAELoader": SmallVae}


def wan_file_state():
    """A Wan file as ComfyUI's loader recognises it, with the frame-rate embedding of the 1.3B model."""
    fps = {key: 0.3 * value / WIDTH**0.5 for key, value in fps_weights(WIDTH).items()}
    return wan_state() | fps


@pytest.fixture(scope="module")
def files(comfyui):
    """The model's file, and the stand-ins among ComfyUI's nodes."""
    import folder_paths
    import nodes

    path = Path(folder_paths.models_dir) / "diffusion_models" / of_class(WORKFLOW, "UNETLoader")["unet_name"]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(wan_file_state(), path)
    classes = {cls.__name__: cls for cls in (*STAND_INS.values(), KeepPictures)}
    nodes.NODE_CLASS_MAPPINGS.update(classes)
    yield
    for name in classes:
        del nodes.NODE_CLASS_MAPPINGS[name]
    path.unlink()


def run(folder, changes=()):
    """What the workflow saved, and its pictures: ``f h w c``."""
    from pack.host.comfyui.executor import run_workflow

    graph = copy.deepcopy(WORKFLOW)
    for node in graph.values():
        if node["class_type"] in STAND_INS:
            node["class_type"] = STAND_INS[node["class_type"]].__name__
    of_class(graph, "EmptyHunyuanLatentVideo").update(width=64, height=32)
    of_class(graph, "BasicScheduler")["steps"] = of_class(graph, "LongTakeNoiseLevels")["steps"] = 6
    of_class(graph, "LongTakeNoiseLevels")["lag"] = 2.0
    for (title, name), value in changes:
        assert name in titled(graph, title)
        titled(graph, title)[name] = value
    keep = {
        "class_type": "KeepPictures",
        "_meta": {"title": "keep"},
        "inputs": {"images": of_class(graph, "CreateVideo")["images"]},
    }
    KeepPictures.kept = None
    return run_workflow(graph | {"keep": keep}, folder), KeepPictures.kept


@pytest.mark.slow
@pytest.mark.comfy
def test_the_workflow_makes_its_video(files, tmp_path):
    from small_workflows import read_video

    results, pictures = run(tmp_path)
    (video,) = [item["path"] for item in results if item["class_type"] == "SaveVideo"]
    assert read_video(video) == (237, 24)
    assert pictures.shape == (237, 4, 8, 3)
    assert torch.isfinite(pictures).all()
    latent = torch.cat([pictures[:1], pictures[1::4]])
    assert (latent[1:] - latent[:-1]).abs().amax(dim=(1, 2, 3)).min() > 1e-3, "no frame is a copy of the one before"


KNOBS = [
    (("As its authors run it", "causal_attention"), True),
    (("Window of 25 latent frames", "order"), "euler"),
    (("As its authors run it", "fps"), 16),
    (("As its authors run it", "fps_file"), "none"),
    (("More steps for much noise", "shift"), 3.0),
    (("Window of 25 latent frames", "context_noise"), 0.0),
    (("Seed", "noise_seed"), 2),
]


SHORT = [(("237 pictures", "length"), 77), (("Lag of 10 steps, 5 frames at a time", "frames"), 20)]


@pytest.fixture(scope="module")
def short(files, tmp_path_factory):
    """The pictures of a shorter video, four blocks."""
    return run(tmp_path_factory.mktemp("short"), SHORT)[1]


@pytest.mark.slow
@pytest.mark.comfy
@pytest.mark.parametrize(("knob", "value"), KNOBS, ids=lambda item: item[1] if isinstance(item, tuple) else None)
def test_what_the_workflow_is_about_reaches_the_pictures(knob, value, short, tmp_path):
    _, other = run(tmp_path, [*SHORT, (knob, value)])
    assert (short - other).abs().max() > 1e-3
