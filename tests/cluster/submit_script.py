"""``cluster/submit.py`` as a module: it is a script beside the manifests, in no package."""

import importlib.util
import sys
from types import ModuleType

from tests.cluster.manifests import CLUSTER


def load_script() -> ModuleType:
    """The script, not run."""
    spec = importlib.util.spec_from_file_location("nfbmr_submit", CLUSTER / "submit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look their types up
    spec.loader.exec_module(module)
    return module
