"""Node schemas without ComfyUI: what ``comfy_api.latest.io`` offers, as far as this pack uses it.

The names, arguments and dictionaries are ComfyUI's, so a node file cannot tell the difference; a test compares every schema with the
real one. An argument that some supported ComfyUI does not have is not here either. To add a type, name it in the list at the end.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
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


class Hidden(str, Enum):
    """What a node may ask to be told without an input."""

    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"


@dataclass(frozen=True)
class HiddenHolder:
    """The answers to ``Hidden``."""

    unique_id: str | None = None
    prompt: dict[str, Any] | None = None
    extra_pnginfo: dict[str, Any] | None = None


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


class NodeOutput:
    """What ``execute`` returns: the values of the outputs, and something to show."""

    def __init__(self, *args: Any, ui: Any = None):
        self.args, self.ui = args, ui

    @property
    def result(self) -> tuple[Any, ...] | None:
        """The values, or None when there are none."""
        return self.args or None

    def __getitem__(self, index: int) -> Any:
        """One of the values."""
        return self.args[index]


@dataclass
class Schema:
    """All that is known of a node before it runs."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    description: str = ""
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    not_idempotent: bool = False

    def validate(self) -> None:
        """Refuse an id that is given twice.

        Raises:
            ValueError: which one.
        """
        counts = Counter(item.id for item in (*self.inputs, *self.outputs) if item.id is not None)
        twice = [id for id, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"the schema of {self.node_id} has two inputs or outputs called {twice[0]!r}: ids must be unique")

    def finalize(self) -> None:
        """Fill in what follows from the rest: hidden inputs of output nodes, ids of outputs."""
        self.inputs, self.outputs = list(self.inputs or []), list(self.outputs or [])
        wanted = [Hidden.prompt, Hidden.extra_pnginfo] if self.is_output_node else []
        given = list(self.hidden or [])
        self.hidden = given + [item for item in wanted if item not in given]
        for index, output in enumerate(self.outputs):
            output.id = output.id or f"_{index}_{output.io_type}_"


class ComfyNode:
    """A node is a class that is never instantiated: a schema and a function."""

    hidden: HiddenHolder | None = None

    @classmethod
    def define_schema(cls) -> Schema:
        """Override: the node's schema."""
        raise NotImplementedError(f"{cls.__name__} has no define_schema")

    @classmethod
    def execute(cls, **kwargs: Any) -> NodeOutput:
        """Override: the node's work."""
        raise NotImplementedError(f"{cls.__name__} has no execute")

    @classmethod
    def validate_inputs(cls, **kwargs: Any) -> bool | str:
        """Override if need be: True, or what is wrong with the inputs that are known before anything runs."""
        raise NotImplementedError

    @classmethod
    def fingerprint_inputs(cls, **kwargs: Any) -> Any:
        """Override if need be: a value that changes when the node must run again though its inputs are the same."""
        raise NotImplementedError

    @classmethod
    def GET_SCHEMA(cls) -> Schema:  # noqa: N802  ComfyUI's name
        """The schema, checked and complete; made anew each time, since menus list files."""
        schema = cls.define_schema()
        schema.finalize()
        schema.validate()
        return schema


class ComfyExtension:
    """What a pack gives ComfyUI."""

    async def on_load(self) -> None:
        """Called once, before the nodes are asked for."""

    async def get_node_list(self) -> list[type[ComfyNode]]:
        """Override: the pack's nodes."""
        raise NotImplementedError


AnyType = Custom("*")
Audio = Custom("AUDIO")
Clip = Custom("CLIP")
Conditioning = Custom("CONDITIONING")
ControlNet = Custom("CONTROL_NET")
Guider = Custom("GUIDER")
Image = Custom("IMAGE")
Latent = Custom("LATENT")
Mask = Custom("MASK")
Mask = Custom("MASK")
Model = Custom("MODEL")
Noise = Custom("NOISE")
Noise = Custom("NOISE")
Sampler = Custom("SAMPLER")
Sigmas = Custom("SIGMAS")
Vae = Custom("VAE")
Video = Custom("VIDEO")
