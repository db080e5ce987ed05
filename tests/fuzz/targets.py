"""What parses bytes that came from outside, each as a function from bytes to nothing.

A target may raise an ``NfbmrError``: that is the promise. Everything else is a finding.
"""

import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.train import summary_table
from nfbmr.config import load_config
from nfbmr.data import compressed_tar
from nfbmr.data.archives import list_archive, read_entry
from nfbmr.data.decoding import decode_and_resize, decode_mask
from nfbmr.data.picture_file import DecodeLimits
from nfbmr.data.seek_index import read_index
from nfbmr.errors import DataError, RegistryError
from nfbmr.model.detector import JSON_FILE, TENSORS_FILE, Detector
from nfbmr.progress import Progress
from nfbmr.registry.promotions import Promotion
from nfbmr.score.category_rule import CategoryRule
from nfbmr.score.dataset import MARKER, read_marker
from nfbmr.score.listing_store import from_bytes
from nfbmr.score.plan_files import PLAN_FOLDER, load_plan, row_group, unit_pictures
from nfbmr.score.units import UNITS_FOLDER, read_failed, read_unit
from nfbmr.train.cache_eviction import evict
from nfbmr.train.campaign_result import CategoryResult
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.finished import FinishedFit
from nfbmr.train.fit_checkpoint import FitCheckpoint
from nfbmr.train.gate import decide
from nfbmr.train.night import open_night
from tests.fuzz import hash_memories, seeds
from tests.fuzz.label_lists import LISTS, label_list
from tests.fuzz.mutators import mutated_bytes, mutated_json, with_tar_checksums

LIMITS = DecodeLimits(max_bytes=2**20, max_pixels=1_000_000)
_MEMBERS_READ = 8


@dataclass(frozen=True)
class Target:
    """Something to be fuzzed.

    Attributes:
        name: of the target.
        seeds: valid inputs.
        mutate: makes an input from a generator and the seeds.
        run: parses an input; may write into the folder it is given.
    """

    name: str
    seeds: list[bytes]
    mutate: Callable[[random.Random, list[bytes]], bytes]
    run: Callable[[bytes, Path], None]


def _bytes(source: random.Random, valid: list[bytes]) -> bytes:
    return mutated_bytes(source, source.choice(valid), source.choice(valid))


def _tar_bytes(source: random.Random, valid: list[bytes]) -> bytes:
    data = _bytes(source, valid)
    return with_tar_checksums(data) if source.random() < 0.7 else data


def _json(source: random.Random, valid: list[bytes]) -> bytes:
    if source.random() < 0.3:
        return _bytes(source, valid)
    return mutated_json(source, source.choice(valid))


def _archive(suffix: str) -> Callable[[bytes, Path], None]:
    def run(data: bytes, folder: Path) -> None:
        path = folder / f"archive{suffix}"
        path.write_bytes(data)
        for entry in list_archive(str(path)).entries[:_MEMBERS_READ]:
            read_entry(entry, LIMITS)

    return run


def _seek_index(data: bytes, folder: Path) -> None:
    """Reads a compressed tar whose seek index is the input: it is the archive's, or counts not."""
    archive, index = seeds.indexed_tar(folder)
    index.write_bytes(data)
    compressed_tar._opened.clear()
    found = [read_entry(entry) for entry in archive]
    if found != [read_entry(replace(entry, lookup=None)) for entry in archive]:
        raise AssertionError("a changed index was trusted")
    if read_index(str(index), 2**20) is not None and data != seeds.seek_index():
        raise AssertionError("a changed index was given to the code that reads it")


def _picture(data: bytes, folder: Path) -> None:
    decode_and_resize(data, 32, "bilinear", LIMITS)


def _mask(data: bytes, folder: Path) -> None:
    decode_mask(data, LIMITS)


def _detector(name: str) -> Callable[[bytes, Path], None]:
    """Loads a detector of which one file is the input, and asks what its backbone is built by."""

    def run(data: bytes, folder: Path) -> None:
        if not (folder / name).exists():
            seeds.detector_files(folder)
        (folder / name).write_bytes(data)
        Detector.load(folder).backbone_settings()

    return run


def _plan(name: str) -> Callable[[bytes, Path], None]:
    """Parses a plan of which one file is the input."""

    def run(data: bytes, folder: Path) -> None:
        path = folder / PLAN_FOLDER / name
        if not path.parent.exists():
            seeds.plan_files(folder)
        path.write_bytes(data)
        plan = load_plan(str(folder))
        if plan is not None and plan.units:
            row_group.cache_clear()
            unit_pictures(str(folder), plan.run_id, plan.units[-1])

    return run


def _unit(data: bytes, folder: Path) -> None:
    path = folder / UNITS_FOLDER / "u.parquet"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    read_failed(str(folder), "u")
    read_unit(str(folder), "u")


def _features(data: bytes, folder: Path) -> None:
    if not any(folder.rglob("*.features")):
        seeds.features(folder)
    (path,) = folder.rglob("*.features")
    path.write_bytes(data)
    found = FeatureCache(str(folder), seeds.BACKBONE_KEY).read(seeds.ENTRY)
    if found is not None and data != seeds.features(folder):
        raise AssertionError("a changed entry was trusted")


def _finished(name: str) -> Callable[[bytes, Path], None]:
    """Loads a finished fit of which one file is the input, and asks what registering asks."""

    def run(data: bytes, folder: Path) -> None:
        if not (folder / name).exists():
            seeds.finished_files(folder)
        (folder / name).write_bytes(data)
        fit = FinishedFit.load(folder)
        fit.params()
        fit.metrics()
        fit.curves()
        fit.tags()
        decide(fit.evidence, fit.fitted_at, fit.false_alarm_rate, None, fit.gate)

    return run


def _night(data: bytes, folder: Path) -> None:
    (folder / "key").mkdir(exist_ok=True)
    (folder / "key" / "night.json").write_bytes(data)
    open_night(str(folder), "key", Progress(quiet=True))


def _result(data: bytes, folder: Path) -> None:
    """A finished category's row, as a night that goes on reads it."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):  # ``Night`` takes it for none.
        return
    if isinstance(values, dict):
        try:
            row = CategoryResult.from_dict(values)
        except (TypeError, ValueError, KeyError) as error:  # So does who asks for it.
            raise DataError(str(error)) from error
        summary_table([row])


def _marker(data: bytes, folder: Path) -> None:
    (folder / MARKER).write_bytes(data)
    read_marker(str(folder))


def _listing(data: bytes, folder: Path) -> None:
    if from_bytes(data) is not None and data != seeds.listing():
        raise AssertionError("a changed listing was trusted")


def _ledger(data: bytes, folder: Path) -> None:
    try:
        entry = Promotion.from_json(data.decode("utf-8", "replace"))
    except (TypeError, ValueError, RecursionError) as error:  # ``Ledger`` says where it stands.
        raise RegistryError(str(error)) from error
    f"{entry.champion} {entry.at:.0f} {entry.reason.upper()}"


def _uses(data: bytes, folder: Path) -> None:
    seeds.features(folder)
    (folder / "last_used.json.gz").write_bytes(data)
    evict(str(folder), seeds.BACKBONE_KEY, [seeds.ENTRY], limit_gib=1e-9)
    if not any(folder.rglob("*.features")):
        raise AssertionError("an entry that is needed was removed")


def _packed_uses(data: bytes, folder: Path) -> None:
    _uses(gzip.compress(data), folder)


def _fit_state(data: bytes, folder: Path) -> None:
    path = folder / "fit.safetensors"
    path.write_bytes(data)
    found = FitCheckpoint(str(path), [], 0.0).load()
    if found is not None and data != seeds.fit_state():
        raise AssertionError("a changed state was trusted")


def _parquet_manifest(data: bytes, folder: Path) -> None:
    path = folder / "manifest.parquet"
    path.write_bytes(data)
    list_archive(str(path))


def _manifest(data: bytes, folder: Path) -> None:
    path = folder / "manifest.csv"
    path.write_bytes(data)
    list_archive(str(path))


def _configuration(data: bytes, folder: Path) -> None:
    path = folder / "config.toml"
    path.write_bytes(data)
    load_config(str(path))


def _override(data: bytes, folder: Path) -> None:
    load_config(None, [data.decode("utf-8", "replace")])


def _category(data: bytes, folder: Path) -> None:
    pattern, _, member = data.decode("utf-8", "replace").partition("\n")
    CategoryRule(pattern).category(member)


def targets(folder: Path) -> dict[str, Target]:
    """All targets by name.

    Args:
        folder: an empty one, for what seeds are made of.
    """
    detector = seeds.detector_files(folder / "detector")
    every = [
        Target("picture", seeds.pictures(), _bytes, _picture),
        Target("mask", seeds.pictures(), _bytes, _mask),
        Target("tar", seeds.tars(), _tar_bytes, _archive(".tar")),
        Target("tar.gz", seeds.compressed_tars(), _bytes, _archive(".tar.gz")),
        Target("gz-index", [seeds.seek_index()], _bytes, _seek_index),
        Target("zip", seeds.zips(), _bytes, _archive(".zip")),
        Target("detector-json", [detector[JSON_FILE]], _json, _detector(JSON_FILE)),
        Target("detector-tensors", [detector[TENSORS_FILE]], _bytes, _detector(TENSORS_FILE)),
        *(
            Target(f"finished-{name}", [data], _json, _finished(name))
            for name, data in sorted(seeds.finished_files(folder / "finished").items())
        ),
        Target("night", [seeds.night()], _json, _night),
        Target("category-result", [seeds.category_result()], _json, _result),
        Target("marker", [seeds.marker()], _json, _marker),
        Target("ledger", [seeds.promotion()], _json, _ledger),
        Target("listing", [seeds.listing()], _bytes, _listing),
        Target("cache-uses", [seeds.cache_uses()], _bytes, _uses),
        Target("cache-uses-json", [gzip.decompress(seeds.cache_uses())], _json, _packed_uses),
        Target("hashes", [hash_memories.seed()[1]], _bytes, hash_memories.whole_file),
        Target("hashes-json", [hash_memories.body()], _json, hash_memories.signed_body),
        Target("fit-state", [seeds.fit_state()], _bytes, _fit_state),
        Target("parquet", [seeds.parquet_archive()], _bytes, _archive(".parquet")),
        Target("parquet-manifest", [seeds.parquet_manifest()], _bytes, _parquet_manifest),
        Target("manifest", [seeds.manifest()], _bytes, _manifest),
        *(
            Target(f"labels-{layout}", [valid], _bytes, label_list(layout))
            for layout, (_, valid, _) in LISTS.items()
        ),
        Target("features", [seeds.features(folder / "features")], _bytes, _features),
        Target("unit", [seeds.unit()], _bytes, _unit),
        *(
            Target(f"plan-{name}", [data], _json if name.endswith(".json") else _bytes, _plan(name))
            for name, data in sorted(seeds.plan_files(folder / "plan").items())
        ),
        Target("configuration", seeds.configurations(), _bytes, _configuration),
        Target("override", [b"fit.seed=1", b'backbone.name="x"'], _bytes, _override),
        Target(
            "category",
            [b"{category}/\nbottle/1.png", b"**/line-*/{category}_\na/line-7/bottle_1.png"],
            _bytes,
            _category,
        ),
    ]
    return {target.name: target for target in every}
