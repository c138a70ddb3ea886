"""How the image layers of SparseCtrl's encoders are spelt in files, and what they are called in ``sparsectrl.SparseControl``.

The authors and diffusers name them as diffusers does. sd-webui-controlnet's files (AnimateDiff for A1111) and what Advanced-ControlNet
reads besides have the names of Stable Diffusion's own code, with or without ``control_model.`` in front, and so does this pack's network
but for the ends of its branches: those are rows of ``LDM``.
"""

import re
from collections.abc import Iterable

RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
PLAIN = {
    "conv_in.": "input_blocks.0.0.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "controlnet_cond_embedding.": "condition.",
    "controlnet_mid_block.": "middle_block_out.",
    "controlnet_down_blocks.": "zero_convs.",
}
LDM = (
    (r"^control_model\.", ""),
    (r"^zero_convs\.(\d+)\.0\.", r"zero_convs.\1."),
    (r"^middle_block_out\.0\.", "middle_block_out."),
    (r"^input_hint_block\.0\.(conv_in|conv_out|blocks)\.", r"condition.\1."),  # A1111's encoder of scribbles
)
HINT = re.compile(
    r"^input_hint_block\.(\d+)\.(weight|bias)$"
)  # one layer for latents; ControlNet's own eight, with SiLU between them
NARROWER = re.compile(r"^input_blocks\.(\d+)\.0\.op\.weight$")
DOWN = re.compile(r"^down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.(.+)$")
MID = re.compile(r"^mid_block\.(resnets\.\d+|attentions\.\d+)\.(.+)$")


def own_names(keys: Iterable[str]) -> tuple[dict[str, str], int]:
    """What each key of the image layers is called in this pack's network, and how many residual blocks a level has."""
    plain = {key: _plain(key) for key in keys}
    narrower = [int(match[1]) for match in map(NARROWER.match, plain.values()) if match]
    residual = {int(match[3]) for match in map(DOWN.match, plain.values()) if match and match[2] == "resnets"}
    blocks = min(narrower) - 1 if narrower else 1 + max(residual, default=0)
    last = max((int(match[1]) for match in map(HINT.match, plain.values()) if match), default=0)
    return {key: _hint(renamed(name, blocks), last) for key, name in plain.items()}, blocks


def _plain(key: str) -> str:
    for pattern, replacement in LDM:
        key = re.sub(pattern, replacement, key)
    return key


def _hint(key: str, last: int) -> str:
    """The entrance of ControlNet's own code, whose convolutions are every second of its numbers up to ``last``."""
    match = HINT.match(key)
    if match is None:
        return key
    place = int(match[1])
    name = "" if not last else "conv_in." if place == 0 else "conv_out." if place == last else f"blocks.{place // 2 - 1}."
    return f"condition.{name}{match[2]}"


def renamed(key: str, blocks: int) -> str:
    """One key of an image layer, from diffusers' spelling to ours; ``blocks`` are the residual blocks of a level.

    >>> renamed("down_blocks.1.resnets.0.conv1.weight", 2)
    'input_blocks.4.0.in_layers.2.weight'
    >>> renamed("mid_block.attentions.0.proj_in.bias", 2)
    'middle_block.1.proj_in.bias'
    """
    down, middle = DOWN.match(key), MID.match(key)
    if down:
        level, what, place, rest = int(down[1]), down[2], int(down[3]), down[4]
        if what == "downsamplers":
            return f"input_blocks.{(level + 1) * (blocks + 1)}.0.{rest.replace('conv.', 'op.', 1)}"
        block = 1 + level * (blocks + 1) + place
        return f"input_blocks.{block}.0.{_inner(rest)}" if what == "resnets" else f"input_blocks.{block}.1.{rest}"
    if middle and middle[1] in MIDDLE:
        return f"middle_block.{MIDDLE[middle[1]]}.{_inner(middle[2]) if middle[1].startswith('resnets') else middle[2]}"
    return next((ours + key.removeprefix(theirs) for theirs, ours in PLAIN.items() if key.startswith(theirs)), key)


def _inner(rest: str) -> str:
    name, _, last = rest.rpartition(".")
    return f"{RESIDUAL.get(name, name)}.{last}"


def released(key: str, blocks: int) -> str:
    """The inverse of ``renamed``.

    >>> released("input_blocks.4.0.in_layers.2.weight", 2), released("input_blocks.3.0.op.bias", 2)
    ('down_blocks.1.resnets.0.conv1.weight', 'down_blocks.0.downsamplers.0.conv.bias')
    """
    match = re.match(r"^input_blocks\.(\d+)\.(\d)\.(.+)$", key)
    if match and match[1] != "0":
        level, place = divmod(int(match[1]) - 1, blocks + 1)
        if place == blocks:
            return f"down_blocks.{level}.downsamplers.0.{match[3].replace('op.', 'conv.', 1)}"
        what = "attentions" if match[2] == "1" else "resnets"
        return f"down_blocks.{level}.{what}.{place}.{match[3] if what == 'attentions' else _outer(match[3])}"
    match = re.match(r"^middle_block\.(\d)\.(.+)$", key)
    if match:
        theirs = next(theirs for theirs, ours in MIDDLE.items() if ours == match[1])
        return f"mid_block.{theirs}.{match[2] if theirs.startswith('attentions') else _outer(match[2])}"
    return next((theirs + key.removeprefix(ours) for theirs, ours in PLAIN.items() if key.startswith(ours)), key)


def _outer(rest: str) -> str:
    name, _, last = rest.rpartition(".")
    return f"{next((theirs for theirs, ours in RESIDUAL.items() if ours == name), name)}.{last}"
