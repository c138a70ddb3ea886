"""The models that the pack trains from scratch, small enough for two CPU cores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..checkpoints.video_model import VideoModelInfo, slot_subset
from ..data.clips import ClipDataset
from ..data.shapes import LABELS, SIZE
from ..fields.setting import check, documented, setting
from ..nets.unet_config import UNetConfig
from ..noise.levels import PREDICTIONS
from ..temporal.config import TemporalConfig
from ..temporal.normalise import QK_NORMS
from .sources import caption_words

PATCH = 4
NONE = "none"


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


@documented
@dataclass(frozen=True)
class Architecture:
    """The model."""

    temporal: str = setting(
        "transformer",
        "The temporal modules make it a video model.",
        menu={
            "transformer": "Frames attend to each other within the window.",
            "recurrent": "A convolutional GRU carries its state along the whole take.",
            "pseudo3d": "There is a convolution over time, then attention.",
        },
    )
    width: int = setting(64, "The width is the number of channels of the model's first level.", least=8, most=1024, step=8)
    prediction: str = setting("x0", "The network puts out the clean frame (x0), the noise (eps), or v.", menu=PREDICTIONS.keys())
    qk_norm: str = setting(
        NONE,
        "Queries and keys of temporal attentions are normalised, so that logits cannot explode; this is part of the model from then on.",
        menu=(NONE, *QK_NORMS),
    )
    skip_scale: float = setting(
        1.0,
        "Skips from deeper levels count less by this factor, for steadier training of deep models. 1 is off, 0.7 is usual then.",
        least=0.1,
        most=1.0,
        step=0.05,
    )

    def __post_init__(self) -> None:
        check(self)

    def for_shapes(self) -> VideoModelInfo:
        """The model of the procedural shapes."""
        return small_video_model(
            self.width,
            self.temporal,
            labels=LABELS,
            prediction=self.prediction,
            qk_norm="" if self.qk_norm == NONE else self.qk_norm,
            skip_scale=self.skip_scale,
        )

    def for_clips(self, dataset: ClipDataset, channels: int = 0, scale: float = 1.0, known: Sequence[str] = ()) -> VideoModelInfo:
        """A model of a data set's clips, with the words of its captions.

        Args:
            dataset: the clips.
            channels: of a VAE's latents; 0 for a model that works on pixels.
            scale: what latents are multiplied with.
            known: words of the model that it is trained on from, which it keeps if the captions need no others.
        """
        size = dataset.sizes[0]
        words = caption_words(dataset.captions)
        latents = {"patch": 0, "channels": channels} if channels else {}
        info = small_video_model(
            self.width,
            self.temporal,
            labels=tuple(known) if set(words) <= set(known) else words,
            frames=dataset.settings.frames,
            size=(size.height, size.width),
            prediction=self.prediction,
            qk_norm="" if self.qk_norm == NONE else self.qk_norm,
            skip_scale=self.skip_scale,
            **latents,
        )
        return replace(info, latent_scale=scale)
