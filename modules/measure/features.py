"""What a clip is to a network, as rows of numbers whose distribution over many clips can be compared.

FVD and FID take the features of networks trained to tell actions or objects; those are the user's to supply, as TorchScript. Without one
there is ``random3d``, an untrained network. Distances between its features are a proxy: they tell damaged clips from whole ones, and
compare with nothing that is published.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..noise.seeded import frame_noise
from .spectrum import check_clip


@dataclass(frozen=True)
class Features:
    """A network that turns clips, or single frames, into rows of numbers.

    Attributes:
        name: for reports.
        network: takes ``b 3 f h w`` (clips) or ``b 3 h w`` (frames), gives ``b d``.
        clips: whether it looks at clips.
        size: side of the square that it wants, 0 for any size.
        low, high: what black and white are to it.
    """

    name: str
    network: Callable[[Tensor], Tensor]
    clips: bool = True
    size: int = 0
    low: float = -1.0
    high: float = 1.0

    @torch.no_grad()
    def of(self, samples: Tensor, batch: int = 8) -> Tensor:
        """The features of samples.

        Args:
            samples: ``n f h w c`` in 0..1, clips of equal length.
            batch: clips at once.

        Returns:
            features: ``m d``, one row per clip, or per frame of all clips.

        Raises:
            ValueError: the network gives something else than a row per sample.
        """
        rows = [self._rows(part) for part in samples.split(batch)]
        return torch.cat(rows).float().cpu()

    def _rows(self, samples: Tensor) -> Tensor:
        frames = samples.shape[1]
        pixels = _three_channels(rearrange(samples, "n f h w c -> (n f) c h w").float().clamp(0, 1))
        if self.size:
            pixels = F.interpolate(pixels, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        pixels = pixels * (self.high - self.low) + self.low
        given = rearrange(pixels, "(n f) c h w -> n c f h w", f=frames) if self.clips else pixels
        rows = self.network(given)
        if not isinstance(rows, Tensor) or len(rows) != len(given) or rows.flatten(1).shape[1] < 1:
            shape = list(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise ValueError(
                f"the network {self.name} gave {shape} for {len(given)} samples: it must give one row of features each"
            )
        return rows.flatten(1)


def _three_channels(pixels: Tensor) -> Tensor:
    """Grey made three, transparency left out: ``pixels``: ``n c h w``. Returns ``n 3 h w``."""
    return pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)


def random3d(width: int = 24) -> Features:
    """An untrained network, the same everywhere: three convolutions over space and time, and mean and deviation of what they find."""
    weights, given = [], 3
    for layer in range(3):
        drawn = frame_noise((width, given, 3, 3, 3), 0, [layer], "random3d")[0]
        weights.append(drawn / (given * 27) ** 0.5 * 2**0.5)
        given = width

    def network(clips: Tensor) -> Tensor:
        x = clips
        for weight in weights:
            x = F.relu(F.conv3d(x, weight.to(x), stride=(1, 2, 2), padding=1))
        flat = x.flatten(2)
        return torch.cat([flat.mean(2), flat.std(2, correction=0)], dim=1)

    return Features("random3d (a proxy: untrained)", network)


def torchscript(path: Path, *, clips: bool, size: int, low: float, high: float, scores: bool = False) -> Features:
    """A network that the user supplies as TorchScript, such as the I3D of FVD or the Inception of FID.

    TorchScript is a program, of which no check can tell what it does: it is the one kind of file here that runs.

    Where its ``forward`` has a switch ``return_features``, that is set; not so for class scores, of which inception scores are made.

    Raises:
        ValueError: there is no such file, or it is no TorchScript.
    """
    if not path.is_file():
        raise ValueError(f"there is no feature network {path}: give a TorchScript file")
    try:
        module = torch.jit.load(path, map_location="cpu").eval()
    except RuntimeError as error:
        raise ValueError(f"{path.name} cannot be read: it is no TorchScript file, or cut short ({str(error)[:80]})") from error
    names = [argument.name for argument in module.forward.schema.arguments]
    asked = {"return_features": not scores} if "return_features" in names else {}

    def network(given: Tensor) -> Tensor:
        try:
            return module(given, **asked)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # whatever goes wrong within a program that is somebody else's
            reason = str(error).strip().splitlines()[-1][:160]
            raise ValueError(
                f"the network {path.name} does not take {'clips' if clips else 'frames'} of the shape {list(given.shape)} ({reason}): set"
                " looks_at and size as it was trained"
            ) from error

    return Features(path.stem, network, clips, size, low, high)


def samples_of(video: Tensor, length: int, stride: int) -> Tensor:
    """Overlapping clips of one length, cut from a long one.

    Args:
        video: ``f h w c``.
        length: frames of each.
        stride: frames from one's start to the next one's.

    Returns:
        samples: ``n l h w c``.

    Raises:
        ValueError: the clip is shorter than one sample.
    """
    check_clip(video, 1)
    if length < 1 or stride < 1:
        raise ValueError(f"samples of {length} frames every {stride} frames: both must be at least 1")
    if len(video) < length:
        raise ValueError(f"the clip has {len(video)} frames: a sample takes {length}; make it longer, or samples shorter")
    return torch.stack([video[start : start + length] for start in range(0, len(video) - length + 1, stride)])
