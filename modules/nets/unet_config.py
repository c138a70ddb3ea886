"""The architecture of a spatial U-Net (``unet.py``) as data: what a file states, and what ComfyUI builds the same network from."""

from dataclasses import asdict, dataclass
from typing import Any

LATER = {"skip_scale": 1.0}  # fields of the configuration that the first files did not have


@dataclass(frozen=True)
class UNetConfig:
    """The whole architecture. Tuples run over levels, finest first, unless said otherwise."""

    in_channels: int = 4
    out_channels: int = 4
    model_channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: tuple[int, ...] = (2, 2, 2, 2)
    transformer_depth: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 0, 0)  # per residual block on the way down
    transformer_depth_output: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0)  # per level, finest first
    transformer_depth_middle: int = 1
    num_heads: int = 8
    context_dim: int | None = None  # None: the second attention of a block attends to the image itself
    label_channels: int | None = None  # length of the label vector ``y``; None: the model takes no label
    use_scale_shift_norm: bool = False  # the embedding scales and shifts instead of being added
    groups: int = 32
    skip_scale: float = 1.0  # skips of the n-th level, counted from 0, are multiplied with its n-th power: see ``skip_scales``

    def __post_init__(self) -> None:
        for name in ("channel_mult", "num_res_blocks", "transformer_depth", "transformer_depth_output"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.channel_mult) != len(self.num_res_blocks):
            raise ValueError(
                f"channel_mult has {len(self.channel_mult)} levels and num_res_blocks {len(self.num_res_blocks)}: give one entry per level"
            )
        wanted = sum(self.num_res_blocks), sum(self.num_res_blocks) + len(self.num_res_blocks)
        given = len(self.transformer_depth), len(self.transformer_depth_output)
        if given != wanted:
            raise ValueError(
                f"transformer_depth and transformer_depth_output have {given} entries: this U-Net has {wanted} residual blocks down and up"
            )
        for width in (self.model_channels * mult for mult in self.channel_mult):
            if width % self.groups or width % self.num_heads:
                raise ValueError(
                    f"a level is {width} channels wide: it must be a multiple of groups={self.groups} and num_heads={self.num_heads}"
                )

        if not 0 < self.skip_scale <= 1:
            raise ValueError(
                f"skip_scale is {self.skip_scale}: it must lie above 0, and 1 leaves skips as they are; 0.7 is usual"
            )

    def facts(self) -> dict[str, Any]:
        """The fields by name. What came later is left out where it says nothing new, so that files stay as they were."""
        return {name: value for name, value in asdict(self).items() if name not in LATER or value != LATER[name]}

    def skip_scales(self) -> tuple[float, ...]:
        """What the skip into each block of the way up is multiplied with: less the deeper it comes from (ScaleLong's constant scaling,
        Huang et al., arXiv:2310.13545), so that gradients of deep networks do not add up.

        A block's group norm takes most of it back where groups hold either skip or not; what the norm does not see is the block's
        shortcut. So it does less here than in networks without such norms.
        """
        return tuple(
            self.skip_scale**level for level, blocks in reversed(list(enumerate(self.num_res_blocks))) for _ in range(blocks + 1)
        )

    def comfyui(self) -> dict[str, Any]:
        """The keyword arguments of ComfyUI's ``UNetModel`` for this architecture.

        What it does not know is added outside: ``groups`` on its modules, ``skip_scales`` by a patch of its way up.
        """
        deepest = max(*self.transformer_depth, *self.transformer_depth_output, self.transformer_depth_middle)
        return {
            "image_size": 32,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "model_channels": self.model_channels,
            "channel_mult": list(self.channel_mult),
            "num_res_blocks": list(self.num_res_blocks),
            "transformer_depth": list(self.transformer_depth),
            "transformer_depth_output": list(self.transformer_depth_output),
            "transformer_depth_middle": self.transformer_depth_middle,
            "num_heads": self.num_heads,
            "num_head_channels": -1,
            "use_spatial_transformer": True,
            "use_linear_in_transformer": False,
            "context_dim": self.context_dim or [None] * deepest,  # a plain None breaks its transformer layers
            "num_classes": "sequential" if self.label_channels else None,
            "adm_in_channels": self.label_channels,
            "use_scale_shift_norm": self.use_scale_shift_norm,
            "legacy": False,
            "use_temporal_attention": False,
        }
