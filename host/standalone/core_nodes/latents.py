"""ComfyUI's nodes between latents, pictures and pictures of another size."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from .. import schema as io
from .. import ui


class VAEDecode(io.ComfyNode):
    """Latents to pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The schema."""
        return io.Schema(
            node_id="VAEDecode",
            display_name="VAE Decode",
            category="latent",
            inputs=[io.Latent.Input("samples"), io.Vae.Input("vae")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], vae: Any) -> io.NodeOutput:
        """Decode ``samples["samples"]``: ``f c h w``."""
        return io.NodeOutput(vae.decode(samples["samples"]))


class VAEEncode(io.ComfyNode):
    """Pictures to latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The schema."""
        return io.Schema(
            node_id="VAEEncode",
            display_name="VAE Encode",
            category="latent",
            inputs=[io.Image.Input("pixels"), io.Vae.Input("vae")],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, pixels: Tensor, vae: Any) -> io.NodeOutput:
        """Encode ``pixels``: ``f h w c``."""
        return io.NodeOutput({"samples": vae.encode(pixels[..., :3])})


class ImageScaleBy(io.ComfyNode):
    """Make pictures larger or smaller."""

    METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The schema."""
        return io.Schema(
            node_id="ImageScaleBy",
            display_name="Upscale Image By",
            category="image/upscaling",
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input("upscale_method", options=list(cls.METHODS)),
                io.Float.Input("scale_by", default=1.0, min=0.01, max=8.0, step=0.01),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image: Tensor, upscale_method: str = "nearest-exact", scale_by: float = 1.0) -> io.NodeOutput:
        """Scale ``image``: ``f h w c``."""
        height, width = (round(side * scale_by) for side in image.shape[1:3])
        if min(height, width) < 1:
            size = f"{image.shape[2]}x{image.shape[1]}"
            raise ValueError(f"pictures of {size} scaled by {scale_by} would have no pixels: use a larger scale_by")
        if upscale_method == "lanczos":
            scaled = [np.asarray(frame.resize((width, height), Image.Resampling.LANCZOS)) for frame in ui.pictures(image)]
            return io.NodeOutput(torch.from_numpy(np.stack(scaled)).float() / 255.0)
        frames = F.interpolate(rearrange(image, "f h w c -> f c h w"), size=(height, width), mode=upscale_method)
        return io.NodeOutput(rearrange(frames, "f c h w -> f h w c"))
