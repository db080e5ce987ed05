"""Which further arguments a network may be built with.

They come from the settings, from the header of a weights file and from a registered detector, and
timm takes far more by keyword than shapes: files to unpickle and addresses to fetch among them.
"""

from __future__ import annotations

from collections.abc import Mapping

_REFUSED = frozenset(
    {"cache_dir", "checkpoint_path", "device", "dtype", "exportable", "no_jit", "scriptable"}
)
_REFUSED_PREFIX = "pretrained"
_LARGEST_NUMBER = 2**16
_LONGEST_TEXT = 100
_LONGEST_LIST = 64
_DEEPEST = 3


def argument_problem(arguments: object) -> str | None:
    """What keeps arguments from being given to ``timm.create_model``, or None if nothing does.

    Taken are numbers, texts, booleans, null, and short lists and objects of them, under names that
    say what the network is like, and not where weights come from, where it is built or how.

    Args:
        arguments: by name, as JSON or TOML gives them.

    Returns:
        Part of a sentence that names the argument, its value and what was expected.
    """
    if not isinstance(arguments, Mapping):
        return f"{_shown(arguments)} are no arguments by name: expected {{name: value}}"
    for name, value in arguments.items():
        if not _is_name(name):
            return (
                f"{_shown(name)} is not taken, as timm may load files or fetch addresses by it: "
                "leave it out, the weights are named by backbone.weights"
            )
        if not _is_plain(value, _DEEPEST):
            return (
                f"{name} = {_shown(value)}: expected a number of at most {_LARGEST_NUMBER}, a text "
                f"of at most {_LONGEST_TEXT} signs, true, false, null, or a list or an object of "
                f"at most {_LONGEST_LIST} of these"
            )
    return None


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or len(name) > _LONGEST_TEXT:
        return False
    return name not in _REFUSED and not name.startswith(_REFUSED_PREFIX)


def _is_plain(value: object, depth: int) -> bool:
    if isinstance(value, Mapping):
        names = all(_is_name(name) for name in value)
        return names and _is_plain(list(value.values()), depth)
    if isinstance(value, (list, tuple)):
        is_short = depth > 0 and len(value) <= _LONGEST_LIST
        return is_short and all(_is_plain(each, depth - 1) for each in value)
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT
    if value is None or isinstance(value, bool):
        return True
    return isinstance(value, (int, float)) and abs(value) <= _LARGEST_NUMBER


def _shown(value: object) -> str:
    return f"{value!r:.80}"
