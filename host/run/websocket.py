"""Listening to a WebSocket with Python's own means: RFC 6455, as much as a client needs that only listens."""

import base64
import hashlib
import os
import socket
import ssl
import struct
import time
import urllib.parse
from collections.abc import Iterator, Mapping

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of the RFC, section 1.3
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
MOST = 64 * 2**20  # bytes of a message; a preview is far smaller


class Listener:
    """An open WebSocket.

    Args:
        url: ``ws://`` or ``wss://``.
        headers: further ones for the first request.
        timeout: seconds to wait for the server to agree.

    Raises:
        OSError: there is no such server, or it does not agree.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float = 10.0):
        parts = urllib.parse.urlsplit(url)
        secure, host = parts.scheme == "wss", parts.hostname or ""
        self.socket = socket.create_connection((host, parts.port or (443 if secure else 80)), timeout)
        self.received, self.message = b"", b""
        self.is_text = False
        try:
            if secure:
                self.socket = ssl.create_default_context().wrap_socket(self.socket, server_hostname=host)
            self._agree(parts, headers, time.monotonic() + timeout)
        except BaseException:
            self.close()
            raise

    def _agree(self, parts: urllib.parse.SplitResult, headers: Mapping[str, str], end: float) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = {"Host": parts.netloc, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": key}
        lines |= {"Sec-WebSocket-Version": "13", **headers}
        request = f"GET {parts.path or '/'}?{parts.query} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        self.socket.sendall(request.encode() + b"\r\n")
        while b"\r\n\r\n" not in self.received:
            if not self._receive(end):
                raise ConnectionError("the server did not answer in time")
        head, self.received = self.received.split(b"\r\n\r\n", 1)
        wanted = base64.b64encode(hashlib.sha1(key.encode() + GUID.encode()).digest())
        if b" 101 " not in head.split(b"\r\n", 1)[0] or wanted not in head:
            raise ConnectionError(f"the server answered {head.splitlines()[0].decode(errors='replace')}")

    def messages(self, seconds: float) -> Iterator[str]:
        """The texts that arrive within so many seconds.

        Raises:
            OSError: the connection is closed or broken.
        """
        end = time.monotonic() + seconds
        while True:
            while (frame := self._frame()) is not None:
                text = self._heard(*frame)
                if text is not None:
                    yield text
            if not self._receive(end):
                return

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def _receive(self, end: float) -> bool:
        """Wait for more bytes; whether there were some before the end."""
        left = end - time.monotonic()
        if left <= 0:
            return False
        self.socket.settimeout(left)
        try:
            more = self.socket.recv(2**16)
        except TimeoutError:
            return False
        if not more:
            raise ConnectionError("the server hung up")
        self.received += more
        return True

    def _frame(self) -> tuple[int, bool, bytes] | None:
        """The first whole frame that was received, as (opcode, whether it ends a message, content); or None."""
        data = self.received
        if len(data) < 2:
            return None
        size, start = data[1] & 127, 2  # a server does not mask
        if size > 125:
            form, start = ("!H", 4) if size == 126 else ("!Q", 10)
            if len(data) < start:
                return None
            (size,) = struct.unpack(form, data[2:start])
        if size > MOST:
            raise ConnectionError(f"a message of {size} bytes")
        if len(data) < start + size:
            return None
        self.received = data[start + size :]
        return data[0] & 15, bool(data[0] & 128), data[start : start + size]

    def _heard(self, opcode: int, ends: bool, content: bytes) -> str | None:
        """A message that is text, when the frame ends one."""
        if opcode == CLOSE:
            raise ConnectionError("the server hung up")
        if opcode == PING:
            self._send(PONG, content)
        if opcode >= CLOSE:
            return None
        if opcode:
            self.message, self.is_text = b"", opcode == TEXT
        self.message += content if self.is_text else b""
        return self.message.decode(errors="replace") if ends and self.is_text else None

    def _send(self, opcode: int, content: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(content))
        self.socket.sendall(bytes([128 | opcode, 128 | len(content)]) + mask + masked)
