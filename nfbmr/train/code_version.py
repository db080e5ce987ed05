"""Which code made a detector."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

from nfbmr import __version__

_GIT_TIMEOUT_S = 10
_COMMIT_FILE = "commit.txt"
"""Of the package; a placeholder, for which ``git archive`` writes the commit (.gitattributes)."""


@functools.cache
def code_version() -> str:
    """Nfbmr's version and git's revision of the running code, ``dirty`` where files differ.

    Without a revision where the code does not say which one it is.
    """
    commit = commit_of(Path(__file__).parents[1], os.environ.get("NFBMR_COMMIT"), Path(sys.prefix))
    return f"{__version__}+g{commit}" if commit else __version__


def commit_of(package: Path, of_image: str | None, environment: Path) -> str | None:
    """The commit of a package: what lies beside the code counts before what an image says.

    A job may bring code of its own into an image, as an archive or a checkout.

    Args:
        package: folder of the code that runs.
        of_image: the commit that the image was built from.
        environment: where the image's packages are installed; ``of_image`` is theirs alone.
    """
    archived = _archived(package)
    if archived or (package.parent / ".git").exists():
        return archived or _checked_out(package.parent)
    return (of_image or None) if package.is_relative_to(environment) else None


def _archived(package: Path) -> str | None:
    """What ``git archive`` has written; None where the placeholder is left."""
    try:
        text = (package / _COMMIT_FILE).read_text().strip()
    except OSError:
        return None
    return text if re.fullmatch(r"[0-9a-f]{4,64}", text) else None


def _checked_out(root: Path) -> str | None:
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=.dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
