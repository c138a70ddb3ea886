"""As much of ComfyUI's server as ``host/run/remote.py`` talks to."""

import base64
import contextlib
import hashlib
import http.server
import json
import struct
import threading
import urllib.parse

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
IMAGE = {"filename": "a_00001_.png", "subfolder": "deep", "type": "output"}
PREVIEW = {"filename": "temp.png", "subfolder": "", "type": "temp"}


def frame(content, opcode=1, ends=True):
    """A frame as a server sends it."""
    size = bytes([len(content)]) if len(content) < 126 else bytes([126]) + struct.pack("!H", len(content))
    return bytes([(128 if ends else 0) | opcode]) + size + content


def progress(node, value, most, **more):
    return frame(json.dumps({"type": "progress", "data": {"node": node, "value": value, "max": most, **more}}).encode())


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    def log_message(self, *args):
        pass

    def answer(self, value, code=200, **headers):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for name, text in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def let_in(self):
        """Whether the visitor has the token, where one is wanted."""
        self.server.headers.append(dict(self.headers))
        if self.server.token in (None, self.headers.get("Authorization")):
            return True
        self.answer(b"who is it?", 401)
        return False

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.let_in():
            return None
        if self.path == "/upload/image":
            self.server.uploads.append((self.headers["Content-Type"], body))
            return self.answer({"name": f"sent{len(self.server.uploads)}.png", "subfolder": "mine", "type": "input"})
        self.server.asked.append((self.path, json.loads(body)))
        if self.path == "/prompt" and self.server.refuses:
            reason = {"message": "Value too small", "details": "frames", "extra_info": {"input_name": "frames"}}
            problems = {"3": {"class_type": "LongTakeRollout", "errors": [reason]}}
            return self.answer({"error": {"message": "failed", "details": ""}, "node_errors": problems}, 400)
        return self.answer({"prompt_id": "p1", "node_errors": {}})

    def do_GET(self):
        if not self.let_in():
            return None
        url = urllib.parse.urlsplit(self.path)
        if self.server.moved_to:
            return self.answer(b"", 302, Location=self.server.moved_to + self.path)
        if url.path == "/ws":
            return self.talk()
        if url.path == "/history/p1":
            self.server.polls += 1
            return self.answer({} if self.server.polls < self.server.ready else {"p1": self.server.entry})
        if url.path == "/queue":
            return self.answer({"queue_running": [[0, "p1"]] if self.server.remembers else [], "queue_pending": []})
        if url.path.startswith("/object_info/"):
            name = url.path.rpartition("/")[2]
            return self.answer({name: self.server.information[name]} if name in self.server.information else {})
        return self.answer(("file " + dict(urllib.parse.parse_qsl(url.query))["filename"]).encode())

    def talk(self):
        """A WebSocket that sends what there is and then waits to be hung up on."""
        if self.server.frames is None:
            return self.answer(b"no sockets here", 404)
        key = self.headers["Sec-WebSocket-Key"] + GUID
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        for name, text in {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}.items():
            self.send_header(name, text)
        self.end_headers()
        for part in self.server.frames:
            self.wfile.write(part)
            self.wfile.flush()
        with contextlib.suppress(OSError):
            self.server.answers.append(self.rfile.read(10))
        self.close_connection = True
        return None


@contextlib.contextmanager
def serving():
    """A server that gives back a picture, a preview and a text, at ``url``."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.asked, server.uploads, server.headers, server.answers = [], [], [], []
        server.polls, server.ready, server.refuses, server.remembers, server.token = 0, 2, False, True, None
        server.moved_to, server.information, server.frames = "", {}, None
        server.entry = {
            "outputs": {"2": {"images": [dict(IMAGE), dict(PREVIEW)]}, "3": {"text": ["seed 5"]}},
            "status": {"messages": []},
        }
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
