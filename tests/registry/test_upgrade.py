"""The command that the walk-through gives for a database of an older MLflow."""

import subprocess
import sys

import pytest
from sqlalchemy import create_engine, text

from nfbmr.registry import Registry

pytestmark = pytest.mark.integration

UPGRADE = (sys.executable, "-m", "mlflow", "db", "upgrade")


def revision(uri: str) -> str:
    with create_engine(uri).begin() as connection:
        found = connection.execute(text("SELECT version_num FROM alembic_version"))
        return str(found.scalar_one())


def test_the_database_of_an_older_version_is_upgraded(postgres_uri: str) -> None:
    Registry(postgres_uri).prepare()
    newest = revision(postgres_uri)
    downgrade = (sys.executable, "-c", DOWNGRADE, postgres_uri)
    subprocess.run(downgrade, check=True, capture_output=True)
    assert revision(postgres_uri) != newest
    subprocess.run([*UPGRADE, postgres_uri], check=True, capture_output=True)
    assert revision(postgres_uri) == newest
    assert list(Registry(postgres_uri).list_versions()) == []


DOWNGRADE = """
import sys
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
command.downgrade(_get_alembic_config(sys.argv[1]), "-1")
"""
