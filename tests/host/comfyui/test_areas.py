"""Conditions for an area of the picture: what belongs to places is cut to the area, and is not squeezed into it.

What the model guesses inside an area is compared with its guess for a clip that is that area alone, told of what lies there.
"""

from dataclasses import replace

import pytest
import torch
from pack import host
from pack.modules.checkpoints.camera import load_camera
from pack.modules.checkpoints.motion import graft_camera, load_motion_module
from pack.modules.control.camera import moved
from pack.modules.control.camera_model import PoseEncoder
from pack.modules.control.first_frame import FirstFrameSettings
from pack.modules.control.keyframes import Keyframes
from pack.modules.temporal.picture_part import PicturePart
from pack.modules.temporal.settings import BlockRule, MotionKeyframe, MotionSettings, Strength
from small_workflows import Pixels
from tiny_motion import camera_file, image_model, motion_file, text
from tiny_prompt import pictures
from whole_windows import close, drawn, guess

pytestmark = pytest.mark.comfy
FRAMES, SIZE = 4, 8
AREAS = {
    "left": (8, 4, 0, 0),
    "right": (8, 4, 0, 4),
    "lower right": (4, 4, 4, 4),
    "upper": (4, 8, 0, 0),
}  # height, width, top, left
SIGMA = torch.tensor(3.0)


def inside(x, area):
    height, width, top, left = area
    return x[..., top : top + height, left : left + width]


def within(conditioning, area):
    return [[conditioning[0][0], {**conditioning[0][1], "area": area, "strength": 1.0}]]


def module_of(folder, family="v3"):
    return load_motion_module(motion_file(folder, family, name=f"{family}.safetensors"))


def masked(kind):
    def model(folder, area):
        mask = torch.rand(FRAMES, SIZE, SIZE, generator=torch.Generator().manual_seed(5)) * 2
        mask = (mask if area is None else inside(mask, area)).repeat_interleave(8, -1).repeat_interleave(8, -2)  # as pixels
        keyframe = MotionKeyframe(**{kind: Strength(mask=mask)}, blocks=(BlockRule("up", 0.5),) if kind == "scale" else ())
        return host.apply_motion(image_model(), module_of(folder), MotionSettings(keyframes=(keyframe,)), "model")

    return model


def camera(folder, area):
    grafted = graft_camera(module_of(folder), load_camera(camera_file(folder)))
    return host.apply_camera(
        host.apply_motion(image_model(), grafted, MotionSettings(), "model"), moved([("pan left", 1.0)], FRAMES, 9.0)
    )


def first_frame(mode, family=None):
    def model(folder, area):
        if family is None:
            made = image_model(in_channels=9)
            made.model.set_inpaint()
        else:
            made = host.apply_motion(image_model(), module_of(folder, family), MotionSettings(), "model")
        size = (SIZE, SIZE) if area is None or family == "AnimateLCM-I2V" else area[:2]
        settings = FirstFrameSettings(mode=mode, drift=0.0)
        keyframes = Keyframes(pictures(1), (0,), (1.0,), (0,))
        return host.apply_first_frame(made, Pixels(), {"samples": torch.zeros(FRAMES, 4, *size)}, keyframes, settings)

    return model


TOLD = {
    "effect mask": masked("effect"),
    "scale mask": masked("scale"),
    "camera": camera,
    "channels of a picture": first_frame("moonshot"),
    "PIA": first_frame("pia", "PIA"),
    "AnimateLCM-I2V": first_frame("animatelcm_i2v", "AnimateLCM-I2V"),
}


@pytest.fixture
def told_of(monkeypatch):
    """What encoders see of the whole picture, for a clip that is a part of it: they are convolutions, whose edges show."""
    import pack.host.comfyui.attach.first_frame as first

    state = {"area": None}
    forward, encoded = PoseEncoder.forward, first.encoded

    def seen(self, path, height, width, device="cpu"):
        if state["area"] is None:
            return forward(self, path, height, width, device)
        part = PicturePart(*state["area"][2:], *state["area"][:2], (SIZE, SIZE))
        return [part.cut(x) for x in forward(self, path, SIZE, SIZE, device)]

    def latents(model, vae, images, height, width):
        whole = encoded(model, vae, images, SIZE, SIZE)
        return whole if state["area"] is None else inside(whole, state["area"])

    monkeypatch.setattr(PoseEncoder, "forward", seen)
    monkeypatch.setattr(first, "encoded", latents)
    return state


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("kind", TOLD)
def test_inside_an_area_is_what_a_clip_of_that_area_is(kind, area, told_of, tmp_path, monkeypatch):
    area = AREAS[area]
    x = drawn(FRAMES, 4, SIZE, SIZE) * 3
    whole = TOLD[kind](tmp_path, None)
    made = guess(whole, x, SIGMA, positive=within(text(3), area), cfg=1.0)
    plain = guess(whole, x, SIGMA, positive=text(3), cfg=1.0)
    if kind == "AnimateLCM-I2V":
        features_of_the_area(monkeypatch, area)
    else:
        told_of["area"] = area
    expected = guess(TOLD[kind](tmp_path, area), inside(x, area), SIGMA, positive=text(3), cfg=1.0)
    close(inside(made, area), expected)
    assert (inside(made, area) - inside(plain, area)).abs().max() > 1e-3 * plain.abs().max(), "the picture around it is not shown"


def features_of_the_area(monkeypatch, area):
    """AnimateLCM-I2V's encoder sees the whole picture, for the clip that is a part of it."""
    import pack.host.comfyui.attach.first_frame as first

    whole, part = first.CachedFeatures.of, PicturePart(*area[2:], *area[:2], (SIZE, SIZE))
    monkeypatch.setattr(
        first.CachedFeatures, "of", lambda self, *args: {slot: part.cut(x) for slot, x in whole(self, *args).items()}
    )
    monkeypatch.setattr(first, "check_size", lambda given, clip: None)


def test_two_areas_of_one_size_are_each_told_of_their_own_place(tmp_path, monkeypatch):
    """ComfyUI would put both into one call."""
    model = masked("effect")(tmp_path, None)
    x = drawn(FRAMES, 4, SIZE, SIZE) * 3
    both = [*within(text(3), AREAS["left"]), *within(text(5), AREAS["right"])]
    made = guess(model, x, SIGMA, positive=both, cfg=1.0)
    for seed, area in ((3, AREAS["left"]), (5, AREAS["right"])):
        alone = guess(model, x, SIGMA, positive=within(text(seed), area), cfg=1.0)
        close(inside(made, area), inside(alone, area))


def test_areas_with_a_negative_prompt_and_windows(tmp_path):
    """The negative prompt is run for the area, too, and windows of the whole model cut by frame what areas cut by place."""
    from pack.modules.temporal.windows import WindowPlan

    module = module_of(tmp_path)
    module = replace(module, config=replace(module.config, positions="rotary"))
    mask = torch.rand(FRAMES, SIZE, SIZE, generator=torch.Generator().manual_seed(5)) * 2
    settings = MotionSettings(attention_window=1, keyframes=(MotionKeyframe(effect=Strength(mask=mask)),))
    model = host.apply_motion(image_model(), module, settings, "model")
    both = [*within(text(3), AREAS["left"]), *within(text(5), AREAS["right"])]
    x = drawn(FRAMES, 4, SIZE, SIZE) * 3
    windowed = host.context_windows(model, WindowPlan(length=3, overlap=1), "whole")
    close(guess(windowed, x, SIGMA, positive=both), guess(model, x, SIGMA, positive=both))
