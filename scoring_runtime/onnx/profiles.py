"""Shape profiles: between which sizes of its inputs a TensorRT engine is built, and which requests it covers. Pure.

TensorRT builds an engine for a range of sizes: the least, the most, and one between them that it is tuned for. What lies
outside makes ONNX Runtime build another engine, inside the request, for minutes. So each axis that a model leaves free needs
a range before the engine is built, and a request that lies outside is refused.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence

from .tensors import Size, Tensor, shape_text

Shape = tuple[int, ...]
Declared = Mapping[str, tuple[Size, ...] | None]
"""Shapes of inputs by name, as a model declares them."""

PROOF_ROWS = 6
"""So many rows the samples have together that prove that requests can be stacked."""

MIN, OPT, MAX = OPTIONS = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")


class ProfileError(Exception):
    """There is no profile for this model and these options. The text says why, and what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """The sizes of one input."""

    least: Shape
    usual: Shape
    """What the engine is tuned for."""
    most: Shape


Profile = dict[str, Range]
"""By name: every input with a free axis, or none at all."""


def make(declared: Declared, most_rows: int, options: Mapping[str, str]) -> Profile:
    """The profile of a model: by the options of the user where there are any, otherwise by the batches that may come."""
    return parse(declared, options) if any(name in options for name in OPTIONS) else plan(declared, most_rows)


def most_rows(max_batch_size: int, buckets: str) -> int:
    """The most rows that a run may have, padding and the proof of batching included. buckets: as in the settings."""
    padded = [] if buckets in ("auto", "off") else [int(size) for size in buckets.split(",")]
    return max(max_batch_size, *padded, PROOF_ROWS if max_batch_size > 1 else 1)


def bound_of(profile: Profile, declared: Declared) -> int | None:
    """The most rows that the engine takes; None where the model fixes their number."""
    bounds = [
        sizes.most[0]
        for name, sizes in profile.items()
        if sizes.most and not isinstance((declared[name] or [None])[0], int)
    ]
    return min(bounds, default=None)


def plan(declared: Declared, most_rows: int) -> Profile:
    """A profile for batches of up to `most_rows` rows; ProfileError where another axis than that of the batch is free."""
    batch = {shape[0] for shape in declared.values() if shape and isinstance(shape[0], str)}
    unknown = []
    profile: Profile = {}
    # A run has a few rows where little is to be done and many where much is: between them, by factors.
    rows = Range((1,), (1 << most_rows.bit_length() // 2,), (most_rows,))
    for name, shape in declared.items():
        if shape is None:
            unknown.append(f"the shape of input {name!r}")
            continue
        if all(isinstance(size, int) for size in shape):
            continue
        ranges = []
        for axis, size in enumerate(shape):
            if isinstance(size, int):
                ranges.append((size, size, size))
            elif axis == 0 or size in batch:
                ranges.append((rows.least[0], rows.usual[0], rows.most[0]))
            else:
                ranges.append((0, 0, 0))
                unknown.append(f"axis {axis}{f' ({size})' if size else ''} of input {name!r}")
        least, usual, most = zip(*ranges, strict=True)
        profile[name] = Range(least, usual, most)
    if unknown:
        raise ProfileError(
            f"TensorRT builds its engine for a range of sizes, and nothing says how large {', '.join(unknown)} may be: "
            f"say it for all inputs that have a free axis, {_how_to_say(declared)}"
        )
    return profile


def _how_to_say(declared: Declared) -> str:
    """The options to give, with what is known filled in."""
    free = {name: shape for name, shape in declared.items() if not shape or any(not isinstance(s, int) for s in shape)}
    shapes = ",".join(
        f"{name}:" + ("x".join("?" if size is None else str(size) for size in shape) if shape else "?")
        for name, shape in free.items()
    )
    return (
        f"as in --provider-option tensorrt.{MIN}={shapes} with numbers in place of names, and likewise {OPT} and {MAX}"
    )


def parse(declared: Declared, options: Mapping[str, str]) -> Profile:
    """The profile that a user's options describe, checked against what the model declares."""
    missing = [name for name in OPTIONS if name not in options]
    if missing:
        raise ProfileError(f"tensorrt.{missing[0]} is missing: of {', '.join(OPTIONS)} all three are needed, or none")
    least, usual, most = ({**_parse_shapes(name, options[name], declared)} for name in OPTIONS)
    profile: Profile = {}
    for name in dict.fromkeys((*least, *usual, *most)):
        for option, shapes in zip(OPTIONS, (least, usual, most), strict=True):
            if name not in shapes:
                raise ProfileError(f"tensorrt.{option} does not name input {name!r}; the others do: add it")
        for axis, (low, middle, high) in enumerate(zip(least[name], usual[name], most[name], strict=False)):
            if not low <= middle <= high:
                raise ProfileError(
                    f"axis {axis} of input {name!r} has min {low}, opt {middle} and max {high}: they must rise, or be equal"
                )
        if not len(least[name]) == len(usual[name]) == len(most[name]):  # of an input that declares no shape
            raise ProfileError(f"input {name!r} has different numbers of axes in {', '.join(OPTIONS)}")
        profile[name] = Range(least[name], usual[name], most[name])
    for name, shape in declared.items():
        if name not in profile and (shape is None or not all(isinstance(size, int) for size in shape)):
            raise ProfileError(
                f"input {name!r} has free axes and stands in none of {', '.join(OPTIONS)}: TensorRT takes a profile of all "
                "inputs that have any, or of none: add it"
            )
    return profile


def _parse_shapes(option: str, text: str, declared: Declared) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, colon, sizes = part.rpartition(":")
        if not colon or not all(size.isdecimal() and len(size) < 10 for size in sizes.split("x")):
            raise ProfileError(f"tensorrt.{option}: {part!r} is no shape: expected INPUT:1x3x224x224")
        shape = tuple(map(int, sizes.split("x")))
        if name not in declared:
            nearest = difflib.get_close_matches(name, declared, 1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(map(repr, declared))}"
            raise ProfileError(f"tensorrt.{option}: the model has no input {name!r}: {hint}")
        if name in shapes:
            raise ProfileError(f"tensorrt.{option} names input {name!r} twice: one range for each input is supported")
        whole = declared[name]
        if whole is not None:
            if len(whole) != len(shape):
                raise ProfileError(
                    f"tensorrt.{option}: {part!r} has {len(shape)} axes; the model declares {len(whole)}, {shape_text(whole)}"
                )
            for axis, (size, given) in enumerate(zip(whole, shape, strict=True)):
                if isinstance(size, int) and size != given:
                    raise ProfileError(
                        f"tensorrt.{option}: {part!r} has {given} on axis {axis}, which the model fixes to {size}"
                    )
        shapes[name] = shape
    return shapes


def to_options(profile: Profile) -> dict[str, str]:
    """The profile as ONNX Runtime's options; none for a model without free axes."""
    if not profile:
        return {}
    columns = [[(name, getattr(sizes, column)) for name, sizes in profile.items()] for column in _COLUMNS]
    return {
        option: ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in column)
        for option, column in zip(OPTIONS, columns, strict=True)
    }


_COLUMNS = ("least", "usual", "most")


def corners(profile: Profile) -> list[dict[str, Shape]]:
    """The shapes to try before any request comes: all at their least, all as usual, all at their most."""
    found: list[dict[str, Shape]] = []
    for column in _COLUMNS:
        shapes = {name: getattr(sizes, column) for name, sizes in profile.items()}
        if shapes not in found:
            found.append(shapes)
    return found


def narrowed(tensor: Tensor, profile: Profile) -> Tensor:
    """An input as the engine takes it: an axis whose range is one size is fixed."""
    sizes = profile.get(tensor.name)
    if sizes is None:
        return tensor
    declared = tensor.shape if tensor.shape is not None else (None,) * len(sizes.least)
    shape = tuple(
        [low if low == high else size for size, low, high in zip(declared, sizes.least, sizes.most, strict=True)]
    )
    return dataclasses.replace(tensor, shape=shape)


def why_not_covered(profile: Profile, names: Sequence[str], shapes: Sequence[Shape]) -> str | None:
    """Which size of a request the engine was not built for, as text; None when it was built for all."""
    for name, shape in zip(names, shapes, strict=True):
        sizes = profile.get(name)
        if sizes is None:
            continue
        if len(shape) != len(sizes.least):
            return f"input {name!r} has {len(shape)} axes; the engine was built for {len(sizes.least)}"
        for axis, (size, low, high) in enumerate(zip(shape, sizes.least, sizes.most, strict=True)):
            if not low <= size <= high:
                option = MIN if size < low else MAX
                built = f"{low} to {high}" if low < high else f"{low} only"
                return (
                    f"input {name!r} axis {axis} is {size}; the engine was built for {built}: send what lies within, or "
                    f"have the server started with another tensorrt.{option}"
                )
    return None
