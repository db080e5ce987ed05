"""Parsers of foreign bytes: a seeded portion of what ``make fuzz`` runs on a large scale.

Whatever the input: parsed, or refused with an error of ours; in time, within memory.
"""

import json
import random
from pathlib import Path

import pytest

from nfbmr.errors import ConfigError, WeightsError
from nfbmr.model.detector import JSON_FILE, Detector
from nfbmr.score.category_rule import CategoryRule
from tests.fuzz import seeds
from tests.fuzz.mutators import mutated_json
from tests.fuzz.run import Outcome, fuzz, run_one
from tests.fuzz.targets import Target, targets

INPUTS = {
    "detector-json": 60,
    "detector-tensors": 60,
    "finished-evidence.json": 60,
    "finished-fit.json": 60,
}
OTHERS = 400
NAMES = (
    "picture",
    "mask",
    "tar",
    "tar.gz",
    "gz-index",
    "zip",
    "detector-json",
    "detector-tensors",
    "finished-evidence.json",
    "finished-fit.json",
    "night",
    "category-result",
    "marker",
    "ledger",
    "listing",
    "cache-uses",
    "cache-uses-json",
    "hashes",
    "hashes-json",
    "fit-state",
    "manifest",
    "parquet",
    "parquet-manifest",
    "labels-visa",
    "labels-dagm",
    "labels-mtd",
    "features",
    "unit",
    "plan-pictures-run-00000.parquet",
    "plan-plan.json",
    "plan-units-run.parquet",
    "configuration",
    "override",
    "category",
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return targets(tmp_path_factory.mktemp("seeds"))


def test_every_target_has_its_portion_here(known: dict[str, Target]) -> None:
    assert set(known) == set(NAMES)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", NAMES)
def test_foreign_bytes_are_parsed_or_refused(
    name: str, known: dict[str, Target], tmp_path: Path
) -> None:
    outcome = fuzz(known[name], INPUTS.get(name, OTHERS), 0, tmp_path, tmp_path / "findings")
    assert outcome.findings == {}
    # What cannot be read of these is computed or begun anew: no error is to be seen.
    silent = name in (
        *("features", "night", "fit-state", "listing", "gz-index", "cache-uses", "cache-uses-json"),
        *("hashes", "hashes-json"),
    )
    assert outcome.refused or silent, "no change was noticed"


@pytest.mark.parametrize(
    ("error", "word"), [(ValueError("x"), "ValueError"), (MemoryError(), "MemoryError")]
)
def test_what_breaks_the_promise_is_found_and_kept(
    error: Exception, word: str, tmp_path: Path
) -> None:
    def broken(data: bytes, folder: Path) -> None:
        raise error

    outcome = Outcome("broken")
    target = Target("broken", [b"x"], lambda source, valid: valid[0], broken)
    run_one(target, b"input", tmp_path, tmp_path / "findings", outcome)
    ((what, kept),) = outcome.findings.items()
    assert what.startswith(word)
    assert Path(kept[0]).read_bytes() == b"input"


def test_a_seed_names_an_input_for_ever(known: dict[str, Target]) -> None:
    for target in known.values():
        first, again = (target.mutate(random.Random(7), target.seeds) for _ in range(2))
        assert first == again
    assert mutated_json(random.Random(1), b'{"a": [1]}') == mutated_json(
        random.Random(1), b'{"a": [1]}'
    )


@pytest.mark.parametrize(
    "change",
    [
        {"heads": {"flow": {"hidden_channels": 10**12}}},
        {"heads": {"flow": {"coupling_blocks": 10**9}}},
        {"heads": {"mapper": {"residual_blocks": 10**9}}},
        {"feature_shape": [10**6, 2, 2]},
        {"feature_shape": [8, -2, 2]},
        {"feature_shape": [8, 2]},
    ],
)
def test_a_description_cannot_ask_for_memory_that_the_tensors_do_not_have(
    change: dict[str, object], tmp_path: Path
) -> None:
    """Found by fuzzing: eight GiB were allocated before the tensors were looked at."""
    seeds.detector_files(tmp_path)
    path = tmp_path / JSON_FILE
    description = json.loads(path.read_text())
    for key, value in change.items():
        if isinstance(value, dict):
            for inner, fields in value.items():
                description[key][inner] |= fields
        else:
            description[key] = value
    path.write_text(json.dumps(description))
    with pytest.raises(WeightsError):
        Detector.load(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        ("{category}/{category}/", "more than once"),
        ("**/x/**/{category}/", "too many wildcards"),
        ("*a*/{category}/", "too many wildcards"),
        ("***/{category}/", "not more stars"),
    ],
)
def test_patterns_that_are_ambiguous_or_slow_are_refused(pattern: str, word: str) -> None:
    """Found by fuzzing: a regular expression's own error, and one that ran for ever."""
    with pytest.raises(ConfigError, match=word):
        CategoryRule(pattern)


def test_a_name_made_to_be_slow_is_not(tmp_path: Path) -> None:
    slow = Target(
        "category",
        [],
        lambda source, valid: b"",
        lambda data, folder: print(CategoryRule("**/*a{category}b/").category(data.decode())),
    )
    outcome = Outcome("category")
    for name in ("a" * 1024, "a/" * 512, "/a" * 512, "a" * 10**7):
        run_one(slow, name.encode(), tmp_path, tmp_path, outcome)
    assert outcome.findings == {}
    assert outcome.accepted == 4
