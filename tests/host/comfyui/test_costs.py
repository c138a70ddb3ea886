"""What a sampling costs is said before the model is called, and what a default costs fits the model."""

import logging

import pytest
import tiny_wan
import torch
from custom import advanced, forcing, scheduler_sigmas
from pack import host
from pack.modules.guidance import steering
from pack.modules.sampling.fifo import Fifo
from pack.modules.sampling.vdm import VdmSampler
from pack.nodes.forcing.vdm import LongTakeExtend
from tiny_motion import image_model, text

pytestmark = pytest.mark.comfy
FRAMES, STEPS = 4, 4
WAN, IMAGES = torch.zeros(1, 16, FRAMES, *tiny_wan.SIZE), torch.zeros(FRAMES, 4, 8, 8)
SAMPLERS = {
    "Forcing": (lambda: forcing("pyramid", FRAMES, STEPS), 7),
    "FIFO": (lambda: host.forcing_sampler(Fifo(partitions=2, window=2)), 22),
    "VDM": (lambda: host.forcing_sampler(VdmSampler(corrector_steps=1)), 7),
}


@pytest.mark.parametrize("video", [False, True], ids=["images", "Wan"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_says_its_cost_before_the_first_call(comfyui, name, video, caplog, monkeypatch):
    import comfy.model_base

    (make, calls), said, made = SAMPLERS[name], [], []
    model, latent, prompt = (tiny_wan.wan_model(), WAN, tiny_wan.text) if video else (image_model(), IMAGES, text)
    inner = comfy.model_base.BaseModel.apply_model

    def counted(self, *args, **kwargs):
        said.append("model calls of up to" in caplog.text)
        made.append(len(args[0]))
        return inner(self, *args, **kwargs)

    monkeypatch.setattr(comfy.model_base.BaseModel, "apply_model", counted)
    with caplog.at_level(logging.INFO, "longtake"):
        advanced(model, make(), latent, scheduler_sigmas(model, STEPS), positive=prompt(3), negative=prompt(4), cfg=2.0)
    lines = next(record.message for record in caplog.records if "model calls" in record.message).splitlines()
    assert all(said) and "context_noise" not in caplog.text
    assert lines[0].startswith(f"cost: {len(made)} model calls of up to ") and len(made) == calls
    assert lines[0].endswith("; each is 2 conditions, 2 passes of the network")
    assert lines[1] == "gradients: none" and lines[2].startswith("memory: about ")


@pytest.fixture
def backwards(monkeypatch):
    taken, differentiated = [], steering.differentiated
    for module in ("reconstruction", "goals"):
        monkeypatch.setattr(
            f"pack.modules.guidance.{module}.differentiated", lambda *args: taken.append(1) or differentiated(*args)
        )
    return taken


def extend(model, prompt, samples, **given):
    with torch.inference_mode():
        made = LongTakeExtend.execute(
            model, {"samples": samples}, 1.0, 1, prompt(3), new_frames=2, steps=2, window=4, overlap=2, **given
        )
    assert made.args[0]["samples"].isfinite().all()
    return made.args[1].splitlines()


def test_extend_takes_no_gradients_through_a_large_model_unless_asked(comfyui, backwards):
    model, clip = tiny_wan.wan_model(), torch.ones(1, 16, 3, *tiny_wan.SIZE)
    lines = extend(model, tiny_wan.text, clip)
    assert not backwards and lines[1] == "weight 0" and "gradients: none" in lines
    lines = extend(model, tiny_wan.text, clip, weight=2.0)
    assert backwards and lines[1] == "weight 2"
    assert "gradients: 1 times back through the network in each call and layers computed twice" in lines[3]
    assert "3 times that with gradients" in lines[4]


def test_extend_guides_models_that_gradients_suit(comfyui, backwards, tmp_path):
    from pack.modules.checkpoints.motion import load_motion_module
    from tiny_motion import motion_file

    model = host.apply_motion(image_model(), load_motion_module(motion_file(tmp_path)))
    lines = extend(model, text, torch.ones(3, 4, 8, 8))
    assert backwards and lines[1] == "weight 2"


def test_windows_of_the_whole_model_are_counted(comfyui, caplog):
    from pack.modules.temporal.windows import WindowPlan

    model = host.context_windows(image_model(), WindowPlan(length=2, overlap=1), "whole")
    cost = host.sampling_cost(model, VdmSampler(), IMAGES, steps=STEPS, cfg=2.0)
    assert (cost.windows, cost.passes) == (3, 6)
    assert "each is 2 conditions x 3 windows, 6 passes of the network" in cost.lines()[0]
