"""The long take is the same take on both hosts: every frame of the shipped workflow, to 1e-3."""

import json
from pathlib import Path

import pack
import pytest
import torch
from pack import host
from pack.nodes.forcing import forcing
from pack.nodes.models import models

WORKFLOW = json.loads((Path(pack.__file__).parent / "workflows" / "api" / "long_take.json").read_text(encoding="utf-8"))


def settings(class_type, title):
    """The widget values of a node of the workflow."""
    node = next(
        node
        for name, node in WORKFLOW.items()
        if not name.startswith("_") and node["class_type"] == class_type and node["_meta"]["title"] == title
    )
    return {name: value for name, value in node["inputs"].items() if not isinstance(value, list)}


def take():
    """The workflow's graph up to the decoded frames, by hand."""
    model, vae = models.LongTakeLoadVideoModel.execute(**settings("LongTakeLoadVideoModel", "Model")).args
    prompts = [
        models.LongTakeLabelPrompt.execute(model=model, **settings("LongTakeLabelPrompt", title)).args[0]
        for title in ("Prompt", "Negative")
    ]
    levels = forcing.LongTakeNoiseLevels.execute(**settings("LongTakeNoiseLevels", "Noise levels")).args[0]
    latent = forcing.LongTakeRollout.execute(
        model=model, positive=prompts[0], negative=prompts[1], noise_levels=levels, **settings("LongTakeRollout", "Long take")
    ).args[0]
    return vae.decode(latent["samples"])


@pytest.mark.comfy
@pytest.mark.slow
def test_every_frame_of_the_long_take_is_the_same_on_both_hosts(monkeypatch):
    from pack.host import standalone

    inside = take()
    assert host.name == "comfyui"
    for file in (forcing, models):
        monkeypatch.setattr(file, "host", standalone)
    alone = take()
    assert inside.shape == alone.shape == (160, 32, 32, 3)
    worst = (inside - alone).abs().amax((1, 2, 3))
    assert worst.max() < 1e-3, f"frame {worst.argmax()} differs by {worst.max()}"
    assert torch.isfinite(alone).all()
    assert (alone[1:] - alone[:-1]).abs().amax((1, 2, 3)).min() > 0.01, "it keeps moving"
