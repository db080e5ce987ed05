"""The same targets driven by coverage: libFuzzer, by way of atheris, keeps what reaches new code.

``make fuzz`` installs atheris beside the project's environment and runs this; arguments behind the
target's name are libFuzzer's, for example ``-runs=100000``. Only code in Python is instrumented.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["nfbmr", "tarfile", "zipfile", "gzip", "json", "tomllib", "PIL"]
):
    from nfbmr.errors import NfbmrError
    from tests.fuzz.mutators import with_tar_checksums
    from tests.fuzz.targets import targets


def main() -> None:
    """Run one target until libFuzzer's arguments say stop; it ends the process itself."""
    name, *arguments = sys.argv[1:]
    temporary = Path(tempfile.mkdtemp(prefix="nfbmr-fuzz-"))
    target = targets(temporary / "seeds")[name]
    folder, corpus = temporary / "work", temporary / "corpus"
    folder.mkdir()
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)

    def run(data: bytes) -> None:
        try:
            target.run(with_tar_checksums(data) if name == "tar" else data, folder)
        except NfbmrError:
            return

    atheris.Setup([sys.argv[0], str(corpus), *arguments], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
