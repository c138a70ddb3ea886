"""Every example in the help, the tooltips and the workflows of the training nodes is one that runs."""

import re
import shlex
from pathlib import Path

import pack
import pytest
from pack.modules.fields.setting import rows_of
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.transformer import TemporalConfig
from pack.modules.train import __main__ as command
from pack.modules.train.native import scoped
from pack.modules.train.options import Options
from pack.modules.train.sources import caption_words
from pack.modules.train.train_blocks import read_blocks

ROOT = Path(pack.__file__).parent
HELP = [*ROOT.glob("web/docs/LongTakeTrain*.md"), *ROOT.glob("workflows/api/train_*.json"), ROOT / "README.md"]
TOOLTIPS = "\n".join(row.about.told(getattr(Options(), row.name)) for row in rows_of(Options))
TEXTS = "\n".join([TOOLTIPS, *(path.read_text(encoding="utf-8") for path in HELP)])
BLOCKS = sorted(set(re.findall(r"\b(?:down|mid|up)(?:\.\d)?(?:, (?:down|mid|up)(?:\.\d)?)+", TEXTS)))
COMMANDS = sorted(set(re.findall(r"-m modules\.train (--[^`\n]+)", TEXTS)))
SLOTS = [f"{side}_blocks.{level}.motion_modules.0" for side in ("down", "up") for level in range(4)]
FAMILIES = {"v1, v3 and new modules": SLOTS, "v2": [*SLOTS, "mid_block.motion_modules.0"]}


def test_there_are_examples():
    assert "down, mid" in BLOCKS and len(COMMANDS) >= 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("words", BLOCKS)
def test_blocks_train_in_modules_of_every_family(family, words):
    """``down, mid`` was refused by those without a module in the middle, which are most."""
    motion = MotionModel(dict.fromkeys(FAMILIES[family], 32), TemporalConfig())
    scoped(motion, read_blocks(words))
    trained = {name.split("_")[0] for name in motion.names if all(p.requires_grad for p in motion.at(name).parameters())}
    there = {name.split("_")[0] for name in motion.names}
    assert trained == {word.split(".")[0] for word in words.split(", ")} & there and trained
    assert not any(
        p.requires_grad for name in motion.names if name.split("_")[0] not in trained for p in motion.at(name).parameters()
    )


@pytest.mark.parametrize("words", ["mid", "mid, up.7", "up.4"])
def test_blocks_in_which_nothing_would_train_are_refused_with_those_that_there_are(words):
    motion = MotionModel(dict.fromkeys(SLOTS, 32), TemporalConfig())
    with pytest.raises(ValueError, match=r"choose among down_blocks\.0, .*up_blocks\.3$"):
        scoped(motion, read_blocks(words))


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_are_understood(words):
    given = command.options().parse_args(shlex.split(words.split(" #")[0]))
    assert given.out.suffix == ".safetensors" and command.given_settings(command.BASIC, given).steps > 0


def test_the_words_of_a_model_are_those_that_tell_captions_apart():
    """Before, the most frequent ones: with 64 places, words of grammar came first."""
    captions = [
        f"the {colour} ball is on a {place}" for colour in ("red", "green", "blue") for place in ("table", "shelf", "chair")
    ]
    captions += ["a red ball, seen from above", "the blue ball, seen from below"]
    words = caption_words(captions, most=6)
    assert set(words) == {"red", "blue", "green", "table", "shelf", "chair"}
