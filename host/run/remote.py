"""Run a workflow on a ComfyUI server that is already running, through its HTTP interface."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ...modules.disk.atomic import replacing
from .bar import Bar, Report
from .errors import NodeError, WorkflowError
from .facts import NodeFacts, of_information
from .transfer import form, free_place
from .websocket import Listener

PAUSE = 0.5  # seconds between questions
PATIENCE = 4  # questions in a row after which a job that the server does not name is taken for lost
UNTOLD = (401, 403)


def headers_of(lines: Iterable[str], token: str | None) -> dict[str, str]:
    """Headers as the command line gives them.

    Args:
        lines: ``Name: value`` each.
        token: becomes ``Authorization: Bearer``; or None.

    Raises:
        ValueError: a line has no colon, or would be more than a line.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    for line in lines:
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or not name or any(letter < " " for letter in line):
            raise ValueError(f"--header {line!r}: write it as 'Name: value'")
        headers[name] = value
    return headers


class Server:
    """A ComfyUI server.

    Args:
        url: such as ``http://127.0.0.1:8188``.
        headers: sent with every request, to this server alone: not where it redirects to.
        report: is told of progress.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, report: Callable[[Report], None] | None = None):
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"the server is {url!r}: give its address as http://host:port")
        self.url, self.headers, self.report = url.rstrip("/"), dict(headers or {}), report or Bar()
        self.client = uuid.uuid4().hex

    def ask(self, path: str, body: Any = None) -> bytes:
        """The answer to one request; a POST when there is a body.

        Args:
            path: of the question.
            body: what is sent as JSON; or (content, its type) as they are.

        Raises:
            ValueError: nobody answers there, or with an error.
        """
        data, kind = body if isinstance(body, tuple) else (json.dumps(body).encode(), "application/json")
        request = urllib.request.Request(self.url + path, None if body is None else data)
        if body is not None:
            request.add_header("Content-Type", kind)
        for name, value in self.headers.items():
            request.add_unredirected_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise _refusal(error.code, error.read()) from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise ValueError(f"no ComfyUI server answers at {self.url} ({reason}): start it, or leave --server out") from None

    def facts(self, name: str, replaced: Mapping[str, Any] | None = None) -> NodeFacts | None:
        """What the server tells of a class of nodes; None where it has none of that name."""
        information = json.loads(self.ask("/object_info/" + urllib.parse.quote(name, safe="")))
        return of_information(name, information[name], replaced or {}) if name in information else None

    def with_uploads(
        self, prompt: Mapping[str, Any], known: Callable[[str], NodeFacts | None], folder: Path
    ) -> tuple[dict[str, Any], list[Path]]:
        """The workflow with names of local files replaced by those that the server gave them, and the files that were sent.

        A file is sent for an input that the editor would upload it for, or whose menu on the server does not have it: the one
        of that path, or of that name in ``folder``.
        """
        sent: dict[Path, str] = {}
        result = {}
        for id, node in prompt.items():
            facts, inputs = known(node["class_type"]), dict(node["inputs"])
            for key, value in node["inputs"].items():
                path = _local(value, folder) if facts is not None and _wants_file(facts, key, value) else None
                if path is not None:
                    sent[path] = sent.get(path) or self._upload(path)
                    inputs[key] = sent[path]
            result[id] = {**node, "inputs": inputs}
        return result, list(sent)

    def _upload(self, path: Path) -> str:
        answer = json.loads(self.ask("/upload/image", form({"type": "input"}, "image", path.name, path.read_bytes())))
        return "/".join(filter(None, (answer.get("subfolder"), answer["name"])))

    def run_workflow(self, prompt: Mapping[str, Any], output: Path) -> list[dict[str, Any]]:
        """Run an API-format workflow and bring what it saved here.

        Args:
            prompt: node id -> ``{"class_type", "inputs"}``; entries whose name starts with ``_`` are notes.
            output: where the files are copied to.

        Returns:
            For each file ``{"node", "class_type", "kind": "file", "path"}``, for each text ``{..., "kind": "text", "text"}``, and for
            each preview, which stays there, ``{..., "kind": "preview"}``.

        Raises:
            WorkflowError: the server refuses the workflow.
            NodeError: a node failed.
        """
        graph = {key: node for key, node in prompt.items() if not key.startswith("_")}
        listener = self._listener()
        try:
            answer = json.loads(self.ask("/prompt", {"prompt": graph, "client_id": self.client}))
            name = answer["prompt_id"]
            try:
                if answer.get("node_errors"):
                    raise WorkflowError(_problems(answer))
                shown = self._outputs(name, graph, listener)
            except BaseException:
                self._drop(name)
                raise
        finally:
            if listener is not None:
                listener.close()
        return [item for id in graph for item in self._items(id, graph[id]["class_type"], shown.get(id, {}), output)]

    def _listener(self) -> Listener | None:
        """Where progress is heard; None where the server, or what stands before it, lets nobody listen."""
        try:
            return Listener(f"ws{self.url.removeprefix('http')}/ws?clientId={self.client}", self.headers)
        except OSError:
            return None

    def _outputs(self, name: str, graph: Mapping[str, Any], listener: Listener | None) -> dict[str, Any]:
        """Wait for the end. Returns what each node showed."""
        absent = 0
        while (entry := json.loads(self.ask(f"/history/{name}")).get(name)) is None:
            absent = 0 if self._has(name) else absent + 1
            if absent >= PATIENCE:
                raise ValueError("the server knows nothing of the job any more: it was deleted there, or the server started anew")
            listener = self._listen(name, graph, listener)
        for event, data in entry.get("status", {}).get("messages", ()):
            if event == "execution_error":
                raise NodeError(str(data["node_id"]), data["node_type"], " ".join(str(data["exception_message"]).split()))
            if event == "execution_interrupted":
                raise KeyboardInterrupt("cancelled on the server")
        return entry["outputs"]

    def _has(self, name: str) -> bool:
        """Whether a job runs or waits."""
        queue = json.loads(self.ask("/queue"))
        return any(name in job for jobs in (queue["queue_running"], queue["queue_pending"]) for job in jobs)

    def _listen(self, name: str, graph: Mapping[str, Any], listener: Listener | None) -> Listener | None:
        """Pass some time, and what is heard of progress on. Gives the listener, or None once it is gone."""
        if listener is None:
            time.sleep(PAUSE)
            return None
        try:
            for text in listener.messages(PAUSE):
                message = json.loads(text)
                data = message.get("data") or {}
                if message.get("type") == "progress" and data.get("prompt_id", name) == name:
                    node = str(data.get("node"))
                    task = f"node {node} ({graph[node]['class_type']})" if node in graph else f"node {node}"
                    self.report(Report(task, int(data["value"]), int(data["max"])))
        except OSError:
            listener.close()
            return None
        return listener

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
                preview = value.get("type") == "temp"
                items.append(
                    about | ({"kind": "preview"} if preview else {"kind": "file", "path": self._download(value, output)})
                )
            elif isinstance(value, str):
                items.append(about | {"kind": "text", "text": value})
        return items

    def _download(self, record: Mapping[str, str], output: Path) -> Path:
        """Copy one file, whole or not at all, beside a file of the same name rather than over it."""
        wanted = (output / record.get("subfolder", "") / record["filename"]).resolve()
        if output.resolve() not in wanted.parents:
            raise ValueError(f"the server names a file outside the output folder ({record['filename']!r}): it was not copied")
        question = {key: record.get(key, "") for key in ("filename", "subfolder", "type")}
        path = free_place(wanted)
        with replacing(path) as partial:
            partial.write_bytes(self.ask("/view?" + urllib.parse.urlencode(question)))
        return path


def _wants_file(facts: NodeFacts, key: str, value: Any) -> bool:
    return key in facts.uploads or (key in facts.menus and value not in facts.menus[key])


def _local(value: Any, folder: Path) -> Path | None:
    """The file here that a value names."""
    if not isinstance(value, str) or not value.strip():
        return None
    return next((path for path in (Path(value).expanduser(), folder / value) if path.is_file()), None)


def _refusal(code: int, text: bytes) -> ValueError:
    if code in UNTOLD:
        return ValueError(f"the server lets nobody in who does not say who they are ({code}): give --token or --header")
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
