"""How LoRAs of motion modules are spelt, and the one spelling that they are brought to.

In use are AnimateDiff's release (``attention_blocks.0.processor.to_q_lora.down.weight``), MotionDirector's (which also reaches
feed-forwards, and puts the middle of a name first: ``to_out.processor.0_lora.up.weight``), diffusers' old one (``unet.`` in front,
``attn1`` for the first attention), PEFT's (``attn1.to_q.lora_A.weight``), kohya's (``lora_unet_`` in front and underscores between) and
all of them with HotshotXL's ``temporal_attentions``. They differ in names only, so each difference is a row of ``RENAMES``; to read another
spelling, add a row.
"""

import re

# each applied to every key, in this order
RENAMES: tuple[tuple[str, str], ...] = (
    (r"^(?:module\.|unet\.|base_model\.model\.)+", ""),
    (r"\.processor\.", "."),
    (r"\.temporal_attentions\.", ".motion_modules."),
    (r"(\.motion_modules\.\d+\.)(?!temporal_transformer\.)", r"\1temporal_transformer."),
    (r"\.attn1\.", ".attention_blocks.0."),
    (r"\.attn2\.", ".attention_blocks.1."),
    (r"(?:\.lora_[AB](?:\.\w+)?\.weight|(?:_lora|\.lora)?(?:\.(?:up|down)\.weight)?)\.alpha$", ".alpha"),
    (r"\.lora_A(?:\.\w+)?\.weight$", ".down"),
    (r"\.lora_B(?:\.\w+)?\.weight$", ".up"),
    (r"(?:_lora|\.lora|\.lora_linear_layer)[._](up|down)\.weight$", r".\1"),
    (r"\.(?:dora_scale|lora_magnitude_vector(?:\.\w+)*)$", ".magnitude"),
    (r"\.to_out\.(up|down|alpha|magnitude)$", r".to_out.0.\1"),
)
# a key whose parts are joined by underscores, and the parts that have some themselves
JOINED = re.compile(r"^lora_unet_(?=.*_(?:motion_modules|temporal_attentions)_)([^.]+)\.(.+)$")
WITH_UNDERSCORES = (
    "down_blocks|up_blocks|mid_block|motion_modules|temporal_attentions|temporal_transformer|transformer_blocks"
    "|attention_blocks|to_q|to_k|to_v|to_out|proj_in|proj_out|ff_norm"
)
PARTS = re.compile(rf"({WITH_UNDERSCORES}|[a-z0-9]+)(?:_|$)")
MOTION = re.compile(r"(?:^|\.)(?:(?:down|up)_blocks\.\d+|mid_block)\.(?:motion_modules|temporal_attentions)\.\d+\.")
PART = re.compile(
    r"^(((?:down|up)_blocks\.\d+|mid_block)\.motion_modules\.\d+\.temporal_transformer\..+)\.(up|down|alpha|magnitude)$"
)
LORA = re.compile(r"lora|\.alpha$")


def dotted(key: str) -> str:
    """A key with dots between its parts, where underscores join those of a motion module; any other as it is.

    >>> dotted("lora_unet_up_blocks_1_motion_modules_2_proj_in.lora_up.weight")
    'up_blocks.1.motion_modules.2.proj_in.lora_up.weight'
    """
    match = JOINED.match(key)
    return f"{'.'.join(PARTS.findall(match[1]))}.{match[2]}" if match else key


def canonical(key: str) -> str:
    """A key in the one spelling that the others are brought to.

    >>> canonical("unet.mid_block.motion_modules.0.transformer_blocks.0.attn2.to_out.0.lora_B.weight")
    'mid_block.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.to_out.0.up'
    """
    key = dotted(key)
    for pattern, replacement in RENAMES:
        key = re.sub(pattern, replacement, key)
    return key
