"""An autoencoder as a file: its weights under ``autoencoder.``, and one JSON text in the metadata with its shape and how it was trained.

A video model file that works on its latents holds the same weights beside its own (``video_model.py``).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..nets.autoencoder import Autoencoder, AutoencoderConfig
from ..nets.unfilled import unfilled
from .files import kind, read_state
from .schema import json_object, made, shown
from .sound import check_weights

AUTOENCODER, ABOUT = "autoencoder.", "longtake_autoencoder"
VERSION = 1
PORTION = 32  # frames that go through at once
WHAT = "the description of the autoencoder"


def about_autoencoder(config: AutoencoderConfig, trained: Mapping[str, Any]) -> str:
    """The description in a file's metadata."""
    return json.dumps({"version": VERSION, "config": asdict(config), "trained": dict(trained)}, sort_keys=True)


def built(config: AutoencoderConfig, state: Mapping[str, Tensor]) -> Autoencoder:
    """The network of these weights, ready to run."""
    network = Autoencoder(config)
    network.load_state_dict(dict(state))
    return network.eval().requires_grad_(False)


class AutoencoderVae:
    """An autoencoder as a VAE of either host; a few frames at a time go through it, so a take of any length costs what it is long.

    Args:
        network: ready to run, where it shall run.
    """

    def __init__(self, network: Autoencoder):
        self.first_stage_model, self.vae_dtype = network, torch.float32  # ComfyUI's names for them

    def spacial_compression_encode(self) -> int:
        """Pixels of a latent in a row, by ComfyUI's name for it."""
        return self.first_stage_model.config.ratio

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents of ``pixels``: ``f h w c`` in 0..1. Returns ``f l p q``, scaled.

        Raises:
            ValueError: the pictures' sides are no multiples of what it makes one number of.
        """
        side = self.spacial_compression_encode()
        if pixels.shape[1] % side or pixels.shape[2] % side:
            raise ValueError(
                f"pictures are {pixels.shape[2]}x{pixels.shape[1]}: this model needs sides that are multiples of {side}"
            )
        return self._in_portions(self.first_stage_model.encode, pixels[..., :3])

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of ``latents``: ``f l p q``, scaled. Returns ``f h w 3`` in 0..1."""
        return self._in_portions(self.first_stage_model.decode, latents)

    def _in_portions(self, change: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
        device, whole = next(self.first_stage_model.parameters()).device, torch.empty(0)
        with torch.no_grad():
            for start in range(0, len(frames), PORTION):
                part = change(frames[start : start + PORTION].float().to(device)).to(frames.device)
                if not start:
                    whole = part.new_empty(len(frames), *part.shape[1:])  # filled in place: no second copy of a long take
                whole[start : start + len(part)] = part
        return whole


def load_autoencoder(path: Path) -> Autoencoder:
    """Read an autoencoder, from a file of its own.

    Raises:
        ValueError: there is no such file, it is cut short or no safetensors, or it holds something else. One sentence each.
    """
    state, metadata = read_state(path)
    if ABOUT not in metadata:
        what = kind(state, metadata)
        said = f"it is {what}" if what else f"its first keys are {', '.join(list(state)[:3]) or 'none'}"
        raise ValueError(f"{path.name} is no autoencoder of this pack: {said}; use one that Train Autoencoder made")
    values = json_object(metadata[ABOUT], WHAT)
    version = values.get("version")
    if version != VERSION:
        raise ValueError(
            f"{WHAT} has the version {shown(version)}, and this pack reads {VERSION}: update the pack, or download the file again"
        )
    config = made(AutoencoderConfig, values.get("config"), WHAT)
    with unfilled():
        wanted = {key: tuple(value.shape) for key, value in Autoencoder(config).state_dict().items()}
    check_weights(state, {AUTOENCODER + key: shape for key, shape in wanted.items()}, path.name)
    return built(config, {key: state[AUTOENCODER + key].float() for key in wanted})
