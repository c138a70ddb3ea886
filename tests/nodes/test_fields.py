"""Widgets from settings, and settings from what a node was given."""

from dataclasses import MISSING, dataclass

import pytest
from pack import host
from pack.modules.fields.setting import Setting, check, documented, setting
from pack.nodes.fields import inputs_of, settings_of, widget
from pack.nodes.node import LongTakeNode

io = host.io


@documented
@dataclass(frozen=True)
class Wind:
    """How a wind blows."""

    mask: object = None
    strength: float = setting(
        1.0, "The strength says how hard it blows.", least=0.0, most=12.0, step=0.5, exact=True, group="force"
    )
    side: str = setting("west", "The side is where it comes from.", menu=("west", "east"), advanced=True)
    gusts: int = setting(3, "Gusts come one after the other.", least=0, group="force")
    loop: bool = setting(False, "The wind comes back.")
    note: str = setting("", "The note has lines.", multiline=True)
    seed: int = setting(0, "The seed decides all noise.", least=0, most=2**64 - 1, control=False)

    def __post_init__(self):
        check(self)


class Blow(LongTakeNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Blow",
            category="LongTake/test",
            inputs=[io.Latent.Input("latent"), *inputs_of(Wind, strength=2.0), io.Mask.Input("mask", optional=True)],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, latent, mask, **given):
        return io.NodeOutput(latent, settings_of(Wind, given, mask=mask))


def facts(item):
    return {key: value for key, value in item.as_dict().items() if key not in ("tooltip", "optional")}


def test_every_setting_is_a_widget_with_all_that_is_known_of_it():
    inputs = {item.id: item for item in inputs_of(Wind)}
    assert list(inputs) == ["strength", "gusts", "side", "loop", "note", "seed"]  # a group stands together
    assert {name: item.get_io_type() for name, item in inputs.items()} == {
        "strength": "FLOAT",
        "gusts": "INT",
        "side": "COMBO",
        "loop": "BOOLEAN",
        "note": "STRING",
        "seed": "INT",
    }
    assert facts(inputs["strength"]) == {"default": 1.0, "min": 0.0, "max": 12.0, "step": 0.5, "round": False}
    assert facts(inputs["side"]) == {"default": "west", "options": ["west", "east"], "multiselect": False, "advanced": True}
    assert facts(inputs["gusts"]) == {"default": 3, "min": 0}
    assert facts(inputs["note"]) == {"default": "", "multiline": True}
    assert facts(inputs["seed"]) == {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": False}
    assert not any(item.optional for item in inputs.values())


def test_the_tooltip_is_the_docstring():
    for item in inputs_of(Wind):
        assert f"{item.id}: {item.tooltip}" in Wind.__doc__


def test_a_node_may_take_some_and_have_values_of_its_own():
    (item,) = inputs_of(Wind, "strength", strength=4.0)
    assert item.default == 4.0 and item.tooltip.endswith("It may be 0 to 12; 4 is usual.")
    with pytest.raises(ValueError, match="Wind has no setting 'force': it has strength, side"):
        inputs_of(Wind, "force")
    with pytest.raises(ValueError, match="steps has no usual value"):
        widget("steps", MISSING, Setting("Steps."))


def test_the_node_gives_its_settings():
    latent, wind = Blow.execute(latent=1, side="east").result
    assert latent == 1 and wind == Wind(strength=2.0, side="east")
    assert Blow.execute(latent=1, mask=5, gusts=7).result[1] == Wind(mask=5, strength=2.0, gusts=7)


@pytest.mark.parametrize(
    ("args", "given", "sentence"),
    [
        ((), {"latent": 1, "force": 2.0}, "Blow has no input 'force': it has latent, mask, strength"),
        ((), {}, "Blow needs 'latent'"),
        ((1, None, 3.0), {}, "Blow got 3 values and takes 2 by place: latent, mask; name the others"),
        ((), {"latent": 1, "strength": 13.0}, "strength is 13: it must lie between 0 and 12"),
    ],
)
def test_calls_that_cannot_be_meant(args, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        Blow.execute(*args, **given)
