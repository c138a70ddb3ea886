"""Run a workflow on ComfyUI's own executor, without its server: the same validation, caching, previews and saved files."""

import asyncio
import inspect
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import execution
import folder_paths
import nodes
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..run.bar import Bar, Report
from ..run.errors import NodeError, WorkflowError
from ..run.facts import NodeFacts, of_information

PACK = Path(__file__).resolve().parents[2]
Prompt = Mapping[str, Any]


def run_workflow(
    prompt: Prompt, output: Path, *, input: Path | None = None, report: Callable[[Report], None] | None = None
) -> list[dict[str, Any]]:
    """Run an API-format workflow.

    Args:
        prompt: node id -> ``{"class_type", "inputs"}``; entries whose name starts with ``_`` are notes.
        output: where nodes that save write to.
        input: where the user's pictures lie; None for ComfyUI's own folder.
        report: is told of progress; a bar by default.

    Returns:
        results: for each file ``{"node", "class_type", "kind": "file", "path"}`` and for each text shown
            ``{"node", "class_type", "kind": "text", "text"}``, in the order of the nodes; for each preview, which is gone when the run is
            over, ``{..., "kind": "preview"}``.

    Raises:
        WorkflowError: ComfyUI refuses the workflow; one sentence per problem, naming node, class and input.
        NodeError: a node failed.
        InterruptProcessingException: cancelled.
    """
    graph = {key: node for key, node in prompt.items() if not key.startswith("_")}
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="longtake-", ignore_cleanup_errors=True) as temp:
        places = {"output": str(output), "temp": temp, "input": str(input or folder_paths.get_input_directory())}
        with _folders(places), _reporting(graph, report or Bar()):
            return asyncio.run(_run(graph))


@contextmanager
def _folders(places: Mapping[str, str]) -> Iterator[None]:
    """While open, ComfyUI's folders are these; afterwards they are what they were."""
    before = {kind: str(folder_paths.get_directory_by_type(kind)) for kind in places}
    try:
        _set_folders(places)
        yield
    finally:
        _set_folders(before)


def _set_folders(places: Mapping[str, str]) -> None:
    for kind, folder in places.items():
        getattr(folder_paths, f"set_{kind}_directory")(folder)


@contextmanager
def _reporting(graph: Prompt, report: Callable[[Report], None]) -> Iterator[None]:
    """While open, progress goes where ComfyUI's server would send it, and not to bars that every sampler draws itself."""

    def hook(value: float, total: float, *_: Any, node_id: str | None = None, **__: Any) -> None:
        context = get_executing_context()
        node = node_id or (context.node_id if context is not None else "")
        task = f"node {node} ({graph[node]['class_type']})" if node in graph else ""
        comfy.model_management.throw_exception_if_processing_interrupted()
        report(Report(task, int(value), int(total)))

    before = comfy.utils.PROGRESS_BAR_HOOK, comfy.utils.PROGRESS_BAR_ENABLED
    try:
        comfy.utils.set_progress_bar_global_hook(hook)
        comfy.utils.set_progress_bar_enabled(False)
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(before[0])
        comfy.utils.set_progress_bar_enabled(before[1])


async def known(names: Iterable[str]) -> dict[str, NodeFacts]:
    """What is known of classes of nodes, of those that this ComfyUI has."""
    await load_nodes()
    return {name: _facts(name, nodes.NODE_CLASS_MAPPINGS[name]) for name in names if name in nodes.NODE_CLASS_MAPPINGS}


def _facts(name: str, node: Any) -> NodeFacts:
    title, saves = nodes.NODE_DISPLAY_NAME_MAPPINGS.get(name), getattr(node, "OUTPUT_NODE", False)
    information = {"display_name": title, "input": node.INPUT_TYPES(), "output_node": saves}
    return of_information(name, information, getattr(node, "REPLACED", {}))


async def _run(graph: dict[str, Any]) -> list[dict[str, Any]]:
    server = _server()
    await load_nodes()
    name = str(uuid.uuid4())
    valid, error, outputs, node_errors = await execution.validate_prompt(name, graph, None)
    if not valid or node_errors:
        raise WorkflowError(problems(graph, error, node_errors))
    executor = _executor(server)
    await executor.execute_async(graph, name, {}, outputs)
    _raise_failure(executor.status_messages)
    results = executor.history_result["outputs"]
    return [item for node in graph if node in results for item in _items(node, graph[node]["class_type"], results[node])]


async def load_nodes() -> None:
    """ComfyUI's own nodes and this pack's, if they are not there yet; other packs are left out, so a run is the same everywhere."""
    if "SaveAnimatedWEBP" not in nodes.NODE_CLASS_MAPPINGS:  # of comfy_extras
        await nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False)
    if not any(name.startswith("LongTake") for name in nodes.NODE_CLASS_MAPPINGS) and not await nodes.load_custom_node(str(PACK)):
        raise RuntimeError(f"ComfyUI cannot load the pack in {PACK}: the reason is in the log above")


def _server() -> PromptServer:
    """ComfyUI's server object, which nodes may ask for, listening to nobody: the one there is, or a new one."""
    Path(folder_paths.get_user_directory()).mkdir(parents=True, exist_ok=True)
    loop = asyncio.get_running_loop()
    server = getattr(PromptServer, "instance", None) or PromptServer(loop)
    if server.loop.is_closed():  # made for an earlier run
        server.loop = loop
    return server


def _executor(server: PromptServer) -> execution.PromptExecutor:
    if "cache_args" in inspect.signature(execution.PromptExecutor.__init__).parameters:
        return execution.PromptExecutor(server, cache_args={"lru": 0, "ram": 0.0, "ram_inactive": 0.0})
    return execution.PromptExecutor(server)


def problems(graph: dict[str, Any], error: Mapping[str, Any] | None, node_errors: Mapping[str, Any]) -> list[str]:
    """What ComfyUI's validation says, one sentence each."""
    order = [key for key in graph if key in node_errors]
    found = [_sentence(key, node_errors[key]["class_type"], reason) for key in order for reason in node_errors[key]["errors"]]
    if found or not error:
        return found
    unknown = [key for key, node in graph.items() if node.get("class_type") not in nodes.NODE_CLASS_MAPPINGS]
    if unknown:
        return [_unknown(key, graph[key].get("class_type")) for key in unknown]
    return [f"the workflow cannot run: {_joined(error)}"]


def _unknown(key: str, class_type: str | None) -> str:
    if class_type is None:
        return f"node {key} has no class_type: the workflow is broken, or not in API format (Workflow > Export (API))"
    return f"node {key} ({class_type}) is of a class that this ComfyUI does not have: install the pack it belongs to, or update"


def _sentence(key: str, class_type: str, reason: Mapping[str, Any]) -> str:
    wanted = (reason.get("extra_info") or {}).get("input_name")
    place = f"node {key} ({class_type})" + (f", input {wanted}" if wanted else "")
    return f"{place}: {_joined(reason)}"


def _joined(reason: Mapping[str, Any]) -> str:
    message, details = str(reason.get("message", "")).strip(), str(reason.get("details", "")).strip()
    return " ".join((f"{message} ({details})" if details else message).split())


def _raise_failure(messages: list[tuple[str, dict[str, Any]]]) -> None:
    for event, data in messages:
        if event == "execution_interrupted":
            raise comfy.model_management.InterruptProcessingException
        if event == "execution_error":
            reason = " ".join(str(data["exception_message"]).split())
            kind = str(data["exception_type"]).rpartition(".")[2]
            raise NodeError(data["node_id"], data["node_type"], reason if kind == "ValueError" else f"{kind}: {reason}")


def _items(node: str, class_type: str, shown: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    folders = {kind: str(folder_paths.get_directory_by_type(kind)) for kind in ("output", "temp", "input")}
    items, about = [], {"node": node, "class_type": class_type}
    for values in shown.values():
        for value in values:
            if isinstance(value, Mapping) and "filename" in value:
                path = Path(folders[value.get("type", "output")], value.get("subfolder", ""), value["filename"])
                items.append(about | ({"kind": "preview"} if value.get("type") == "temp" else {"kind": "file", "path": path}))
            elif isinstance(value, str):
                items.append(about | {"kind": "text", "text": value})
    return items
