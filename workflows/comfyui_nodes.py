"""What ComfyUI's own nodes look like, as far as a drawing of them needs it; a test holds them to every ComfyUI that is there."""

import json
from typing import Any

# ComfyUI's own nodes that only ComfyUI can run: inputs as "name:TYPE" or "name:TYPE=value in a new node", outputs as "TYPE" or "name:TYPE".
# TEXT is a large text box, VIDEO_FILE a menu that uploads.
COMFYUIS = {
    "BasicScheduler": ("model:MODEL scheduler:COMBO steps:INT=20 denoise:FLOAT=1.0", "SIGMAS"),
    "Canny": ("image:IMAGE low_threshold:FLOAT=0.4 high_threshold:FLOAT=0.8", "IMAGE"),
    "CFGGuider": ("model:MODEL positive:CONDITIONING negative:CONDITIONING cfg:FLOAT=8.0", "GUIDER"),
    "CheckpointLoaderSimple": ("ckpt_name:COMBO", "MODEL CLIP VAE"),
    "CLIPLoader": ("clip_name:COMBO type:COMBO", "CLIP"),
    "CLIPTextEncode": ("text:TEXT clip:CLIP", "CONDITIONING"),
    "CLIPVisionLoader": ("clip_name:COMBO", "CLIP_VISION"),
    "ConditioningCombine": ("conditioning_1:CONDITIONING conditioning_2:CONDITIONING", "CONDITIONING"),
    "ConditioningSetMask": ("conditioning:CONDITIONING mask:MASK strength:FLOAT=1.0 set_cond_area:COMBO", "CONDITIONING"),
    "ControlNetApplyAdvanced": (
        "positive:CONDITIONING negative:CONDITIONING control_net:CONTROL_NET image:IMAGE strength:FLOAT=1.0 start_percent:FLOAT=0.0"
        " end_percent:FLOAT=1.0",
        "positive:CONDITIONING negative:CONDITIONING",
    ),
    "ControlNetLoader": ("control_net_name:COMBO", "CONTROL_NET"),
    "EmptyHunyuanLatentVideo": ("width:INT=848 height:INT=480 length:INT=25 batch_size:INT=1", "LATENT"),
    "EmptyImage": ("width:INT=512 height:INT=512 batch_size:INT=1 color:INT=0", "IMAGE"),
    "EmptyLatentImage": ("width:INT=512 height:INT=512 batch_size:INT=1", "LATENT"),
    "FrameInterpolationModelLoader": ("model_name:COMBO", "INTERP_MODEL"),
    "GetImageSize": ("image:IMAGE", "width:INT height:INT batch_size:INT"),
    "GetVideoComponents": ("video:VIDEO", "images:IMAGE audio:AUDIO fps:FLOAT"),
    "ImageBatch": ("image1:IMAGE image2:IMAGE", "IMAGE"),
    "ImageFromBatch": ("image:IMAGE batch_index:INT=0 length:INT=1", "IMAGE"),
    "ImageScale": ("image:IMAGE upscale_method:COMBO width:INT=512 height:INT=512 crop:COMBO", "IMAGE"),
    "ImageToMask": ("image:IMAGE channel:COMBO", "MASK"),
    "KSampler": (
        "model:MODEL seed:INT=0 steps:INT=20 cfg:FLOAT=8.0 sampler_name:COMBO scheduler:COMBO positive:CONDITIONING negative:CONDITIONING"
        " latent_image:LATENT denoise:FLOAT=1.0",
        "LATENT",
    ),
    "LoadVideo": ("file:VIDEO_FILE", "VIDEO"),
    "LoraLoaderModelOnly": ("model:MODEL lora_name:COMBO strength_model:FLOAT=1.0", "MODEL"),
    "ModelSamplingSD3": ("model:MODEL shift:FLOAT=3.0", "MODEL"),
    "RandomNoise": ("noise_seed:INT=0", "NOISE"),
    "SamplerCustomAdvanced": (
        "noise:NOISE guider:GUIDER sampler:SAMPLER sigmas:SIGMAS latent_image:LATENT",
        "output:LATENT denoised_output:LATENT",
    ),
    "SaveLatent": ("samples:LATENT filename_prefix:STRING=latents/ComfyUI", ""),
    "UNETLoader": ("unet_name:COMBO weight_dtype:COMBO", "MODEL"),
    "VAELoader": ("vae_name:COMBO", "VAE"),
    "WanImageToVideo": (
        "positive:CONDITIONING negative:CONDITIONING vae:VAE width:INT=832 height:INT=480 length:INT=81 batch_size:INT=1"
        " clip_vision_output:CLIP_VISION_OUTPUT start_image:IMAGE",
        "positive:CONDITIONING negative:CONDITIONING latent:LATENT",
    ),
}


def others(io: Any) -> list[Any]:
    """Schemas of ``COMFYUIS``, as far as a drawing needs them."""
    return [
        io.Schema(
            node_id=name,
            inputs=[input_of(io, *item.split(":")) for item in inputs.split()],
            outputs=[output_of(io, *item.split(":")) for item in outputs.split()],
        )
        for name, (inputs, outputs) in COMFYUIS.items()
    ]


def input_of(io: Any, name: str, kind: str) -> Any:
    """One input of ``COMFYUIS``: its name, and its type with the usual value."""
    kind, _, value = kind.partition("=")
    match kind:
        case "INT" | "FLOAT":
            return getattr(io, kind.title()).Input(name, default=json.loads(value))
        case "STRING":
            return io.String.Input(name, default=value)
        case "TEXT":
            return io.String.Input(name, multiline=True)
        case "COMBO" | "VIDEO_FILE":
            return io.Combo.Input(name, upload=io.UploadType.video if kind == "VIDEO_FILE" else None)
    return io.Custom(kind).Input(name)


def output_of(io: Any, *words: str) -> Any:
    """One output of ``COMFYUIS``: its type, with or without a name before it."""
    *name, kind = words
    return io.Custom(kind).Output(display_name=name[0] if name else None)
