"""How a temporal module knows when a frame is: sinusoid, rotary, or Shaw's relative embeddings.

Each kind is a class with three hooks: ``add`` changes the tokens before they are projected, ``table`` says what it adds, ``attend``
changes queries, keys and the logits. To add a kind, write the class and name it in ``POSITIONS``.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def sinusoid(positions: Tensor, channels: int) -> Tensor:
    """The table of Vaswani et al. (arXiv:1706.03762, Section 3.5), sines on even channels, at any real positions.

    Args:
        positions: ``f``, frame numbers.
        channels: even.

    Returns:
        table: ``f channels``, float32.

    >>> sinusoid(torch.tensor([0]), 4).tolist()
    [[0.0, 1.0, 0.0, 1.0]]
    """
    rates = torch.exp(-math.log(10000.0) / channels * torch.arange(0, channels, 2, device=positions.device, dtype=torch.float32))
    angles = positions[:, None].float() * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class Sinusoid(nn.Module):
    """AnimateDiff's: a table added to the tokens. Frames beyond the trained length are the caller's to refuse."""

    absolute = True

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.channels = channels

    def add(self, x: Tensor, positions: Tensor) -> Tensor:
        """Add each frame's row to ``x``: ``b f c``, given ``positions``: ``f``. Returns ``b f c``."""
        return x + self.table(positions, x)

    def table(self, positions: Tensor, like: Tensor) -> Tensor:
        """What is added at ``positions``: ``f``, in the precision of ``like``: ``...``. Returns ``f c``."""
        return sinusoid(positions, self.channels).to(like)

    def attend(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """``q``: ``b heads f d``, ``k``: ``b heads f d``, ``positions``: ``f``; unchanged, and no bias."""
        return q, k, None


class Table(nn.Module):
    """A module's own table in the place of the sinusoid, as its file has it; times between two rows lie between them."""

    absolute = True

    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.pe = nn.Parameter(torch.zeros(1, frames, channels))

    def add(self, x: Tensor, positions: Tensor) -> Tensor:
        """Add each frame's row to ``x``: ``b f c``, given ``positions``: ``f``. Returns ``b f c``."""
        return x + self.table(positions, x)

    def table(self, positions: Tensor, like: Tensor) -> Tensor:
        """What is added at ``positions``: ``f``, in the precision of ``like``: ``...``. Returns ``f c``."""
        rows, before = self.pe[0].to(like), positions.floor().long()
        between = (positions - before).to(like)[:, None]
        return torch.lerp(rows[before], rows[(before + 1).clamp(max=len(rows) - 1)], between)

    def attend(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """``q``: ``b heads f d``, ``k``: ``b heads f d``, ``positions``: ``f``; unchanged, and no bias."""
        return q, k, None


class Rotary(nn.Module):
    """Rotate queries and keys by their time (Su et al., arXiv:2104.09864): only differences of time matter, so windows can slide."""

    absolute = False

    def __init__(self, channels: int, heads: int, base: float = 100.0):
        super().__init__()
        self.pairs, self.base = channels // heads // 2, base

    def add(self, x: Tensor, positions: Tensor) -> Tensor:
        """``x``: ``b f c`` as it is, whatever ``positions``: ``f``. Returns ``b f c``."""
        return x

    def table(self, positions: Tensor, like: Tensor) -> None:
        """Nothing is added, whatever ``positions``: ``f`` and ``like``: ``...``."""

    def attend(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rotate ``q``: ``b heads f d`` and ``k``: ``b heads f d`` by ``positions``: ``f``; no bias."""
        rates = self.base ** (-torch.arange(self.pairs, device=q.device, dtype=torch.float32) / self.pairs)
        angles = positions[:, None].to(rates) * rates
        return _rotate(q, angles), _rotate(k, angles), None


def _rotate(x: Tensor, angles: Tensor) -> Tensor:
    cos, sin = angles.cos().to(x), angles.sin().to(x)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([cos * first - sin * second, sin * first + cos * second], dim=-1)


class Shaw(nn.Module):
    """A learned vector per clipped time difference, dotted with the query (Shaw et al., arXiv:1803.02155, Equation 5)."""

    absolute = False

    def __init__(self, channels: int, heads: int, reach: int = 32):
        super().__init__()
        self.reach = reach
        self.relative = nn.Parameter(torch.empty(2 * reach + 1, channels // heads))
        if not self.relative.is_meta:  # torch takes seconds to learn how to draw numbers that are not there
            self.relative.data = torch.randn(2 * reach + 1, channels // heads) * 0.02

    def add(self, x: Tensor, positions: Tensor) -> Tensor:
        """``x``: ``b f c`` as it is, whatever ``positions``: ``f``. Returns ``b f c``."""
        return x

    def table(self, positions: Tensor, like: Tensor) -> None:
        """Nothing is added, whatever ``positions``: ``f`` and ``like``: ``...``."""

    def attend(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """``q``: ``b heads f d`` and ``k``: ``b heads f d`` unchanged; a bias on the logits from ``positions``: ``f``."""
        distance = (positions[None, :] - positions[:, None]).round().long().clamp(-self.reach, self.reach) + self.reach
        table = self.relative[distance].to(q)
        return q, k, torch.einsum("bhid,ijd->bhij", q, table) / math.sqrt(q.shape[-1])


class Untold(nn.Module):
    """Nothing at all: frames are told apart by something else, such as convolutions over time. No choice of its own, so in no table."""

    absolute = False

    def add(self, x: Tensor, positions: Tensor) -> Tensor:
        """``x``: ``b f c`` as it is, whatever ``positions``: ``f``. Returns ``b f c``."""
        return x

    def table(self, positions: Tensor, like: Tensor) -> None:
        """Nothing is added, whatever ``positions``: ``f`` and ``like``: ``...``."""

    def attend(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """``q``: ``b heads f d`` and ``k``: ``b heads f d`` unchanged whatever ``positions``: ``f``, and no bias."""
        return q, k, None


POSITIONS: dict[str, type[Sinusoid] | type[Rotary] | type[Shaw]] = {"sinusoid": Sinusoid, "rotary": Rotary, "shaw": Shaw}


def trained(times: Tensor, most: int) -> Tensor:  # noqa: ARG001  rows of one table share a signature
    """Longer clips are refused. ``times``: ``f``. Returns ``f``."""
    return times


def stretch(times: Tensor, most: int) -> Tensor:
    """Times are squeezed into those that the module knows, so motion gets slower. ``times``: ``f``. Returns ``f``."""
    return times * min(1.0, (most - 1) / max(1, len(times) - 1)) if most else times


def extend(times: Tensor, most: int) -> Tensor:  # noqa: ARG001
    """Times go on, and the module has never seen them. ``times``: ``f``. Returns ``f``."""
    return times


# what becomes of absolute times, (0, 1, 2 ... and how many were trained) -> times
STRETCHES: dict[str, Callable[[Tensor, int], Tensor]] = {f.__name__: f for f in (trained, stretch, extend)}
