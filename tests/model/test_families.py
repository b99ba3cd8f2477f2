import inspect
from dataclasses import fields

import pytest
import transformers

from workbench.model.config import ModelConfig
from workbench.model.families import FAMILIES
from workbench.routers.top_k import TopKRouter

# Read and written beside the tables: from two keys at once, or derived.
COMPUTED = {"head_dim", "rope_theta", "router"}
# Only training reads the z-loss, and groups of one leave nothing to keep or to compare.
WITHOUT_EFFECT = {"z", "groups_kept", "group_value"}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param, FAMILIES[request.param]


def our_fields() -> set[str]:
    arguments = inspect.signature(TopKRouter).parameters.values()
    knobs = {p.name for p in arguments if p.kind is p.KEYWORD_ONLY and p.name != "layer"}
    return {f.name for f in fields(ModelConfig)} | knobs


def test_every_field_is_either_named_or_fixed(family):
    _, family = family
    assert family.keys.keys() & family.fixed.keys() == set()
    left_over = our_fields() - family.keys.keys() - family.fixed.keys() - COMPUTED - WITHOUT_EFFECT
    # a dense width means nothing where no layer may be dense.
    assert left_over == ({"dense_width"} if "dense_layers" in family.fixed else set())
    assert (family.keys.keys() | family.fixed.keys()) <= our_fields()


def test_keys_and_constants_are_those_of_transformers(family):
    name, family = family
    theirs = transformers.AutoConfig.for_model(name).to_dict()
    spellings = theirs.keys() | ({"num_experts"} if "num_local_experts" in theirs else set())
    assert set(family.keys.values()) | family.constants.keys() <= spellings
    assert theirs["rope_parameters"]["rope_theta"] == family.rope_theta
    assert inspect.isclass(getattr(transformers, family.architecture))


def test_no_two_families_could_write_the_same_model():
    shapes = [(f.fixed.get("qk_norm"), f.fixed.get("shared_gate")) for f in FAMILIES.values()]
    assert len(set(shapes)) == len(shapes)
