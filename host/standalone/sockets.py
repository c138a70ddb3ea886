"""Inputs and outputs of nodes: what ``comfy_api.latest.io`` offers of them."""

from collections.abc import Sequence
from enum import Enum
from typing import Any


class FolderType(str, Enum):
    """Where a saved file lies."""

    input = "input"
    output = "output"
    temp = "temp"


class UploadType(str, Enum):
    """What a menu of files lets the user upload."""

    image = "image_upload"
    audio = "audio_upload"
    video = "video_upload"
    model = "file_upload"


class NumberDisplay(str, Enum):
    """How a number is shown."""

    number = "number"
    slider = "slider"


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


class Input:
    """An input that is linked."""

    io_type = "*"

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        extra_dict: dict[str, Any] | None = None,
    ):
        self.id, self.display_name, self.optional, self.tooltip, self.lazy = id, display_name, optional, tooltip, lazy
        self.extra_dict = extra_dict or {}

    def as_dict(self) -> dict[str, Any]:
        """What ComfyUI's web page is told."""
        known = {"display_name": self.display_name, "optional": self.optional, "tooltip": self.tooltip, "lazy": self.lazy}
        return _given(known) | _given(self.extra_dict)

    def get_io_type(self) -> str:
        """The type's name."""
        return self.io_type


class WidgetInput(Input):
    """An input that can be typed in."""

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        default: Any = None,
        socketless: bool | None = None,
        force_input: bool | None = None,
    ):
        super().__init__(id, display_name, optional, tooltip, lazy)
        self.default, self.socketless, self.force_input = default, socketless, force_input

    def as_dict(self) -> dict[str, Any]:
        """What ComfyUI's web page is told."""
        known = {"default": self.default, "socketless": self.socketless, "forceInput": self.force_input}
        return super().as_dict() | _given(known) | _given(self._more())

    def _more(self) -> dict[str, Any]:
        return {}


class Output:
    """What a node gives."""

    io_type = "*"

    def __init__(
        self, id: str | None = None, display_name: str | None = None, tooltip: str | None = None, is_output_list: bool = False
    ):
        self.id, self.display_name, self.tooltip, self.is_output_list = id, display_name or id, tooltip, is_output_list

    def get_io_type(self) -> str:
        """The type's name."""
        return self.io_type


_Input, _Output = Input, Output  # in the class below these names are taken


class Socket:
    """A type: ``Input`` and ``Output`` of it carry its name."""

    io_type = "*"
    Input: type[Any] = _Input
    Output: type[Any] = _Output

    def __init_subclass__(cls) -> None:
        cls.Input = type("Input", (cls.Input,), {"io_type": cls.io_type})
        cls.Output = type("Output", (cls.Output,), {"io_type": cls.io_type})


def Custom(io_type: str) -> type[Socket]:  # noqa: N802  ComfyUI's name
    """A type of one's own."""
    return type(io_type, (Socket,), {"io_type": io_type})


class Boolean(Socket):
    """Yes or no."""

    io_type = "BOOLEAN"

    class Input(WidgetInput):
        """A switch."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: bool | None = None,
            label_on: str | None = None,
            label_off: str | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
        ):
            super().__init__(id, display_name, optional, tooltip, lazy, default, socketless, force_input)
            self.label_on, self.label_off = label_on, label_off

        def _more(self) -> dict[str, Any]:
            return {"label_on": self.label_on, "label_off": self.label_off}


class Int(Socket):
    """A whole number."""

    io_type = "INT"

    class Input(WidgetInput):
        """A box for a whole number."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: int | None = None,
            min: int | None = None,
            max: int | None = None,
            step: int | None = None,
            control_after_generate: bool | None = None,
            display_mode: NumberDisplay | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
        ):
            super().__init__(id, display_name, optional, tooltip, lazy, default, socketless, force_input)
            self.min, self.max, self.step = min, max, step
            self.control_after_generate, self.display_mode = control_after_generate, display_mode

        def _more(self) -> dict[str, Any]:
            return {
                "min": self.min,
                "max": self.max,
                "step": self.step,
                "control_after_generate": self.control_after_generate,
                "display": self.display_mode.value if self.display_mode else None,
            }


class Float(Socket):
    """A number."""

    io_type = "FLOAT"

    class Input(WidgetInput):
        """A box for a number."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: float | None = None,
            min: float | None = None,
            max: float | None = None,
            step: float | None = None,
            round: float | None = None,
            display_mode: NumberDisplay | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
        ):
            super().__init__(id, display_name, optional, tooltip, lazy, default, socketless, force_input)
            self.min, self.max, self.step, self.round, self.display_mode = min, max, step, round, display_mode

        def _more(self) -> dict[str, Any]:
            bounds = {"min": self.min, "max": self.max, "step": self.step, "round": self.round}
            return bounds | {"display": self.display_mode}


class String(Socket):
    """A text."""

    io_type = "STRING"

    class Input(WidgetInput):
        """A box for a text."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            multiline: bool = False,
            placeholder: str | None = None,
            default: str | None = None,
            dynamic_prompts: bool | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
        ):
            super().__init__(id, display_name, optional, tooltip, lazy, default, socketless, force_input)
            self.multiline, self.placeholder, self.dynamic_prompts = multiline, placeholder, dynamic_prompts

        def _more(self) -> dict[str, Any]:
            return {"multiline": self.multiline, "placeholder": self.placeholder, "dynamicPrompts": self.dynamic_prompts}


class Combo(Socket):
    """One of several texts."""

    io_type = "COMBO"

    class Input(WidgetInput):
        """A menu."""

        def __init__(
            self,
            id: str,
            options: Sequence[str] | type[Enum] | None = None,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: str | Enum | None = None,
            control_after_generate: bool | None = None,
            upload: UploadType | None = None,
            image_folder: FolderType | None = None,
            socketless: bool | None = None,
        ):
            if isinstance(options, type):
                options = [member.value for member in options]
            default = default.value if isinstance(default, Enum) else default
            super().__init__(id, display_name, optional, tooltip, lazy, default, socketless)
            self.options, self.control_after_generate, self.upload = options, control_after_generate, upload
            self.image_folder = image_folder

        def _more(self) -> dict[str, Any]:
            return {
                "multiselect": False,
                "options": self.options,
                "control_after_generate": self.control_after_generate,
                **({self.upload.value: True} if self.upload else {}),
                "image_folder": self.image_folder.value if self.image_folder else None,
            }
