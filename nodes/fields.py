"""Inputs from settings: a setting is written once, as a field of a dataclass, and is docstring, widget and argument.

In ``modules/`` a dataclass says what can be set (``modules/fields/setting.py``)::

    @documented                                   # the texts become the class's docstring
    @dataclass(frozen=True)
    class FirstFrameSettings:
        strength: float = setting(1.0, "The strength says how much ...", least=0.0, most=2.0, step=0.01)
        ...
        def __post_init__(self) -> None:
            check(self)                           # what a setting may not be is refused, in one sentence

and a node (``keyframes/first_frame.py`` is the example) names the class twice, and no setting at all::

    inputs=[io.Model.Input("model", ...), *inputs_of(FirstFrameSettings)]

    def execute(cls, model, **given):
        settings = settings_of(FirstFrameSettings, given)

A node may take some settings only, ``inputs_of(Options, "batch", "ema")``, and may have another usual value,
``inputs_of(Run, steps=1000)``. What is set at a node alone, and is in no dataclass of ``modules/``, is a ``widget``;
a menu of files is a plain ``io.Combo.Input``, since loading says which files there are.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from .. import host
from ..modules.fields.setting import Setting, rows_of

io = host.io
T = TypeVar("T")


def inputs_of(settings: type, *names: str, **usual: Any) -> list[Any]:
    """A widget for each setting of a dataclass; those of a group stand together.

    Args:
        settings: a dataclass with fields made by ``setting``; its other fields are left out.
        names: the settings that are meant, all when none is named.
        usual: values that are usual at this node, by name, where they differ from the dataclass's.

    Raises:
        ValueError: there is no setting of such a name, or one must be given and has no usual value here.
    """
    rows = rows_of(settings)
    unknown = {*names, *usual} - {row.name for row in rows}
    if unknown:
        raise ValueError(f"{settings.__name__} has no setting {unknown.pop()!r}: it has {', '.join(row.name for row in rows)}")
    chosen = [row for row in rows if row.name in names or not names]
    groups = list(dict.fromkeys(row.about.group for row in chosen))
    chosen.sort(key=lambda row: groups.index(row.about.group))
    return [widget(row.name, usual.get(row.name, row.usual), row.about, row.kind) for row in chosen]


def settings_of(settings: type[T], given: Mapping[str, Any], **further: Any) -> T:
    """The dataclass, of what a node was given.

    Args:
        settings: a dataclass.
        given: values by name; those that are none of its fields belong to others.
        further: values of fields that are no inputs, by name; they come first.
    """
    known = {item.name for item in fields(settings)}  # type: ignore[arg-type]
    return settings(**{**{name: value for name, value in given.items() if name in known}, **further})


def widget(name: str, usual: Any, about: Setting, kind: type | None = None) -> Any:
    """An input that can be typed in, with all that is known of it as its tooltip.

    Args:
        name: of the input.
        usual: what a new node has.
        about: text, range, menu.
        kind: ``int``, ``float``, ``bool`` or ``str``; None for that of ``usual``.
    """
    if usual is MISSING:
        raise ValueError(f"{name} has no usual value: say which a new node has")
    kind = kind or type(usual)
    further: dict[str, Any] = {}
    if about.menu:
        socket, further = io.Combo, {"options": list(about.menu)}
    elif kind is str:
        socket, further = io.String, {"multiline": about.multiline}
    elif kind is bool:
        socket = io.Boolean
    elif kind is int:
        socket, further = (
            io.Int,
            {"min": about.least, "max": about.most, "step": about.step, "control_after_generate": about.control},
        )
    else:
        socket, further = (
            io.Float,
            {"min": about.least, "max": about.most, "step": about.step, "round": False if about.exact else None},
        )
    made: Any = socket.Input(name, default=usual, tooltip=about.told(usual), **further)
    made.setting = about  # for the node, which refuses what it may not be
    if about.advanced:
        made.extra_dict = {**made.extra_dict, "advanced": True}  # an argument of its own in newer ComfyUIs alone
    return made
