"""MODELs with everything that can hang on one, none of whose frames sees another, for tests that compare ways of showing a clip.

Each frame is told something of its own: a picture, a strength, a pose.
"""

from dataclasses import replace

import torch
from native import label
from pack import host
from pack.modules.checkpoints.camera import load_camera
from pack.modules.checkpoints.image_prompt import load_image_prompt
from pack.modules.checkpoints.motion import graft_camera, load_motion_module
from pack.modules.checkpoints.motion_lora import load_motion_lora
from pack.modules.checkpoints.sparsectrl import load_sparse_control
from pack.modules.control.camera import moved
from pack.modules.control.first_frame import FirstFrameSettings
from pack.modules.control.hints import Layout
from pack.modules.control.keyframes import Keyframes
from pack.modules.control.prompt_settings import PromptSettings
from pack.modules.control.reference import ReferenceSettings
from pack.modules.control.sparse_pictures import SparseSettings
from pack.modules.temporal.config import TemporalConfig
from pack.modules.temporal.settings import MotionKeyframe, MotionSettings, Strength
from small_workflows import Pixels
from tiny import LABELS, config, video_model
from tiny_lora import lora_file
from tiny_motion import camera_file, image_model, motion_file, text
from tiny_prompt import SmallVision, pictures, prompt_file, prompt_state
from tiny_sparse import sparse_file
from whole_windows import drawn, prompts

FRAMES, SIZE = 6, 8
LATENT = torch.zeros(FRAMES, 4, SIZE, SIZE)
ALONE = MotionSettings(attention_window=1)


def keyframes(*frames):
    return Keyframes(pictures(len(frames)), frames, (1.0,) * len(frames), (0,) * len(frames))


# What hangs on a MODEL


def module_of(folder, family="v3"):
    """A motion module none of whose frames sees another, wherever it stands in a window."""
    module = load_motion_module(motion_file(folder, family, name=f"{family}.safetensors"))
    return replace(module, config=replace(module.config, positions="rotary"), clip_norms=False, module_norms=False)


def animated(folder, family="v3", settings=ALONE):
    return host.apply_motion(image_model(), module_of(folder, family), settings, "model")


def by_frame_and_level(folder):
    factors = [Strength(frames=tuple((place * step % 7) / 3 for place in range(FRAMES))) for step in (2, 3, 5)]
    shown = (MotionKeyframe(0.0, factors[0]), MotionKeyframe(0.4, factors[1], factors[2]))
    return animated(folder, settings=replace(ALONE, keyframes=shown))


def half_a_lora(folder):
    return host.apply_motion_lora(animated(folder), load_motion_lora(lora_file(folder)), 1.0, None, 0.0, 0.5)


def camera(folder):
    grafted = graft_camera(module_of(folder), load_camera(camera_file(folder)))
    return host.apply_camera(host.apply_motion(image_model(), grafted, ALONE, "model"), moved([("pan left", 1.0)], FRAMES, 9.0))


def first_frame(folder, model, mode):
    latent = {"samples": LATENT}
    return host.apply_first_frame(model, Pixels(), latent, keyframes(0, 3, -1), FirstFrameSettings(mode=mode, drift=0.0))


def inpainting(folder):
    model = image_model(in_channels=9)
    model.model.set_inpaint()
    return first_frame(folder, model, "moonshot")


def image_prompt(folder):
    model = image_model()
    prompt = load_image_prompt(prompt_file(folder, prompt_state(model.model.diffusion_model)))
    return host.apply_image_prompt(model, prompt, PromptSettings(1.0, 0.0, 0.6), SmallVision(), None, keyframes(0, 3, -1), None)


def reference(folder):
    settings = ReferenceSettings(strength=0.8, negative_strength=0.3, end_percent=0.7, per_frame=(1.0, 0.2, 0.6))
    return host.apply_reference(animated(folder), Pixels(), {"samples": LATENT}, None, keyframes(0, 3, -1), settings)


def to_size(rows, count):
    """As others do it: the last goes on."""
    return torch.cat([rows, rows[-1:].expand(max(0, count - len(rows)))])[:count]


def anothers_weight(folder):
    """A weight per frame in attention to the text, which looks for the frames of a call where IPAdapter_plus looks for them."""
    weights = torch.tensor([0.2, 1.9, 0.7, 1.4, 0.1, 1.1])

    def weighted(out, extra):
        conds, told = len(extra["cond_or_uncond"]), extra.get("ad_params")
        if told is None or told["sub_idxs"] is None:
            mine = to_size(weights, len(out) // conds)
        else:
            mine = to_size(weights, told["full_length"])[told["sub_idxs"]]
        return out * mine.repeat(conds)[:, None, None]

    model = animated(folder)
    model.set_model_attn2_output_patch(weighted)
    return model


TOLD = "told"  # on a MODEL: its latent and conditions where they are not those of the others


def told(model, latent=LATENT, **conds):
    model.set_attachments(TOLD, (latent, {"cfg": 2.0, **conds}))
    return model


def alone(motion):
    """No frame of a network's sees another, wherever it stands."""
    motion.reach, motion.config = 0, replace(motion.config, positions="rotary")


def sparse_control(folder):
    encoder = host.sparse_control(load_sparse_control(sparse_file(folder)))
    alone(encoder.patcher.model.motion)
    settings = SparseSettings(keyframes(0, 3, -1).at(FRAMES))
    positive, negative = host.apply_sparse_control(prompts(FRAMES), text(4), encoder, settings, Latents())
    return told(animated(folder), positive=positive, negative=negative)


class Latents(Pixels):
    """A VAE that says how many pixels are a latent."""

    def spacial_compression_encode(self):
        return 8


def video(changes, positive, negative):
    """A video model of this pack, small, on pixels that are folded by 4."""
    return told(
        host.video_model(video_model(**changes)), torch.zeros(FRAMES, 48, SIZE, SIZE), positive=positive, negative=negative
    )


def labels(folder):
    model = video({}, label(0, FRAMES), label(9))
    alone(model.get_additional_models_with_key("longtake_motion")[0].model)
    return model


def video_hints(folder):
    def hint(seed):
        hints = Layout().hints(drawn(3, 48, SIZE, SIZE, seed=seed), (0, 3, 5), FRAMES)
        return [[label(seed)[0][0], {**label(seed)[0][1], "concat_latent_image": hints.latents, "concat_mask": hints.mask}]]

    unet = config(in_channels=2 * 48 + 1, out_channels=48, label_channels=len(LABELS))
    model = video({"hints": True, "unet": unet}, hint(0), hint(9))
    alone(model.get_additional_models_with_key("longtake_motion")[0].model)
    return model


def recurrent(folder):
    temporal = TemporalConfig(kind="recurrent", groups=8, mask="causal", hidden=5)
    return video({"temporal": temporal}, label(0, FRAMES), label(9))


ATTACHED = {
    "motion": animated,
    "motion by frame and level": by_frame_and_level,
    "MotionLoRA to the middle": half_a_lora,
    "camera": camera,
    "channels of a picture": inpainting,
    "PIA": lambda folder: first_frame(folder, animated(folder, "PIA"), "pia"),
    "AnimateLCM-I2V": lambda folder: first_frame(folder, animated(folder, "AnimateLCM-I2V"), "animatelcm_i2v"),
    "image prompt": image_prompt,
    "reference": reference,
    "a weight of another pack": anothers_weight,
    "SparseCtrl": sparse_control,
    "labels": labels,
    "video hints": video_hints,
    "recurrent modules": recurrent,
}
