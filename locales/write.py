"""Write the translations that ComfyUI reads, ``locales/LANGUAGE/*.json``, from the tables here: ``python locales/write.py [FOLDER]``.

``terms.tsv`` has a row for each name of a node, an input, an output or a part of the menu: English, then a column per language. Where one
name means two things, ``name:TYPE`` is the row for inputs of that type. ``sentences.LANGUAGE.tsv`` has a row for each sentence of
descriptions and tooltips: English, then the translation; ``{1}``, ``{2}`` and so on stand for what differs. Sentences that share a tooltip
are looked up one by one, and the lines of menus without the name in front.

What no row translates stays English in the editor, as a whole tooltip: it is not written, and listed by this command, as is every row that
nothing uses any more. Without a folder the files go to where ComfyUI reads them, beside the tables.
"""

import functools
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENGLISH, *LANGUAGES = (HERE / "terms.tsv").read_text(encoding="utf-8").partition("\n")[0].split("\t")
WITH_TOOLTIPS = {"zh"}  # languages that promise them
WITH_DESCRIPTIONS = {"zh", "ja", "de"}  # of nodes
WITHOUT_SPACES = {"zh", "ja"}
CORE = {"conditioning", "model", "noise", "sampling"}  # parts of the menu that ComfyUI translates itself
MENU = "LongTake"  # the pack's name is the same everywhere


def rows(file: Path) -> list[list[str]]:
    """The rows of a table."""
    return [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]


class Language:
    """One language: its tables, and what was looked up in vain and never.

    Attributes:
        lacking: English that no row translates.
        used: rows that were of use.
    """

    def __init__(self, code: str):
        self.code, self.lacking, self.used = code, set[str](), set[str]()
        column = 1 + LANGUAGES.index(code)
        self.names = {row[0]: row[column] for row in rows(HERE / "terms.tsv")[1:]}
        file = HERE / f"sentences.{code}.tsv"
        self.sentences = dict(rows(file)) if file.exists() else {}
        self.patterns = {english: pattern(english) for english in self.sentences if "{1}" in english}

    def name(self, english: str, kind: str = "") -> str | None:
        """A name, of an input of that type."""
        key = next((key for key in (f"{english}:{kind}", english) if key in self.names), None)
        return self._found(key, english, self.names)

    def sentence(self, english: str) -> str | None:
        """One sentence."""
        if english in self.sentences:
            return self._found(english, english, self.sentences)
        for key, form in self.patterns.items():
            if match := form.fullmatch(english):
                self.used.add(key)
                return functools.reduce(
                    lambda text, n: text.replace(f"{{{n}}}", match[n]), range(1, 1 + form.groups), self.sentences[key]
                )
        return self._found(None, english, self.sentences)

    def text(self, english: str) -> str | None:
        """A whole description or tooltip; None where a sentence lacks."""
        first, *menu = english.split("\n")
        lines = [self._line(first)]
        for line in menu:
            entry, _, told = line.partition(": ")
            own = self._line(told)
            lines.append(own and f"{entry}: {own}")
        return "\n".join(line for line in lines if line) if all(lines) else None

    def _line(self, english: str) -> str | None:
        found = [self.sentence(part) for part in re.split(r"(?<=[.!?]) (?=[A-Z])", english)]
        return ("" if self.code in WITHOUT_SPACES else " ").join(part for part in found if part) if all(found) else None

    def _found(self, key: str | None, english: str, table: Mapping[str, str]) -> str | None:
        if key is None:
            self.lacking.add(english)
            return None
        self.used.add(key)
        return table[key]

    def stale(self) -> set[str]:
        """Rows that nothing uses."""
        return (set(self.names) | set(self.sentences)) - self.used


def pattern(english: str) -> re.Pattern[str]:
    """A sentence with places as an expression that finds it."""
    return re.compile(re.sub(r"\\{\d\\}", "([^;]+?)", re.escape(english)))


def kept(entries: Mapping[str, Any]) -> dict[str, Any]:
    """What is there of a dictionary."""
    return {key: value for key, value in entries.items() if value}


def translated(schema: Any, language: Language) -> dict[str, Any]:
    """A node as ``nodeDefs.json`` has it."""

    def told(item: Any, kind: str) -> dict[str, Any]:
        english = item.display_name or item.id
        tooltip = language.text(item.tooltip) if item.tooltip else None
        return kept({"name": language.name(english, kind), "tooltip": tooltip})

    inputs = {item.id: told(item, item.get_io_type()) for item in schema.inputs}
    named = {str(place): item for place, item in enumerate(schema.outputs) if item.display_name}  # the others are called by type
    outputs = {place: told(item, item.get_io_type()) for place, item in named.items()}
    name, about = language.name(schema.display_name), language.text(schema.description)
    return kept({"display_name": name, "description": about, "inputs": kept(inputs), "outputs": kept(outputs)})


def written(entries: Mapping[str, Any]) -> str:
    """A file of translations."""
    return json.dumps(entries, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def files(schemas: Iterable[Any], language: Language) -> dict[str, str]:
    """File -> text of all translations into a language."""
    schemas = list(schemas)
    parts = {part for schema in schemas for part in schema.category.split("/")} - CORE - {MENU}
    main = {"nodeCategories": kept({part: language.name(part) for part in sorted(parts)})}
    nodes = {schema.node_id: translated(schema, language) for schema in schemas}
    return {"main.json": written(main), "nodeDefs.json": written(nodes)}


def pack_schemas() -> list[Any]:
    """All nodes' schemas, the same on every host."""
    os.environ["COMFYUI_PATH"] = ""
    spec = importlib.util.spec_from_file_location("longtake_run", ROOT / "run.py")
    assert spec is not None and spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    return [node.GET_SCHEMA() for node in run.pack_nodes().values()]


if __name__ == "__main__":
    folder, schemas = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE, pack_schemas()
    for code in LANGUAGES:
        language = Language(code)
        (folder / code).mkdir(exist_ok=True)
        for name, text in files(schemas, language).items():
            (folder / code / name).write_text(text, encoding="utf-8")
        print(f"{code}: {len(language.lacking)} names and sentences stay English, {len(language.stale())} rows are of no use")
        if code in WITH_TOOLTIPS:
            print(*(f"  lacking\t{line}" for line in sorted(language.lacking)), sep="\n")
            print(*(f"  no use\t{line}" for line in sorted(language.stale())), sep="\n")
