"""Imports run one way: jobs → train, score, report → registry, data → model."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each room may import of nfbmr besides itself; a prefix covers what lies below it.
FOUNDATION = {"nfbmr.errors", "nfbmr.store_faults"}
PLUMBING = {
    "nfbmr.storage",
    "nfbmr.store_folders",
    "nfbmr.output_place",
    "nfbmr.progress",
    "nfbmr.process_memory",
    "nfbmr.plain_columns",
    "nfbmr.plain_values",
}
REGISTRY = {"nfbmr.registry", "nfbmr.model_version"}
BELOW = FOUNDATION | PLUMBING | REGISTRY | {"nfbmr.model", "nfbmr.data"}
SETTINGS = {
    "nfbmr.settings",
    "nfbmr.fit_settings",
    "nfbmr.gate_settings",
    "nfbmr.config",
    "nfbmr.resources",
    "nfbmr.second_attempts",
    "nfbmr.session",
    "nfbmr.shared_places",
    "nfbmr.watchdog",
}
MIDDLE = {"nfbmr.train", "nfbmr.score", "nfbmr.report", "nfbmr.evaluate"}

ALLOWED = {
    "nfbmr.errors": set(),
    "nfbmr.plain_columns": FOUNDATION,
    "nfbmr.plain_values": set(),
    "nfbmr.process_memory": set(),
    "nfbmr.progress": FOUNDATION,
    "nfbmr.store_faults": FOUNDATION,
    "nfbmr.storage": FOUNDATION,
    "nfbmr.store_folders": FOUNDATION | {"nfbmr.storage"},
    "nfbmr.output_place": FOUNDATION | {"nfbmr.storage"},
    "nfbmr.published": FOUNDATION,
    "nfbmr.metrics": FOUNDATION,
    "nfbmr.drawing": {"nfbmr.metrics"},
    "nfbmr.model": FOUNDATION,
    "nfbmr.data": FOUNDATION | {"nfbmr.storage", "nfbmr.plain_columns", "nfbmr.model"},
    "nfbmr.model_version": set(),
    "nfbmr.registry": FOUNDATION | PLUMBING | {"nfbmr.model_version", "nfbmr.model", "nfbmr.data"},
    "nfbmr.resources": FOUNDATION | {"nfbmr.settings"},
    "nfbmr.watchdog": FOUNDATION,
    "nfbmr.second_attempts": FOUNDATION | {"nfbmr.data"},
    "nfbmr.shared_places": FOUNDATION | {"nfbmr.storage", "nfbmr.model"},
    "nfbmr.session": FOUNDATION | {"nfbmr.process_memory"},
    "nfbmr.settings": FOUNDATION | {"nfbmr.fit_settings", "nfbmr.model", "nfbmr.data"},
    "nfbmr.fit_settings": FOUNDATION | {"nfbmr.model"},
    "nfbmr.gate_settings": FOUNDATION,
    "nfbmr.config": FOUNDATION
    | {"nfbmr.settings", "nfbmr.fit_settings", "nfbmr.gate_settings", "nfbmr.model", "nfbmr.data"},
    "nfbmr.train": BELOW | SETTINGS | {"nfbmr.metrics", "nfbmr.drawing"},
    "nfbmr.score": BELOW | SETTINGS,
    "nfbmr.evaluate": BELOW | SETTINGS | {"nfbmr.metrics", "nfbmr.published", "nfbmr.score"},
    "nfbmr.evaluation_files": FOUNDATION | PLUMBING | {"nfbmr.evaluate", "nfbmr.model_version"},
    "nfbmr.report": BELOW | {"nfbmr.metrics", "nfbmr.drawing", "nfbmr.evaluate", "nfbmr.score"},
    "nfbmr.benchmark": BELOW
    | SETTINGS
    | MIDDLE
    | {"nfbmr.metrics", "nfbmr.published", "nfbmr.cli"},
    "nfbmr.demo": BELOW | SETTINGS | MIDDLE,
    "nfbmr.pyfunc": FOUNDATION | {"nfbmr.model", "nfbmr.data", "nfbmr.score"},
    "nfbmr.models_cli": BELOW | SETTINGS | MIDDLE | {"nfbmr.cli"},
    "nfbmr.cli": BELOW | SETTINGS | MIDDLE | {"nfbmr.models_cli"},
}


def source_files() -> list[Path]:
    return sorted([*ROOT.glob("nfbmr/**/*.py"), *ROOT.glob("jobs/*.py")])


def imports(path: Path) -> set[str]:
    """Dotted names of the modules that a file imports anywhere, lazily too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return names


def is_within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def room_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[:2])


@pytest.mark.parametrize("path", source_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_from_the_rooms_below_its_own(path: Path) -> None:
    room = room_of(path)
    ours = {n for n in imports(path) if is_within(n, "nfbmr") or is_within(n, "jobs")}
    ours -= {"nfbmr", "nfbmr.__version__"}
    if room.startswith("jobs") or room == "nfbmr.__init__":
        allowed = {"nfbmr"}
    else:
        assert room in ALLOWED, f"{room} is a new room: say here what it may import"
        allowed = ALLOWED[room] | {room}
    wrong = sorted(n for n in ours if not any(is_within(n, a) for a in allowed))
    assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("nfbmr/model/*.py")), ids=lambda p: p.name)
def test_the_model_knows_no_engine_and_no_registry(path: Path) -> None:
    outside = ("ray", "mlflow", "pyarrow", "PIL", "pandas")
    assert not [n for n in imports(path) if any(is_within(n, o) for o in outside)]


def test_only_the_registry_imports_mlflow() -> None:
    users = [p for p in source_files() if any(is_within(n, "mlflow") for n in imports(p))]
    assert users
    assert {p.parent.relative_to(ROOT).as_posix() for p in users} == {"nfbmr/registry"}


UNPICKLE = {"torch.load", "torch.hub.load", "numpy.load", "np.load", "pandas.read_pickle"}


def test_nothing_is_unpickled() -> None:
    """No module that unpickles is imported, and torch.load is never called."""
    for path in source_files():
        unpickling = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
        assert not [n for n in imports(path) if n.partition(".")[0] in unpickling], path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in UNPICKLE, path
                assert node.attr not in ("read_pickle", "load_checkpoint"), path
            if isinstance(node, ast.ImportFrom):
                found = {f"{node.module}.{alias.name}" for alias in node.names}
                assert not found & UNPICKLE, path
            if isinstance(node, ast.keyword):
                assert node.arg not in ("allow_pickle", "weights_only"), path


def test_parquet_is_read_as_plain_columns() -> None:
    """What opens Parquet is the argument of ``plain``, which refuses columns that are pickles."""
    openers = ("read_table", "ParquetFile", "ParquetDataset", "dataset", "read_feather")
    for path in [p for p in source_files() if p.name != "plain_columns.py"]:
        tree = ast.parse(path.read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        guarded = [a for c in calls if ast.unparse(c.func) == "plain" for a in c.args]
        for call in calls:
            module, _, name = ast.unparse(call.func).rpartition(".")
            if name in openers and module in ("pq", "ds", "pyarrow.dataset", "pyarrow.parquet"):
                where = f"{path.relative_to(ROOT)}:{call.lineno}"
                assert call in guarded, f"{where}: write plain({module}.{name}(...))"


def test_a_job_is_thin() -> None:
    """A job parses arguments and calls nfbmr: it has no torch loop and no Ray of its own."""
    for path in ROOT.glob("jobs/*.py"):
        assert not any(is_within(n, "ray") or is_within(n, "torch") for n in imports(path)), path
        tree = ast.parse(path.read_text())
        assert not [n for n in tree.body if isinstance(n, ast.ClassDef)], path
        functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
        public = {name for name in functions if not name.startswith("_")}
        assert {name for name in public if not name.endswith("_table")} <= {"main"}, path


def test_the_top_level_holds_what_the_project_says() -> None:
    allowed = {"jobs", "nfbmr", "cluster", "tests", "pyproject.toml", "README.md", "LICENSE"}
    allowed |= {"Makefile", "requirements.lock"}
    present = {p.name for p in ROOT.iterdir() if not p.name.startswith((".", "__pycache__"))}
    assert present - {"nfbmr.egg-info"} <= allowed
