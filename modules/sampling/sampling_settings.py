"""What every sampler with a prompt is asked: how firmly it follows the prompt, and the seed of its noise."""

from dataclasses import dataclass

from ..fields.setting import check, documented, setting


@documented
@dataclass(frozen=True)
class SamplingSettings:
    """Guidance scale and seed."""

    cfg: float = setting(
        1.0,
        "The guidance scale says how firmly the prompt is followed; 1 is off and twice as fast.",
        least=0.0,
        most=100.0,
        step=0.1,
    )
    seed: int = setting(
        0,
        "The seed is that of all noise; a frame's noise depends on the seed and the frame's number alone.",
        least=0,
        most=2**64 - 1,
        control=True,
    )

    def __post_init__(self) -> None:
        check(self)


@documented
@dataclass(frozen=True)
class EndlessSamplingSettings(SamplingSettings):
    """The same for a take that goes on where it stopped, so that no editor may choose another seed."""

    seed: int = setting(
        0,
        "The seed is that of all noise; a take is resumed with the seed that it began with.",
        least=0,
        most=2**64 - 1,
        control=False,
    )
