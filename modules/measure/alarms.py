"""Whether a training run is about to break, by what its attentions do, and what to do about the learning rate.

An attention whose rows look at one key only has no gradient left to look elsewhere, and diverging runs go there: entropy falls and
gradients rise before the loss says anything (Zhai et al., arXiv:2303.06296). A slow decrease is healthy; a collapse is not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .attention import Reading

LOW, COLLAPSED = 0.35, 0.15  # normalised entropies of a block, of a head
COLLAPSED_SHARE = 0.25  # of all heads
FALL, WITHIN, RISE = 0.1, 200, 2.0  # a block's entropy falls by so much in so many steps while gradients grow so many times
HIGHEST_LOGIT = 50.0


@dataclass(frozen=True)
class Snapshot:
    """All attentions after a training step."""

    step: int
    grad_norm: float  # of all that is trained
    readings: tuple[Reading, ...]

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"step": self.step, "grad_norm": self.grad_norm, "attention": [asdict(reading) for reading in self.readings]}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Snapshot":
        """What ``record`` wrote, read again.

        Raises:
            ValueError: it is something else.
        """
        try:
            readings = [Reading(**{**item, "entropy": tuple(item["entropy"])}) for item in record["attention"]]
            return cls(int(record["step"]), float(record["grad_norm"]), tuple(readings))
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no record of attentions: {error!r} is missing or of another kind") from error


@dataclass(frozen=True)
class Finding:
    """Something that is wrong; ``grave`` if training should not go on as it does."""

    grave: bool
    sentence: str


def findings(history: Sequence[Snapshot]) -> list[Finding]:
    """What is wrong with the last of several snapshots, which are in the order of their steps."""
    if not history:
        return []
    now = history[-1]
    return [*_collapse(now), *(item for reading in now.readings for item in _block_findings(reading, now, history[:-1]))]


def _collapse(now: Snapshot) -> Iterator[Finding]:
    heads = [entropy for reading in now.readings for entropy in reading.entropy]
    low = sum(entropy < COLLAPSED for entropy in heads)
    if low > COLLAPSED_SHARE * len(heads):
        yield Finding(
            True,
            f"step {now.step}: {low} of {len(heads)} attention heads look at a single frame (entropy below {COLLAPSED}): lower the"
            " learning rate and go back to an earlier checkpoint",
        )


def _block_findings(reading: Reading, now: Snapshot, earlier: Sequence[Snapshot]) -> Iterator[Finding]:
    where = f"step {now.step}, {reading.block}"
    if not reading.max_logit <= HIGHEST_LOGIT:
        yield Finding(
            True, f"{where}: a logit of {reading.max_logit:.3g}; above {HIGHEST_LOGIT:g} attention is about to overflow"
        )
    if reading.mean < LOW:
        yield Finding(False, f"{where}: entropy {reading.mean:.2f}, below {LOW}")
    for then in earlier:
        before = next((item for item in then.readings if item.block == reading.block), None)
        if before is None or now.step - then.step > WITHIN:
            continue
        if before.mean - reading.mean > FALL and now.grad_norm >= RISE * then.grad_norm:
            yield Finding(
                False,
                f"{where}: entropy fell from {before.mean:.2f} to {reading.mean:.2f} since step {then.step} while the gradient norm rose"
                f" from {then.grad_norm:.3g} to {now.grad_norm:.3g}",
            )
            return


@dataclass(frozen=True)
class Lowering:
    """Where the learning rate stands after some snapshots: all that the next one needs to know of those before it.

    Attributes:
        factor: on the learning rate.
        last: step of the last lowering; None before any.
    """

    factor: float = 1.0
    last: int | None = None

    def after(self, now: Snapshot, *, factor: float = 0.5, wait: int = WITHIN, least: float = 1 / 64) -> "Lowering":
        """Where it stands after one more snapshot: lowered for every grave finding, but not again while it settles.

        Args:
            now: the snapshot.
            factor: for each lowering, between 0 and 1.
            wait: steps after a lowering in which there is no other.
            least: where it ends.
        """
        if self.last is not None and now.step - self.last < wait:
            return self
        return Lowering(max(least, self.factor * factor), now.step) if any(x.grave for x in findings([now])) else self
