"""Options of a command line from the settings of a dataclass (``fields/setting.py``): a setting that is a field is an option."""

import argparse
from collections.abc import Collection
from typing import Any, TypeVar

from ..fields.setting import rows_of

Settings = TypeVar("Settings")


def add_settings(parser: Any, usual: Any, leave_out: Collection[str] = ()) -> None:
    """An option for each setting of a dataclass.

    Args:
        parser: or a group of one.
        usual: an instance, whose values are those of options that are not given.
        leave_out: names of settings without an option.
    """
    for row in rows_of(type(usual)):
        if row.name in leave_out:
            continue
        value, words = getattr(usual, row.name), f"--{row.name.replace('_', '-')}"
        about: dict[str, Any] = {"default": value, "help": row.about.told(value).replace("%", "%%")}
        if row.kind is bool:
            about["action"] = argparse.BooleanOptionalAction
        elif row.about.menu:
            about["choices"] = list(row.about.menu)
        else:
            about["type"] = row.kind
        parser.add_argument(words, **about)


def given_settings(usual: Settings, given: argparse.Namespace, **further: Any) -> Settings:
    """The settings of a command line; those without an option are as in ``usual``, or ``further``."""
    values = {row.name: getattr(given, row.name, getattr(usual, row.name)) for row in rows_of(type(usual))}
    return type(usual)(**values, **further)
