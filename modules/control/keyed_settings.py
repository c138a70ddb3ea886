"""How strongly a ControlNet acts around keyframes, and in which part of the sampling."""

from dataclasses import dataclass

from ..fields.setting import check, documented, setting
from ..fields.span import check_span, end_percent, start_percent
from ..temporal.block_rules import MOST


@documented
@dataclass(frozen=True)
class KeyedSettings:
    """All that a user can set about one ControlNet, its keyframes aside."""

    strength: float = setting(
        1.0, "Every keyframe's strength is multiplied with this; 1 is as trained.", least=0.0, most=MOST, step=0.01
    )
    start_percent: float = start_percent()
    end_percent: float = end_percent()

    def __post_init__(self) -> None:
        check(self)
        check_span(self)
