"""Another program on the same pictures: ``anomalib predict``, in an environment of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch

from nfbmr.config import Config
from nfbmr.data.sample import Sample
from nfbmr.errors import ConfigError
from nfbmr.model.backbone import create_backbone

_SCRIPT = Path(__file__).with_name("anomalib_predict.py")
_TRAIN_PICTURES = 128


def time_anomalib(
    python: str, config: Config, samples: Sequence[Sample], folder: Path
) -> dict[str, float]:
    """Images per second of PaDiM's prediction, as anomalib comes and without its drawings.

    Args:
        python: of the environment in which anomalib is installed (``make peer``).
        config: of the backbone: network, layer, weights, size and batch size are the same.
        samples: the pictures, on a local disk.
        folder: for what it writes.

    Raises:
        ConfigError: there is no such environment, or anomalib failed there.
    """
    backbone = create_backbone(config.backbone)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "backbone.safetensors"
    state = {name: tensor.contiguous() for name, tensor in backbone.network.state_dict().items()}
    safetensors.torch.save_file(state, weights)
    paths = [sample.uri for sample in samples]
    request = {
        "train": paths[:_TRAIN_PICTURES],
        "predict": paths,
        "backbone": backbone.settings.name,
        "layer": backbone.settings.layer,
        "weights": str(weights),
        "image_size_px": backbone.settings.image_size_px,
        "batch_size": config.run.batch_size,
        "folder": str(folder / "anomalib"),
    }
    file = folder / "request.json"
    file.write_text(json.dumps(request))
    try:
        done = subprocess.run(
            [python, str(_SCRIPT), str(file)],
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no environment with anomalib at {python}: make it with `make peer`, or "
            "leave --peer out."
        ) from error
    except subprocess.CalledProcessError as error:
        raise ConfigError(
            f"anomalib in {python} failed: {error.stderr.strip().splitlines()[-1:]}. Make its "
            "environment anew with `make peer`."
        ) from error
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
