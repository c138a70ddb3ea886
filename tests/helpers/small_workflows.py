"""Shipped workflows on tiny models: stand-ins for ComfyUI's loaders."""

import zlib
from fractions import Fraction

import torch
from tiny_motion import SDXL_UNET, UNET, image_model
from torch.nn import functional
from whole_windows import control_net


def nodes_of(graph, class_type):
    return [node for node in graph.values() if node["class_type"] == class_type]


def titled(graph, title):
    """The id of the node that is called so."""
    (found,) = [key for key, node in graph.items() if node["_meta"]["title"] == title]
    return found


class Words:
    """Stands in for a text encoder: four tokens drawn from the text."""

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, text):
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        return [[torch.randn(1, 4, UNET.context_dim, generator=generator), {"pooled_output": None}]]


class Pixels:
    """Stands in for a VAE: eight pixels each way are one latent."""

    def decode(self, latent):
        return functional.interpolate(latent[:, :3].sigmoid(), scale_factor=8).movedim(1, -1)

    def encode(self, pixels):
        colours = functional.avg_pool2d(pixels[..., :3].movedim(-1, 1).float(), 8).clamp(0.01, 0.99).logit()
        return torch.cat([colours, colours.mean(dim=1, keepdim=True)], dim=1)


class SmallCheckpoint:
    """In the place of CheckpointLoaderSimple."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"

    INPUT_TYPES = staticmethod(lambda: {"required": {"ckpt_name": ("STRING", {})}})

    def load(self, ckpt_name):
        return image_model(config=SDXL_UNET if "xl" in ckpt_name else UNET), Words(), Pixels()


class SmallControlNet:
    """In the place of ControlNetLoader."""

    RETURN_TYPES = ("CONTROL_NET",)
    FUNCTION = "load"

    INPUT_TYPES = staticmethod(lambda: {"required": {"control_net_name": ("STRING", {})}})

    def load(self, control_net_name):
        return (control_net(),)


class Keep:
    """Holds on to the frames before the video is compressed."""

    RETURN_TYPES = ()
    FUNCTION = "keep"
    OUTPUT_NODE = True
    frames = None

    INPUT_TYPES = staticmethod(lambda: {"required": {"images": ("IMAGE",)}})

    def keep(self, images):
        type(self).frames = images.clone()
        return {}


STAND_INS = {"CheckpointLoaderSimple": SmallCheckpoint, "ControlNetLoader": SmallControlNet}


def spatial_lora():
    """AnimateLCM's LoRA for the image model, in small."""
    name, width = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", UNET.model_channels
    generator = torch.Generator().manual_seed(8)
    return {
        f"{name}.lora_up.weight": torch.randn(width, 4, generator=generator),
        f"{name}.lora_down.weight": torch.randn(4, width, generator=generator),
        f"{name}.alpha": torch.tensor(4.0),
    }


def write_video(path, frames):
    """A bright square that moves over a dark ground, at 12 frames per second."""
    import av
    import numpy as np

    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("h264", rate=Fraction(12))
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for place in range(frames):
            picture = np.full((64, 96, 3), 30, dtype=np.uint8)
            picture[20:44, 20 + place : 44 + place] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def read_video(path):
    """Number of frames, frames per second."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return sum(1 for _ in container.decode(stream)), float(stream.average_rate)
