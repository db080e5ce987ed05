"""What ``anomalib predict`` does, timed: PaDiM on a given backbone, size and list of pictures.

A script for an environment of its own (``make peer``); it imports nothing of nfbmr. Its only
argument is a JSON file with ``train`` and ``predict`` (paths of pictures), ``backbone``, ``layer``,
``weights`` (a plain safetensors file), ``image_size_px``, ``batch_size`` and ``folder`` (for what
anomalib writes). The last line of its output is a JSON object.

Two ways are timed, each from the first finished batch to the last: as anomalib comes (it draws a
picture of every map), and without its drawings.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from anomalib.models import Padim
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Resize


class _Marks(Callback):  # type: ignore[misc, unused-ignore]
    """Notes when batches are finished."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def on_predict_batch_end(
        self, trainer: object, module: object, outputs: object, batch: Any, *_: object
    ) -> None:
        done = self.marks[-1][1] if self.marks else 0
        self.marks.append((time.monotonic(), done + len(batch.image)))

    def rate(self) -> float:
        """Pictures per second after the first batch."""
        (started, at_start), (ended, at_end) = self.marks[0], self.marks[-1]
        return (at_end - at_start) / (ended - started)


def _pictures(paths: list[str], request: dict[str, Any]) -> DataLoader[Any]:
    size = request["image_size_px"]
    dataset = PredictDataset(path=paths[0], transform=Resize((size, size), antialias=True))
    dataset.image_filenames = [Path(path) for path in paths]
    return DataLoader(dataset, batch_size=request["batch_size"], collate_fn=dataset.collate_fn)


def _model(request: dict[str, Any], draws: bool) -> Padim:
    size = request["image_size_px"]
    model = Padim(
        backbone=request["backbone"],
        layers=[request["layer"]],
        pre_trained=False,
        n_features=100,
        pre_processor=Padim.configure_pre_processor(image_size=(size, size)),
        visualizer=draws,
    )
    state = safetensors.torch.load_file(request["weights"])
    missing, _ = model.model.feature_extractor.feature_extractor.load_state_dict(state, False)
    if missing:
        raise SystemExit(f"{request['weights']} lacks {missing[:3]} of {request['backbone']}.")
    return model


def _images_per_s(request: dict[str, Any], draws: bool) -> float:
    marks = _Marks()
    engine = Engine(
        default_root_dir=f"{request['folder']}/{'drawn' if draws else 'plain'}",
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        callbacks=[marks],
    )
    model = _model(request, draws)
    _fit(model, _pictures(request["train"], request))
    engine.predict(model=model, dataloaders=_pictures(request["predict"], request))
    return marks.rate()


@torch.no_grad()
def _fit(model: Padim, batches: DataLoader[Any]) -> None:
    """A short fit: speed does not depend on what the Gaussians are."""
    model.train()
    for batch in batches:
        model.model(model.pre_processor.transform(batch.image))
    model.fit()


def main() -> None:
    """Time both ways."""
    request = json.loads(Path(sys.argv[1]).read_text())
    result = {
        "predict_per_s": _images_per_s(request, True),
        "predict_without_drawings_per_s": _images_per_s(request, False),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
