"""Atomic writes, so that a file is either complete or not there; plain values as YAML."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

# In C where PyYAML comes with libyaml, which is several times faster.
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
YAML_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


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


def read_yaml(path: Path) -> Any:
    """The plain values in a YAML file that this package wrote; `scenario.yaml_files` reads those that people write.

    Raises:
        OSError, UnicodeDecodeError, yaml.YAMLError: The file cannot be read.
    """
    return yaml.load(path.read_text(encoding="utf-8"), Loader=YAML_LOADER)


def to_yaml(values: Any) -> str:
    """Plain values as YAML, in their order."""
    return yaml.dump(values, Dumper=YAML_DUMPER, sort_keys=False, allow_unicode=True)
