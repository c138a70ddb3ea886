"""MODEL and VAE without ComfyUI.

A ``Model`` is a value: networks that nobody changes, and which temporal modules go with them. The U-Net is kept with its slots empty;
``ready`` fills them for the length of a call. So any number of models may share one U-Net and none can hear of another.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...modules.checkpoints.motion import check_base
from ...modules.checkpoints.video_model import VideoModel, VideoModelInfo, fold, unfold
from ...modules.nets.unet import UNet
from ...modules.noise.levels import NoiseSchedule
from ...modules.temporal.motion import MotionModel, functions_of
from ...modules.temporal.past import Memory
from ...modules.temporal.settings import PLAIN, MotionSettings
from ...modules.temporal.slots import empty, fill

if TYPE_CHECKING:
    from ...modules.checkpoints.motion import MotionModule


def device() -> torch.device:
    """Where networks run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Model:
    """A MODEL.

    Attributes:
        info: what the file says of itself.
        unet: with empty slots.
        motions: temporal modules; those of one slot work one after the other, in this order.
        schedule: how much noise there is at which timestep.
        settings: how strongly each of ``motions`` acts; those that it is too short for act plainly.
    """

    info: VideoModelInfo
    unet: UNet
    motions: tuple[MotionModel, ...]
    schedule: NoiseSchedule
    settings: tuple[MotionSettings, ...] = ()

    def clone(self) -> "Model":
        """Another model of the same networks."""
        return replace(self)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """While open, the U-Net's slots hold this model's modules; afterwards they are empty, whatever happened."""
        try:
            fill(self.unet, functions_of(self.motions))
            yield
        finally:
            empty(self.unet)

    @contextmanager
    def during(
        self,
        ids: Tensor,
        sigma: Tensor,
        times: Tensor | None = None,
        memories: Mapping[int, Memory] | None = None,
        rows: Sequence[Hashable] = (0,),
    ) -> Iterator[None]:
        """While open, the temporal modules work on clips of certain frames.

        Args:
            ids: ``f``, their numbers.
            sigma: ``f``, their noise levels.
            times: ``f``, when the modules are told they are; None for ``ids``.
            memories: of the sampling, by place of the motion model; None for clips that begin here.
            rows: whose each clip of the batch is.
        """
        with ExitStack() as stack:
            for place, motion in enumerate(self.motions):
                settings = self.settings[place] if place < len(self.settings) else PLAIN
                attentions = motion.config.attentions
                gains = settings.gains(motion.names, attentions, ids, sigma, self.schedule.at_percent)
                past = memories[place].call(ids, rows) if memories and motion.recalls else None
                stack.enter_context(motion.during(motion.frames_for(ids if times is None else times), gains, past=past))
            yield


def video_model(video: VideoModel) -> Model:
    """The MODEL of a video model file's contents."""
    unet, motion = video.build()
    empty(unet)
    return Model(video.info, unet.to(device()), (motion.to(device()),), NoiseSchedule.named(video.info.noise_schedule))


def video_info(model: object) -> VideoModelInfo | None:
    """What the model's file says of itself, or None for a model of another kind."""
    return model.info if isinstance(model, Model) else None


def noise_schedule(model: Model) -> NoiseSchedule:
    """How much noise there is at which of the model's timesteps."""
    return model.schedule


def coordinates_of(model: Model) -> str:  # noqa: ARG001  part of the port
    """How a model's noisy frames are mixed: a name in ``view.SIGNAL``."""
    return "diffusion"


def level_sigmas(model: Model, steps: int) -> Tensor:
    """The sigma of every noise level of so many steps, 0 first, rising. Returns ``l``."""
    return model.schedule.levels(steps)


def suits_gradients(model: Model) -> bool:  # noqa: ARG001  part of the port
    """Whether gradients through the model are a thing to do unasked."""
    return True


def motion_models(model: Model) -> tuple[MotionModel, ...]:
    """The model's temporal networks, in the order in which they were applied."""
    return model.motions


def in_model_numbers(model: Model, samples: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:  # noqa: ARG001  part of the port
    """A latent changed in the numbers that ``model`` works with: ``samples``: ``r ...``. Returns ``r ...``."""
    return change(samples)


def unet_of(model: Model) -> UNet:
    """The model's U-Net."""
    return model.unet


def apply_motion(
    model: Model, motion: "MotionModule", settings: MotionSettings = PLAIN, noise_schedule: str = "authors"
) -> Model:
    """The same model with a motion module after what its slots hold, and with the noise schedule the module was trained with.

    Args:
        model: with a U-Net of the module's shape.
        motion: what to apply.
        settings: how strongly, where and when.
        noise_schedule: ``authors``, ``model`` to leave the model's own, or a name in ``noise.NOISE_SCHEDULES``.

    Raises:
        ValueError: the module is for U-Nets of another shape, or for norms that run over whole clips.
    """
    if motion.clip_norms:
        raise ValueError(
            f"{motion.name} changes the U-Net's norms too, as AnimateDiff's first generation did: use it in ComfyUI, or a later one"
        )
    check_base(motion, model.unet)
    network = motion.build().to(device(), torch.float32).looking(settings.attention_window, first=settings.see_first_frame)
    named = motion.noise_schedule if noise_schedule == "authors" else noise_schedule
    before = (*model.settings, *[PLAIN] * (len(model.motions) - len(model.settings)))
    return replace(
        model,
        motions=(*model.motions, network),
        settings=(*before, settings),
        schedule=model.schedule if noise_schedule == "model" else NoiseSchedule.named(named),
    )


@dataclass(frozen=True)
class Vae:
    """The VAE of a model that works on pixels: it only folds them."""

    patch: int

    def encode(self, pixels: Tensor) -> Tensor:
        """``pixels``: ``f h w c`` in 0..1. Returns latents, ``f l p q``."""
        return fold(pixels, self.patch)

    def decode(self, latents: Tensor) -> Tensor:
        """``latents``: ``f l p q``. Returns ``f h w c`` in 0..1."""
        return unfold(latents, self.patch)


def vae(info: VideoModelInfo) -> Vae:
    """The VAE of a video model that works on pixels.

    Raises:
        ValueError: the model works on the latents of a real VAE, which only ComfyUI can load.
    """
    if info.patch < 1:
        raise ValueError(
            "this video model works on the latents of a VAE, which the standalone host cannot load: use it in ComfyUI"
        )
    return Vae(info.patch)
