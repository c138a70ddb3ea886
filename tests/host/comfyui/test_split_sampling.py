"""Sampling in two parts, the second from where the first stopped: windows that shift at every step go on shifting."""

import pytest
import torch
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.temporal.windows import WindowPlan
from tiny_motion import image_model, motion_file, text

pytestmark = pytest.mark.comfy
FRAMES, STEPS = 7, 9
SCHEDULERS = ("normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "kl_optimal")


def parts(model, scheduler, *cuts):
    """The latents of as many advanced KSamplers in a row as there are parts between ``cuts``."""
    import nodes

    latent = {"samples": torch.zeros(FRAMES, 4, 4, 4)}
    for first, last in zip((0, *cuts), (*cuts, STEPS), strict=True):
        noise, rest = ("disable" if first else "enable"), ("enable" if last < STEPS else "disable")
        with torch.inference_mode():
            latent = nodes.KSamplerAdvanced().sample(
                *(model, noise, 1, STEPS, 1.0, "euler", scheduler, text(3), text(4), latent, first, last, rest)
            )[0]
    return latent["samples"]


@pytest.mark.parametrize("mode", ["temporal", "whole"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_windows_go_on(tmp_path, mode, scheduler):
    model = host.apply_motion(image_model(), load_motion_module(motion_file(tmp_path)))
    plan = WindowPlan("standard_uniform", 4, 2)
    windowed = host.context_windows(model, plan, mode)
    once = parts(windowed, scheduler)
    torch.testing.assert_close(parts(windowed, scheduler, 3), once, rtol=0, atol=1e-5 * float(once.abs().max()))
    torch.testing.assert_close(parts(windowed, scheduler, 2, 6), once, rtol=0, atol=1e-5 * float(once.abs().max()))


def test_they_matter(tmp_path):
    model = host.apply_motion(image_model(), load_motion_module(motion_file(tmp_path)))
    plain = parts(host.context_windows(model, WindowPlan("standard_static", 4, 2), "temporal"), "normal")
    assert not torch.allclose(
        parts(host.context_windows(model, WindowPlan("standard_uniform", 4, 2), "temporal"), "normal"), plain
    )
