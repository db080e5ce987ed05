"""Valid input of every kind that is parsed, small, made the same every time."""

import datetime
import gzip
import io
import json
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from nfbmr.data.archive_entry import ArchiveEntry
from nfbmr.data.archives import join_slices, lister_of
from nfbmr.data.lister import SliceListing
from nfbmr.model.calibration import Calibration
from nfbmr.model.detector import Detector
from nfbmr.model.flow import FlowSettings
from nfbmr.model.heads import Heads, HeadsSettings
from nfbmr.model.mapper import MapperSettings
from nfbmr.model_version import ModelVersion
from nfbmr.registry.promotions import Promotion
from nfbmr.score.listing_store import to_bytes
from nfbmr.score.plan import Plan, PlannedModel, PlannedPicture, pictures_table
from nfbmr.score.plan_files import PLAN_FOLDER, save_plan
from nfbmr.score.planned_units import cut_units
from nfbmr.score.schema import missing_map, score_schema
from nfbmr.train.campaign_result import CategoryResult
from nfbmr.train.category_task import REPORT_FILE
from nfbmr.train.evidence import EVIDENCE_FILE
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.fit_state import StageState
from tests.registry.finished_fit import finished_fit

_EXIF_TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


BACKBONE_KEY = "key"
ENTRY = "ab"

IDENTITY = {
    "name": "nfbmr_small",
    "layer": "layer3",
    "kwargs": {"act_layer": "relu", "layers": [1, 2]},
    "image_size_px": 64,
    "resampling": "bilinear",
    "precision": "float32",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "weights_hash": "5" * 64,
}
"""Of a backbone that nobody builds."""


def _image(mode: str, size: tuple[int, int] = (24, 17)) -> Image.Image:
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels_HWC).convert(mode)


def _encoded(mode: str, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image = _image(mode)
    if mode == "F":
        image = Image.fromarray(np.asarray(image) / np.float32(255))
    image.save(file, kind, **options)
    return file.getvalue()


_ROWS_PER_STRIP = 278


def pictures() -> list[bytes]:
    """Pictures of every format, in the modes that cameras and tools write."""
    return [
        _encoded("RGB", "JPEG", quality=80),
        _encoded("RGB", "JPEG", progressive=True, exif=_EXIF_TURNED),
        _encoded("L", "JPEG"),
        _encoded("CMYK", "JPEG"),
        _encoded("RGB", "PNG"),
        _encoded("RGBA", "PNG"),
        _encoded("P", "PNG", transparency=3),
        _encoded("1", "PNG"),
        _encoded("I;16", "PNG"),
        _encoded("RGB", "BMP"),
        _encoded("P", "BMP"),
        _encoded("RGB", "TIFF"),
        _encoded("L", "TIFF", tiffinfo={_ROWS_PER_STRIP: 1}, strip_size=1),
        _encoded("F", "TIFF"),
        _encoded("RGB", "TIFF", compression="tiff_lzw"),
        _encoded("L", "TIFF", compression="tiff_adobe_deflate"),
        _encoded("RGB", "TIFF", compression="jpeg"),
        _encoded("RGB", "WEBP"),
        _encoded("RGBA", "WEBP", lossless=True),
    ]


def _members() -> dict[str, bytes]:
    small = _encoded("L", "PNG")
    return {
        "bottle/001.png": small,
        "bottle/" + "long/" * 40 + "002.png": small,
        "bottle/ümläut.png": small[:700],
        "notes.txt": b"no picture",
    }


def tars() -> list[bytes]:
    """Tar archives in three dialects, one with links and a folder."""
    found = []
    for dialect in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=dialect) as tar:
            for name, data in _members().items():
                if dialect == tarfile.USTAR_FORMAT and len(name) > 100:
                    continue
                info = tarfile.TarInfo(name)
                info.size = len(data)
                if dialect == tarfile.PAX_FORMAT:
                    info.pax_headers = {"comment": "x" * 50}
                tar.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("bottle/link.png")
            link.type, link.linkname = tarfile.LNKTYPE, "bottle/001.png"
            tar.addfile(link)
            folder = tarfile.TarInfo("bottle/more")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
        found.append(file.getvalue())
    return found


def compressed_tars() -> list[bytes]:
    """The same, compressed."""
    return [gzip.compress(data, mtime=0) for data in tars()]


def indexed_tar(folder: Path) -> tuple[list[ArchiveEntry], Path]:
    """The pictures of a compressed tar in a folder, and where its seek index lies."""
    path = folder / "indexed.tar.gz"
    if not path.exists():
        path.write_bytes(compressed_tars()[0])
    lister = lister_of(str(path), str(folder / "indexes"))
    listing = join_slices(lister, [lister.list_slice(name) for name in lister.slices])
    return listing.entries, Path(str(listing.lookup))


def seek_index() -> bytes:
    """The seek index of a compressed tar."""
    with tempfile.TemporaryDirectory(prefix="nfbmr-fuzz-") as folder:
        return indexed_tar(Path(folder))[1].read_bytes()


def zips() -> list[bytes]:
    """Stored, deflated and streamed zips."""
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        for is_streamed in (False, True):
            file = _Unseekable() if is_streamed else io.BytesIO()
            with zipfile.ZipFile(file, "w", method) as archive:
                for name, data in _members().items():
                    archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), data)
            found.append(file.getvalue())
    return found


class _Unseekable(io.BytesIO):
    """Makes ``zipfile`` write sizes behind the data, as a stream does."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: object) -> int:
        raise OSError("a stream")

    def tell(self) -> int:
        raise OSError("a stream")


def detector() -> Detector:
    """A small detector of the embedded backbone's shape."""
    torch.manual_seed(0)
    settings = HeadsSettings(
        FlowSettings(hidden_channels=8), MapperSettings(latent_channels=4, block_channels=2)
    )
    return Detector(
        category="bottle",
        backbone=IDENTITY,
        weights="embedded",
        heads=Heads((8, 2, 2), settings).eval().requires_grad_(False),
        aggregate="top10",
        calibration=Calibration.from_scores([0.5, 1.0, 1.5, 2.0]),
        false_alarm_rate=0.25,
        lineage={"pictures_fitted": 16},
    )


def detector_files(folder: Path) -> dict[str, bytes]:
    """The files of a saved detector by name."""
    detector().save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def plan_files(output: Path) -> dict[str, bytes]:
    """The files of a saved plan by name."""
    version = ModelVersion("bottle", "nfbmr-bottle", "1", "r", str(output), ("champion",), {}, 0.0)
    model = PlannedModel(version, {"image_size_px": 64, "resampling": "bilinear"}, "x", (8, 2, 2))
    pictures = pictures_table(
        PlannedPicture(f"/a/bottle/{n}.png", "/a", f"bottle/{n}.png", None, 9, "v", "bottle")
        for n in range(10)
    )
    plan = Plan("run", {"sources": ["/a"]}, {"bottle": model}, {}, cut_units(pictures, 4))
    save_plan(plan, pictures, str(output))
    return {path.name: path.read_bytes() for path in (output / PLAN_FOLDER).iterdir()}


def unit() -> bytes:
    """The file of a committed unit."""
    schema = score_schema({4})
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    row = {
        "image_uri": "/a/1.png",
        "category": "bottle",
        "status": "error",
        "anomaly_map": missing_map(schema),
        "run_id": "run",
        "scored_at": now,
    }
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row], schema=schema), file)
    return file.getvalue()


def features(root: Path) -> bytes:
    """The file of an entry of a feature cache under a root; see ``ENTRY``."""
    FeatureCache(str(root), BACKBONE_KEY).write(ENTRY, torch.zeros(8, 2, 2))
    (path,) = root.rglob("*.features")
    return path.read_bytes()


def configurations() -> list[bytes]:
    """TOML files with every section."""
    return [
        b'preset = "small"\n[backbone]\nname = "resnet18"\nimage_size_px = 128\n'
        b"[flow]\ncoupling_blocks = 2\nclamp = 1.9\n[fit]\nseed = 3\nflow_epochs = 10\n"
        b"[calibration]\nfalse_alarm_rate = 0.1\n[run]\nunit_size = 8\n",
        b"standardize = false\n[mapper]\nresidual_blocks = 1\n[backbone.kwargs]\nx = [1, 2]\n",
    ]


def finished_files(folder: Path) -> dict[str, bytes]:
    """What a finished fit has besides its detector."""
    fit = finished_fit(folder)
    return {name: (fit.folder / name).read_bytes() for name in (REPORT_FILE, EVIDENCE_FILE)}


def night() -> bytes:
    """What an unfinished night says of itself."""
    values = {
        "started_at": 1764000000.5,
        "used_at": 1764086400.0,
        "waited_for": ["bottle", "cable"],
    }
    return json.dumps(values).encode()


def fit_state() -> bytes:
    """The state of an unfinished fit."""
    torch.manual_seed(0)
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    losses = [{"stage": "flow", "epoch": 1, "epochs": 2, "losses": {"flow_loss": 1.5}}]
    state = StageState(
        "flow",
        1,
        1,
        dict(module.state_dict()),
        optimizer.state_dict(),
        None,
        torch.Generator().get_state(),
        notes={"losses": losses, "seconds": 1.5},
    )
    return state.to_bytes()


def manifest() -> bytes:
    """A manifest that knows all of its pictures."""
    rows = ["uri,category,captured_at,etag,size"]
    rows += [f'/pictures/{n}.png,007,2026-11-24T10:00:0{n}Z,"e{n}",{n}' for n in range(5)]
    return "\n".join(rows).encode()


def parquet_archive() -> bytes:
    """Pictures in a Parquet file, in two row groups."""
    small = _encoded("L", "PNG")
    rows = {"image": [small] * 6, "path": [f"{n}.png" for n in range(6)], "category": ["a"] * 6}
    return _parquet(pa.table(rows), row_group_size=4)


def parquet_manifest() -> bytes:
    """A manifest that knows all of its pictures."""
    uris = [f"/pictures/{n}.png" for n in range(6)]
    return _parquet(pa.table({"uri": uris, "etag": ["e"] * 6, "size": range(6)}), 4)


def _parquet(table: pa.Table, row_group_size: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=row_group_size)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def category_result() -> bytes:
    """The row of a category that is finished."""
    worst = {"uri": "/a/1.png", "role": "fitted", "score": 1.5, "deviation": 7.0}
    result = CategoryResult(
        "bottle", "registered", "3", 60, 15, 1, 0, "mean", 0.98, 0.5, None, {"threshold": 1.5}
    )
    result.worst, result.gate, result.promoted = [worst], {"agreement": 0.9, "by": None}, True
    return json.dumps(result.as_dict()).encode()


def marker() -> bytes:
    """What a finished run says of itself."""
    values = {
        "pictures": 10,
        "failed": 1,
        "nfbmr_version": "0.1.0",
        "files": ["part-00000.parquet"],
        "run": {"run_id": "run", "sources": ["/a"]},
    }
    return json.dumps(values).encode()


def promotion() -> bytes:
    """An entry of a model's ledger."""
    return (
        Promotion("2", "1", "gate", "better", 1764000000.0, "night@host", "0" * 32)
        .to_json()
        .encode()
    )


def listing() -> bytes:
    """A kept slice of a listing."""
    rows = pa.table({"member": ["a.png", "b.png"], "length": [1, 2]})
    return to_bytes(SliceListing(rows, {"problems": []}))


def cache_uses() -> bytes:
    """When the entries of a feature cache were used."""
    uses = {f"{BACKBONE_KEY}/{ENTRY}/{ENTRY}.features": 1764000000.0}
    return gzip.compress(json.dumps(uses).encode(), mtime=0)
