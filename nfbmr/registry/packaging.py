"""The files that let MLflow itself load a version: ``MLmodel`` with loader, signature, packages.

The loader is the module ``nfbmr.pyfunc``, which reads the detector's safetensors and JSON: the
version holds no pickled object.
"""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from nfbmr import __version__

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

LOADER_MODULE = "nfbmr.pyfunc"
_REQUIREMENTS = "requirements.txt"
_PYTHON_ENV = "python_env.yaml"
_PACKAGES = (
    "mlflow",
    "torch",
    "torchvision",
    "timm",
    "FrEIA",
    "safetensors",
    "fsspec",
    "s3fs",
    "boto3",
    "numpy",
    "pandas",
    "pillow",
)


def write_model_files(folder: Path, run_id: str) -> None:
    """Write ``MLmodel``, ``requirements.txt`` and ``python_env.yaml`` into a folder.

    Args:
        folder: exists; its content belongs beside the detector's files.
        run_id: the run that logs them.
    """
    from mlflow import pyfunc
    from mlflow.models import Model

    model = Model(artifact_path="detector", run_id=run_id, signature=signature())
    pyfunc.add_to_model(model, LOADER_MODULE, python_env=_PYTHON_ENV, model_config={"weights": ""})
    model.save(str(folder / "MLmodel"))
    (folder / _REQUIREMENTS).write_text(_requirements())
    (folder / _PYTHON_ENV).write_text(
        f"python: {platform.python_version()}\n"
        f"build_dependencies:\n- pip\ndependencies:\n- -r {_REQUIREMENTS}\n"
    )


def _requirements() -> str:
    pinned = [pin(name, metadata.version(name)) for name in _PACKAGES]
    return "\n".join([f"# Beside nfbmr {__version__} itself, which is in no index.", *pinned, ""])


def pin(name: str, version: str) -> str:
    """A line of ``requirements.txt``, without what names a local build: no public index has one.

    Args:
        name: of the package.
        version: that is installed, as in ``2.11.0+cpu``.
    """
    return f"{name}=={version.partition('+')[0]}"


def signature() -> ModelSignature:
    """One column of pictures in, a table out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    outputs = [
        ColSpec(DataType.string, "status"),
        ColSpec(DataType.string, "error", required=False),
        ColSpec(DataType.double, "score", required=False),
        ColSpec(DataType.double, "threshold"),
        ColSpec(DataType.double, "p_value", required=False),
        ColSpec(DataType.double, "p_value_floor"),
        ColSpec(DataType.long, "calibration_size"),
        ColSpec(DataType.boolean, "is_anomalous", required=False),
        ColSpec(DataType.double, "peak_x", required=False),
        ColSpec(DataType.double, "peak_y", required=False),
    ]
    return ModelSignature(
        # No type of MLflow's is both bytes and arrays.
        inputs=Schema([ColSpec(AnyType())]),
        outputs=Schema(outputs),
        params=ParamSchema([ParamSpec("anomaly_maps", DataType.boolean, False)]),
    )
