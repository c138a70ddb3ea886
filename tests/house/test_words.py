"""The field's words: what was renamed does not come back, in code, nodes, help or README."""

import re
from pathlib import Path

import pack
import pack.nodes
import pytest

ROOT = Path(pack.__file__ or "").parent
# what is not written any more -> what stands for it
OLD = {
    r"\bat_once\b": "branch_batch, micro_batch or chunk",
    r"\brecompute\b": "gradient_checkpointing",
    r"\blongtake_recompute\b": "gradient_checkpointing",
    r"\bstabilis\w*": "context_noise",
    r"\bstart_anew\b": "restart",
    r"\blower_rate\b": "auto_lower_lr",
    r"\bclass (?:Teaching|Lesson|Injected|Traits|Held)\b": "Session, Trainable, InUNet, MotionInfo, Attached",
}
# inputs of nodes that have other names now
INPUTS = {
    "at_once": "branch_batch or micro_batch",
    "checkpoint": "gradient_checkpointing",
    "recompute": "gradient_checkpointing",
    "stabilisation": "context_noise",
    "stabilise": "context_noise",
    "anchors": "sink_frames",
    "words": "prompt",
    "labels": "prompt",
    "half": "fp16",
    "cuts": "crops_per_video",
    "scope": "train_blocks",
    "lower_rate": "auto_lower_lr",
    "start_anew": "restart",
}
# a purpose that noise is drawn for: with another word takes would come out otherwise
LINES = ('CONTEXT = "stabilise"',)


def texts(root: Path) -> list[Path]:
    """What users and newcomers read."""
    code = [path for house in ("modules", "nodes", "host", "web") for path in sorted((root / house).glob("**/*.py"))]
    return [*code, *sorted(root.glob("web/docs/*.md")), *sorted(root.glob("docs/*.md")), *sorted(root.glob("*.md"))]


def old_words(root: Path) -> list[str]:
    """Every old word, as ``file:line word: what to write``."""
    found = []
    for path in texts(root):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith(LINES):
                continue
            for pattern, new in OLD.items():
                if match := re.search(pattern, line):
                    found.append(f"{path.relative_to(root)}:{number} {match[0]}: {new}")
    return found


def test_no_old_word_is_left():
    assert old_words(ROOT) == []


def test_an_old_word_is_found(tmp_path):
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "a.py").write_text("x = 1\nat_once = 0\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("What DFoT calls stabilisation.\n", encoding="utf-8")
    assert old_words(tmp_path) == [
        "nodes/a.py:2 at_once: branch_batch, micro_batch or chunk",
        "README.md:1 stabilisation: context_noise",
    ]


@pytest.mark.parametrize("node", pack.nodes.node_classes(), ids=lambda node: node.__name__)
def test_no_input_has_an_old_name(node):
    old = {item.id: INPUTS[item.id] for item in node.GET_SCHEMA().inputs if item.id in INPUTS}
    assert old == {}
