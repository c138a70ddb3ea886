"""Train Video Model inside ComfyUI: from the executor, under its inference mode, on clips; what comes out samples there."""

import json
from dataclasses import replace
from pathlib import Path

import pack
import pytest
import torch
from pack import host
from pack.modules.train.tasks.video_model import DEFAULTS

pytestmark = pytest.mark.comfy
ROOT = Path(pack.__file__).parent


@pytest.fixture
def folder(tmp_path, monkeypatch, comfyui):
    """Where new video models go, for this pack as the tests know it and as ComfyUI loads it."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    return tmp_path / "longtake"


@pytest.fixture(scope="module")
def image_vae(comfyui):
    """An image model's VAE as ComfyUI's loader makes it, in small and with random weights."""
    import comfy.sd

    pytest.importorskip("diffusers")
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    shape = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2}
    network = AutoencoderKL(**shape, block_out_channels=(128, 256, 512, 512), latent_channels=4)
    with torch.inference_mode():
        return comfy.sd.VAE(sd=network.state_dict())


def small(workflow):
    """The workflow with a model, clips and a take as small as they go."""
    changes = {
        "LongTakeShapesClips": {"count": 4, "frames": 4, "size": 16},
        "LongTakeTrainVideoModel": {"steps": 2, "width": 32},
        "LongTakeTrainingOptions": {"batch": 1, "sample_every": 1, "watch_every": 1},
        "LongTakeLabelPrompt": {"prompt": "disk"},
        "LongTakeRollout": {"frames": 6, "steps": 2, "lag": 1.0},
    }
    for node in workflow.values():
        node["inputs"] |= changes.get(node["class_type"], {})
    return workflow


def test_the_workflow_runs_from_the_queue(folder, tmp_path_factory):
    """Clips, training, log, prompt, take and pictures in one graph, as ComfyUI executes it."""
    from pack.host.comfyui.executor import run_workflow

    output = tmp_path_factory.mktemp("output")
    results = run_workflow(small(json.loads((ROOT / "workflows" / "api" / "train_from_clips.json").read_text())), output)
    assert any(item["kind"] == "file" and item["path"].suffix == ".webp" for item in results)
    assert (folder / "my_clips.safetensors").is_file() and list(folder.iterdir()) == [folder / "my_clips.safetensors"]
    kept = output / "longtake_training"
    assert (kept / "my_clips.jsonl").read_text().count("\n") == 2 and len(list((kept / "my_clips.samples").iterdir())) == 2


def test_a_real_vae_is_trained_through_and_cancel_keeps_the_checkpoint(folder, tmp_path, monkeypatch, image_vae):
    from pack.nodes.train.data import LongTakeShapesClips
    from pack.nodes.train.train_video_model import LongTakeTrainVideoModel

    done = []

    class Stopping(host.Progress):
        def update(self, now, preview=None):
            super().update(now, preview)
            done.append(now)
            if now == 2:
                raise host.Interrupted

    monkeypatch.setattr(host, "output_directory", lambda: tmp_path)
    before = {name: value.clone() for name, value in image_vae.first_stage_model.state_dict().items()}
    with torch.inference_mode():
        clips = LongTakeShapesClips.execute(count=3, frames=4, size=64).args[0]
        given = {
            "name": "latents",
            "steps": 3,
            "options": replace(DEFAULTS, batch=1),
            "width": 32,
            "clips": clips,
            "vae": image_vae,
        }
        with monkeypatch.context() as patch:
            patch.setattr(host, "Progress", Stopping)
            with pytest.raises(host.Interrupted):
                LongTakeTrainVideoModel.execute(**given)
        assert (
            done == [1, 2]
            and (tmp_path / "longtake_training" / "latents.run.safetensors").is_file()
            and not (folder / "latents.safetensors").exists()
        )
        model, vae, _name, _plot, sample, *_ = LongTakeTrainVideoModel.execute(**given).args
    assert vae is image_vae and sample.shape == (4, 64, 64, 3)
    assert model.model.latent_format.latent_channels == 4
    after = image_vae.first_stage_model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "the VAE is as it was"
