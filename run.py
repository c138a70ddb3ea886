"""Run a workflow from the command line: ``python run.py [WORKFLOW] [--set NODE.INPUT=VALUE ...]``.

Without arguments: the take of postcards, on ComfyUI where there is one, else standalone. WORKFLOW is a file in API format, or the name
of one in ``workflows/api``; ``--list`` tells of those. NODE is a node's id, or its title, its class or what the editor calls that where
only one node has it; INPUT is an input's id, or what the editor calls it.

``python run.py convert GRAPH`` turns a graph of AnimateDiff-Evolved's, Advanced-ControlNet's and FizzNodes' nodes into one of ours.
"""

import argparse
import asyncio
import functools
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).absolute().parent
PACK = __package__ or "longtake"
DEFAULT = "postcards_take"
TOKEN = "LONGTAKE_TOKEN"
FIRST_PYTHON = "LONGTAKE_FIRST_PYTHON"  # set while ComfyUI's own interpreter tries
Results = list[dict[str, Any]]


def load_pack() -> ModuleType:
    """This folder as a package called ``longtake``, whatever it is called, and off the search path: ComfyUI has a ``nodes`` too."""
    if PACK not in sys.modules:
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").absolute() != ROOT]
        spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        assert spec is not None and spec.loader is not None
        module = sys.modules[PACK] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[PACK]


def part(name: str) -> Any:
    """A module of the pack, such as ``host.run.find``."""
    load_pack()
    return importlib.import_module(f"{PACK}.{name}")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="run.py", description="Run a workflow; without arguments, the take of postcards.")
    parser.add_argument("workflow", nargs="?", default=DEFAULT, help="a file in API format, or a name in workflows/api")
    parser.add_argument(
        "--list", action="store_true", help="say what each workflow of workflows/api does and needs, and run none"
    )
    change = "change an input; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", dest="settings", help=change)
    parser.add_argument(
        "--host", choices=("auto", "comfyui", "standalone"), default="auto", help="auto is ComfyUI where it is found"
    )
    where = "where pictures and videos are read from (ComfyUI's own folder, or ./input); with --server, what is sent there"
    parser.add_argument("--input", type=Path, metavar="DIR", help=where)
    parser.add_argument("--output", type=Path, default=Path("output"), metavar="DIR", help="where results go (./output)")
    parser.add_argument("--server", metavar="URL", help="run on this ComfyUI server, such as http://127.0.0.1:8188")
    header = "sent to the server with every request, as 'Name: value'; may be repeated"
    parser.add_argument("--header", action="append", default=[], metavar="LINE", dest="headers", help=header)
    token = f"sent to the server as Authorization: Bearer; the variable {TOKEN} does the same and is seen by nobody else"
    parser.add_argument("--token", default=os.environ.get(TOKEN), help=token)
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    options = parser.parse_args(argv)
    if options.server and options.host != "auto":
        parser.error("--server and --host exclude each other: a server is a ComfyUI already")
    if options.headers and not options.server:
        parser.error("--header is for --server: give both or neither")
    return options


def pack_nodes() -> dict[str, Any]:
    """This pack's node classes by id."""
    extension = asyncio.run(load_pack().comfy_entrypoint())
    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())}


def comfyui_for(host: str) -> Path | None:
    """The ComfyUI to run on in this process, or None for standalone. May start this program anew under ComfyUI's own interpreter.

    Raises:
        ValueError: ComfyUI was asked for and there is none, or it cannot be imported.
    """
    if host == "standalone":
        return None
    finder = part("host.run.find")
    checkout = finder.find(ROOT)
    if checkout is None:
        if host == "comfyui":
            raise ValueError(f"no ComfyUI was found: set {finder.VARIABLE} to its folder, or use --host standalone")
        return None
    lacking = finder.missing(checkout)
    if lacking is None:
        os.environ.pop(FIRST_PYTHON, None)
        return checkout
    other, first = finder.python_of(checkout), os.environ.pop(FIRST_PYTHON, None)
    if first is None and not _same(other, Path(sys.executable)):
        os.environ[FIRST_PYTHON] = sys.executable
        _become(str(other), sys.argv[1:])
    if host == "comfyui":
        raise ValueError(
            f"the ComfyUI in {checkout} needs {lacking}, which {sys.executable} does not have: install its requirements.txt"
        )
    note(f"the ComfyUI in {checkout} needs {lacking}, which its Python does not have: running standalone")
    if first is not None:
        _become(first, [*sys.argv[1:], "--host", "standalone"])
    return None


def _same(one: Path, other: Path) -> bool:
    """Whether two interpreters are the same; not resolved, since a virtual environment's is a link to another's."""
    return os.path.normcase(one.absolute()) == os.path.normcase(other.absolute())


def _become(python: str, argv: Sequence[str]) -> None:
    """Run this program anew under another interpreter; does not return."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(python, [python, str(ROOT / "run.py"), *argv])


def note(text: str) -> None:
    """Tell the user something that is no result."""
    print(text, file=sys.stderr)


def changed(workflow: Mapping[str, Any], settings: Sequence[str], known: Callable[[str], Any]) -> dict[str, Any]:
    """The workflow with settings applied; says which of them change nothing."""
    made = part("host.run.settings").Settings(workflow, known)
    made.apply(settings)
    for sentence in made.without_effect():
        note(f"warning: {sentence}")
    return made.workflow


def run_standalone(workflow: Mapping[str, Any], settings: Sequence[str], output: Path, input: Path | None = None) -> Results:
    """Run on the standalone host."""
    executor, core, facts = (part(f"host.{name}") for name in ("standalone.executor", "standalone.core_nodes", "run.facts"))
    nodes = pack_nodes() | core.core_nodes()
    without_film = [node.__name__ for node in core.VIDEO_NODES if node.__name__ not in nodes]
    refusal = part("host.run.workflows").refusal(workflow, {*nodes, *without_film})
    if refusal:
        raise ValueError(refusal)
    prompt = changed(workflow, settings, lambda name: facts.of_node(nodes[name]) if name in nodes else None)
    kept, left_out = executor.without_classes(prompt, without_film)
    if left_out:
        which = ", ".join(f"{id} ({prompt[id]['class_type']})" for id in left_out)
        note(f"no MP4 this time: nodes {which} need the package av (python -m pip install av); the rest runs")
    results = executor.Executor(nodes, output, input).run(kept)
    return [item for result in results for item in result.items()]


def run_comfyui(
    checkout: Path, workflow: Mapping[str, Any], settings: Sequence[str], output: Path, input: Path | None = None
) -> Results:
    """Run on ComfyUI's own executor, in this process."""
    part("host.comfyui.boot").boot(checkout)
    executor = part("host.comfyui.executor")
    known = asyncio.run(executor.known({node["class_type"] for node in workflow.values() if "class_type" in node}))
    try:
        return executor.run_workflow(changed(workflow, settings, known.get), output, input=input)
    except part("host").Interrupted as error:
        raise KeyboardInterrupt from error


def run_remote(options: argparse.Namespace, workflow: Mapping[str, Any], output: Path) -> Results:
    """Run on a server."""
    remote, ours = part("host.run.remote"), pack_nodes()
    server = remote.Server(options.server, remote.headers_of(options.headers, options.token))
    known = functools.cache(lambda name: server.facts(name, getattr(ours.get(name), "REPLACED", {})))
    prompt = changed(workflow, options.settings, known)
    prompt, sent = server.with_uploads(prompt, known, (options.input or Path("input")).absolute())
    for path in sent:
        note(f"sent {path} to {server.url}")
    return server.run_workflow(prompt, output)


def run(options: argparse.Namespace) -> Results:
    """Run what the command line asks for, and return what there is to show."""
    workflow, output = part("host.run.workflows").read(options.workflow), options.output.absolute()
    if options.server:
        return run_remote(options, workflow, output)
    folder = None if options.input is None else options.input.absolute()
    checkout = comfyui_for(options.host)
    note("running standalone" if checkout is None else f"running on the ComfyUI in {checkout}")
    if checkout is None:
        return run_standalone(workflow, options.settings, output, folder)
    return run_comfyui(checkout, workflow, options.settings, output, folder)


def without_comfyui() -> set[str]:
    """The classes of the nodes that run without ComfyUI."""
    core = part("host.standalone.core_nodes")
    return {*pack_nodes(), *(node.__name__ for node in (*core.NODES, *core.VIDEO_NODES))}


def listing() -> str:
    """What each workflow does and needs."""
    return part("host.run.workflows").listing(without_comfyui())


def convert(argv: Sequence[str]) -> int:
    """Turn a graph of other packs' nodes into one of ours. Returns the exit status."""
    try:
        print(part("host.run.convert.command").convert(argv, note))
    except (ValueError, OSError) as error:
        note(f"error: {error}")
        return 1
    return 0


def _stop(signum: int, frame: Any) -> None:  # noqa: ARG001  what a signal handler is given
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run a workflow and print what it saved and said. Returns the exit status: 0, 1 after an error, 130 when cancelled."""
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["convert"]:
        return convert(given[1:])
    options = arguments(given)
    if options.list:
        print(listing())
        return 0
    signal.signal(signal.SIGINT, _stop)  # not Python's own handler: asyncio would put off Ctrl-C to the end of the node
    try:
        results = run(options)
    except (KeyboardInterrupt, ValueError, RuntimeError, OSError, ImportError) as error:
        if options.debug:
            raise
        if isinstance(error, KeyboardInterrupt):
            note("cancelled: what was finished is in the output folder, and nothing half-written")
            return 130
        note(f"error: {error}")
        return 1
    for kind in ("path", "text"):
        for item in results:
            if kind in item:
                print(item[kind])
    previews = sum(item["kind"] == "preview" for item in results)
    if previews:
        note(
            f"{previews} preview{'s were' if previews > 1 else ' was'} not kept: Save Image instead of Preview Image keeps pictures"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
