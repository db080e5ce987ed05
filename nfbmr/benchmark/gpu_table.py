"""What was measured on one device, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from nfbmr.benchmark.fit_ways import PAPER_EPOCHS
from nfbmr.benchmark.fits_together import FitsTogether
from nfbmr.benchmark.gpu import DeviceRates
from nfbmr.progress import table


def device_table(rates: DeviceRates) -> str:
    """Ceilings first, then what nfbmr reaches."""
    rows: list[tuple[object, ...]] = [
        ("matmul, bfloat16 (ceiling)", rates.matmul_tflop_per_s, "TFLOP/s", None),
        ("copy on the device (ceiling)", rates.copy_gb_per_s, "GB/s", None),
        ("upload, page-locked (ceiling)", rates.upload_gb_per_s, "GB/s", None),
    ]
    for name, per_s, gflop in (
        ("backbone", rates.backbone_per_s, rates.backbone_gflop),
        ("heads", rates.heads_per_s, rates.heads_gflop),
        ("actor: upload, backbone, heads", rates.actor_per_s, _all_gflop(rates)),
    ):
        rows.append((name, per_s, "images/s", rates.share_of_matmul(per_s, gflop)))
    return table(rows, (f"{rates.device}, {rates.numerics}", "", "unit", "of matmul"))


def _all_gflop(rates: DeviceRates) -> float:
    return rates.backbone_gflop + rates.heads_gflop


def fits_table(results: Sequence[FitsTogether]) -> str:
    """A row for each number of fits at the same time."""
    rows: list[tuple[object, ...]] = [
        (
            result.fits,
            f"{result.flow_epoch_s:.3f}",
            f"{result.mapper_epoch_s:.3f}",
            f"{result.category_s:.0f}",
            f"{result.categories_per_hour:.1f}",
            None if result.peak_mib is None else f"{result.peak_mib:.0f}",
        )
        for result in results
    ]
    total = f"s for {PAPER_EPOCHS} + {PAPER_EPOCHS} (extrapolated)"
    header = ("fits", "s/flow epoch", "s/mapper epoch", total, "categories/h", "MiB each")
    return table(rows, header)
