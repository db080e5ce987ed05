"""On ``PYTHONPATH`` this makes some pictures kill whatever process decodes them, as a crash does.

Workers are processes of Ray's: nothing else of a test gets into them before they decode.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

KILLER = b"-- this picture kills its decoder --"
"""What the bytes of such a picture end with."""

_MODULE = "nfbmr.data.picture_file"


class _Patching(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module as ever, and changes it then."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        self._real, spec.loader = spec.loader, self
        return spec

    def exec_module(self, module: ModuleType) -> None:
        self._real.exec_module(module)
        real = module.open_upright

        def open_upright(data: bytes, *others: Any) -> Any:
            if data.endswith(KILLER):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(data, *others)

        module.open_upright = open_upright  # type: ignore[attr-defined]


if __name__ == "sitecustomize":  # Not where a test wants to know the mark.
    sys.meta_path.insert(0, _Patching())
