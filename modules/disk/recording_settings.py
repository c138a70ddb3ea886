"""What a user sets about a take on disk."""

from dataclasses import dataclass

from ..fields.setting import check, documented, setting
from .frame_files import FORMATS

CHOICES = {
    "png": "Each frame is a picture, without loss.",
    "webp": "Each frame is a picture, without loss and smaller.",
    "mp4": "Each decode_batch frames are a piece of video; it needs PyAV.",
}
assert CHOICES.keys() == FORMATS.keys()


@documented
@dataclass(frozen=True)
class RecordingSettings:
    """Where finished frames go, and how."""

    folder: str = setting("endless_take", "The folder is where frames go, below the output folder.")
    filename_prefix: str = setting("frame", "The prefix is what frames are called: PREFIX_00000.png and so on.")
    format: str = setting("png", "The format is that of the files.", menu=CHOICES)
    decode_batch: int = setting(
        16,
        "Frames are decoded and written so many at a time. More needs more memory, and with mp4 makes longer pieces. Of video models these"
        " are latent frames, four pictures each; 3 shows every block of Causal Take as it comes.",
        least=1,
        most=4096,
    )
    fps: float = setting(12.0, "The rate is that of mp4, in frames per second.", least=0.01, most=1000.0, step=0.01)
    save_every: int = setting(
        64,
        "After so many frames the place to go on from is written; after a kill, those since then are made again. Of video models these are"
        " latent frames; for Causal Take that is up to half a gigabyte each.",
        least=1,
        most=1_000_000,
    )
    resume: bool = setting(
        True,
        "On, the take of this folder and prefix is gone on with, with the same frames as if nothing had happened. Off, it is set aside in a"
        " folder with the date in its name as soon as the new take has its first frame.",
    )
    preview: bool = setting(True, "On, the last frame of every batch is shown while the take runs.")

    def __post_init__(self) -> None:
        check(self)
