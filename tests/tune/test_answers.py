"""Whether answers agree, and by how much they do not."""

import json
import math

import pytest

from scoring_runtime.tune.answers import NoAnswerError, Tolerance, compare, read

WITHIN = {"p": Tolerance(1e-3, 1e-4), "label": None}


@pytest.mark.parametrize(
    ("got", "largest"), [([[1.0, 0.0]], 0), ([[1.001, 0.0]], 0.001), ([[1.0, 0.00005]], 0.00005), ([[1, 0]], 0)]
)
def test_floats_agree_within_the_tolerance(got, largest):
    agreement = compare({"p": got, "label": [1]}, {"p": [[1.0, 0.0]], "label": [1]}, WITHIN)
    assert agreement.why_not is None
    assert agreement.largest_difference == pytest.approx(largest)


def test_the_worst_of_what_differs_is_named_with_the_largest_difference():
    agreement = compare({"p": [[1.5, 0.1]], "label": [1]}, {"p": [[1.0, 0.0]], "label": [1]}, WITHIN)
    assert agreement.why_not == "output 'p' holds 0.1 in place of 0.0"
    assert agreement.largest_difference == 0.5


@pytest.mark.parametrize(
    ("outputs", "why"),
    [
        ({"p": [[1.0]], "label": [1]}, "output 'p' has another shape"),
        ({"p": [1.0, 0.0], "label": [1]}, "output 'p' has another shape"),
        ({"p": [[None, 0.0]], "label": [1]}, "output 'p' holds None in place of 1.0"),
        ({"p": [[1.0, 0.0]], "label": [2]}, "output 'label' holds 2 in place of 1"),
        ({"p": [[1.0, 0.0]], "label": ["1"]}, "output 'label' holds '1' in place of 1"),
        ({"p": [[1.0, 0.0]]}, "the outputs are p in place of p, label"),
    ],
)
def test_what_else_differs(outputs, why):
    assert compare(outputs, {"p": [[1.0, 0.0]], "label": [1]}, WITHIN).why_not == why


def test_maps_and_missing_numbers_compare():
    reference = {"p": [{"a": 0.5, "b": None}], "label": ["x"]}
    assert compare({"p": [{"a": 0.5001, "b": None}], "label": ["x"]}, reference, WITHIN).why_not is None
    assert compare({"p": [{"a": 0.5, "c": None}], "label": ["x"]}, reference, WITHIN).why_not is not None


def test_what_cannot_be_measured_is_infinitely_far():
    assert math.isinf(compare({"p": []}, {"p": [1.0]}, WITHIN).largest_difference)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"message": "no"}', b'{"outputs": [1]}', b"\xff"])
def test_a_body_without_outputs_is_no_answer(body):
    with pytest.raises(NoAnswerError):
        read(body)
    assert read(json.dumps({"outputs": {"y": [1]}}).encode()) == {"y": [1]}
