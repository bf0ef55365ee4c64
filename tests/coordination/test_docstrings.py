"""What every public function says of itself: a formula or definition, its source, shapes, cost, and an example."""

from __future__ import annotations

import inspect
import re

import pytest

from coordination import aggregation, coalition, consensus, credit, games, metrics, signals, voting

PACKAGES = (consensus, voting, games, coalition, credit, metrics, signals)
TECHNICAL = {("games", "as_mask"), ("metrics", "evaluate")}  # a check, and a table of what others define
FUNCTIONS = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in PACKAGES
    for name in package.__all__
    if inspect.isfunction(getattr(package, name)) and (package.__name__.split(".")[-1], name) not in TECHNICAL
} | {f"aggregation.{name}": f for name, f in vars(aggregation).items() if inspect.isfunction(f) and name[0] != "_"}
OWN = {  # bookkeeping and plain definitions: nobody's to cite
    *("coalition_masks", "pack_bits", "unpack_bits", "evaluate", "tabulate", "members", "structure_value"),
    *("form_batch", "build", "run", "auto", "both_ways", "tally", "ranks_of", "ranks_from", "size_structure"),
    *("interval", "pair_sample", "plurality", "median"),
    *("communication_efficiency", "cooperation_ratio", "load_balance", "responsibility", "temporal_coherence"),
    *("value_of_communication",),
}
ARRAYS = ("Tensor", "Array", "ndarray")
SOURCE = re.compile(r"\b(1[789]|20)\d\d\b|arXiv")
DEFINITION = re.compile(r"``[^`]*[-+*/=<>|^~(][^`]*``|\b([Mm]ean|[Ss]um|[Ll]argest|definition)\b")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_definition_source_shapes_cost_and_example(name):
    function = FUNCTIONS[name]
    text = inspect.getdoc(function) or ""
    assert DEFINITION.search(text), "a formula, or the definition in words"
    assert "O(" in text, "what it costs"
    assert ">>>" in text, "an example"
    assert SOURCE.search(text) or function.__name__ in OWN, "a source"
    takes = [str(p.annotation) for p in inspect.signature(function).parameters.values()]
    if any(kind in annotation for annotation in takes for kind in ARRAYS):
        assert re.search(r"\[[^\]]*[A-Z*_\d][^\]]*\]", text), "shapes"


def test_what_needs_no_source_is_public():
    assert {function.__name__ for function in FUNCTIONS.values()} >= OWN
