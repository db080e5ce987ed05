"""What the scoring job is compared with: the bare backbone, and a plain script.

Both use all cores as threads of one process.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from nfbmr.config import Config
from nfbmr.data.content import read_bytes
from nfbmr.data.decoding import decode_and_resize
from nfbmr.data.sample import Sample
from nfbmr.model.backbone import create_backbone
from nfbmr.model.detector import Detector
from nfbmr.model.runner import BackboneRunner
from nfbmr.process_memory import keep_freed_memory
from nfbmr.progress import Progress

_IN_MEMORY = 256


def backbone_per_s(config: Config, samples: Sequence[Sample]) -> float:
    """(a): forward passes as the job's actors make them, on decoded pictures in memory."""
    keep_freed_memory()
    size, resampling = config.backbone.image_size_px, config.backbone.resampling
    pixels = [
        decode_and_resize(read_bytes(sample.uri), size, resampling).pixels_HWC.tobytes()
        for sample in samples[:_IN_MEMORY]
    ]
    batch_size = config.run.batch_size
    runner = BackboneRunner(
        config.backbone,
        batch_size=batch_size,
        threads=os.cpu_count(),
        forward=config.run.forward,
    )
    runner.features(pixels[:batch_size])
    done = 0
    started = time.perf_counter()
    while done < len(samples):
        chunk = pixels[: min(len(pixels), len(samples) - done)]
        runner.features(chunk)
        done += len(chunk)
    runner.wait()
    return done / (time.perf_counter() - started)


@torch.inference_mode()
def loop_per_s(
    config: Config, samples: Sequence[Sample], detectors: dict[str, Detector], progress: Progress
) -> float:
    """(b): what a script does without nfbmr's pipeline; written plainly on purpose."""
    torch.set_num_threads(os.cpu_count() or 1)
    backbone = create_backbone(config.backbone)
    size, batch_size = config.backbone.image_size_px, config.run.batch_size
    by_category: dict[str, list[Sample]] = {}
    for sample in samples:
        by_category.setdefault(sample.category, []).append(sample)
    done = 0
    started = time.perf_counter()
    with progress.counter("(b) plain loop", len(samples)) as count:
        for category, own in by_category.items():
            for start in range(0, len(own), batch_size):
                batch = []
                for sample in own[start : start + batch_size]:
                    image = Image.open(io.BytesIO(read_bytes(sample.uri))).convert("RGB")
                    batch.append(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)))
                y_BCHW = backbone(torch.from_numpy(np.stack(batch)))
                detectors[category].score_features(y_BCHW)
                done += len(batch)
                count(done)
    return done / (time.perf_counter() - started)
