"""The base of every node: what makes ``SomeNode.execute(model=m)`` work from Python as it does in a workflow.

A workflow always carries every value, a caller from Python does not want to. So each ``execute`` is wrapped once, when its class
is made: what was not given takes the schema's default, and a name that the node does not have, or a value that a setting may not be, is
refused. An ``execute`` that takes ``**given`` gets all inputs of the schema which it does not name.

The host clones node classes before each run and forbids assignments on the clones. The wrapper lies in the class's own namespace,
so clones carry it along; it is marked, so it is never wrapped again.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING
from typing import Any

from .. import host
from ..modules.fields.setting import Setting, rows_of
from .aliases import ALIASES

MARK = "_longtake_fills_defaults"


class LongTakeNode(host.io.ComfyNode):
    """Base class: write ``define_schema`` and ``execute``, both class methods; inputs and parameters have the same names.

    Settings that a dataclass has go as ``**given`` to ``execute``, see ``fields.py``. What widgets decide together is refused before a
    run: ``validate_inputs = checked(SomeSettings)``.

    Attributes:
        REPLACED: an input that may be linked -> the widgets that do nothing then, for warnings.
    """

    REPLACED: Mapping[str, Sequence[str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls).get("execute")
        if isinstance(own, classmethod) and not hasattr(own.__func__, MARK):
            setattr(cls, "execute", classmethod(_with_defaults(own.__func__)))  # noqa: B010  narrower than what the host declares

    @classmethod
    def GET_SCHEMA(cls) -> Any:  # noqa: N802  the host's name
        """The schema, with the words that the node is searched by; hosts that know no such words do not look at them."""
        schema: Any = super().GET_SCHEMA()
        schema.search_aliases = list(ALIASES.get(schema.node_id, ()))
        return schema


def _with_defaults(execute: Callable[..., Any]) -> Callable[..., Any]:
    parameters = list(inspect.signature(execute).parameters.values())[1:]  # without cls
    named = {item.name: item for item in parameters if item.kind is not inspect.Parameter.VAR_KEYWORD}
    takes_more = len(named) < len(parameters)

    @functools.wraps(execute)
    def wrapper(cls: type[LongTakeNode], *args: Any, **given: Any) -> Any:
        name, inputs = cls.__name__, cls.define_schema().inputs
        more = [item.id for item in inputs if item.id not in named] if takes_more else []
        known = [*named, *more]
        if len(args) > len(named):
            raise ValueError(
                f"{name} got {len(args)} values and takes {len(named)} by place: {', '.join(named)}; name the others"
            )
        unknown = [key for key in given if key not in known]
        if unknown:
            raise ValueError(f"{name} has no input {unknown[0]!r}: it has {', '.join(known)}")
        values = dict(zip(named, args, strict=False))
        twice = [key for key in given if key in values]
        if twice:
            raise ValueError(f"{name} got {twice[0]!r} twice, by place and by name: give it once")
        values |= given
        if len(values) < len(known):
            values = usual_values(inputs) | values
        needed = [key for key in known if key not in values and (key in more or named[key].default is inspect.Parameter.empty)]
        if needed:
            raise ValueError(f"{name} needs {needed[0]!r} and there is no default for it: add {needed[0]}=... to the call")
        for item in inputs:
            wrong = refused(item, values.get(item.id))
            if wrong:
                raise ValueError(f"{item.id} {wrong}")
        return execute(cls, **values)

    setattr(wrapper, MARK, True)
    return wrapper


def schema_defaults(cls: type[LongTakeNode]) -> dict[str, Any]:
    """What a new node of this class is set to in the editor."""
    return usual_values(cls.define_schema().inputs)


def usual_values(inputs: Iterable[Any]) -> dict[str, Any]:
    """What inputs are set to in a new node: defaults, a menu's first entry, and None where nothing is connected."""
    defaults = {}
    for item in inputs:
        options = getattr(item, "options", None)
        default = getattr(item, "default", None)
        if default is not None:
            defaults[item.id] = default
        elif options:
            defaults[item.id] = options[0]
        elif item.optional:
            defaults[item.id] = None
    return defaults


def checked(check: Callable[..., object]) -> Any:
    """``validate_inputs`` of a node: hosts are told before a run what widgets decide together.

    Args:
        check: of widgets by name, a function or a dataclass of settings; raises ``ValueError`` where they do not go together. A widget
            that a link decides leaves it to the run.
    """
    names = [row.name for row in rows_of(check)] if isinstance(check, type) else list(inspect.signature(check).parameters)

    def validate_inputs(cls: type[LongTakeNode], **given: Any) -> bool | str:
        inputs = {item.id: item for item in cls.define_schema().inputs}
        linked = [name for name, value in given.items() if value is None]
        for name in [name for name in given if name not in linked]:
            wrong = refused(inputs[name], given[name])
            if wrong:
                return f"{name} {wrong}"
        try:
            if not linked:
                check(**given)
        except ValueError as error:
            return str(error)
        return True

    named = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None) for name in names]
    setattr(validate_inputs, "__signature__", inspect.Signature([CLS, *named]))  # noqa: B010  hosts ask it what to pass
    return classmethod(validate_inputs)


CLS = inspect.Parameter("cls", inspect.Parameter.POSITIONAL_OR_KEYWORD)
KINDS = {"INT": int, "FLOAT": float, "BOOLEAN": bool, "STRING": str, "COMBO": str}


def refused(item: Any, value: Any) -> str | None:
    """Why a widget does not take a value, to follow its name; None where it does.

    Hosts check what is typed in, and nothing that comes by a link or from Python. A menu of files says itself which files there are.
    """
    about = getattr(item, "setting", None)
    if about is None and item.get_io_type() in ("INT", "FLOAT", "BOOLEAN", "STRING") and value is not None:
        about = Setting("", getattr(item, "min", None), getattr(item, "max", None))
    if about is None:
        return None
    return about.wrong(value, KINDS[item.get_io_type()], MISSING if item.default is None else item.default)
