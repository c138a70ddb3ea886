"""The architecture that the pack trains on its own world, small enough for two CPU cores."""

from ..temporal.config import TemporalConfig
from ..unet import UNetConfig
from ..video_model import VideoModelInfo, slot_subset
from .shapes import LABELS, SIZE

PATCH = 4


# the temporal modules of the shapes' model, by kind
TEMPORAL: dict[str, TemporalConfig] = {
    "transformer": TemporalConfig(heads=4, attentions=1, ff_mult=1, groups=8, positions="rotary", mask="causal"),
    "recurrent": TemporalConfig(kind="recurrent", groups=8, mask="causal", hidden=32),
    "pseudo3d": TemporalConfig(kind="pseudo3d", heads=4, attentions=1, groups=8, positions="rotary", mask="causal"),
}


def shapes_model(width: int = 64, temporal: str = "transformer") -> VideoModelInfo:
    """A pixel-space model for the procedural shapes: 4x4 patches, two levels, attention only at the bottom, causal in time.

    Args:
        width: channels of the first level.
        temporal: what sits in the slots, a name in ``TEMPORAL``.

    Raises:
        ValueError: there is no such kind.
    """
    if temporal not in TEMPORAL:
        raise ValueError(f"the temporal module {temporal!r} is not known: choose one of {', '.join(TEMPORAL)}")
    unet = UNetConfig(
        in_channels=3 * PATCH**2,
        out_channels=3 * PATCH**2,
        model_channels=width,
        channel_mult=(1, 2),
        num_res_blocks=(1, 1),
        transformer_depth=(0, 0),
        transformer_depth_output=(0, 0, 0, 0),
        transformer_depth_middle=1,
        num_heads=4,
        label_channels=len(LABELS),
        use_scale_shift_norm=True,
        groups=8,
    )
    return VideoModelInfo(
        unet=unet,
        temporal=TEMPORAL[temporal],
        slots=slot_subset(unet),
        prediction="x0",
        noise_schedule="cosine",
        patch=PATCH,
        frames=16,
        size=(SIZE, SIZE),
        labels=LABELS,
    )
