"""Table 5: five rows on one flow, each as a whole fit would give it."""

import json
from pathlib import Path

import pytest
import torch

import jobs.benchmark
from nfbmr.benchmark.ablation_task import ablate, with_mapper
from nfbmr.benchmark.accuracy import image_auroc_of
from nfbmr.model.scoring import image_scores
from nfbmr.published import TABLE5
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.fit import fit_heads
from nfbmr.train.held_out_maps import anomaly_maps
from tests.benchmark.ablation_tasks import CONFIG, make_task
from tests.conftest import SHARED, Trained


def test_every_row_is_what_a_fit_of_its_own_would_give(tmp_path: Path) -> None:
    task = make_task(tmp_path)
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
    assert result["from_earlier_run"] == 0

    assert jobs.benchmark.main(arguments) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["from_earlier_run"] == 1
    assert again["results"] == result["results"]
