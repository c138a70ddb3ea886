"""Models, the motion in them, and what trainers need of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from .kinds import Conditioning, Model, Vae

if TYPE_CHECKING:
    from torch import Tensor

    from ...modules.checkpoints.motion import MotionModule
    from ...modules.checkpoints.motion_lora import MotionLora
    from ...modules.checkpoints.sparsectrl import SparseControlFile
    from ...modules.checkpoints.video_model import VideoModel, VideoModelInfo
    from ...modules.temporal.motion import MotionModel
    from ...modules.temporal.settings import MotionSettings
    from ...modules.train.base import Base, Encoder


class Models(Protocol):
    """Models, and the motion in them."""

    def video_model(self, video: VideoModel) -> Model:
        """The MODEL of a video model file's contents; every sampler of the host takes it."""
        ...

    def video_info(self, model: Model) -> VideoModelInfo | None:
        """What the file said, if the MODEL came from ``video_model``; else None."""
        ...

    def vae(self, info: VideoModelInfo) -> Vae:
        """The VAE that goes with a video model that works on pixels.

        Raises:
            ValueError: the model works on the latents of a real VAE, and this host can load none.
        """
        ...

    def unet_of(self, model: Model) -> Any:
        """The U-Net of a MODEL of any kind."""
        ...

    def motion_models(self, model: Model) -> tuple[MotionModel, ...]:
        """The temporal networks of a MODEL, in the order in which they were applied."""
        ...

    def apply_motion(
        self, model: Model, motion: MotionModule, settings: MotionSettings = ..., noise_schedule: str = "authors"
    ) -> Model:
        """A clone of ``model`` with the motion module in its slots, and the noise schedule that the module was trained with.

        Args:
            model: of the module's base model.
            motion: what to apply.
            settings: how strongly, where and when; plainly everywhere by default.
            noise_schedule: ``authors``, ``model`` to leave the model's own, or a name in ``levels.NOISE_SCHEDULES``.

        Raises:
            ValueError: the module is for another base model, or the model is of a kind that has no such schedule.
        """
        ...

    def apply_motion_lora(
        self,
        model: Model,
        lora: MotionLora,
        strength: float = 1.0,
        block_strength: Callable[[str], float] | None = None,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
    ) -> Model:
        """A clone of ``model`` with the LoRA on it.

        Args:
            model: with a motion module, unless the LoRA is for the image model alone.
            lora: goes onto the motion module that was applied last; what the file holds for the image model goes there.
            strength: of all of it, of either sign.
            block_strength: a further one for each slot of the motion module; None for 1 everywhere.
            start_percent: of sampling, 0..1, from where on it acts.
            end_percent: of sampling, 0..1, up to where it acts.

        Raises:
            ValueError: the file does not fit the model, or what is asked for cannot be done with it. One sentence each.
        """
        ...

    def in_model_numbers(self, model: Model, samples: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """A latent changed in the numbers that ``model`` works with: ``samples``: ``r ...``. Returns ``r ...``."""
        ...


class Training(Protocol):
    """What trainers need of a MODEL and of encoders."""

    def trainable(
        self,
        model: Model,
        noise_schedule: str = "model",
        *,
        precision: str = "float32",
        gradient_checkpointing: bool = True,
        shape: Sequence[int] = (1, 4, 64, 64),
    ) -> AbstractContextManager[Base]:
        """While open, something can be trained in a MODEL; afterwards it is as it was, whatever happened.

        Args:
            model: any with a U-Net of Stable Diffusion's family.
            noise_schedule: ``model`` for the MODEL's own, or a name in ``levels.NOISE_SCHEDULES``.
            precision: a name in ``settings.PRECISIONS``, of the frozen model's layers.
            gradient_checkpointing: whether layers keep their input only and compute again for gradients.
            shape: of the largest batch that goes through at once, ``(frames, channels, height, width)``.

        Raises:
            ValueError: the MODEL is of a kind that nothing can be trained in. One sentence each.
        """
        ...

    def clip_encoder(self, vae: Vae) -> Encoder:
        """A VAE as a trainer uses it.

        Raises:
            ValueError: what is given is no VAE.
        """
        ...

    def text_encoder(
        self, model: Model, clip: Any = None, conditioning: Conditioning | None = None, *, blank: bool = True
    ) -> Encoder:
        """What a MODEL takes of captions: by its own words, by a CLIP, or the same conditioning for all.

        Args:
            model: any.
            clip: reads captions, and the empty one, which is what sampling takes for no text.
            conditioning: stands for every caption.
            blank: whether it is needed what no text is: to drop captions, or to guide samples.

        Raises:
            ValueError: neither is given and the model takes text, or what is given is of another size.
        """
        ...

    def sparse_control(self, file: SparseControlFile) -> Any:
        """A SparseCtrl file made ready for this host."""
        ...
