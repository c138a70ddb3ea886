"""What a folder may hold after a crash: every change of it in order, and which of them the system was told to bring to the disk.

While ``recorded`` is open, contents and names below a folder are looked at before each call that changes names or brings something to the
disk. A crash at a moment may then have lost what was not brought there yet: contents until the file's ``fsync``, names until the folder's.
"""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Change:
    """One change: ``kind`` is ``data`` (path, bytes), ``make`` (path), ``rename`` (path, to) or ``remove`` (path)."""

    kind: str
    path: Path
    what: object = None
    synced: int = -1  # number of the change before which it was brought to the disk; -1: never


@dataclass
class Journal:
    """All changes below a folder, in order; the ``first`` ones made what was there before."""

    root: Path
    changes: list = field(default_factory=list)
    known: dict = field(default_factory=dict)
    first: int = 0

    def begin(self):
        """What is there now has been there for long."""
        self.look()
        self.first = len(self.changes)
        for change in self.changes:
            change.synced = 0

    def look(self):
        """Note what was written since the last look."""
        now = {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}
        for path, content in sorted(now.items()):
            if path not in self.known:
                self.changes.append(Change("make", path))
            if self.known.get(path) != content:
                self.changes.append(Change("data", path, content))
        self.known = now

    def renamed(self, path, to):
        self.look()
        self.changes.append(Change("rename", path, to))
        self.known[to] = self.known.pop(path)

    def removed(self, path):
        self.look()
        self.changes.append(Change("remove", path))
        self.known.pop(path, None)

    def brought(self, path):
        """A file's contents, or a folder's names, are on the disk."""
        self.look()
        for change in self.changes:
            if change.synced >= 0:
                continue
            mine = (change.kind == "data" and self._now(change) == path) or (change.kind != "data" and path == change.path.parent)
            if mine:
                change.synced = len(self.changes)

    def _now(self, change):
        """What the file of a ``data`` change is called now."""
        path = change.path
        for later in self.changes[self.changes.index(change) + 1 :]:
            path = later.what if later.kind == "rename" and later.path == path else path
        return path

    def after(self, count, dropped):
        """Files after the first ``count`` changes, some of them lost: contents by path relative to the folder."""
        files = {}
        for number, change in enumerate(self.changes[:count]):
            if number in dropped:
                continue
            if change.kind == "make":
                files.setdefault(change.path, b"")
            elif change.kind == "data" and change.path in files:
                files[change.path] = change.what
            elif change.kind == "rename" and change.path in files:
                files[change.what] = files.pop(change.path)
            elif change.kind == "remove":
                files.pop(change.path, None)
        return {path.relative_to(self.root): content for path, content in files.items()}

    def crashes(self):
        """Every folder that a crash can leave: after each change with nothing lost, with all lost that can be, and with each one of it."""
        seen = set()
        for count in range(self.first, len(self.changes) + 1):
            open_ones = [
                number for number, change in enumerate(self.changes[:count]) if change.synced < 0 or change.synced > count
            ]
            for dropped in (set(), set(open_ones), *({number} for number in open_ones)):
                files = self.after(count, dropped)
                mark = frozenset((path, content) for path, content in files.items())
                if mark not in seen:
                    seen.add(mark)
                    yield count, files


@contextlib.contextmanager
def recorded(root, monkeypatch):
    """A ``Journal`` of what happens below a folder."""
    journal = Journal(Path(root))
    journal.begin()
    real = {name: getattr(os, name) for name in ("fsync", "replace", "rename", "unlink")}

    def inside(path):
        return journal.root in Path(path).absolute().parents or Path(path).absolute() == journal.root

    def fsync(handle):
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if inside(path):
            journal.brought(path)
        return real["fsync"](handle)

    def renaming(name):
        def rename(path, to, **given):
            if inside(path):
                journal.renamed(Path(path), Path(to))
            return real[name](path, to, **given)

        return rename

    def unlink(path, **given):
        if inside(path) and Path(path).exists():
            journal.removed(Path(path))
        return real["unlink"](path, **given)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        patch.setattr(os, "unlink", unlink)
        for name in ("replace", "rename"):
            patch.setattr(os, name, renaming(name))
        yield journal
        journal.look()
