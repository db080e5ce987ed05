"""What ``jobs/evaluate.py`` leaves behind: the metrics as files, and what they are of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from nfbmr import storage
from nfbmr.errors import OutputError
from nfbmr.evaluate import Evaluation
from nfbmr.model_version import ModelVersion
from nfbmr.output_place import check_place

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
    check_place(output)
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


def scores_uri_of(
    output: str,
    alias: str,
    registry_uri: str,
    models: Sequence[ModelVersion | None],
    pictures: pa.Table,
) -> str:
    """The scoring run's folder below an evaluation: one for every set of pictures and models.

    The same command goes on where it stopped; after the next night, or when a picture was added or
    replaced, it scores anew.

    Args:
        output: of the evaluation.
        alias: that the models were asked for by.
        registry_uri: where they are.
        models: of the categories in order.
        pictures: that are scored, with the versions of their files.
    """
    versions = [model and [model.name, model.version, model.run_id] for model in models]
    digest = hashlib.blake2b(digest_size=6)
    digest.update(json.dumps([alias, registry_uri, versions]).encode())
    for column in ("image_uri", "version", "category"):
        digest.update(json.dumps(pictures.column(column).to_pylist()).encode())
    return storage.join(storage.absolute_uri(output), f"scores-{digest.hexdigest()}")


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
