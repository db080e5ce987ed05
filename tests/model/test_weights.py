"""Weights come from safetensors files only, wherever they lie."""

import pickle
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
import safetensors.torch
import timm
import torch
from fsspec.implementations.memory import MemoryFileSystem

from nfbmr.errors import WeightsError
from nfbmr.model.backbone import create_backbone
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.weights import parse_weights, read_weights, read_weights_bytes, state_hash
from nfbmr.store_faults import is_stores, patience


@pytest.fixture(scope="module")
def resnet_bytes() -> bytes:
    torch.manual_seed(3)
    state = timm.create_model("resnet10t", num_classes=0).state_dict()
    metadata = {"architecture": "resnet10t", "mean": "0.1,0.2,0.3", "std": "0.4,0.5,0.6"}
    return safetensors.torch.save(state, metadata)


def settings(source: str, **values: object) -> BackboneSettings:
    return BackboneSettings(weights=source, image_size_px=64, **values)  # type: ignore[arg-type]


def test_a_path_and_an_object_store_give_the_same_backbone(
    resnet_bytes: bytes, tmp_path: Path, s3_bucket: str
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(resnet_bytes)
    uri = f"{s3_bucket}/backbones/weights.safetensors"
    with fsspec.open(uri, "wb") as file:
        file.write(resnet_bytes)
    local, remote = create_backbone(settings(str(path))), create_backbone(settings(uri))
    assert local.identity() == remote.identity()
    assert local.settings.name == "resnet10t"
    assert local.mean == (0.1, 0.2, 0.3)
    assert local.std == (0.4, 0.5, 0.6)


def test_what_is_not_in_an_object_store_is_an_error(s3_bucket: str) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        read_weights(f"{s3_bucket}/missing.safetensors")


def test_wrong_credentials_are_named(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(WeightsError, match="credentials"):
        read_weights(f"{s3_bucket}/missing.safetensors")


class BusyStore(MemoryFileSystem):  # type: ignore[misc]
    """In memory; it does not answer the next few times."""

    protocol = "busystore"
    store: ClassVar[dict[str, object]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    silent: ClassVar[int] = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("busystore://")))

    def _open(self, *arguments: object, **more: object) -> object:
        if BusyStore.silent > 0:
            BusyStore.silent -= 1
            raise TimeoutError("no answer")
        return super()._open(*arguments, **more)


def test_a_busy_store_is_tried_again_as_long_as_patience_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fsspec.register_implementation("busystore", BusyStore, clobber=True)
    fsspec.filesystem("busystore").pipe_file("/w.safetensors", b"weights")
    monkeypatch.setattr(BusyStore, "silent", 1)
    assert read_weights_bytes("busystore:///w.safetensors") == b"weights"
    monkeypatch.setattr(BusyStore, "silent", 9)
    with patience(0.0), pytest.raises(WeightsError, match="no answer") as caught:
        read_weights_bytes("busystore:///w.safetensors")
    assert is_stores(caught.value)


def test_a_pickled_file_is_refused_and_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (tmp_path / "exploded",)

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"weight": Bomb()}))
    with pytest.raises(WeightsError, match=r"not a readable safetensors file.*run code"):
        create_backbone(settings(str(path), name="resnet10t"))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("kept", [0, 5, 100, 4096])
def test_a_truncated_file_is_an_error(kept: int, resnet_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(resnet_bytes[:kept])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        read_weights(str(path))


def test_weights_of_another_network_are_refused(resnet_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(resnet_bytes)
    with pytest.raises(WeightsError, match=r"does not fit.*tensors differ"):
        create_backbone(settings(str(path), name="resnet50"))


def test_tensors_past_the_cut_may_be_missing(resnet_bytes: bytes, tmp_path: Path) -> None:
    """A file holds what the features need; the classifier and later stages may be left out."""
    state = safetensors.torch.load(resnet_bytes)
    path = tmp_path / "cut.safetensors"
    kept = {name: t for name, t in state.items() if not name.startswith("layer4")}
    safetensors.torch.save_file(kept, path)
    create_backbone(settings(str(path), name="resnet10t", layer="layer3"))
    with pytest.raises(WeightsError, match="layer4"):
        create_backbone(settings(str(path), name="resnet10t", layer="layer4"))


def test_the_hash_sees_values_names_types_and_shapes() -> None:
    state = {"a": torch.arange(4.0), "b": torch.zeros(2)}
    reference = state_hash(state, ["a", "b"])
    assert state_hash(state, ["b", "a"]) == reference
    assert state_hash(state, ["a"]) != reference
    for other in (torch.arange(4.0) + 1, torch.arange(4.0).view(2, 2), torch.arange(4).int()):
        assert state_hash({**state, "a": other}, ["a", "b"]) != reference


@pytest.mark.parametrize(
    ("key", "value"), [("mean", "[0.5, 0.5, 0.5]"), ("std", "1"), ("kwargs", "{"), ("kwargs", "[]")]
)
def test_a_header_that_says_something_else_is_a_sentence(key: str, value: str) -> None:
    data = safetensors.torch.save({"x": torch.zeros(1)}, {key: value})
    with pytest.raises(WeightsError, match=r"odd\.safetensors is not a readable"):
        parse_weights(data, "odd.safetensors")
