"""Wan's VAE decoded piece by piece, as a take is made: the same pictures as decoding the whole, bit for bit, in constant memory.

The decoder is causal, and ComfyUI's keeps what it needs of past latents in a list for the length of one ``decode``. Here the list lives
as long as the take, and the decoder gets its latents in the same portions as there: one, then two at a time, or one at a time in the VAE
of Wan 2.2 and in older versions of ComfyUI.
"""

import sys
from collections.abc import Mapping
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ....modules.control.timed_prompts import PICTURES

REPEATED = "Rep"  # what the decoder writes in its list where a layer has seen the first latent alone


class PieceDecoder:
    """Latents in, pictures out, in order; what does not fill a portion waits for the next piece.

    Args:
        vae: ComfyUI's VAE.

    Raises:
        ValueError: it is not Wan's. One sentence.
    """

    def __init__(self, vae: Any):
        self.vae, self.network = vae, vae.first_stage_model
        self.core = sys.modules[type(self.network).__module__]
        if type(self.network).__name__ != "WanVAE" or not hasattr(self.network, "conv2"):
            raise ValueError(
                f"{type(self.network).__name__} is not Wan's VAE, and no other is decoded in pieces: connect wan_2.1_vae or wan2.2_vae, or"
                " use VAE Decode"
            )
        self.portion = 2 if hasattr(self.core, "count_cache_layers") else 1  # versions whose decoder takes two at a time count so
        self.patched = hasattr(
            self.core, "unpatchify"
        )  # Wan 2.2: pixels of a picture lie in channels, and the decoder is told the first
        self.cache: list[Any] = [None] * sum(1 for _ in self.network.decoder.modules())  # layers that use it are fewer
        self.begun = False
        self.waiting: Tensor | None = None

    @property
    def carries(self) -> bool:
        """Whether pictures hang on the latents before them: they do."""
        return True

    def pictures(self, frames: int, *, last: bool = False) -> int:
        """How many pictures the first so many latents have given: one for the first, four for each other that does not wait."""
        behind = max(0, frames - 1)
        done = behind if last else behind // self.portion * self.portion
        return 1 + PICTURES * done if frames else 0

    def __call__(self, latents: Tensor, *, last: bool = False) -> Tensor:
        """The pictures that follow.

        Args:
            latents: ``1 c f h w``, as a LATENT has them.
            last: whether none come after these, so that nothing waits.

        Returns:
            pictures: ``n h w 3`` in 0..1; one for the first latent, four for each other.
        """
        given = latents if self.waiting is None else torch.cat([self.waiting.to(latents), latents], 2)
        portions, at = [], 0
        while at < given.shape[2]:
            size = self.portion if self.begun or portions else 1
            if at + size > given.shape[2] and not last:
                break
            portions.append(given[:, :, at : at + size])
            at += portions[-1].shape[2]
        self.waiting = given[:, :, at:].clone() if at < given.shape[2] else None
        if not portions:
            side = self.vae.spacial_compression_decode()
            return torch.zeros(0, given.shape[3] * side, given.shape[4] * side, 3)
        needed = self.vae.memory_used_decode(portions[-1].shape, self.vae.vae_dtype)
        comfy.model_management.load_models_gpu([self.vae.patcher], memory_required=needed)
        return torch.cat([self._decoded(portion) for portion in portions])

    def _decoded(self, latents: Tensor) -> Tensor:
        """One portion: ``latents``: ``1 c f h w``. Returns ``n h w 3``, where results are kept."""
        x = self.network.conv2(latents.to(self.vae.device, self.vae.vae_dtype))
        first = {"first_chunk": True} if self.patched and not self.begun else {}
        made = self.network.decoder(x, feat_cache=self.cache, feat_idx=[0], **first)
        self.begun = True
        pixels = torch.cat(made, 2) if isinstance(made, list) else made
        pixels = self.core.unpatchify(pixels, patch_size=2) if self.patched else pixels
        return self.vae.process_output(pixels.to(self.vae.output_device).float())[0].movedim(0, -1)

    def tensors(self) -> dict[str, Tensor]:
        """All that is kept between pieces, by name, for a take that is interrupted and goes on."""
        kept = {f"cache/{place}": entry for place, entry in enumerate(self.cache) if torch.is_tensor(entry)}
        marks = {f"repeated/{place}": torch.zeros(1) for place, entry in enumerate(self.cache) if isinstance(entry, str)}
        waiting = {} if self.waiting is None else {"waiting": self.waiting}
        return {**kept, **marks, **waiting, **({"begun": torch.ones(1)} if self.begun else {})}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Be as when ``tensors`` were given."""
        self.cache = [None] * len(self.cache)
        for name, tensor in tensors.items():
            kind, _, place = name.partition("/")
            if place:
                self.cache[int(place)] = REPEATED if kind == "repeated" else tensor.to(self.vae.device)
        self.waiting, self.begun = tensors.get("waiting"), "begun" in tensors


def piece_decoder(vae: Any) -> PieceDecoder:
    """The decoder of a take; see ``PieceDecoder``."""
    return PieceDecoder(vae)
