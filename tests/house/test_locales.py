"""Translations: complete for what they promise, as the tables say, and such that the editor can show them."""

import importlib.util
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "python locales/write.py"
NEWER = 60  # names and sentences that may be newer than a language's tables


def loaded():
    spec = importlib.util.spec_from_file_location("longtake_locales", ROOT / "locales" / "write.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def write():
    return loaded()


@pytest.fixture(scope="module")
def schemas(write):
    return write.pack_schemas()


def different(old, new, path=""):
    """Where two translations are not the same."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [path]
    return [place for key in sorted({*old, *new}) for place in different(old.get(key), new.get(key), f"{path}/{key}")]


def texts(entries):
    """All texts of a file of translations, those with tooltips apart."""
    for key, value in entries.items():
        yield from texts(value) if isinstance(value, dict) else [(key, value)]


LANGUAGES = ["zh", "ja", "ko", "ru", "fr", "de"]


def test_all_languages_are_there(write):
    assert write.LANGUAGES == LANGUAGES


@pytest.mark.parametrize("code", LANGUAGES)
def test_files_are_as_the_tables_say(write, schemas, code):
    for name, text in write.files(schemas, write.Language(code)).items():
        stored = json.loads((ROOT / "locales" / code / name).read_text(encoding="utf-8"))
        old = different(stored, json.loads(text))
        assert len(old) <= NEWER, f"locales/{code}/{name} is old at {len(old)} places, such as {old[0]}: {COMMAND}"


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_name_is_translated(write, schemas, code):
    language = write.Language(code)
    write.files(schemas, language)
    names = {item.display_name or item.id for schema in schemas for item in (schema, *schema.inputs) if hasattr(item, "id")}
    names |= {schema.display_name for schema in schemas} | {part for schema in schemas for part in schema.category.split("/")}
    lacking = sorted(names & language.lacking)
    assert len(lacking) <= NEWER, f"locales/terms.tsv lacks {', '.join(lacking[:5])} ...: add rows, then {COMMAND}"


def test_every_description_and_tooltip_is_translated_where_it_is_promised(write, schemas):
    for code in write.WITH_TOOLTIPS:
        language = write.Language(code)
        write.files(schemas, language)
        lacking = sorted(language.lacking)
        assert len(lacking) <= NEWER, f"locales/sentences.{code}.tsv lacks {lacking[0]!r} and {len(lacking) - 1} more: {COMMAND}"


def test_every_description_is_translated_where_it_is_promised(write, schemas):
    for code in write.WITH_DESCRIPTIONS:
        language = write.Language(code)
        lacking = [schema.node_id for schema in schemas if language.text(schema.description) is None]
        assert len(lacking) <= 8, f"locales/sentences.{code}.tsv lacks {sorted(language.lacking)[0]!r} of {lacking[0]}: {COMMAND}"


@pytest.mark.parametrize("code", LANGUAGES)
def test_no_row_is_of_no_use(write, schemas, code):
    language = write.Language(code)
    write.files(schemas, language)
    stale = sorted(language.stale())
    assert len(stale) <= NEWER, f"nothing uses {stale[0]!r} and {len(stale) - 1} more rows: take them out, then {COMMAND}"


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_editor_takes_no_sign_for_its_own(code):
    """Names and descriptions go through vue-i18n, to which these mean something; tooltips are shown as they are."""
    for name in ("main.json", "nodeDefs.json"):
        entries = json.loads((ROOT / "locales" / code / name).read_text(encoding="utf-8"))
        wrong = [value for key, value in texts(entries) if key != "tooltip" and re.search(r"[{}|@]", value)]
        assert wrong == []


@pytest.mark.parametrize("code", LANGUAGES)
def test_places_of_a_pattern_are_those_of_its_translation(write, code):
    for english, own in write.Language(code).sentences.items():
        assert sorted(re.findall(r"\{\d\}", english)) == sorted(re.findall(r"\{\d\}", own)), english


@pytest.fixture
def small(write, tmp_path, monkeypatch):
    """A table of two names and three sentences."""
    (tmp_path / "terms.tsv").write_text(
        "en\tzh\tja\tko\tru\tfr\tde\nclip\t片段\t\t\t\t\t\nclip:CLIP\tCLIP\t\t\t\t\t\n", encoding="utf-8"
    )
    rows = {
        "It moves.": "它移动。",
        "It may be {1} to {2}.": "可取 {1} 到 {2}。",
        "It may be {1} to {2}; {3} is usual.": "可取 {1} 到 {2}; 通常为 {3}。",
        "Old.": "旧。",
    }
    rows = "".join(f"{english}\t{own}\n" for english, own in rows.items())
    (tmp_path / "sentences.zh.tsv").write_text(rows, encoding="utf-8")
    monkeypatch.setattr(write, "HERE", tmp_path)
    return write.Language("zh")


@pytest.mark.parametrize(
    ("english", "own"),
    [
        ("It moves.", "它移动。"),
        ("It moves. It may be 0 to 1; 0.5 is usual.", "它移动。可取 0 到 1; 通常为 0.5。"),
        ("It may be 2 to 3.", "可取 2 到 3。"),
        ("It moves.\nfast: It moves.", "它移动。\nfast: 它移动。"),
        ("It moves. It sings.", None),
        ("It moves.\nfast: It sings.", None),
    ],
)
def test_sentences_are_looked_up_one_by_one(small, english, own):
    assert small.text(english) == own


def test_what_lacks_and_what_is_of_no_use_are_told(small):
    assert (small.name("clip", "CLIP"), small.name("clip", "IMAGE"), small.name("frog")) == ("CLIP", "片段", None)
    assert small.text("It moves. It sings.") is None
    assert small.lacking == {"frog", "It sings."}
    assert small.stale() == {"It may be {1} to {2}.", "It may be {1} to {2}; {3} is usual.", "Old."}


def test_a_tooltip_that_lacks_is_left_to_english(write, small):
    item = SimpleNamespace(id="clip", display_name=None, tooltip="It sings.", get_io_type=lambda: "IMAGE")
    schema = SimpleNamespace(display_name="clip", description="It moves.", inputs=[item], outputs=[])
    assert write.translated(schema, small) == {
        "display_name": "片段",
        "description": "它移动。",
        "inputs": {"clip": {"name": "片段"}},
    }
