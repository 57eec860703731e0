"""Made-up inputs: they suit the declaration, vary, and are the same each time."""

import numpy as np
import pytest

from scoring_runtime.onnx.dtypes import BY_NAME, TABLE
from scoring_runtime.onnx.samples import FREE_SIZES, INTEGERS, MOST_CELLS, Guess, guesses
from scoring_runtime.onnx.tensors import Tensor

FLOAT, INT64 = BY_NAME["float32"], BY_NAME["int64"]


@pytest.mark.parametrize("dtype", TABLE, ids=lambda dtype: dtype.name)
def test_every_type_can_be_made_up(dtype):
    guess = next(guesses([Tensor("x", dtype, ("N", 50))]))
    (array,) = guess.make(3, seed=1)
    assert array.dtype == dtype.array
    assert array.shape == (3, 50)
    assert len(set(array.ravel().tolist())) > 1
    np.testing.assert_array_equal(array, guess.make(3, seed=1)[0])


def test_equal_names_get_equal_sizes_and_the_batch_axis_its_rows():
    inputs = [Tensor("a", FLOAT, ("N", "S")), Tensor("b", FLOAT, ("S", 2)), Tensor("c", FLOAT, (2, "N", None))]
    shapes = [array.shape for array in Guess(inputs, 16, "small").make(3, seed=0)]
    assert shapes == [(3, 3), (3, 2), (2, 3, 16)]  # S is a leading axis as well: it follows the rows
    assert Guess([inputs[0]], 16, "small").make(3, seed=0)[0].shape == (3, 16)


def test_sizes_are_tried_only_where_an_axis_is_free():
    assert len(list(guesses([Tensor("x", FLOAT, ("N", 4))]))) == 1
    assert len(list(guesses([Tensor("x", FLOAT, ("N", "S"))]))) == len(FREE_SIZES)
    assert len(list(guesses([Tensor("x", INT64, ("N", "S"))]))) == len(FREE_SIZES) * len(INTEGERS)


def test_shapes_that_are_too_large_are_left_out():
    for guess in guesses([Tensor("x", FLOAT, ("N", None, None, None, None))]):
        assert guess.make(1, seed=0)[0].size <= MOST_CELLS
    assert list(guesses([Tensor("x", FLOAT, (MOST_CELLS + 1,))])) == []


def test_masks_and_types_of_language_models():
    inputs = [Tensor(name, INT64, ("N", "S")) for name in ("input_ids", "attention_mask", "token_type_ids")]
    ids, mask, types = Guess(inputs, 8, "by name").make(2, seed=0)
    assert len(set(ids.ravel().tolist())) > 1
    assert set(mask.ravel().tolist()) == {1}
    assert set(types.ravel().tolist()) == {0}


@pytest.mark.parametrize(("family", "varied"), [("small", True), ("flags", True), ("ones", False), ("zeros", False)])
def test_constant_samples_are_known_to_prove_nothing(family, varied):
    assert Guess([Tensor("x", INT64, ("N",))], 1, family).varied is varied
    assert Guess([Tensor("x", INT64, ("N",)), Tensor("y", FLOAT, ("N",))], 1, family).varied is True
