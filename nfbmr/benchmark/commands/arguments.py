"""What several kinds of benchmark share: data, weights, places, settings."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from nfbmr.benchmark.accuracy import AccuracyRequest
from nfbmr.cli import add_config_arguments, config_of
from nfbmr.config import Config
from nfbmr.data.layouts import LAYOUTS
from nfbmr.errors import ConfigError

Kinds = Any
"""What ``argparse.ArgumentParser.add_subparsers`` returns; its class has no public name."""

DEFAULT_IMAGE_SIZE_PX = 384


def add_labelled_data(parser: argparse.ArgumentParser) -> None:
    """Labelled pictures, the backbone's weights, and where to work."""
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
    add_places(parser)


def add_places(parser: argparse.ArgumentParser) -> None:
    """Where to work, where to write, and all settings."""
    parser.add_argument(
        "--work-dir", help="keep features and models here (default: a temporary folder)"
    )
    add_json(parser)
    parser.add_argument("--ray-address", metavar="ADDRESS", help="default: this machine")
    add_config_arguments(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Where the last line of the output goes as well."""
    parser.add_argument("--json", metavar="FILE", help="write the last line's object here as well")


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """Which fits to make."""
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1], help="one fit each (default: 0 1)"
    )


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


def labelled_request(arguments: argparse.Namespace, work_dir: Path) -> AccuracyRequest:
    """What to fit and to judge.

    Raises:
        ConfigError: a seed is given twice.
    """
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
