"""What was measured on one device, as a table."""

from __future__ import annotations

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
