"""The report in a real browser: every picture is drawn, nothing is requested, nothing is run."""

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from nfbmr.data.decoding import decode_rgb
from nfbmr.data.sample import Sample
from nfbmr.drawing import heatmap, thumbnail
from nfbmr.errors import DataError
from nfbmr.evaluate import evaluate
from nfbmr.report.page import write_report
from nfbmr.report.pictures import outline

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    assert path, "no Chromium: run sh tests/install_chromium.sh"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Opened:
    page: Page
    console: list[str]
    requests: list[str]


def open_page(browser: Browser, path: Path) -> Opened:
    page = browser.new_page()
    opened = Opened(page, [], [])
    page.on("console", lambda message: opened.console.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: opened.console.append(str(error)))
    page.on("dialog", lambda dialog: opened.console.append("a dialog opened"))
    page.on("request", lambda request: opened.requests.append(request.url))
    page.goto(path.as_uri(), wait_until="load")
    return opened


def png(value: int) -> bytes:
    image_HWC = np.full((48, 64, 3), value, dtype=np.uint8)
    image_HWC[10:20, 10:20] = 255 - value
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="PNG")
    return buffer.getvalue()


def mask_png() -> bytes:
    mask_HW = np.zeros((48, 64), dtype=np.uint8)
    mask_HW[10:20, 10:20] = 255
    buffer = io.BytesIO()
    Image.fromarray(mask_HW).save(buffer, format="PNG")
    return buffer.getvalue()


def make_rows(
    folder: Path, categories: tuple[str, ...]
) -> tuple[list[dict[str, Any]], list[Sample]]:
    rows, samples = [], []
    rng = np.random.default_rng(0)
    for number, category in enumerate(categories):
        for i in range(12):
            uri = str(folder / f"{number}-{i}.png")
            Path(uri).write_bytes(png(40 + i * 10))
            Path(f"{uri}.mask").write_bytes(mask_png())
            defective = i >= 8
            score = float(rng.random() * 0.5 + defective)
            samples.append(
                Sample(
                    uri,
                    category=category,
                    split="test",
                    defect_type="crack" if defective else "good",
                    mask_uri=f"{uri}.mask" if defective else None,
                )
            )
            rows.append(
                {
                    "image_uri": uri,
                    "archive": str(folder),
                    "member": f"{HOSTILE}-{i}",
                    "category": category,
                    "status": "ok",
                    "error": None,
                    "score": score,
                    "p_value": 0.05,
                    "calibration_size": 19,
                    "is_anomalous": score > 0.6,
                    "threshold": 0.6,
                    "anomaly_map": rng.random(12).tolist(),
                    "map_height": 3,
                    "map_width": 4,
                    "image_height": 48,
                    "image_width": 64,
                    "model_name": f"nfbmr-{category}",
                    "model_version": "1",
                }
            )
    failed: dict[str, Any] = dict.fromkeys(rows[0])
    failed |= {"image_uri": HOSTILE, "category": categories[0], "status": "error"}
    failed |= {"error": f"cannot be decoded {HOSTILE}"}
    return [*rows, failed], samples


@pytest.fixture(scope="module")
def opened(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    folder = tmp_path_factory.mktemp("report")
    rows, samples = make_rows(folder, ("bottle", HOSTILE))
    scores = pa.Table.from_pylist(rows)
    write_report(
        str(folder / "report.html"),
        title=f"A run {HOSTILE}",
        scores=scores,
        read_picture=lambda row: Path(row["image_uri"]).read_bytes(),
        run_info={"sources": HOSTILE},
        evaluation=evaluate(scores, samples, "mtd"),
        samples=samples,
        losses={"bottle": {"flow_loss": [3.0, 2.0, 1.0], "source_loss": [1.0, 0.5]}},
    )
    return open_page(browser, folder / "report.html")


def test_no_console_error_no_dialog_and_no_request(opened: Opened) -> None:
    assert opened.console == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in opened.requests if url.startswith("file:")]) == 1


def test_every_picture_is_rendered(opened: Opened) -> None:
    images = opened.page.locator("img")
    count = images.count()
    assert count >= 2 * 12
    sizes = images.evaluate_all("all => all.map(i => [i.complete, i.naturalWidth, i.clientWidth])")
    assert all(complete and natural > 0 and shown > 0 for complete, natural, shown in sizes)


def test_original_heatmap_and_mask_stand_side_by_side(opened: Opened) -> None:
    first = opened.page.locator(".picture").first
    assert first.locator("img").count() == 3
    tops = first.locator("img").evaluate_all("all => all.map(i => i.getBoundingClientRect().top)")
    assert max(tops) - min(tops) < 5
    assert "labelled crack" in first.inner_text()


def test_table_histograms_roc_and_threshold_are_there(opened: Opened) -> None:
    page = opened.page
    assert "bottle" in page.locator("table").first.inner_text()
    assert page.locator("section").count() == 2
    assert page.locator("svg[role=img]").count() == 2 * 2 + 1
    assert page.locator("svg .threshold").count() == 2
    boxes = page.locator("svg").evaluate_all(
        "all => all.map(s => s.getBoundingClientRect().height)"
    )
    assert min(boxes) > 50
    assert "AUROC" in page.locator("svg").nth(1).inner_html()


def test_hostile_names_are_text(opened: Opened) -> None:
    assert HOSTILE in opened.page.locator("h1").inner_text()
    assert opened.page.locator("img[src=x]").count() == 0
    assert "cannot be decoded" in opened.page.inner_text("body")


def test_a_small_screen_does_not_scroll_sideways(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": 400, "height": 800})
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    opened.page.set_viewport_size({"width": 1280, "height": 800})
    assert width <= 400


def test_without_labels_or_pictures_the_page_still_tells_what_is_known(
    browser: Browser, tmp_path: Path
) -> None:
    rows, _ = make_rows(tmp_path, ("bottle",))

    def gone(row: Any) -> bytes:
        raise DataError(f"{row['image_uri']} does not exist (any more).")

    path = tmp_path / "report.html"
    write_report(
        str(path), title="x", scores=pa.Table.from_pylist(rows), read_picture=gone, run_info={}
    )
    opened = open_page(browser, path)
    assert opened.console == []
    text = opened.page.inner_text("body")
    assert "No labels are known" in text
    assert "does not exist (any more)" in text


def test_heat_is_where_the_map_is_high() -> None:
    image_HWC = np.full((40, 40, 3), 128, dtype=np.uint8)
    map_HW = np.zeros((4, 4), dtype=np.float32)
    map_HW[0, 3] = 1.0
    heat_HWC = heatmap(image_HWC, map_HW, 0.0, 1.0).astype(int)
    redness_HW = heat_HWC[..., 0] - heat_HWC[..., 2]
    assert np.unravel_index(redness_HW.argmax(), redness_HW.shape)[1] > 25
    assert redness_HW[2, 37] > redness_HW[37, 2]


def test_the_outline_leaves_the_defect_itself_visible() -> None:
    image_HWC = decode_rgb(png(40))
    mask_HW = np.zeros((48, 64), dtype=bool)
    mask_HW[10:20, 10:20] = True
    drawn_HWC = outline(image_HWC, mask_HW)
    changed_HW = (drawn_HWC != image_HWC).any(-1)
    assert changed_HW.any()
    assert not changed_HW[12:18, 12:18].any()


def test_thumbnails_keep_the_shape_of_the_picture() -> None:
    small_HWC = thumbnail(np.zeros((1000, 2000, 3), dtype=np.uint8))
    assert small_HWC.shape[1] == 2 * small_HWC.shape[0]
    assert thumbnail(np.zeros((10, 20, 3), dtype=np.uint8)).shape == (10, 20, 3)
