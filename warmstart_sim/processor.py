"""What this machine's processor and its compiler can do. Importing this module never imports torch."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from pathlib import Path

BF16 = {"avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX", "bf16": "Arm's BF16"}  # as /proc/cpuinfo calls them


@functools.cache
def bf16_instructions() -> str | None:
    """The name of the processor's instructions for bfloat16; empty if it has none, None if that is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return next((name for flag, name in BF16.items() if flag in flags), "")


def cpp_compiler() -> str | None:
    """The path of the C++ compiler that torch.compile uses on a CPU, or None."""
    return shutil.which(os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++"))
