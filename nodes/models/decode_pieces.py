"""Wan's VAE for takes of any length: decoded in pieces, with one cache for all of them."""

from typing import Any

import torch

from ... import host
from ...modules.fields.setting import Setting
from ..fields import widget
from ..node import LongTakeNode
from .models import CATEGORY

io = host.io


class LongTakeDecodePieces(LongTakeNode):
    """A long video latent decoded piece by piece."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeDecodePieces",
            display_name="VAE Decode in Pieces (Wan)",
            category=CATEGORY,
            description="Decodes a long latent of Wan's piece by piece, with one cache for all: the pictures are those of VAE Decode,"
            " without seams, in the memory of a piece; the pictures lie in main memory.",
            inputs=[
                io.Latent.Input("samples", tooltip="The samples are a video latent, of any length."),
                io.Vae.Input("vae", tooltip="The VAE is that of Wan 2.1, or of Wan 2.2 5B."),
                widget(
                    "piece",
                    8,
                    Setting(
                        "A piece is so many latent frames, four pictures each; more are not faster.",
                        least=1,
                        most=1000,
                        advanced=True,
                    ),
                ),
            ],
            outputs=[io.Image.Output(tooltip="The pictures are one for the first latent frame and four for each other.")],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], vae: Any, piece: int) -> "io.NodeOutput":
        latents = samples["samples"]
        if latents.ndim != 5:
            raise ValueError(
                f"the latent has the shape {list(latents.shape)}: Wan's is b c f h w; use VAE Decode for pictures of image models"
            )
        clips = []
        progress = host.Progress(len(latents) * latents.shape[2])
        for number, clip in enumerate(latents.split(1)):
            decoder = host.piece_decoder(vae)
            for start in range(0, clip.shape[2], piece):
                end = min(start + piece, clip.shape[2])
                clips.append(decoder(clip[:, :, start:end], last=end == clip.shape[2]))
                progress.update(number * clip.shape[2] + end)
        return io.NodeOutput(torch.cat(clips))
