"""Table 5: five rows on one flow, each as a whole fit would give it."""

import json
from pathlib import Path

import pytest
import torch

import jobs.benchmark
from nfbmr.benchmark.ablation import AblationTask, RowResult, ablate, ablation_table, with_mapper
from nfbmr.benchmark.accuracy import image_auroc_of
from nfbmr.config import load_config
from nfbmr.model.scoring import image_scores
from nfbmr.published import TABLE5
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.fit import fit_heads
from nfbmr.train.held_out_maps import anomaly_maps
from tests.conftest import SHARED, Trained
from tests.train.test_fit import features

CONFIG = load_config(
    None,
    [
        "flow.hidden_channels=16",
        "mapper.latent_channels=8",
        "mapper.block_channels=4",
        "fit.flow_epochs=3",
        "fit.mapper_epochs=3",
        "fit.min_steps=1",
        "fit.precision=float32",
    ],
)


def write(cache: FeatureCache, kind: str, y_NCHW: torch.Tensor) -> list[str]:
    entries = [f"{kind}-{i:02d}" for i in range(len(y_NCHW))]
    for entry, y_CHW in zip(entries, y_NCHW, strict=True):
        cache.write(entry, y_CHW)
    return entries


@pytest.fixture
def task(tmp_path: Path) -> AblationTask:
    cache = FeatureCache(str(tmp_path), "backbone")
    test_NCHW = torch.cat([features(10, seed=2), features(10, seed=3) * 1.5])
    return AblationTask(
        category="bottle",
        seed=0,
        config=CONFIG,
        cache_root=str(tmp_path),
        backbone_key="backbone",
        fit_entries=write(cache, "fit", features(40)),
        held_out_entries=write(cache, "held", features(10, seed=1)),
        synthetic_entries=write(cache, "cut", features(10, seed=1) * 2),
        test_entries=write(cache, "test", test_NCHW),
        is_defective=[False] * 10 + [True] * 10,
    )


def test_every_row_is_what_a_fit_of_its_own_would_give(task: AblationTask) -> None:
    results = ablate(task)
    assert [result.row for result in results] == [0, 1, 2, 3, 4]
    cache = FeatureCache(task.cache_root, task.backbone_key)
    for result, row in zip(results, TABLE5, strict=True):
        config = with_mapper(CONFIG, row)
        assert config.mapper.kind == row.mapper
        y_NCHW = cache.load(list(task.fit_entries))
        heads = fit_heads(y_NCHW, config.heads, config.fit, category="bottle")
        maps_NHW = anomaly_maps(heads, cache.load(list(task.test_entries)))
        truth_N = torch.tensor(task.is_defective).numpy()
        alone = image_auroc_of(truth_N, image_scores(maps_NHW, result.aggregate).numpy())
        assert result.image_auroc == pytest.approx(alone)


def test_the_rows_are_the_papers() -> None:
    path = SHARED / "paper" / "table5_mvtec_ablation_auroc.csv"
    if not path.exists():
        pytest.skip("the paper does not lie beside the project")
    lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
    read = [(kind or "none", int(n) if n else None, float(a)) for _, kind, n, a in lines]
    assert read == [(row.mapper, row.residual_blocks, row.image_auroc) for row in TABLE5]


def test_the_table_averages_categories_before_seeds() -> None:
    values = {(0, "a"): 0.9, (0, "b"): 0.7, (1, "a"): 1.0, (1, "b"): 1.0}
    results = [
        RowResult(category, seed, row, "mean", value, value)
        for (seed, category), value in values.items()
        for row in range(len(TABLE5))
    ]
    lines = ablation_table(results).splitlines()
    row = next(line for line in lines if "n = 2" in line)
    assert "0.9000 ± 0.1414" in row
    assert "98.7" in row


@pytest.mark.slow
def test_the_command_ends_with_all_rows_in_one_object(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    category = trained.results[0].category
    arguments = ["ablation", "--data", trained.factory.root, "--layout", "mvtec", "--seeds", "0"]
    arguments += ["--categories", category, "--preset", "small", "--image-size", "128"]
    arguments += ["--work-dir", str(tmp_path)]
    for setting in ("fit.min_steps=20", "fit.flow_epochs=2", "fit.mapper_epochs=2"):
        arguments += ["--set", setting]
    assert jobs.benchmark.main(arguments) == 0
    output = capsys.readouterr().out
    result = json.loads(output.splitlines()[-1])
    assert [row["image_auroc"] for row in result["rows"]] == [97.4, 98.7, 98.5, 96.2, 94.2]
    assert all(0.5 < row["measured"]["mean"] <= 1 for row in result["rows"])
    assert "flow + BMR, n = 3" in output
