"""Training in small frozen models, for tests: clips, options, what stands for VAE and CLIP, and runs that are cut short."""

import json
import zlib
from functools import cached_property
from pathlib import Path

import pytest
import torch
from pack import host
from pack.modules.data.clips import ClipDataset
from pack.modules.data.procedural import moving_shapes
from pack.modules.data.settings import ClipSettings
from pack.modules.train.options import Options
from safetensors.torch import load_file
from tiny_motion import SDXL_UNET, UNET, image_model
from torch import nn

FRAMES = 4
QUICK = Options(batch=2, micro_batch=0, warmup=1, sample_steps=1, sample_cfg=1.0, watch_every=0, ema=0.5, save_every=100)
WORDS = ("disk", "square", "triangle", "ring", "red", "green", "blue", "yellow", "bouncing", "turning", "growing")
WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows" / "api"


class Squares:
    """A VAE in small: 4 channels from 8x8 pixels, as SD1.5's; no weights, no network to load."""

    patch = 8

    def encode(self, pixels):
        small = nn.functional.avg_pool2d(pixels.movedim(-1, 1), self.patch)
        return torch.cat([small, small.mean(1, keepdim=True)], 1) * 8 - 4

    def decode(self, latents):
        return nn.functional.interpolate((latents[:, :3] + 4) / 8, scale_factor=self.patch).movedim(1, -1).clamp(0, 1)


class Words:
    """A CLIP in small: four tokens drawn from the text."""

    layer_idx = None

    def __init__(self, width=UNET.context_dim, pooled=None):
        self.width, self.pooled, self.asked = width, pooled, []
        self.cond_stage_model = nn.Linear(1, 1)
        nn.init.constant_(self.cond_stage_model.weight, width)  # a run is told by its CLIP's weights: the same where all is
        nn.init.constant_(self.cond_stage_model.bias, pooled or 0)

    @cached_property
    def patcher(self):
        """As ComfyUI has it."""
        from comfy.model_patcher import ModelPatcher

        return ModelPatcher(self.cond_stage_model, torch.device("cpu"), torch.device("cpu"))

    def tokenize(self, text, disable_weights=False):
        assert disable_weights, "brackets in captions are no weights"
        return text

    def encode_from_tokens(self, text, return_pooled=False):
        self.asked.append(text)
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        tokens = torch.randn(1, 4, self.width, generator=generator)
        return tokens, None if self.pooled is None else torch.randn(1, self.pooled, generator=generator)


def shapes_of(size, frames=FRAMES, count=3, **changes):
    """Clips of moving shapes."""
    settings = ClipSettings(**{"frames": frames, "stride": 1, "width": size, "height": size, "variants": 1} | changes)
    return ClipDataset(moving_shapes(count, frames, size, 0), settings)


def loaded_model(seed=0, **changes):
    """As ComfyUI's loaders make it: in inference mode."""
    with torch.inference_mode():
        return image_model(seed, **changes)


def small_sdxl(pooled):
    """A tiny model that takes sizes and this many values of pooled text, as SDXL does."""
    import comfy.model_base
    from comfy.ldm.modules.diffusionmodules.openaimodel import Timestep

    model = loaded_model(config=SDXL_UNET, adm_in_channels=pooled + 6 * 256, num_classes="sequential")
    model.model.__class__ = comfy.model_base.SDXL
    model.model.embedder, model.model.noise_augmentor = Timestep(256), None
    return model


def same(one, other):
    """Whether two states have the same keys and bits."""
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def parts_state(*parts):
    """A copy of the weights of several networks."""
    return {f"{place}.{key}": value.clone() for place, part in enumerate(parts) for key, value in part.state_dict().items()}


def folders_in(patch, folder):
    """Everything that is written goes below a folder: models by their kind, the rest to ``output``."""
    patch.setattr(host, "model_directory", lambda kind: folder / kind)
    patch.setattr(host, "output_directory", lambda: folder / "output")
    return folder


def written(folder, train):
    """Run ``train`` in a folder of its own. Returns the weights in the file that it leaves."""
    with pytest.MonkeyPatch.context() as patch:
        folders_in(patch, folder)
        train()
    (file,) = (path for path in folder.rglob("*.safetensors") if "output" not in path.relative_to(folder).parts)
    return load_file(file)


def bar_of(steps, act):
    """``host.Progress`` that acts after each step of a training of so many, and not while clips are encoded."""

    class Bar:
        def __init__(self, total):
            self.total = total

        def update(self, done, preview=None):
            if self.total == steps:
                act(done)

    return Bar


def cancelled(monkeypatch, train, steps, at):
    """Run ``train``, of so many steps, with Cancel pressed after step ``at``."""

    def cancel(done):
        if done == at:
            raise host.Interrupted

    with monkeypatch.context() as patch, pytest.raises(host.Interrupted):
        patch.setattr(host, "Progress", bar_of(steps, cancel))
        train()


def unloading(monkeypatch, train, steps):
    """Run ``train``, of so many steps, while ComfyUI unloads every model after each of them."""
    import comfy.model_management

    with monkeypatch.context() as patch:
        patch.setattr(host, "Progress", bar_of(steps, lambda done: comfy.model_management.unload_all_models()))
        train()


def logged(places, name):
    """The lines of a training's log."""
    lines = (places / "output" / "longtake_training" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def small_graph(name, instead, **changes):
    """A workflow of two small steps, in which some classes of nodes have others in their place."""
    graph = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    small = {"steps": 2, "sample_steps": 1, "batch": 1, "count": 3, **changes}
    for node in graph.values():
        node["inputs"] |= {key: value for key, value in small.items() if isinstance(node["inputs"].get(key), int)}
        node["class_type"] = instead.get(node["class_type"], node["class_type"])
    return graph
