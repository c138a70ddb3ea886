"""What a file may be called and where it may lie, found out before hours of work."""

import re
import secrets
import unicodedata
from pathlib import Path

from .atomic import ENDING, OTHER_FOLDER, REMEDIES

MARKS = " -_.,+=@#()[]!&'"  # beside letters and digits of any script
ROOM = 64  # bytes that numbers, endings, dates and the marks of a file that is being written add to a name
LONGEST = 255 - ROOM  # bytes of a name, in UTF-8
DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", *(f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789¹²³")}


def check_name(name: str, what: str = "name") -> None:
    """Refuse a name that files cannot have everywhere; ``what`` it is, for the sentence.

    Raises:
        ValueError: it is empty or too long, has marks that some system keeps for itself or that are not seen, or would be hidden.
    """
    wrong = _wrong(name)
    if wrong:
        raise ValueError(
            f"the {what} {name[:80]!r} cannot be a file name everywhere: {wrong}. Use letters, digits, spaces and - _ . , + = @ # ( )"
        )


def _wrong(name: str) -> str:
    strange = [mark for mark in name if mark not in MARKS and unicodedata.category(mark)[0] not in "LMN"]
    size = len(name.encode("utf-8", "surrogatepass"))
    if not name.strip():
        return "it is empty"
    if strange:
        return f"it has the mark {strange[0]!r}, U+{ord(strange[0]):04X}"
    if name[0] in ". " or name[-1] in ". ":
        return "it begins or ends with a dot or a space"
    if name.partition(".")[0].strip().upper() in DEVICES:
        return "Windows keeps it for a device"
    if size > LONGEST:
        return f"it is {size} bytes long, and what is added to it leaves room for {LONGEST}"
    return ""


def folder_below(root: Path, name: str, what: str = "folder") -> Path:
    """A folder by its name below another, with / between folders.

    Raises:
        ValueError: it is none, or a link leads out.
    """
    parts = re.split(r"[/\\]", name.strip())
    for part in parts:
        check_name(part, what)
    folder = root.resolve().joinpath(*parts).resolve()
    if root.resolve() not in folder.parents:
        raise ValueError(f"the {what} {name!r} does not lie below {root}: a link leads out, so give another name")
    return folder


def check_writable(folder: Path, name: str = "") -> None:
    """Make a folder, and refuse one in which files of this name cannot be written, now and not after hours of work.

    Args:
        folder: where.
        name: what files are called, without what is added to it.

    Raises:
        ValueError: why.
    """
    probe = folder / f".{name}{secrets.token_hex(ROOM)[: ROOM - 1 - len(ENDING)]}{ENDING}"  # as long as any that will be written
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, OTHER_FOLDER)
        raise ValueError(f"nothing can be written to {folder} ({error.strerror}): {remedy}") from error
