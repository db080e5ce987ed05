"""Arguments of a network: shapes are taken, what loads or fetches something is not."""

import json

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.errors import ConfigError, WeightsError
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.network_arguments import argument_problem
from nfbmr.model.weights import parse_weights

LOADING = [
    {"checkpoint_path": "/x/y.pth"},
    {"pretrained_cfg": {"url": "http://x/y.pth"}},
    {"pretrained_cfg_overlay": {"file": "/x/y.pth"}},
    {"pretrained_strict": False},
    {"cache_dir": "/x"},
    {"device": "cuda"},
    {"scriptable": True},
]

PLAIN = st.one_of(
    st.booleans(), st.integers(-(2**16), 2**16), st.floats(-1e4, 1e4), st.text("ab_1", max_size=100)
)


@pytest.mark.parametrize("kwargs", LOADING)
def test_what_loads_or_fetches_is_refused_by_name(kwargs: dict[str, object]) -> None:
    (name,) = kwargs
    with pytest.raises(ConfigError, match=rf"backbone\.kwargs: '{name}' is not taken"):
        BackboneSettings(kwargs=kwargs)


@pytest.mark.parametrize("kwargs", LOADING)
def test_so_it_is_in_the_header_of_a_weights_file(kwargs: dict[str, object]) -> None:
    data = safetensors.torch.save({"w": torch.zeros(1)}, {"kwargs": json.dumps(kwargs)})
    with pytest.raises(WeightsError, match=f"w.safetensors.*{next(iter(kwargs))}"):
        parse_weights(data, "w.safetensors")


@pytest.mark.parametrize(
    "value",
    [
        [[[[1]]]],
        {"a": {"b": {"c": {"d": 1}}}},
        {"url": b"x"},
        {"cache_dir": "/x"},
        [0] * 65,
        "x" * 101,
        2**16 + 1,
        10**400,
        float("nan"),
        object(),
    ],
)
def test_values_that_are_not_plain_and_short_are_refused(value: object) -> None:
    problem = argument_problem({"patch_size": value})
    assert problem is not None
    assert problem.startswith("patch_size = ")
    assert len(problem) < 300


@pytest.mark.parametrize("arguments", [None, [], "pad_type", 1])
def test_arguments_have_names(arguments: object) -> None:
    with pytest.raises(ConfigError, match=r"expected \{name: value\}"):
        BackboneSettings(kwargs=arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "kwargs", [{"fc_norm": None}, {"block_args": {"attn_layer": "se"}}, {"layers": [[2, 2], [3]]}]
)
def test_what_timm_takes_by_null_and_by_objects_is_taken(kwargs: dict[str, object]) -> None:
    assert BackboneSettings(kwargs=kwargs).kwargs == kwargs


@given(st.dictionaries(st.sampled_from(["pad_type", "layers", "x"]), PLAIN | st.lists(PLAIN)))
def test_shapes_and_names_of_layers_are_taken(arguments: dict[str, object]) -> None:
    is_short = all(len(v) <= 64 for v in arguments.values() if isinstance(v, list))
    assert (argument_problem(arguments) is None) == is_short
