"""Which code made a detector."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

from nfbmr import __version__

_GIT_TIMEOUT_S = 10


@functools.cache
def code_version() -> str:
    """Nfbmr's version; in a checkout with git's revision, and ``dirty`` where files differ."""
    commit = os.environ.get("NFBMR_COMMIT")  # Of an image, which has no checkout.
    if commit:
        return f"{__version__}+g{commit}"
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return __version__
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=.dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+g{done.stdout.strip()}"
