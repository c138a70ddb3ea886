"""Run a workflow from the command line: ``python run.py [WORKFLOW] [--set NODE.INPUT=VALUE ...]``.

Without arguments: the long take, on ComfyUI where there is one, else standalone. WORKFLOW is a file in API format, or the name of one
in ``workflows/api``. NODE is a node's id, or its class or its title where only one node has it.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).absolute().parent
PACK = __package__ or "longtake"
API = ROOT / "workflows" / "api"
DEFAULT = "long_take"
FIRST_PYTHON = "LONGTAKE_FIRST_PYTHON"  # set while ComfyUI's own interpreter tries


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
    """A module of the pack, such as ``host.find``."""
    load_pack()
    return importlib.import_module(f"{PACK}.{name}")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="run.py", description="Run a workflow; without arguments, the long take.")
    parser.add_argument("workflow", nargs="?", default=DEFAULT, help="a file in API format, or a name in workflows/api")
    change = "change an input; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", dest="settings", help=change)
    parser.add_argument(
        "--host", choices=("auto", "comfyui", "standalone"), default="auto", help="auto is ComfyUI where it is found"
    )
    parser.add_argument("--output", type=Path, default=Path("output"), metavar="DIR", help="where results go (./output)")
    parser.add_argument("--server", metavar="URL", help="run on this ComfyUI server, such as http://127.0.0.1:8188")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser.parse_args(argv)


def names() -> list[str]:
    """The workflows that come with the pack."""
    return sorted(path.stem for path in API.glob("*.json"))


def read_workflow(name: str) -> dict[str, Any]:
    """The workflow of a path or name.

    Raises:
        ValueError: there is none, or it is not in API format.
    """
    candidates = (Path(name), API / name, API / f"{name}.json")
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise ValueError(
            f"there is no workflow {name!r}: give a file in API format, or one of {', '.join(names()) or '(none here)'}"
        )
    try:
        workflow = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no JSON ({error}): export the workflow in API format") from None
    if isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list):
        ready = API / path.name
        use = f"run {ready.relative_to(ROOT)} instead" if ready.is_file() else "export it with Workflow > Export (API)"
        raise ValueError(f"{path} is in the format of ComfyUI's editor, which only the editor reads: {use}")
    if not isinstance(workflow, dict):
        raise ValueError(f"{path} holds no workflow: API format is a table of nodes")
    return {id: node for id, node in workflow.items() if not id.startswith("_")}


def node_named(workflow: Mapping[str, Any], name: str) -> str:
    """The id of the node with an id, a class or a title.

    Raises:
        ValueError: no node, or several.
    """
    if name in workflow:
        return name
    found = [id for id, node in workflow.items() if name in (node.get("class_type"), node.get("_meta", {}).get("title"))]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{len(found)} nodes are called {name!r}: use one of the ids {', '.join(found)}")
    there = ", ".join(f"{id} ({node.get('class_type')})" for id, node in workflow.items())
    raise ValueError(f"no node is called {name!r}: the workflow has {there}")


def value_of(text: str, old: Any) -> Any:
    """A value from the command line: text stays text where the input held text, else JSON, else text.

    >>> value_of("3", 1), value_of("3", "a"), value_of("true", False), value_of("red disk", None)
    (3, '3', True, 'red disk')
    """
    if isinstance(old, str):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def changed(workflow: Mapping[str, Any], settings: Iterable[str], inputs: Callable[[str], Iterable[str]]) -> dict[str, Any]:
    """The workflow with ``NODE.INPUT=VALUE`` applied.

    Args:
        workflow: stays as it is.
        settings: in order.
        inputs: the inputs that a class has beside those the workflow gives.

    Raises:
        ValueError: a setting is written wrongly, or names a node or an input that is not there.
    """
    result = {id: {**node, "inputs": dict(node.get("inputs", {}))} for id, node in workflow.items()}
    for setting in settings:
        target, equals, text = setting.partition("=")
        name, dot, key = target.rpartition(".")
        if not equals or not dot or not name or not key:
            raise ValueError(f"--set {setting}: write it as NODE.INPUT=VALUE, such as LongTakeRollout.frames=64")
        node = result[node_named(result, name)]
        known = list(dict.fromkeys([*node["inputs"], *inputs(node["class_type"])]))
        if key not in known:
            raise ValueError(f"--set {setting}: {node['class_type']} has no input {key!r}, it has {', '.join(known)}")
        node["inputs"][key] = value_of(text, node["inputs"].get(key))
    return result


def pack_nodes() -> dict[str, Any]:
    """This pack's node classes by id."""
    extension = asyncio.run(load_pack().comfy_entrypoint())
    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())}


def inputs_of(nodes: Mapping[str, Any]) -> Callable[[str], list[str]]:
    """A function from class name to the names of its inputs; none for a class not in ``nodes``."""
    return lambda name: [item.id for item in nodes[name].GET_SCHEMA().inputs] if name in nodes else []


def comfyui_for(host: str) -> Path | None:
    """The ComfyUI to run on in this process, or None for standalone. May start this program anew under ComfyUI's own interpreter.

    Raises:
        ValueError: ComfyUI was asked for and there is none, or it cannot be imported.
    """
    if host == "standalone":
        return None
    finder = part("host.find")
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


def run_standalone(workflow: Mapping[str, Any], settings: Sequence[str], output: Path) -> list[dict[str, Any]]:
    """Run on the standalone host."""
    executor, core = part("host.standalone.executor"), part("host.standalone.core_nodes")
    nodes = pack_nodes() | core.core_nodes()
    prompt = changed(workflow, settings, inputs_of(nodes))
    absent = [node.__name__ for node in core.VIDEO_NODES if node.__name__ not in nodes]
    kept, left_out = executor.without_classes(prompt, absent)
    if left_out:
        which = ", ".join(f"{id} ({prompt[id]['class_type']})" for id in left_out)
        note(f"no MP4 this time: nodes {which} need the package av (python -m pip install av); the rest runs")
    results = executor.Executor(nodes, output).run(kept)
    return [item for result in results for item in result.items()]


def run_comfyui(checkout: Path, workflow: Mapping[str, Any], settings: Sequence[str], output: Path) -> list[dict[str, Any]]:
    """Run on ComfyUI's own executor, in this process."""
    part("host.comfyui.boot").boot(checkout)
    prompt = changed(workflow, settings, inputs_of(pack_nodes()))
    try:
        return part("host.comfyui.executor").run_workflow(prompt, output)
    except part("host").Interrupted as error:
        raise KeyboardInterrupt from error


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run what the command line asks for, and return what there is to show."""
    workflow, output = read_workflow(options.workflow), options.output.absolute()
    if options.server:
        prompt = changed(workflow, options.settings, inputs_of(pack_nodes()))
        return part("host.remote").Server(options.server).run_workflow(prompt, output)
    checkout = comfyui_for(options.host)
    note("running standalone" if checkout is None else f"running on the ComfyUI in {checkout}")
    if checkout is None:
        return run_standalone(workflow, options.settings, output)
    return run_comfyui(checkout, workflow, options.settings, output)


def _stop(signum: int, frame: Any) -> None:  # noqa: ARG001  what a signal handler is given
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run a workflow and print what it saved and said. Returns the exit status: 0, 1 after an error, 130 when cancelled."""
    options = arguments(argv)
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
