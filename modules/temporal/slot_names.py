"""Slots as files name them: how wide each is, whether all are there, and which base model has such a U-Net."""

from collections.abc import Iterable, Mapping

MIDDLE = "mid_block.motion_modules.0"

MOST = 64  # levels of a U-Net, and modules of a level

# base model -> widths of its levels, finest first
BASES: dict[str, tuple[int, ...]] = {"SD1.5": (320, 640, 1280, 1280), "SDXL": (320, 640, 1280)}


def levels(slots: Mapping[str, int]) -> tuple[int, ...]:
    """Widths of the levels on the way down, finest first."""
    found = {int(name.split(".")[1]): width for name, width in slots.items() if name.startswith("down_blocks.")}
    return tuple(found[level] for level in sorted(found))


def base_of(slots: Mapping[str, int]) -> str | None:
    """Which base model has such slots: a name in ``BASES``, or None."""
    return next((name for name, wanted in BASES.items() if levels(slots) == wanted), None)


def described(slots: Mapping[str, int]) -> str:
    """The U-Net that has such slots, in words."""
    base = base_of(slots)
    channels = f"levels of {', '.join(map(str, levels(slots)))} channels"
    return f"{base} ({channels})" if base else f"a U-Net with {channels}"


def in_order(slots: Iterable[str], name: str) -> list[str]:
    """The slots of a file named ``name``: the middle, the way down, the way up.

    Raises:
        ValueError: there are none, or more than any U-Net has, or there is a hole in their numbering. Names the first that is missing.
    """
    found = set(slots)
    if not found:
        raise ValueError(f"{name} is not complete: not one of its motion modules is there; download it again")
    places = [(side, int(level), int(index)) for side, level, _, index in (slot.split(".") for slot in found - {MIDDLE})]
    count = 1 + max((level for _, level, _ in places), default=-1)
    most = max((index for *_, index in places), default=0)
    if max(count, most) > MOST:  # before anything goes through them
        raise ValueError(
            f"{name} is damaged: it numbers a motion module {max(count - 1, most)}, and U-Nets have fewer; download it again"
        )
    expected = [MIDDLE] if MIDDLE in found else []
    for wanted in ("down_blocks", "up_blocks"):
        per_level = 1 + max((index for side, _, index in places if side == wanted), default=0)
        expected += [f"{wanted}.{level}.motion_modules.{index}" for level in range(count) for index in range(per_level)]
    absent = [slot for slot in expected if slot not in found]
    if absent:
        raise ValueError(
            f"{name} is not complete: {len(absent)} of {len(expected)} modules are missing, first {absent[0]}; download it again"
        )
    return expected
