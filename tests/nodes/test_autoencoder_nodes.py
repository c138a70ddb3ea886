"""From postcards to a take: the nodes that train an autoencoder and a model of its latents, and what loads the file."""

import pytest
import torch
from pack import host
from pack.modules.train.options import Options
from pack.nodes.forcing.forcing import LongTakeRollout
from pack.nodes.models.autoencoder import LongTakeLoadAutoencoder
from pack.nodes.models.models import LongTakeEmptyClip, LongTakeLabelPrompt, LongTakeLoadVideoModel
from pack.nodes.train.postcards_clips import LongTakePostcardsClips
from pack.nodes.train.train_autoencoder import LongTakeTrainAutoencoder
from pack.nodes.train.train_video_model import LongTakeTrainVideoModel

QUICK = Options(
    batch=2,
    micro_batch=0,
    warmup=1,
    watch_every=0,
    gradient_checkpointing=False,
    precision="float32",
    sample_steps=2,
    sample_cfg=1.0,
)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Model files and outputs in a folder of this test's."""
    monkeypatch.setattr(host, "model_directory", lambda kind: tmp_path / kind)
    monkeypatch.setattr(host, "output_directory", lambda: tmp_path / "output")
    monkeypatch.setattr(host, "file", lambda kind, name: tmp_path / kind / name)
    return tmp_path


def test_postcards_to_a_take(kept):
    with torch.inference_mode():  # as ComfyUI runs nodes
        clips, sheet, report = LongTakePostcardsClips.execute(count=40, frames=3, seed=4).args
        assert report.splitlines()[0] == "40 clips found, 40 used." and sheet.shape[-1] == 3
        given = {"steps": 2, "options": QUICK, "clips": clips}
        vae = LongTakeTrainAutoencoder.execute(latent=4, width=8, name="small", **given).args[0]
        _, own, name, *_ = LongTakeTrainVideoModel.execute(width=8, name="postcards", vae=vae, **given).args
        assert (kept / "autoencoders" / "small.safetensors").is_file()
        model, loaded = LongTakeLoadVideoModel.execute(model_name=name).args
        pictures = clips.clip(0).pixels.movedim(1, -1) / 2 + 0.5
        latents = vae.encode(pictures)
        torch.testing.assert_close(loaded.encode(pictures), latents)
        torch.testing.assert_close(own.decode(latents), loaded.decode(latents))
        words = LongTakeLabelPrompt.execute(model=model, prompt="red car, hills, day").args[0]
        empty = LongTakeEmptyClip.execute(model=model, frames=5).args[0]["samples"]
        assert empty.shape == (5, 4, 8, 8)
        take = LongTakeRollout.execute(model=model, positive=words, frames=5, steps=2).args[0]["samples"]
        assert loaded.decode(take).shape == (5, 64, 64, 3)
        by_file = LongTakeLoadAutoencoder.execute(autoencoder="small.safetensors").args[0]
        assert torch.equal(by_file.encode(pictures), latents)
        # the finished training is there at once, and gives the same
        again = LongTakeTrainAutoencoder.execute(latent=4, width=8, name="small", **given).args[0]
        assert torch.equal(again.encode(pictures), latents)


def test_latents_of_the_pack_s_own_can_be_trained_in(kept):
    """``host.clip_encoder`` knows the autoencoder, and tells it from another."""
    given = {"steps": 1, "options": QUICK, "latent": 4, "width": 8}
    keys = {
        host.clip_encoder(LongTakeTrainAutoencoder.execute(name=f"of_{seed}", seed=seed, **given).args[0]).key for seed in (0, 1)
    }
    assert len(keys) == 2
