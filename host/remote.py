"""Run a workflow on a ComfyUI server that is already running, through its HTTP interface."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..modules.disk.atomic import replacing
from .errors import NodeError, WorkflowError

PAUSE = 0.5  # seconds between questions


class Server:
    """A ComfyUI server.

    Args:
        url: such as ``http://127.0.0.1:8188``.
    """

    def __init__(self, url: str):
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"the server is {url!r}: give its address as http://host:port")
        self.url = url.rstrip("/")

    def ask(self, path: str, body: Any = None) -> bytes:
        """The answer to one request; a POST when there is a body.

        Raises:
            ValueError: nobody answers there, or with an error.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"} if data else {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise _refusal(error.code, error.read()) from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise ValueError(f"no ComfyUI server answers at {self.url} ({reason}): start it, or leave --server out") from None

    def run_workflow(self, prompt: Mapping[str, Any], output: Path) -> list[dict[str, Any]]:
        """Run an API-format workflow and bring what it saved here.

        Args:
            prompt: node id -> ``{"class_type", "inputs"}``; entries whose name starts with ``_`` are notes.
            output: where the files are copied to.

        Returns:
            For each file ``{"node", "class_type", "kind": "file", "path"}``, for each text ``{..., "kind": "text", "text"}``.

        Raises:
            WorkflowError: the server refuses the workflow.
            NodeError: a node failed.
        """
        graph = {key: node for key, node in prompt.items() if not key.startswith("_")}
        answer = json.loads(self.ask("/prompt", {"prompt": graph}))
        name = answer["prompt_id"]
        try:
            if answer.get("node_errors"):
                raise WorkflowError(_problems(answer))
            shown = self._outputs(name)
        except BaseException:
            self._drop(name)
            raise
        return [item for id in graph for item in self._items(id, graph[id]["class_type"], shown.get(id, {}), output)]

    def _outputs(self, name: str) -> dict[str, Any]:
        """Wait for the end. Returns what each node showed."""
        while True:
            entry = json.loads(self.ask(f"/history/{name}")).get(name)
            if entry is not None:
                break
            time.sleep(PAUSE)
        for event, data in entry.get("status", {}).get("messages", ()):
            if event == "execution_error":
                raise NodeError(str(data["node_id"]), data["node_type"], " ".join(str(data["exception_message"]).split()))
            if event == "execution_interrupted":
                raise KeyboardInterrupt("cancelled on the server")
        return entry["outputs"]

    def _drop(self, name: str) -> None:
        """Take our job out of the queue, or stop it; other people's are left alone. Nothing to do when it has ended."""
        try:
            running = json.loads(self.ask("/queue"))["queue_running"]
            if any(name in job for job in running):
                self.ask("/interrupt", {"prompt_id": name})
            else:
                self.ask("/queue", {"delete": [name]})
        except ValueError:
            return  # the server is gone, and the job with it

    def _items(self, node: str, class_type: str, shown: Mapping[str, Any], output: Path) -> list[dict[str, Any]]:
        items = []
        for value in (value for values in shown.values() for value in values):
            about = {"node": node, "class_type": class_type}
            if isinstance(value, Mapping) and "filename" in value:
                items.append(about | {"kind": "file", "path": self._download(value, output)})
            elif isinstance(value, str):
                items.append(about | {"kind": "text", "text": value})
        return items

    def _download(self, record: Mapping[str, str], output: Path) -> Path:
        """Copy one file, whole or not at all, beside a file of the same name rather than over it."""
        wanted = (output / record.get("subfolder", "") / record["filename"]).resolve()
        if output.resolve() not in wanted.parents:
            raise ValueError(f"the server names a file outside the output folder ({record['filename']!r}): it was not copied")
        data = self.ask(
            "/view?" + urllib.parse.urlencode({key: record.get(key, "") for key in ("filename", "subfolder", "type")})
        )
        path, copy = wanted, 1
        while path.exists():
            copy += 1
            path = wanted.with_name(f"{wanted.stem}({copy}){wanted.suffix}")
        with replacing(path) as partial:
            partial.write_bytes(data)
        return path


def _refusal(code: int, text: bytes) -> ValueError:
    try:
        answer = json.loads(text)
    except ValueError:
        return ValueError(f"the server answered with the error {code}: {text[:200].decode(errors='replace')}")
    return WorkflowError(_problems(answer))


def _problems(answer: Mapping[str, Any]) -> list[str]:
    """The server's reasons, one sentence each."""
    found = []
    for node, errors in (answer.get("node_errors") or {}).items():
        for reason in errors["errors"]:
            name = (reason.get("extra_info") or {}).get("input_name")
            place = f"node {node} ({errors['class_type']})" + (f", input {name}" if name else "")
            found.append(f"{place}: {reason['message']} ({reason['details']})")
    error = answer.get("error")
    return found or [f"{error['message']} ({error.get('details', '')})" if isinstance(error, Mapping) else str(error)]
