"""What may sit in the slots. To add a kind, write a class as those here are and name it in ``KINDS``.

A class is made of channels, configuration, ``ops`` and ``attention``, and called with features and what a motion model knows of the call
(``TemporalTransformer.forward``). ``zero`` makes it the identity. ``member`` is what it is called under its slot in a state dict,
``past_only`` says that a frame can see nothing but the past and itself, whatever mask is asked for, and ``recalls`` that it goes on
from where an earlier call has left off.
"""

from .config import TemporalConfig
from .pseudo3d import Pseudo3D
from .recurrent import Recurrent
from .transformer import TemporalTransformer

TemporalModule = TemporalTransformer | Recurrent | Pseudo3D
KINDS: dict[str, type[TemporalTransformer] | type[Recurrent] | type[Pseudo3D]] = {
    "transformer": TemporalTransformer,
    "recurrent": Recurrent,
    "pseudo3d": Pseudo3D,
}


def class_of(config: TemporalConfig) -> type[TemporalTransformer] | type[Recurrent] | type[Pseudo3D]:
    """The class of what sits in the slots of a motion model.

    Raises:
        ValueError: the kind is not known, or cannot have the mask that is asked for.
    """
    if config.kind not in KINDS:
        raise ValueError(f"the kind of temporal module is {config.kind!r}: choose one of {', '.join(KINDS)}")
    made = KINDS[config.kind]
    if made.past_only and config.mask != "causal":
        raise ValueError(f"mask is {config.mask!r} and a {config.kind} module sees the past only: use the mask causal")
    return made
