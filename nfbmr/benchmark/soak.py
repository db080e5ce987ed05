"""A long run over many small pictures: does memory stay flat?

Small pictures and a small backbone make a run of many pictures out of an hour of two cores: what
grows with the number of pictures shows, as if millions had been scored.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from nfbmr.benchmark.memory import MemorySample, MemorySampler
from nfbmr.config import Config
from nfbmr.data.procedural import FactorySettings, generate_factory
from nfbmr.errors import DataError, FitError
from nfbmr.progress import Progress, table
from nfbmr.registry import Registry, embedded_uri
from nfbmr.score.run import ScoringRequest, score
from nfbmr.train.campaign import CampaignPaths, run_campaign

SAMPLES_FILE = "memory.parquet"
SERIES = ("driver_bytes", "workers_bytes", "object_store_bytes")
FLAT_SHARE = 0.1
"""The last tenth may differ from the second by this share."""

IN_FLIGHT_BYTES = 32 * 2**20
"""Or by this much: a few batches more or less between two stages, in a store of gigabytes."""

_TARS = 8
_CATEGORIES = 2
_BASE_PICTURES = 64
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class SoakRequest:
    """What to run.

    Attributes:
        pictures: how many.
        config: backbone, heads and resources.
        work_dir: gets the pictures, the models, the scores and the samples.
        interval_s: between samples.
    """

    pictures: int
    config: Config
    work_dir: Path
    interval_s: float = 1.0


@dataclass(frozen=True)
class Soak:
    """What was measured.

    Attributes:
        pictures: rows of the finished data set.
        failed: rows with an error.
        seconds: of scoring, planning and merging included.
        samples: where all of them are.
        second_tenth: mean bytes by series, over the second tenth of the pictures.
        last_tenth: the same over the last tenth.
        largest: largest bytes by series.
        is_flat: whether the last tenth is as the second, in every series; see ``is_flat``.
    """

    pictures: int
    failed: int
    seconds: float
    samples: str
    second_tenth: dict[str, float]
    last_tenth: dict[str, float]
    largest: dict[str, int]
    is_flat: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


class _Done(Progress):
    """Remembers how many pictures are done."""

    done = 0

    @contextmanager
    def counter(
        self, what: str, total: int, drawn: bool = False
    ) -> Iterator[Callable[[int], None]]:
        with super().counter(what, total, drawn) as count:

            def note(done: int) -> None:
                self.done = done
                count(done)

            yield note


def run_soak(request: SoakRequest) -> Soak:
    """Draw the pictures, fit quickly, score them all and sample memory. Needs a Ray session.

    Raises:
        DataError: too few pictures to see a trend.
        FitError: the detectors could not be fitted.
    """
    progress = _Done()
    categories, registry = _detectors(request, progress)
    size_px = request.config.backbone.image_size_px
    progress.say(f"Drawing {request.pictures} pictures of {size_px} px into {_TARS} tars")
    folder = request.work_dir / "soak"
    tars = write_pictures(folder, request.pictures, categories, size_px)
    sampler = MemorySampler(lambda: progress.done, request.interval_s)
    output = str(folder / "scores")
    with sampler.running():
        summary = score(ScoringRequest(tuple(tars), output), registry, request.config.run, progress)
    samples = str(folder / SAMPLES_FILE)
    pq.write_table(pa.Table.from_pylist([asdict(sample) for sample in sampler.samples]), samples)
    second, last = tenth(sampler.samples, 1), tenth(sampler.samples, 9)
    return Soak(
        pictures=summary.pictures,
        failed=summary.failed,
        seconds=sampler.samples[-1].seconds,
        samples=samples,
        second_tenth=second,
        last_tenth=last,
        largest={name: max(getattr(s, name) for s in sampler.samples) for name in SERIES},
        is_flat=is_flat(second, last),
    )


def tenth(samples: list[MemorySample], number: int) -> dict[str, float]:
    """Mean bytes by series over a tenth of the pictures.

    Args:
        samples: of the run.
        number: 0 for the first tenth, 9 for the last.

    Raises:
        DataError: there is no sample in it.
    """
    total = max(sample.pictures for sample in samples)
    low, high = total * number / 10, total * (number + 1) / 10
    # Once all pictures are scored, merging begins and the actors go: that is no tenth of the run.
    working = [sample for sample in samples if sample.workers and sample.pictures < total]
    chosen = [sample for sample in working if low < sample.pictures <= high]
    if not chosen:
        raise DataError(
            f"No sample of memory fell into tenth {number + 1} of the run: ask for more --pictures."
        )
    return {name: float(np.mean([getattr(s, name) for s in chosen])) for name in SERIES}


def is_flat(second: dict[str, float], last: dict[str, float]) -> bool:
    """Whether every series ends within a tenth of where it was, or within ``IN_FLIGHT_BYTES``."""
    return all(
        abs(last[name] - second[name]) <= max(FLAT_SHARE * second[name], IN_FLIGHT_BYTES)
        for name in SERIES
    )


def soak_text(result: Soak) -> str:
    """A row per series, and whether all are flat."""
    rows: list[tuple[object, ...]] = [
        (
            name.removesuffix("_bytes").replace("_", " "),
            result.second_tenth[name] / 2**20,
            result.last_tenth[name] / 2**20,
            f"{result.last_tenth[name] / max(1.0, result.second_tenth[name]) - 1:+.1%}",
            result.largest[name] / 2**20,
        )
        for name in SERIES
    ]
    verdict = "flat" if result.is_flat else "NOT flat"
    header = ("memory, MiB", "second tenth", "last tenth", "change", "largest")
    return (
        f"{table(rows, header)}\n\n{result.pictures} pictures ({result.failed} failed) in "
        f"{result.seconds:.0f} s; after the warm-up, memory is {verdict} (within {FLAT_SHARE:.0%}, "
        f"or {IN_FLIGHT_BYTES / 2**20:.0f} MiB)"
    )


def _detectors(request: SoakRequest, progress: Progress) -> tuple[list[str], Registry]:
    """Categories with detectors of the right shape; memory does not depend on the fit."""
    config = request.config
    settings = FactorySettings(
        categories=_CATEGORIES,
        train=60,
        test_normal=1,
        test_defective=1,
        archive=1,
        size_px=config.backbone.image_size_px,
    )
    factory = generate_factory(request.work_dir / "factory", settings)
    fit = replace(config.fit, flow_epochs=1, mapper_epochs=1, min_steps=1)
    calibration = replace(config.calibration, aggregate="mean", false_alarm_rate=0.2)
    registry = Registry(embedded_uri(str(request.work_dir)))
    results = run_campaign(
        factory.root,
        "mvtec",
        None,
        replace(config, fit=fit, calibration=calibration),
        CampaignPaths.under(str(request.work_dir)),
        registry,
        progress,
    )
    if results.error is not None:
        raise results.error
    failed = [f"{r.category}: {r.decision}" for r in results if r.outcome == "failed"]
    if failed:
        raise FitError("; ".join(failed))
    return [result.category for result in results], registry


def write_pictures(folder: Path, count: int, categories: list[str], size_px: int) -> list[str]:
    """Small JPEG pictures in tars, every one different.

    Args:
        folder: that gets the tars.
        count: pictures in all.
        categories: in turn; the first folder in a picture's name.
        size_px: height and width.

    Returns:
        The tars.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    bases = [_texture(generator, size_px) for _ in range(_BASE_PICTURES)]
    paths = [str(folder / f"pictures-{number}.tar") for number in range(_TARS)]
    for number, path in enumerate(paths):
        with tarfile.open(path, "w") as tar:
            for index in range(number, count, _TARS):
                name = f"{categories[index % len(categories)]}/{index:07d}.jpg"
                _add(tar, name, _encoded(bases[index % _BASE_PICTURES], index, size_px))
    return paths


def _texture(generator: np.random.Generator, size_px: int) -> Image.Image:
    coarse_HWC = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse_HWC).resize((size_px, size_px), Image.Resampling.BICUBIC)


def _encoded(base: Image.Image, index: int, size_px: int) -> bytes:
    """A base picture with one of its pixels in a colour of this picture's own."""
    image = base.copy()
    place = (index % size_px, index // size_px % size_px)
    image.putpixel(place, (index % 256, index // 256 % 256, index // 65536 % 256))
    stream = io.BytesIO()
    image.save(stream, "jpeg", quality=_JPEG_QUALITY, comment=f"{index}".encode())
    return stream.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
