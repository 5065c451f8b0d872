"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def atomic(path: Path, mode: str = "w") -> Iterator[IO[str] | IO[bytes]]:
    """Opens a temporary file beside `path` and renames it to `path` when the block ends without an error.

    A process that is killed at any moment leaves the old file, or the new one, never half of it.

    Args:
        path: The file to write; its folder is made where it is missing.
        mode: "w" (UTF-8 text; default) or "wb".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, mode, **({} if "b" in mode else {"encoding": "utf-8", "newline": ""})) as file:
            yield file
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic(path) as file:
        file.write(text)  # type: ignore[call-overload]
