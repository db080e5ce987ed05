"""What ``jobs/evaluate.py`` leaves behind: the metrics as files, and what they are of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from nfbmr import storage
from nfbmr.errors import OutputError
from nfbmr.evaluate import Evaluation

JSON, MARKDOWN = "evaluation.json", "evaluation.md"
_OF = "of"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What was evaluated.

    Attributes:
        data: the labelled data root, absolute.
        layout: of it.
        categories: of it.
        scores: the scoring run of its test pictures.
    """

    data: str
    layout: str
    categories: tuple[str, ...]
    scores: str


def read_evaluated(output: str) -> Evaluated | None:
    """What the evaluation under an output is of, or None where there is none.

    Raises:
        OutputError: there is a file of that name that is none of ours.
    """
    uri = storage.join(storage.absolute_uri(output), JSON)
    data = storage.read(uri)
    if data is None:
        return None
    try:
        values = json.loads(data)[_OF]
        return Evaluated(
            values["data"], values["layout"], tuple(values["categories"]), values["scores"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{uri} is not what jobs/evaluate.py of this version writes ({error!r}): choose "
            "another --output, or remove it."
        ) from error


def check_output(output: str, data: str, categories: Sequence[str]) -> None:
    """Refuse an output that holds the evaluation of other pictures.

    Args:
        output: of the evaluation.
        data: the labelled data root, absolute.
        categories: of it.

    Raises:
        OutputError: it does.
    """
    found = read_evaluated(output)
    if found is not None and (found.data, found.categories) != (data, tuple(categories)):
        raise OutputError(
            f"{output} already holds the evaluation of {', '.join(found.categories)} of "
            f"{found.data}, yours is of {', '.join(categories)} of {data}: choose another --output."
        )


def write_evaluation(output: str, evaluation: Evaluation, evaluated: Evaluated) -> None:
    """Write the metrics as JSON and Markdown.

    Args:
        output: folder or prefix.
        evaluation: the metrics.
        evaluated: what they are of.
    """
    values = {**evaluation.as_dict(), _OF: asdict(evaluated)}
    files = {JSON: json.dumps(values, indent=1), MARKDOWN: evaluation.to_markdown()}
    for name, text in files.items():
        uri = storage.join(storage.absolute_uri(output), name)
        storage.write_atomically(uri, f"{text}\n".encode())
