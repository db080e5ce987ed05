"""Measure how accurate and how fast nfbmr is on given pictures and weights, and how steady.

The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import torch

from nfbmr import __version__
from nfbmr.benchmark.ablation import ablation_json, ablation_table, measure_ablation
from nfbmr.benchmark.accuracy import (
    AccuracyRequest,
    CategoryAccuracy,
    Spread,
    mean_over_categories,
    measure_accuracy,
    variants,
)
from nfbmr.benchmark.driver_cost import measure_driver
from nfbmr.benchmark.fit_speed import FitSpeedRequest, measure_fit_speed
from nfbmr.benchmark.fit_ways import FIT_SPEED_HEADER, fit_speed_rows
from nfbmr.benchmark.gpu import Sizes, measure_device
from nfbmr.benchmark.gpu_table import device_table
from nfbmr.benchmark.packing import KINDS
from nfbmr.benchmark.plan import measure_planning
from nfbmr.benchmark.scale import Cluster, Prices, check_against
from nfbmr.benchmark.scale_report import (
    GPU_COUNTS,
    PICTURE_COUNTS,
    costs_of,
    forecasts,
    read_jobs,
    scale_text,
)
from nfbmr.benchmark.soak import SoakRequest, run_soak, soak_text
from nfbmr.benchmark.throughput import ThroughputRequest, measure_throughput
from nfbmr.benchmark.throughput_table import throughput_text
from nfbmr.cli import add_config_arguments, config_of, run_job
from nfbmr.config import Config, load_config
from nfbmr.data.layouts import LAYOUTS
from nfbmr.errors import ConfigError
from nfbmr.evaluate import describe_rate
from nfbmr.model.precision import BFLOAT16
from nfbmr.progress import Progress, table
from nfbmr.session import ray_session

DEFAULT_IMAGE_SIZE_PX = 384
SOAK_SIZE_PX = 64


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jobs/benchmark.py",
        description=__doc__,
        epilog="example:\n  python jobs/benchmark.py accuracy --layout mtd --data /data/mtd "
        "--weights mobilenetv2.safetensors\n"
        "  python jobs/benchmark.py fit --layout mtd --data /data/mtd "
        "--weights mobilenetv2.safetensors\n"
        "  python jobs/benchmark.py ablation --layout mvtec --data /data/mvtec --preset paper\n"
        "  python jobs/benchmark.py ablation --layout dagm --data /data/dagm --preset paper",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    accuracy = kinds.add_parser("accuracy", help="image AUROC of every map and aggregate")
    _add_common(accuracy)
    accuracy.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1], help="one fit each (default: 0 1)"
    )
    accuracy.set_defaults(run=_accuracy)
    throughput = kinds.add_parser("throughput", help="images/s: backbone, plain loop, scoring job")
    _add_common(throughput)
    throughput.add_argument(
        "--pictures", type=int, default=2000, help="pictures to score (default: %(default)s)"
    )
    _add_throughput(throughput)
    gpu = kinds.add_parser("gpu", help="images/s of one device beside its measured ceilings")
    _add_gpu(gpu)
    fit = kinds.add_parser("fit", help="seconds of a fit, against the paper's loop")
    _add_common(fit)
    fit.add_argument(
        "--epochs", type=int, default=2, help="timed per stage, 2 or more (default: %(default)s)"
    )
    fit.add_argument("--compile", action="store_true", help="time a compiled step as well")
    fit.set_defaults(run=_fit)
    ablation = kinds.add_parser("ablation", help="the five rows of the paper's Table 5")
    _add_common(ablation)
    ablation.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="default: 0 1")
    ablation.set_defaults(run=_ablation)
    _add_scale(kinds.add_parser("scale", help="reckon a run on many GPUs, and what breaks"))
    plan = kinds.add_parser("plan", help="time and memory of planning, apart from listing")
    plan.add_argument(
        "--pictures", type=int, default=1_000_000, help="to plan (default: %(default)s)"
    )
    plan.add_argument("--json", metavar="FILE", help="write the last line's object here as well")
    add_config_arguments(plan)
    plan.set_defaults(run=_plan, work_dir=None, ray_address=None)
    _add_soak(kinds.add_parser("soak", help="memory over a long run of small drawn pictures"))
    return parser


def _add_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--throughput",
        required=True,
        metavar="FILE",
        help="that throughput --json FILE wrote",
    )
    parser.add_argument(
        "--gpu-per-s", type=float, required=True, help="images/s of one GPU, backbone and heads"
    )
    parser.add_argument(
        "--gpu-measured", action="store_true", help="--gpu-per-s was measured, not assumed"
    )
    parser.add_argument("--gpus", type=int, nargs="+", default=list(GPU_COUNTS))
    parser.add_argument("--pictures", type=int, nargs="+", default=list(PICTURE_COUNTS))
    parser.add_argument("--picture-bytes", type=float, default=700_000, help="encoded")
    parser.add_argument("--unit-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--driver-gib", type=float, default=32, help="default: %(default)s")
    parser.add_argument("--gpu-hour", type=float, default=2.0, help="price; default: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write the last line's object here as well")
    parser.add_argument("--ray-address", metavar="ADDRESS", help="default: this machine")
    parser.set_defaults(run=_scale, work_dir=None)


def _add_soak(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pictures", type=int, default=200_000, help="pictures to score (default: %(default)s)"
    )
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="S", help="between samples of memory"
    )
    _add_places(parser)
    parser.set_defaults(run=_soak)


def _add_throughput(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--archives",
        nargs="+",
        choices=KINDS,
        default=["prefix"],
        metavar="KIND",
        help=f"kinds of archives to score from: {', '.join(KINDS)} (default: prefix)",
    )
    parser.add_argument(
        "--store",
        metavar="URI",
        help="score from here as well, for example s3://bucket/benchmark: the pictures are copied",
    )
    parser.add_argument("--endpoint", metavar="URL", help="of the object store: AWS_ENDPOINT_URL")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[], metavar="N", help="actors to compare: 1 2"
    )
    parser.add_argument(
        "--accuracy",
        action="store_true",
        help="fit in full and compare the AUROC of fast and plain forward passes",
    )
    parser.add_argument(
        "--peer", metavar="PYTHON", help="time anomalib as well: .venv-anomalib/bin/python"
    )
    parser.set_defaults(run=_throughput)


def _add_gpu(parser: argparse.ArgumentParser) -> None:
    defaults = Sizes()
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size)
    parser.add_argument(
        "--matrix", type=int, default=defaults.matrix, help="side of the matmul ceiling's matrices"
    )
    parser.add_argument(
        "--copy-mib", type=int, default=defaults.copy_mib, help="buffers of the memory ceilings"
    )
    parser.add_argument(
        "--seconds", type=float, default=defaults.least_s, help="of every measurement, at least"
    )
    parser.add_argument("--json", metavar="FILE", help="write the last line's object here as well")
    add_config_arguments(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, help="labelled data root")
    parser.add_argument("--layout", default="auto", help=f"{', '.join(LAYOUTS)} or auto")
    parser.add_argument("--categories", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--weights", help="safetensors file of the backbone (path or URI)")
    parser.add_argument(
        "--image-size",
        type=int,
        metavar="PX",
        help=f"default: the preset's or configuration's, else {DEFAULT_IMAGE_SIZE_PX}",
    )
    _add_places(parser)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work-dir", help="keep features and models here (default: a temporary folder)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the last line's object here as well")
    parser.add_argument("--ray-address", metavar="ADDRESS", help="default: this machine")
    add_config_arguments(parser)


def benchmark_config(arguments: argparse.Namespace) -> Config:
    """The configuration of the command line, with ``--weights`` and ``--image-size``."""
    config = config_of(arguments)
    backbone = config.backbone
    if arguments.weights:
        # Name and layer of the preset stay where it names them; else the file's header says.
        backbone = replace(backbone, weights=arguments.weights)
    given = any(text.startswith("backbone.image_size_px") for text in arguments.overrides)
    if arguments.image_size:
        backbone = replace(backbone, image_size_px=arguments.image_size)
    elif not (given or arguments.config or arguments.preset):
        backbone = replace(backbone, image_size_px=DEFAULT_IMAGE_SIZE_PX)
    return replace(config, backbone=backbone)


def machine() -> dict[str, object]:
    """What was measured on."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "gpus": gpus,
        "torch": torch.__version__,
        "nfbmr": __version__,
    }


def accuracy_table(results: Sequence[CategoryAccuracy]) -> str:
    """Maps as rows, aggregates as columns; then a row per category and seed."""
    by_map = variants(results)
    aggregates = list(next(iter(by_map.values())))
    rows = [[name, *(str(spread) for spread in row.values())] for name, row in by_map.items()]
    header = ("category", "seed", "test pictures", "image AUROC", "aggregate", "false alarms", "s")
    fits = [
        (
            r.category,
            r.seed,
            r.pictures,
            r.image_auroc,
            r.aggregate,
            describe_rate(r.false_alarms),
            round(r.fit_s),
        )
        for r in results
    ]
    return f"{table(rows, ('map', *aggregates))}\n\n{table(fits, header)}"


def _labelled_request(arguments: argparse.Namespace, work_dir: Path) -> AccuracyRequest:
    if len(set(arguments.seeds)) != len(arguments.seeds):
        raise ConfigError(f"--seeds {arguments.seeds}: every seed once.")
    return AccuracyRequest(
        arguments.data,
        arguments.layout,
        arguments.categories,
        benchmark_config(arguments),
        arguments.seeds,
        work_dir,
    )


def _accuracy(arguments: argparse.Namespace, work_dir: Path) -> dict[str, object]:
    request = _labelled_request(arguments, work_dir)
    started = time.monotonic()
    results = measure_accuracy(request, Progress())
    print(f"\n{accuracy_table(results)}\n")
    print("\n".join(sentence for result in results for sentence in result.verdicts()) + "\n")
    default = mean_over_categories(results, lambda result: result.image_auroc)
    return {
        "benchmark": "accuracy",
        "image_auroc": default.mean,
        "image_auroc_spread": default.spread,
        "seconds": time.monotonic() - started,
        "seeds": arguments.seeds,
        "image_size_px": request.config.backbone.image_size_px,
        "variants": _plain(variants(results)),
        "categories": [_with_verdicts(result) for result in results],
    }


def _with_verdicts(result: CategoryAccuracy) -> dict[str, object]:
    return {
        **asdict(result),
        "best_aggregate": result.best_aggregate,
        "lost_points": result.lost_points,
        "false_alarms_as_requested": result.false_alarms_as_requested,
    }


def _fit(arguments: argparse.Namespace, work_dir: Path) -> dict[str, object]:
    if arguments.epochs < 2:
        raise ConfigError(f"--epochs {arguments.epochs}: at least 2, the first only warms up.")
    if arguments.categories and len(arguments.categories) > 1:
        raise ConfigError(f"--categories {' '.join(arguments.categories)}: a fit is of one.")
    result = measure_fit_speed(
        FitSpeedRequest(
            arguments.data,
            arguments.layout,
            arguments.categories[0] if arguments.categories else None,
            benchmark_config(arguments),
            arguments.epochs,
            arguments.compile,
            work_dir,
        ),
        Progress(),
    )
    print(f"\n{result.pictures} pictures of {result.category}, {result.features_s:.0f} s of every")
    print("cached way are the one pass of the backbone\n")
    print(f"{table(fit_speed_rows(result), FIT_SPEED_HEADER)}\n")
    if result.default.gpu_peak_mib is not None:
        total_mib = torch.cuda.get_device_properties(0).total_memory / 2**20
        together = int(total_mib / result.default.gpu_peak_mib)
        print(f"A default fit took {result.default.gpu_peak_mib:.0f} MiB of the GPU: its memory")
        print(f"holds {together} fits side by side\n")
    return {"benchmark": "fit", **result.as_dict()}


def _ablation(arguments: argparse.Namespace, work_dir: Path) -> dict[str, object]:
    request = _labelled_request(arguments, work_dir)
    started = time.monotonic()
    results = measure_ablation(request, Progress())
    print(f"\n{ablation_table(results)}\n")
    return {
        **ablation_json(results),
        "seconds": time.monotonic() - started,
        "seeds": arguments.seeds,
        "image_size_px": request.config.backbone.image_size_px,
        "settings": request.config.as_dict(),
    }


def _plain(spreads: dict[str, dict[str, Spread]]) -> dict[str, dict[str, dict[str, object]]]:
    return {m: {a: asdict(spread) for a, spread in row.items()} for m, row in spreads.items()}


def _throughput(arguments: argparse.Namespace, work_dir: Path) -> dict[str, object]:
    request = ThroughputRequest(
        arguments.data,
        arguments.layout,
        arguments.categories,
        benchmark_config(arguments),
        arguments.pictures,
        work_dir,
        cores=os.cpu_count() or 1,
        kinds=arguments.archives,
        store=arguments.store,
        workers=arguments.workers,
        accuracy=arguments.accuracy,
        peer=arguments.peer,
    )
    result = measure_throughput(request, Progress())
    print(f"\n{throughput_text(result)}\n")
    return {"benchmark": "throughput", **result.as_dict()}


def _plan(arguments: argparse.Namespace, _: Path) -> dict[str, object]:
    result = measure_planning(arguments.pictures, config_of(arguments).run.unit_size)
    rows = [[step, seconds] for step, seconds in result.seconds.items()]
    print(f"\n{table(rows, (f'{result.pictures} pictures', 's'))}\n")
    print(
        f"{result.units} units; resident at most {result.resident_peak_mib:.0f} MiB, of which "
        f"{result.resident_before_mib:.0f} MiB before planning"
    )
    return {"benchmark": "plan", **result.as_dict()}


def _soak(arguments: argparse.Namespace, work_dir: Path) -> dict[str, object]:
    config = config_of(arguments)
    if not (arguments.config or arguments.preset or arguments.overrides):
        config = load_config(preset="small", overrides=[f"backbone.image_size_px={SOAK_SIZE_PX}"])
    request = SoakRequest(arguments.pictures, config, work_dir, arguments.interval)
    result = run_soak(request)
    print(f"\n{soak_text(result)}\n")
    return {"benchmark": "soak", **result.as_dict()}


def _gpu(arguments: argparse.Namespace) -> dict[str, object]:
    """By default the paper's network, size and heads, with forward passes in bfloat16."""
    if not (arguments.preset or arguments.config):
        arguments.preset = "paper"
    config = config_of(arguments)
    if not any(text.startswith("backbone.precision") for text in arguments.overrides):
        config = replace(config, backbone=replace(config.backbone, precision=BFLOAT16))
    sizes = Sizes(
        batch_size=arguments.batch_size,
        unit_size=config.run.unit_size,
        matrix=arguments.matrix,
        copy_mib=arguments.copy_mib,
        least_s=arguments.seconds,
    )
    rates = measure_device(config, sizes, Progress())
    print(f"\n{device_table(rates)}\n")
    return {"benchmark": "gpu", **rates.as_dict()}


def _finish(result: dict[str, object], file: str | None) -> int:
    line = json.dumps({**result, "machine": machine()})
    if file:
        Path(file).write_text(line + "\n")
    print(line)
    return 0


def _scale(arguments: argparse.Namespace, work_dir: Path) -> dict[str, object]:
    del work_dir
    found_jobs = read_jobs(arguments.throughput)
    driver = measure_driver(pictures=200_000, units=1000, unit_size=arguments.unit_size)
    assumed = ["size of a picture", "prices", "store's requests/s", "network"]
    assumed += [] if arguments.gpu_measured else ["images/s of a GPU"]
    most = max(found_jobs, key=lambda job: float(job["actors"]))
    costs = costs_of(most, driver, arguments.gpu_per_s, arguments.picture_bytes, assumed)
    cluster = Cluster(1, unit_size=arguments.unit_size, driver_bytes=arguments.driver_gib * 2**30)
    prices = Prices(gpu_hour=arguments.gpu_hour)
    found = forecasts(costs, cluster, arguments.gpus, arguments.pictures, prices)
    print(f"\n{scale_text(costs, cluster, found, found_jobs)}\n")
    return {
        "benchmark": "scale",
        "costs": asdict(costs),
        "forecasts": [run.as_dict() for run in found],
        "checked": check_against(found_jobs),
    }


def _run(arguments: argparse.Namespace) -> int:
    if arguments.kind == "gpu":
        return _finish(_gpu(arguments), arguments.json)
    if getattr(arguments, "endpoint", None):
        # Workers of a local Ray inherit it.
        os.environ["AWS_ENDPOINT_URL"] = arguments.endpoint
    with ExitStack() as stack:
        folder = arguments.work_dir or stack.enter_context(
            tempfile.TemporaryDirectory(prefix="nfbmr-benchmark-")
        )
        if arguments.run is not _plan:
            stack.enter_context(ray_session(arguments.ray_address))
        return _finish(arguments.run(arguments, Path(folder).absolute()), arguments.json)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_job(lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())
