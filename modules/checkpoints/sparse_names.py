"""How the image layers of SparseCtrl's encoders are spelt in files, and what they are called in ``sparsectrl.SparseControl``.

The authors and diffusers name them as diffusers does; this pack's network, as Stable Diffusion's own code does.
"""

import re

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
DOWN = re.compile(r"^down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.(.+)$")
MID = re.compile(r"^mid_block\.(resnets\.\d+|attentions\.\d+)\.(.+)$")


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
