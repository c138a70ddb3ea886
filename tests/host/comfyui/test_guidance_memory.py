"""What guidance by gradients takes of the memory (``benchmarks/guidance_memory.py``), on the small models of this host."""

import sys

import pytest
from conftest import COMFYUI, ROOT

sys.path.append(str(ROOT / "benchmarks"))
from guidance_memory import LIMIT, sampled, small_image_model, small_video_model

MAKES = [small_video_model, pytest.param(small_image_model, marks=[pytest.mark.comfy, pytest.mark.slow])]


@pytest.mark.parametrize("make", MAKES)
def test_16_frames_take_little_more_with_guidance_than_without(make):
    assert COMFYUI or make is small_video_model
    found = sampled(make.__name__, **make())
    assert found["ratio"] <= LIMIT
    assert found["positive_only_ratio"] <= LIMIT
    assert found["kept_ratio"] > 4, "which is what computing again saves"
