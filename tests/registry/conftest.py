"""An MLflow on SQLite for every test."""

from pathlib import Path

import pytest

from nfbmr.registry import Registry


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creating MLflow's tables takes seconds: done once, copied for every test."""
    folder = tmp_path_factory.mktemp("database")
    Registry(f"sqlite:///{folder}/mlflow.db").client.search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def registry(empty_database: Path, tmp_path: Path) -> Registry:
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    return Registry(f"sqlite:///{tmp_path}/mlflow.db")
