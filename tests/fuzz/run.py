"""Run a target on many mutated inputs and say what was found.

``python -m tests.fuzz.run tar zip --inputs 100000 --seed 1``; every finding is kept as a file that
``--input FILE`` runs again.
"""

import argparse
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nfbmr.errors import NfbmrError
from tests.fuzz.targets import Target, targets

TIME_LIMIT_S = 5.0
MEMORY_LIMIT_BYTES = 512 * 2**20
"""How much the process may grow over a whole run."""
ADDRESS_SPACE_BYTES = 4 * 2**30
"""How much more address space a run may take: past it allocations fail instead of the machine."""


class TookTooLong(BaseException):
    """No exception of the code's own, so that nothing catches it."""


@dataclass
class Outcome:
    """What a run of a target found.

    Attributes:
        target: its name.
        inputs: how many were run.
        accepted: of them parsed without an error.
        refused: of them by type of error.
        findings: places of the inputs that broke the promise, by what happened.
        slowest_s: the longest time for one input.
        grown_mib: growth of the process's peak memory.
    """

    target: str
    inputs: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    findings: dict[str, list[str]] = field(default_factory=dict)
    slowest_s: float = 0.0
    grown_mib: float = 0.0


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer; only in the main thread, between two Python instructions."""

    def stop(*_: object) -> None:
        raise TookTooLong(f"longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(target: Target, inputs: int, seed: int, folder: Path, findings: Path) -> Outcome:
    """Run a target on mutated inputs.

    Args:
        target: what to run.
        inputs: how many.
        seed: the first input's; each has its own.
        folder: for the target's files.
        findings: where inputs that break the promise are kept.
    """
    outcome = Outcome(target.name)
    for valid in target.seeds:  # also: what a first call allocates for good is not growth
        target.run(valid, folder)
    # The peak of this target alone: what was in use before it does not hide what it takes.
    Path("/proc/self/clear_refs").write_text("5")
    before_kib = _peak_kib()
    for number in range(seed, seed + inputs):
        data = target.mutate(random.Random(number), target.seeds)
        run_one(target, data, folder, findings, outcome)
    grown_kib = _peak_kib() - before_kib
    outcome.grown_mib = grown_kib / 1024
    if grown_kib * 1024 > MEMORY_LIMIT_BYTES:
        outcome.findings["memory"] = [f"seeds {seed} to {seed + inputs}"]
    return outcome


def _peak_kib() -> int:
    """The most memory that this process had in use since its peak was last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def run_one(target: Target, data: bytes, folder: Path, findings: Path, outcome: Outcome) -> None:
    """Run one input and note what happened."""
    started = time.perf_counter()
    outcome.inputs += 1
    try:
        with limited(TIME_LIMIT_S):
            target.run(data, folder)
        outcome.accepted += 1
    except NfbmrError as error:
        outcome.refused[type(error).__name__] += 1
    except (Exception, TookTooLong) as error:  # whatever it is: the finding
        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        kept = outcome.findings.setdefault(what, [])
        if len(kept) < 3:
            findings.mkdir(parents=True, exist_ok=True)
            path = findings / f"{target.name}-{outcome.inputs}-{type(error).__name__}"
            path.write_bytes(data)
            kept.append(str(path))
    outcome.slowest_s = max(outcome.slowest_s, time.perf_counter() - started)


def limit_address_space() -> None:
    """Bound what this process may allocate from here on."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESS_SPACE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    """The command; exits with 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--inputs", type=int, default=10_000, help="of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--input", metavar="FILE", help="run this input alone, with its traceback")
    parser.add_argument("--findings", type=Path, default=Path(".fuzz/findings"))
    arguments = parser.parse_args()
    found = False
    limit_address_space()
    with tempfile.TemporaryDirectory(prefix="nfbmr-fuzz-") as temporary:
        known = targets(Path(temporary) / "seeds")
        for name in arguments.targets or known:
            folder = Path(temporary) / name
            folder.mkdir()
            if arguments.input:
                known[name].run(Path(arguments.input).read_bytes(), folder)
                continue
            started = time.monotonic()
            outcome = fuzz(
                known[name], arguments.inputs, arguments.seed, folder, arguments.findings
            )
            found |= bool(outcome.findings)
            seconds = round(time.monotonic() - started, 1)
            print(json.dumps({**vars(outcome), "seconds": seconds}), flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
