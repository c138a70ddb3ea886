"""The architecture that the pack trains from scratch, small enough for two CPU cores."""

from collections.abc import Sequence
from dataclasses import replace

from ..checkpoints.video_model import VideoModelInfo, slot_subset
from ..data.shapes import LABELS, SIZE
from ..nets.unet import UNetConfig
from ..temporal.config import TemporalConfig

PATCH = 4


# the temporal modules of the model, by kind
TEMPORAL: dict[str, TemporalConfig] = {
    "transformer": TemporalConfig(heads=4, attentions=1, ff_mult=1, groups=8, positions="rotary", mask="causal"),
    "recurrent": TemporalConfig(kind="recurrent", groups=8, mask="causal", hidden=32),
    "pseudo3d": TemporalConfig(kind="pseudo3d", heads=4, attentions=1, groups=8, positions="rotary", mask="causal"),
}


def small_video_model(
    width: int = 64,
    temporal: str = "transformer",
    *,
    labels: Sequence[str] = (),
    frames: int = 16,
    size: tuple[int, int] = (SIZE, SIZE),
    patch: int = PATCH,
    channels: int = 3 * PATCH**2,
    prediction: str = "x0",
    qk_norm: str = "",
    skip_scale: float = 1.0,
) -> VideoModelInfo:
    """A video model of two levels, with spatial attention only at the bottom.

    Args:
        width: channels of the first level, a multiple of 8.
        temporal: what sits in the slots, a name in ``TEMPORAL``.
        labels: words that it is told.
        frames: of the clips that it is trained on.
        size: height and width of their pictures.
        patch: side of the patches that pictures are folded into; 0 for latents of a VAE.
        channels: of a latent.
        prediction: a name in ``noise.PREDICTIONS``.
        qk_norm: how temporal attentions normalise queries and keys, a name in ``QK_NORMS``; empty for not at all.
        skip_scale: see ``UNetConfig``.

    Raises:
        ValueError: there is no such kind, or it has no attention to normalise.
    """
    if temporal not in TEMPORAL:
        raise ValueError(f"the temporal module {temporal!r} is not known: choose one of {', '.join(TEMPORAL)}")
    if width < 8 or width % 8:
        raise ValueError(f"width is {width}: it must be a multiple of 8, the groups of the norms")
    if qk_norm and temporal == "recurrent":
        raise ValueError("qk_norm is for temporal attentions and a recurrent model has none: leave it off, or use another kind")
    unet = UNetConfig(
        in_channels=channels,
        out_channels=channels,
        model_channels=width,
        channel_mult=(1, 2),
        num_res_blocks=(1, 1),
        transformer_depth=(0, 0),
        transformer_depth_output=(0, 0, 0, 0),
        transformer_depth_middle=1,
        num_heads=4,
        label_channels=len(labels) or None,
        use_scale_shift_norm=True,
        groups=8,
        skip_scale=skip_scale,
    )
    return VideoModelInfo(
        unet=unet,
        temporal=replace(TEMPORAL[temporal], qk_norm=qk_norm),
        slots=slot_subset(unet),
        prediction=prediction,
        noise_schedule="cosine",
        patch=patch,
        frames=frames,
        size=size,
        labels=tuple(labels),
    )


def shapes_model(width: int = 64, temporal: str = "transformer") -> VideoModelInfo:
    """The pixel-space model of the procedural shapes: 4x4 patches, their words, causal in time.

    Args:
        width: channels of the first level.
        temporal: what sits in the slots, a name in ``TEMPORAL``.

    Raises:
        ValueError: there is no such kind.
    """
    return small_video_model(width, temporal, labels=LABELS)
