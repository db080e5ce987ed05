"""Settings: presets below files below overrides; what does not exist suggests what does."""

from pathlib import Path
from typing import Any

import pytest

from nfbmr import cli
from nfbmr.config import PRESETS, Config, load_config, setting_names
from nfbmr.errors import ConfigError


def test_defaults_presets_files_and_overrides_in_this_order(tmp_path: Path) -> None:
    assert load_config().flow.hidden_channels == 512
    file = tmp_path / "factory.toml"
    file.write_text('preset = "small"\n[fit]\nseed = 4\nflow_epochs = 7\n')
    config = load_config(str(file), ["fit.seed=5", "backbone.weights=s3://b/w.safetensors"])
    assert config.flow.hidden_channels == 128
    assert (config.fit.seed, config.fit.flow_epochs) == (5, 7)
    assert config.backbone.weights == "s3://b/w.safetensors"
    assert load_config(str(file), preset="default").flow.hidden_channels == 512


def test_the_paper_preset_is_section_4_2() -> None:
    config = load_config(preset="paper")
    assert config.backbone.name == "tf_efficientnet_b5"
    assert config.backbone.layer == "blocks.5"
    assert config.backbone.image_size_px == 768
    assert (config.flow.coupling_blocks, config.flow.hidden_channels) == (4, 1024)
    assert (config.mapper.residual_blocks, config.mapper.latent_channels) == (2, 1024)
    assert (config.fit.flow_epochs, config.fit.mapper_epochs, config.fit.batch_size) == (
        300,
        300,
        8,
    )
    assert (config.fit.flow_learning_rate, config.fit.mapper_learning_rate) == (2e-4, 3e-4)
    assert config.fit.weight_decay == 1e-5
    assert config.fit.gradient_clip_norm == 0, "the paper does not speak of clipping"
    assert config.fit.epochs("flow", 8) == 300
    assert config.standardize is False


def _leaves(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Settings as ``section.key`` with their values; empty tables have none."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        nested = isinstance(value, dict)
        found += _leaves(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return found


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_run_writes_down_is_read_back_as_the_same(preset: str) -> None:
    config = load_config(preset=preset)
    flat = [f"{name}={_toml(value)}" for name, value in _leaves(config.as_dict())]
    again = load_config(
        preset="default",
        overrides=flat,
    )
    assert again == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("fit.sed=1", ["'fit.sed' does not exist", "did you mean 'fit.seed'"]),
        ("flt.seed=1", ["'flt' does not exist", "did you mean 'fit'"]),
        ("fit=1", ["fit = 1", "expected a section"]),
        ("fit.seed=many", ["fit.seed = 'many'", "expected int"]),
        ("fit.seed=true", ["fit.seed = True", "expected int"]),
        ("gate.max_false_alarm_ratio=nan", ["expected a finite number"]),
        ("fit.flow_learning_rate=inf", ["expected a finite number"]),
        ("fit.precision=float7", ["fit.precision = 'float7'", "bfloat16"]),
        ("fit.schedule=linear", ["fit.schedule", "one-cycle"]),
        ("fit.batch_size=0", ["fit.batch_size = 0"]),
        ("calibration.false_alarm_rate=0", ["calibration.false_alarm_rate", "between 0 and 1"]),
        ("calibration.aggregate=median", ["calibration.aggregate", "mean"]),
        ("run.unit_size=0", ["run.unit_size = 0"]),
        ("run.failure_budget=2", ["run.failure_budget = 2"]),
        ("run.damaged_sources=-1", ["run.damaged_sources = -1"]),
        ("mapper.kind=bmx", ["mapper.kind", "bmr"]),
        ("flow.coupling_blocks=0", ["flow.coupling_blocks"]),
        ("seed", ["expected section.key=value"]),
    ],
)
def test_a_wrong_override_says_what_is_meant(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_files_that_are_missing_or_no_toml_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(str(tmp_path / "none.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"fit = [\xff")
    with pytest.raises(ConfigError, match=r"broken\.toml is not TOML"):
        load_config(str(broken))
    with pytest.raises(ConfigError, match="did you mean 'small'"):
        load_config(preset="smal")


def test_an_integer_is_taken_where_a_number_is_expected() -> None:
    assert load_config(overrides=["run.cpus_per_fit=1"]).run.cpus_per_fit == 1.0


def test_epochs_are_added_where_a_category_is_small() -> None:
    fit = Config().fit
    assert fit.epochs("flow", 1000) == fit.flow_epochs
    steps = fit.epochs("mapper", 20) * -(-20 // fit.batch_size)
    assert steps >= fit.min_steps


@pytest.mark.parametrize("preset", PRESETS)
def test_printed_settings_are_read_back(
    preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["settings", "--preset", preset, "--set", "backbone.kwargs={a = 1}"]) == 0
    path = tmp_path / "all.toml"
    path.write_text(capsys.readouterr().out)
    assert load_config(str(path)) == load_config(None, ["backbone.kwargs={a = 1}"], preset)
    assert set(setting_names(Config)) >= {"mapper.residual_blocks", "run.output.map_type"}
