"""What nodes that sample with a prompt have in common: two conditions, and the guidance scale between them."""

from typing import Any

from .. import host

io = host.io


def prompt_inputs(*, needed: bool = False) -> list[Any]:
    """The two conditions.

    Args:
        needed: whether there must be a positive one; else the model says what stands for it.
    """
    anything = "" if needed else " Where nothing is connected, a model from Load Video Model shows anything."
    return [
        io.Conditioning.Input(
            "positive", optional=not needed, tooltip=f"The positive conditioning says what the clip shows.{anything}"
        ),
        io.Conditioning.Input(
            "negative",
            optional=True,
            tooltip="The guidance scale leads away from the negative conditioning, which is needed when cfg is not 1.",
        ),
    ]


def check_negative(cfg: float, negative: Any) -> None:
    """Refuse guidance that leads away from nothing.

    Raises:
        ValueError: one sentence.
    """
    if cfg != 1.0 and negative is None:
        raise ValueError(f"cfg is {cfg} and no negative conditioning is connected: connect one, or set cfg to 1")
