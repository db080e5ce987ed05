"""Compiling a step with ``torch.compile``, where the machine has a compiler."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
R = TypeVar("R")


def compiler_available(device: torch.device) -> bool:
    """Whether ``torch.compile`` can make code: with Triton for a GPU, else with a C++ compiler."""
    if device.type == "cuda":
        return importlib.util.find_spec("triton") is not None
    names = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    return any(shutil.which(name) for name in names if name)


def compiled(function: Callable[P, R], device: torch.device) -> Callable[P, R]:
    """The function compiled for a device; the function itself where there is no compiler."""
    if not compiler_available(device):
        return function
    return cast("Callable[P, R]", torch.compile(function))
