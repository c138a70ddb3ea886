"""Files to and from a server."""

import secrets
from collections.abc import Mapping
from pathlib import Path


def form(fields: Mapping[str, str], file_field: str, name: str, content: bytes) -> tuple[bytes, str]:
    """A form with one file, as RFC 7578 has it.

    Returns:
        (the bytes, their content type).
    """
    boundary = f"longtake-{secrets.token_hex(16)}"
    quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    parts = [f'name="{key}"\r\n\r\n{value}'.encode() for key, value in fields.items()]
    head = f'name="{file_field}"; filename="{quoted}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    parts.append(head.encode() + content)
    body = b"".join(f"--{boundary}\r\nContent-Disposition: form-data; ".encode() + part + b"\r\n" for part in parts)
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def free_place(wanted: Path) -> Path:
    """The path itself, or one beside it, numbered, where there is a file already."""
    path, copy = wanted, 1
    while path.exists():
        copy += 1
        path = wanted.with_name(f"{wanted.stem}({copy}){wanted.suffix}")
    return path
