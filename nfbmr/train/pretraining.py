"""Pretraining the small backbone on procedural textures: which class, and where is a defect.

The class is told from the whole picture, the defect at every position of the feature map, so that
features are both descriptive and local. No photograph is used.

Shapes: B pictures, H, W height and width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from nfbmr import storage
from nfbmr.data.surface_defects import DEFECTS, draw_defect
from nfbmr.data.textures import texture_class
from nfbmr.errors import ConfigError
from nfbmr.model.small_backbone import SmallBackbone, create_small_backbone
from nfbmr.model.weights import SMALL_BACKBONE

MEAN = STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class PretrainSettings:
    """How the small backbone is pretrained.

    Attributes:
        seed: of classes, pictures and initial weights.
        classes: texture classes to tell apart.
        pictures_per_class: rendered once, every second one with a defect; cropped anew every epoch.
        held_out_per_class: further pictures for the accuracy.
        size_px: of the rendered pictures; crops are three quarters of it.
        epochs: passes over the pictures.
        batch_size: pictures per step.
        learning_rate: peak of the one-cycle schedule.
    """

    seed: int = 0
    classes: int = 500
    pictures_per_class: int = 16
    held_out_per_class: int = 4
    size_px: int = 128
    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "seed" and value <= 0:
                raise ConfigError(f"--{name.replace('_', '-')} {value}: must be above 0.")


@dataclass(frozen=True)
class PretrainResult:
    """What pretraining reached.

    Attributes:
        network: with its classification head.
        held_out_accuracy: share of held-out pictures whose class is named rightly.
        held_out_defect_auroc: AUROC of the marked defects over held-out map positions.
        losses: mean cross-entropy of every epoch.
        seconds: wall time, rendering included.
    """

    network: SmallBackbone
    held_out_accuracy: float
    held_out_defect_auroc: float
    losses: list[float]
    seconds: float


def _render_class(task: tuple[int, int, PretrainSettings]) -> NDArray[np.uint8]:
    """Pictures of one class and their masks as a fourth channel, (N, H, W, 4); in a worker."""
    label, count, settings = task
    texture = texture_class(settings.seed * 100_000 + label)
    rng = np.random.default_rng((settings.seed, label))
    kinds = list(DEFECTS)
    pictures = []
    for number in range(count):
        defect = kinds[int(rng.integers(len(kinds)))] if number % 2 else None
        image_HWC, normal_HWC = draw_defect(texture, settings.size_px, rng, defect)
        mask_HW1 = (image_HWC != normal_HWC).any(-1, keepdims=True).astype(np.uint8)
        pictures.append(np.concatenate([image_HWC, mask_HW1], axis=-1))
    return np.stack(pictures)


def _render_all(settings: PretrainSettings) -> tuple[Tensor, Tensor]:
    """Training and held-out pictures with masks, (classes, N, H, W, 4) each, uint8."""
    count = settings.pictures_per_class + settings.held_out_per_class
    tasks = [(label, count, settings) for label in range(settings.classes)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        pictures = np.stack(list(pool.map(_render_class, tasks, chunksize=8)))
    both = torch.from_numpy(pictures)
    return both[:, : settings.pictures_per_class], both[:, settings.pictures_per_class :]


def _network_input(pixels_BHWC: Tensor) -> Tensor:
    x_BCHW = pixels_BHWC.permute(0, 3, 1, 2).float() / 255.0
    return ((x_BCHW - MEAN[0]) / STD[0]).contiguous(memory_format=torch.channels_last)


def _batches(
    pixels: Tensor, settings: PretrainSettings, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Random crops with a little change of light, their labels, and where they are defective."""
    classes, per_class = pixels.shape[:2]
    flat = pixels.flatten(0, 1)
    labels = torch.arange(classes).repeat_interleave(per_class)
    crop = settings.size_px * 3 // 4
    for index in torch.randperm(len(flat), generator=generator).split(settings.batch_size):
        top, left = torch.randint(0, settings.size_px - crop + 1, (2,), generator=generator)
        batch = flat[index, top : top + crop, left : left + crop]
        x_BCHW = _network_input(batch[..., :3])
        contrast = 1 + 0.2 * (torch.rand(len(index), 1, 1, 1, generator=generator) - 0.5)
        brightness = 0.2 * (torch.rand(len(index), 1, 1, 1, generator=generator) - 0.5)
        yield x_BCHW * contrast + brightness, labels[index], _defect_map(batch[..., 3])


def _defect_map(mask_BHW: Tensor) -> Tensor:
    """Share of defective pixels in each 16×16 cell of the feature map, (B, 1, H / 16, W / 16)."""
    return functional.avg_pool2d(mask_BHW[:, None].float(), 16, ceil_mode=True)


def pretrain(
    settings: PretrainSettings, say: Callable[[str], None] = lambda text: None
) -> PretrainResult:
    """Render the classes, train, measure on held-out pictures.

    Args:
        settings: how.
        say: takes a line of progress.
    """
    started = time.monotonic()
    torch.manual_seed(settings.seed)
    say(f"Rendering {settings.classes} texture classes")
    training, held_out = _render_all(settings)
    network = create_small_backbone(settings.classes).to(memory_format=torch.channels_last)
    losses = _optimize(network, training, settings, say)
    accuracy, auroc = _held_out(network, held_out)
    say(f"Held-out accuracy {accuracy:.1%}, AUROC of defects per position {auroc:.3f}")
    return PretrainResult(network, accuracy, auroc, losses, time.monotonic() - started)


def _optimize(
    network: SmallBackbone,
    training: Tensor,
    settings: PretrainSettings,
    say: Callable[[str], None],
) -> list[float]:
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    pictures = training.shape[0] * training.shape[1]
    steps = settings.epochs * -(-pictures // settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=settings.learning_rate, total_steps=max(2, steps)
    )
    epoch_losses = []
    network.train()
    for epoch in range(1, settings.epochs + 1):
        losses = []
        for x_BCHW, label_B, defect_B1HW in _batches(training, settings, generator):
            with torch.autocast("cpu", torch.bfloat16):
                h_BCHW = network.features(x_BCHW)
                logits_BK = network.head(h_BCHW.mean((2, 3)))
                defect_logits = network.defect_head(h_BCHW)
            loss = functional.cross_entropy(logits_BK.float(), label_B)
            loss = loss + 5 * functional.binary_cross_entropy_with_logits(
                defect_logits.float(), (defect_B1HW > 0.1).float()
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        epoch_losses.append(float(np.mean(losses)))
        say(f"epoch {epoch}/{settings.epochs}: loss {epoch_losses[-1]:.4f}")
    return epoch_losses


@torch.inference_mode()
def _held_out(network: SmallBackbone, held_out: Tensor) -> tuple[float, float]:
    """Accuracy of the classes, AUROC of the defects, on pictures never seen."""
    network.eval()
    rights, marks, truths = [], [], []
    for label, pixels in enumerate(held_out):
        h_BCHW = network.features(_network_input(pixels[..., :3]))
        rights.append((network.head(h_BCHW.mean((2, 3))).argmax(1) == label).float())
        marks.append(network.defect_head(h_BCHW).flatten())
        truths.append((_defect_map(pixels[..., 3]) > 0.1).flatten())
    auroc = roc_auc_score(torch.cat(truths).numpy(), torch.cat(marks).numpy())
    return float(torch.cat(rights).mean()), float(auroc)


def save_backbone(result: PretrainResult, uri: str, command: str, seed: int) -> int:
    """Write the network without its head, in float16, with where it comes from.

    Args:
        result: of ``pretrain``.
        uri: of the safetensors file.
        command: that makes it again.
        seed: likewise.

    Returns:
        The size of the file in bytes.
    """
    state = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in result.network.state_dict().items()
        if not name.startswith(("head.", "defect_head."))
    }
    metadata = {
        "architecture": SMALL_BACKBONE,
        "kwargs": "{}",
        "mean": ",".join(str(value) for value in MEAN),
        "std": ",".join(str(value) for value in STD),
        "license": "Apache-2.0",
        "source": "procedural textures, nfbmr.data.textures",
        "command": command,
        "seed": str(seed),
        "held_out_accuracy": f"{result.held_out_accuracy:.4f}",
        "held_out_defect_auroc": f"{result.held_out_defect_auroc:.4f}",
    }
    data = safetensors.torch.save(state, metadata)
    storage.write_atomically(storage.absolute_uri(uri), data)
    return len(data)
