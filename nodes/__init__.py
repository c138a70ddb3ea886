"""A folder per category of the menu, a file per topic, a class per node. Every node class in here is registered by being here."""

import importlib
import logging
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from .. import host
from .node import LongTakeNode

log = logging.getLogger("longtake")
PACK = __name__.rpartition(".")[0]


def node_files() -> Iterator[ModuleType]:
    """Import each file here. One whose third-party package is not installed is named in the log and left out; the rest still load."""
    for info in pkgutil.walk_packages(__path__, f"{__name__}."):
        try:
            yield importlib.import_module(info.name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith(PACK):
                raise  # our own mistake, not a package the user may do without
            package = error.name.partition(".")[0]
            log.warning(
                "%s.py needs the package %s, which is not installed, so its nodes are missing: python -m pip install %s",
                info.name.removeprefix(f"{PACK}.").replace(".", "/"),
                package,
                package,
            )


def node_classes() -> list[type[LongTakeNode]]:
    """Every node: a subclass of ``LongTakeNode`` with a schema of its own, in the file that defines it."""
    return [
        item
        for file in node_files()
        for item in vars(file).values()
        if isinstance(item, type)
        and issubclass(item, LongTakeNode)
        and item.__module__ == file.__name__
        and "define_schema" in vars(item)
    ]


class Extension(host.ComfyExtension):
    """What ComfyUI asks for the list of nodes."""

    async def get_node_list(self) -> list[type[LongTakeNode]]:
        return node_classes()
