"""Between which sizes an engine is built: from batches, from a user's options, and what a request outside is told."""

from typing import Any

import pytest

from scoring_runtime.onnx.dtypes import BY_NAME
from scoring_runtime.onnx.profiles import (
    OPTIONS,
    PROOF_ROWS,
    ProfileError,
    Range,
    bound_of,
    corners,
    make,
    most_rows,
    narrowed,
    parse,
    plan,
    to_options,
    why_not_covered,
)
from scoring_runtime.onnx.tensors import Tensor

FLOAT = BY_NAME["float32"]
PICTURES: Any = {"x": ("N", 3, "H", "W")}
TEXTS: Any = {"ids": ("batch", "seq"), "mask": ("batch", "seq"), "scale": (1,)}
GIVEN = {
    "trt_profile_min_shapes": "x:1x3x32x32",
    "trt_profile_opt_shapes": "x:8x3x224x224",
    "trt_profile_max_shapes": "x:32x3x512x640",
}


def why(declared: Any, options: dict[str, str] | None = None, rows: int = 8) -> str:
    with pytest.raises(ProfileError) as caught:
        make(declared, rows, options or {})
    return str(caught.value)


# By the batches that may come


def test_batches_alone_need_no_options():
    profile = make({"x": ("N", 3, 224, 224), "fixed": (4, 2)}, 128, {})
    assert profile == {"x": Range((1, 3, 224, 224), (16, 3, 224, 224), (128, 3, 224, 224))}
    assert to_options(profile) == {
        "trt_profile_min_shapes": "x:1x3x224x224",
        "trt_profile_opt_shapes": "x:16x3x224x224",
        "trt_profile_max_shapes": "x:128x3x224x224",
    }


def test_all_dynamic_inputs_are_named_or_none():
    assert list(plan({"a": ("N", 2), "b": (None, 3), "c": (5,)}, 8)) == ["a", "b"]
    assert plan({"a": (1, 2), "c": (5,)}, 8) == {}
    assert to_options({}) == {}


def test_a_later_axis_with_the_name_of_the_batch_has_its_rows():
    assert plan({"x": ("N", 4), "state": (2, "N", 128)}, 64)["state"] == Range((2, 1, 128), (2, 8, 128), (2, 64, 128))


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 100, 128])
def test_the_usual_batch_lies_between(rows):
    sizes = plan({"x": ("N",)}, rows)["x"]
    assert sizes.least[0] <= sizes.usual[0] <= sizes.most[0] == rows


@pytest.mark.parametrize(
    ("max_batch_size", "buckets", "rows"),
    [
        (128, "auto", 128),
        (100, "auto", 100),
        (1, "auto", 1),
        (100, "off", 100),
        (32, "1,8,64", 64),
        (32, "1,8", 32),
        (2, "auto", 6),
        (1, "off", 1),
    ],
)
def test_padding_to_buckets_is_covered(max_batch_size, buckets, rows):
    assert most_rows(max_batch_size, buckets) == rows


# What nothing is known of


def test_free_axes_of_unknown_size_are_named_with_the_option_that_says_them():
    text = why(PICTURES)
    assert "axis 2 (H) of input 'x', axis 3 (W) of input 'x'" in text
    assert "--provider-option tensorrt.trt_profile_min_shapes=x:Nx3xHxW" in text
    assert "trt_profile_opt_shapes and trt_profile_max_shapes" in text


def test_an_undeclared_shape_is_named():
    assert "the shape of input 'x'" in why({"x": None})


# By the options of a user


def test_options_make_the_profile():
    profile = make(PICTURES, 8, GIVEN)
    assert profile == {"x": Range((1, 3, 32, 32), (8, 3, 224, 224), (32, 3, 512, 640))}
    assert to_options(profile) == GIVEN


def test_several_inputs_and_a_colon_in_a_name():
    given = dict(zip(OPTIONS, ("onnx::x:1x4, b:1x2", "b:2x2,onnx::x:1x8", "onnx::x:1x9,b:2x2"), strict=True))
    profile = parse({"onnx::x": (None, "S"), "b": ("N", 2)}, given)
    assert profile == {"onnx::x": Range((1, 4), (1, 8), (1, 9)), "b": Range((1, 2), (2, 2), (2, 2))}


def test_an_input_without_a_declared_shape_may_be_given_one():
    assert parse({"x": None}, dict.fromkeys(OPTIONS, "x:1x5"))["x"] == Range((1, 5), (1, 5), (1, 5))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"opt": None}, "tensorrt.trt_profile_opt_shapes is missing: of trt_profile_min_shapes, "),
        ({"min": "y:1x3x32x32"}, "trt_profile_min_shapes: the model has no input 'y': it has 'x'"),
        ({"min": "x:1x3x32"}, "'x:1x3x32' has 3 axes; the model declares 4, [N, 3, H, W]"),
        ({"max": "x:32x4x512x512"}, "'x:32x4x512x512' has 4 on axis 1, which the model fixes to 3"),
        ({"min": "x:1x3x300x32"}, "axis 2 of input 'x' has min 300, opt 224 and max 512: they must rise, or be equal"),
        ({"opt": "x:64x3x224x224"}, "axis 0 of input 'x' has min 1, opt 64 and max 32"),
        ({"min": "x"}, "tensorrt.trt_profile_min_shapes: 'x' is no shape: expected INPUT:1x3x224x224"),
        ({"min": "x:1x-3x3x3"}, "'x:1x-3x3x3' is no shape"),
        ({"min": "x:1x3x32x32,x:1x3x64x64"}, "names input 'x' twice: one range for each input is supported"),
        ({"min": "", "opt": "", "max": ""}, "input 'x' has free axes and stands in none of "),
        ({"opt": ","}, "tensorrt.trt_profile_opt_shapes does not name input 'x'; the others do: add it"),
    ],
)
def test_wrong_options_are_told_what_is_wrong(change, text):
    changed = {f"trt_profile_{name}_shapes": value for name, value in change.items()}
    assert text in why(PICTURES, {name: value for name, value in (GIVEN | changed).items() if value is not None})


def test_the_nearest_name_is_named():
    assert "did you mean 'pixels'?" in why({"pixels": ("N",)}, dict.fromkeys(OPTIONS, "pixel:1"))


def test_a_dynamic_input_that_is_left_out_is_named():
    assert "input 'mask' has free axes and stands in none of" in why(TEXTS, dict.fromkeys(OPTIONS, "ids:1x8"))


def test_ranks_of_an_undeclared_shape_must_agree():
    given = dict(zip(OPTIONS, ("x:1x2", "x:1x2", "x:1x2x3"), strict=True))
    assert "input 'x' has different numbers of axes" in why({"x": None}, given)


def test_a_run_has_as_many_rows_as_the_engine_takes():
    assert bound_of(make(PICTURES, 8, GIVEN), PICTURES) == 32
    assert bound_of({}, {"x": (1, 2)}) is None
    fixed = {"x": (1, "S")}
    assert bound_of(parse(fixed, dict.fromkeys(OPTIONS, "x:1x9")), fixed) is None
    assert bound_of(plan({"x": ("N",), "state": (2, "N")}, 8), {"x": ("N",), "state": (2, "N")}) == 8


def test_the_proof_of_batching_is_covered():
    from scoring_runtime.onnx.samples import SCALES

    assert sum(rows for rows, _ in enumerate(SCALES, start=1)) == PROOF_ROWS


# What is covered


def test_what_lies_within_is_covered():
    profile = parse(PICTURES, GIVEN)
    for shape in ((1, 3, 32, 32), (32, 3, 512, 640), (2, 3, 100, 333)):
        assert why_not_covered(profile, ["x"], [shape]) is None
    assert why_not_covered({}, ["x"], [(1, 2)]) is None
    assert why_not_covered(profile, ["y", "x"], [(99,), (1, 3, 32, 32)]) is None


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (
            (1, 3, 513, 640),
            "input 'x' axis 2 is 513; the engine was built for 32 to 512: send what lies within, or have the server started",
        ),
        (
            (1, 3, 31, 640),
            "input 'x' axis 2 is 31; the engine was built for 32 to 512: send what lies within, or have ",
        ),
        ((33, 3, 64, 64), "input 'x' axis 0 is 33; the engine was built for 1 to 32"),
        ((1, 4, 64, 64), "input 'x' axis 1 is 4; the engine was built for 3 only"),
        ((1, 3, 64), "input 'x' has 3 axes; the engine was built for 4"),
    ],
)
def test_what_lies_outside_is_told_the_range(shape, text):
    assert str(why_not_covered(parse(PICTURES, GIVEN), ["x"], [shape])).startswith(text)


def test_an_axis_of_one_size_is_fixed():
    given = dict(zip(OPTIONS, ("x:1x3x224x32", "x:1x3x224x64", "x:1x3x224x99"), strict=True))
    tensor = Tensor("x", FLOAT, ("N", 3, "H", "W"))
    assert narrowed(tensor, parse(PICTURES, given)).shape == (1, 3, 224, "W")
    assert narrowed(tensor, {}) == tensor
    assert narrowed(Tensor("x", FLOAT, None), parse({"x": None}, given)).shape == (1, 3, 224, None)


def test_corners_are_tried_once_each():
    assert corners(plan({"x": ("N", 2)}, 1)) == [{"x": (1, 2)}]
    assert corners(plan({"x": ("N", 2)}, 64)) == [{"x": (1, 2)}, {"x": (8, 2)}, {"x": (64, 2)}]
    assert corners({}) == [{}]
