"""Do a candidate's answers agree with the reference's? Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Tolerance(NamedTuple):
    """Two numbers agree when they differ by at most `relative` of the reference, plus `of_largest` of its tensor's largest."""

    relative: float
    of_largest: float


Tolerances = Mapping[str, Tolerance | None]
"""For each output; None where values are equal or they are not."""


@dataclass(frozen=True)
class Agreement:
    """How two answers compare."""

    largest_difference: float
    """Between two numbers that stand at the same place; infinite where something else differs."""
    why_not: str | None = None
    """Where they differ most, if by more than they may."""


class NoAnswerError(Exception):
    """A body that holds no outputs; the text says what it holds."""


def read(body: bytes) -> dict[str, Any]:
    """The outputs that an answer holds; NoAnswerError when it holds none."""
    try:
        outputs = json.loads(body)["outputs"]
    except (ValueError, KeyError, TypeError):
        outputs = None
    if not isinstance(outputs, dict):
        raise NoAnswerError(body[:200].decode("utf-8", "backslashreplace"))
    return outputs


def compare(outputs: Mapping[str, Any], reference: Mapping[str, Any], tolerances: Tolerances) -> Agreement:
    """How `outputs` agree with those of the reference."""
    if outputs.keys() != reference.keys():
        return Agreement(float("inf"), f"the outputs are {', '.join(outputs)} in place of {', '.join(reference)}")
    largest, worst, why = 0.0, 1.0, None
    for name, expected in reference.items():
        tolerance = tolerances.get(name)
        largest_value = max((abs(leaf) for leaf in _leaves(expected) if _is_number(leaf)), default=0.0)
        try:
            pairs = list(_pairs(outputs[name], expected))
        except _OtherShapeError:
            return Agreement(float("inf"), f"output {name!r} has another shape")
        for got, wanted in pairs:
            if got == wanted:
                continue
            if not (_is_number(got) and _is_number(wanted)):
                return Agreement(float("inf"), f"output {name!r} holds {got!r} in place of {wanted!r}")
            difference = abs(got - wanted)
            largest = max(largest, difference)
            excess = difference / _allowed(wanted, largest_value, tolerance)
            if excess > worst:
                worst, why = excess, f"output {name!r} holds {got!r} in place of {wanted!r}"
    return Agreement(largest, why)


def _allowed(wanted: float, largest: float, tolerance: Tolerance | None) -> float:
    if tolerance is None:
        return 1e-300
    return max(tolerance.relative * abs(wanted) + tolerance.of_largest * largest, 1e-300)


class _OtherShapeError(Exception):
    """Two values that cannot be compared number by number."""


def _pairs(got: Any, wanted: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(wanted, dict) and isinstance(got, dict):
        if got.keys() != wanted.keys():
            raise _OtherShapeError
        for key in wanted:
            yield from _pairs(got[key], wanted[key])
    elif isinstance(wanted, list) and isinstance(got, list):
        if len(got) != len(wanted):
            raise _OtherShapeError
        for one, other in zip(got, wanted, strict=True):
            yield from _pairs(one, other)
    elif isinstance(wanted, (dict, list)) or isinstance(got, (dict, list)):
        raise _OtherShapeError
    else:
        yield got, wanted


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    else:
        yield value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
