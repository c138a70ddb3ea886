"""Where a sampler's finished frames go, and how."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..sampling.job import Job
from .decoding import Decoder, EachFrame
from .frame_files import FrameFiles

if TYPE_CHECKING:
    from .recorder import Recorder


@dataclass(frozen=True)
class Recording:
    """Where finished frames go, and how.

    Attributes:
        files: of the take.
        decode: a VAE of image models: latents ``f c h w`` -> pictures ``f h w c`` in 0..1.
        pieces: gives a decoder for a take of a video model, whose latents are several pictures each; None for none.
        vae: what tells it from others.
        batch: latent frames that are decoded together.
        every: latent frames after which the state is written.
        resume: whether to go on with a take of the same name; else it is set aside.
        preview: whether frames are shown as they come.
        told: called at the end, however it came: after Cancel and errors, too.
    """

    files: FrameFiles
    decode: Callable[[Tensor], Tensor]
    pieces: Callable[[], Decoder] | None = None
    vae: str = ""
    batch: int = 16
    every: int = 64
    resume: bool = True
    preview: bool = True
    told: Callable[["Recorder"], None] = lambda recorder: None

    def decoder(self, job: Job) -> Decoder:
        """What decodes the frames of a job.

        Raises:
            ValueError: they cannot be decoded as they come. One sentence.
        """
        if job.latent.ndim == 4:
            return EachFrame(self.decode)
        if self.pieces is None:
            raise ValueError(
                f"the frames have the shape {list(job.latent.shape[1:])} each, of a video model whose VAE turns several pictures into"
                " one of them, and nothing here decodes such in parts: do without a recording and decode the whole clip"
            )
        if job.latent.shape[1] != 1:
            raise ValueError(
                f"the latent holds {job.latent.shape[1]} clips and a recording is one take: give a latent with a batch of 1, and a"
                " recording to each"
            )
        return self.pieces()
