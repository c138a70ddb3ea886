"""How strongly a MotionLoRA acts, and in which part of the sampling."""

from dataclasses import dataclass

from ..fields.setting import check, documented, setting
from ..fields.span import check_span, end_percent, start_percent


@documented
@dataclass(frozen=True)
class LoraSettings:
    """All that a user can set about one MotionLoRA on one model, its blocks aside."""

    strength: float = setting(
        1.0,
        "The strength is a factor on what the LoRA changes: 1 is as trained, 0 is nothing, and a negative one"
        " subtracts it, which need not be the opposite motion.",
        least=-10.0,
        most=10.0,
        step=0.05,
        exact=True,
    )
    start_percent: float = start_percent()
    end_percent: float = end_percent()

    def __post_init__(self) -> None:
        check(self)
        check_span(self)
