"""A rectangle of the picture, for a call that shows no more of it: what belongs to places is cut to it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PicturePart:
    """A rectangle, in latents.

    Attributes:
        top: of the rectangle.
        left: of it.
        height: of it.
        width: of it.
        whole: height and width of the picture.
    """

    top: int
    left: int
    height: int
    width: int
    whole: tuple[int, int]

    def cut(self, x: Tensor) -> Tensor:
        """What belongs to the rectangle's places.

        Args:
            x: ``... h w``, at the latents' size or a whole multiple of it, or that of a feature map of the U-Net, halved upwards.

        Returns:
            x: ``... p q``.

        Raises:
            ValueError: it is of another size.
        """
        times = [size // whole for size, whole in zip(x.shape[-2:], self.whole, strict=True)]
        if [many * whole for many, whole in zip(times, self.whole, strict=True)] == list(x.shape[-2:]):
            return self._cut(x, self, *times)
        part = self
        while min(part.whole) > 1 and part.whole != tuple(x.shape[-2:]):
            part = part._halved()
        if part.whole != tuple(x.shape[-2:]):
            raise ValueError(
                f"a map of {x.shape[-2]}x{x.shape[-1]} belongs to no picture of {self.whole[0]}x{self.whole[1]} latents"
            )
        return self._cut(x, part, 1, 1)

    def _halved(self) -> "PicturePart":
        """The same on the next level of the U-Net."""
        upwards = [-(-size // 2) for size in (self.height, self.width, *self.whole)]
        return PicturePart(self.top // 2, self.left // 2, upwards[0], upwards[1], (upwards[2], upwards[3]))

    @staticmethod
    def _cut(x: Tensor, part: "PicturePart", down: int, across: int) -> Tensor:
        rows = slice(part.top * down, (part.top + part.height) * down)
        return x[..., rows, part.left * across : (part.left + part.width) * across]
