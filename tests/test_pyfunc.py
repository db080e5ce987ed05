"""A version loads through MLflow itself, in a process that knows nothing but the address."""

import base64
import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nfbmr.errors import WeightsError
from nfbmr.pyfunc import DetectorModel, _load_pyfunc
from nfbmr.registry import Registry, default_uri
from nfbmr.score.single import score_pictures
from nfbmr.train.registration import register_finished
from tests.registry.finished_fit import finished_fit, make_detector

ROOT = Path(__file__).parents[1]


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (80, 96, 3), dtype=np.uint8)


def encoded(pixels_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model() -> DetectorModel:
    return DetectorModel(make_detector())


def test_every_form_of_a_picture_gives_the_same_row(model: DetectorModel, tmp_path: Path) -> None:
    pixels_HWC = picture(0)
    data = encoded(pixels_HWC)
    forms = [data, base64.b64encode(data).decode(), base64.encodebytes(data).decode(), pixels_HWC]
    table = model.predict(pd.DataFrame({"image": [*forms, pixels_HWC.tolist()]}))
    assert table["status"].tolist() == ["ok"] * 5
    assert table["score"].to_numpy() == pytest.approx(table["score"][0], rel=1e-5)
    (tmp_path / "part.png").write_bytes(data)
    row = score_pictures(make_detector(), [str(tmp_path / "part.png")])[0]
    assert row["score"] == pytest.approx(table["score"][0], rel=1e-5)
    assert row["p_value"] == table["p_value"][0]
    assert bool(table["is_anomalous"][0]) is row["anomalous"]


def test_batches_come_as_tables_lists_dicts_and_arrays(model: DetectorModel) -> None:
    pixels_NHWC = np.stack([picture(seed) for seed in range(20)])
    data = [encoded(pixels_HWC) for pixels_HWC in pixels_NHWC]
    tables = [
        model.predict(pd.DataFrame({"image": data})),
        model.predict(data),
        model.predict({"image": data}),
        model.predict(pixels_NHWC),
    ]
    for table in tables:
        assert len(table) == 20
        assert table["score"].to_numpy() == pytest.approx(tables[0]["score"].to_numpy(), rel=1e-5)
    assert len(model.predict(data[0])) == 1
    assert len(model.predict([])) == 0


def test_what_is_no_picture_is_a_row_with_a_reason(model: DetectorModel) -> None:
    good = encoded(picture(1))
    bad = [b"no picture", "no Base64!", np.zeros((4, 4), np.uint8), [[[256, 0, 0]]], None, 3]
    table = model.predict(pd.DataFrame({"image": [good, *bad, good]}))
    assert table["status"].tolist() == ["ok", *["error"] * len(bad), "ok"]
    assert table["error"].isna().tolist() == [True, *[False] * len(bad), True]
    assert table["score"].isna().tolist() == [False, *[True] * len(bad), False]
    answer = json.dumps(table.to_dict(orient="records"), allow_nan=False)
    assert json.loads(answer)[1]["score"] is None
    assert table["score"].iloc[0] == table["score"].iloc[-1]


def test_maps_come_where_they_are_asked_for(model: DetectorModel) -> None:
    data = [encoded(picture(2)), b"no picture"]
    assert "anomaly_map" not in model.predict(data)
    table = model.predict(data, {"anomaly_maps": True})
    map_HW = np.asarray(table["anomaly_map"][0])
    y, x = np.unravel_index(map_HW.argmax(), map_HW.shape)
    assert table["peak_x"][0] == pytest.approx((x + 0.5) / map_HW.shape[1])
    assert table["peak_y"][0] == pytest.approx((y + 0.5) / map_HW.shape[0])
    assert table["anomaly_map"][1] is None


def test_weights_out_of_reach_name_the_setting_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make_detector()
    detector.weights = "/nowhere/weights.safetensors"
    detector.save(tmp_path)
    with pytest.raises(WeightsError, match=r"/nowhere/weights.*NFBMR_BACKBONE_WEIGHTS.*model_conf"):
        _load_pyfunc(str(tmp_path))
    assert len(_load_pyfunc(str(tmp_path), {"weights": "embedded"}).predict([b""])) == 1
    monkeypatch.setenv("NFBMR_BACKBONE_WEIGHTS", "embedded")
    assert len(_load_pyfunc(str(tmp_path), {"weights": ""}).predict([b""])) == 1


CLEAN_PROCESS = textwrap.dedent(
    """
    import io, json, sys
    import mlflow, numpy, PIL.Image, nfbmr.pyfunc, timm
    import pandas as pd

    unpickled = []
    sys.addaudithook(lambda event, _: unpickled.append(event) if event.startswith("pickle") else 0)
    model = mlflow.pyfunc.load_model("models:/nfbmr-bottle@champion")
    pixels = numpy.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=numpy.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format="PNG")
    tables = [
        model.predict(pd.DataFrame({"image": [buffer.getvalue(), pixels]})),
        model.predict([buffer.getvalue()]),
        model.predict({"image": [pixels]}, params={"anomaly_maps": True}),
    ]
    assert not unpickled, unpickled
    print(json.dumps({
        "scores": [table["score"].tolist() for table in tables],
        "columns": [list(table.columns) for table in tables],
        "outputs": model.metadata.signature.outputs.input_names(),
        "ray": "ray" in sys.modules,
    }))
    """
)


def answers_as_the_detector_does(python: str, uri: str, folder: Path, **environment: str) -> None:
    """MLflow loads the champion in a process that has nothing else, and it scores as it should."""
    environment |= {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
    }
    done = subprocess.run(
        [python, "-c", CLEAN_PROCESS],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    expected = DetectorModel(make_detector()).predict([picture(0)])
    for scores in said["scores"]:
        assert scores == pytest.approx([expected["score"][0]] * len(scores), rel=1e-5)
    assert said["columns"][0] == said["outputs"] == list(expected.columns)
    assert said["columns"][2] == [*said["outputs"], "anomaly_map"]
    assert not said["ray"]


def test_mlflow_loads_the_champion_in_a_clean_process_without_unpickling(tmp_path: Path) -> None:
    uri = default_uri(str(tmp_path))
    register_finished(finished_fit(tmp_path / "files"), Registry(uri), 0)
    answers_as_the_detector_does(sys.executable, uri, tmp_path, PYTHONPATH=str(ROOT))


@pytest.mark.integration
@pytest.mark.slow
def test_mlflow_loads_it_in_an_environment_of_the_versions_own_requirements(
    tmp_path: Path,
) -> None:
    """And nfbmr itself, which is in no index."""
    registry = Registry(default_uri(str(tmp_path)))
    version, _ = register_finished(finished_fit(tmp_path / "files"), registry, 0)
    requirements = registry.read_file(version, "requirements.txt")
    assert requirements is not None
    (tmp_path / "requirements.txt").write_bytes(requirements)
    uv, home = str(Path(sys.executable).with_name("uv")), tmp_path / "environment"
    install = [uv, "pip", "install", "--quiet", "--system-certs", "--python", str(home)]
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(home)],
        [*install, "-r", str(tmp_path / "requirements.txt")],
        [*install, "--no-deps", str(ROOT)],
    ):
        subprocess.run(command, check=True)
    answers_as_the_detector_does(str(home / "bin" / "python"), registry.uri, tmp_path)
