"""Atomic writes: a file is either complete or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Writes a file in one rename: a process killed at any moment leaves the old file or the new one, never half of it.

    A missing folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)  # mkstemp's own mode would hide the file from everybody else
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file in one rename."""
    write_bytes(path, text.encode())
