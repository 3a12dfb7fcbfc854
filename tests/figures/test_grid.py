"""One picture of all maps: each weight at its place, with its brightness."""

import numpy as np

from attnlab.figures.grid import GREY, LINE, SIDE, draw_pattern_grid
from tests.prose import refuses


def drawn(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.random(shape, dtype=np.float32)


def cells(picture: np.ndarray, height: int, width: int) -> dict[tuple[int, int], np.ndarray]:
    """Cut a picture at its lines, which must be grey."""
    rows, columns = (
        (picture.shape[0] + LINE) // (height + LINE),
        (picture.shape[1] + LINE) // (width + LINE),
    )
    assert picture.shape == (rows * (height + LINE) - LINE, columns * (width + LINE) - LINE)
    found = {}
    for i in range(rows):
        for j in range(columns):
            top, left = i * (height + LINE), j * (width + LINE)
            found[i, j] = picture[top : top + height, left : left + width]
            assert (picture[top + height : top + height + LINE] == GREY).all()
            assert (picture[:, left + width : left + width + LINE] == GREY).all()
    return found


def test_brightness_is_the_rounded_weight():
    for dtype in (np.float16, np.float32, np.float64):
        weights = (np.arange(256) / 255).astype(dtype)
        picture = draw_pattern_grid([np.tile(weights, (1, SIDE, 1))])
        assert picture.shape == (SIDE, 256)
        assert np.array_equal(picture[0], np.arange(256)), dtype
        assert (
            draw_pattern_grid([np.full((1, 2, 2), 0.3, dtype)]) == round(255 * float(dtype(0.3)))
        ).all()


def test_layers_are_rows_and_heads_are_columns():
    rng = np.random.default_rng(0)
    patterns = [drawn(rng, 3, 10, 10), drawn(rng, 1, 10, 10)]
    found = cells(draw_pattern_grid(patterns), 100, 100)
    assert set(found) == {(i, j) for i in range(2) for j in range(3)}
    for i, layer in enumerate(patterns):
        for j, weights in enumerate(layer):
            block = np.kron(np.rint(weights * 255), np.ones((10, 10)))
            assert np.array_equal(found[i, j], block)
    assert (found[1, 1] == GREY).all()
    assert (found[1, 2] == GREY).all()


def test_a_map_is_enlarged_by_whole_pixels_until_its_shorter_side_can_be_seen():
    for size in (1, 7, 95, 96, 97, 300):
        height, width = draw_pattern_grid([np.ones((1, size, 2 * size), np.float32)]).shape
        assert width == 2 * height
        assert height % size == 0
        assert height - size < SIDE <= height, size


def test_maps_of_different_sizes_keep_their_corner():
    rng = np.random.default_rng(0)
    small, wide = drawn(rng, 1, 96, 96), drawn(rng, 1, 100, 200)
    found = cells(draw_pattern_grid([small, wide]), 100, 200)
    assert np.array_equal(found[0, 0][:96, :96], np.rint(small[0] * 255))
    assert (found[0, 0][96:] == GREY).all()
    assert (found[0, 0][:, 96:] == GREY).all()
    assert np.array_equal(found[1, 0], np.rint(wide[0] * 255))


def test_what_is_no_weight_is_refused_and_so_is_no_map():
    weights = {"below_0": -1e-6, "above_1": 1.00001, "nan": np.nan, "infinite": np.inf}
    for name, weight in weights.items():
        pattern = np.full((1, 2, 2), 0.5, np.float32)
        pattern[0, 1, 0] = weight
        with refuses(ValueError, f"figures.grid.no_weight.{name}"):
            draw_pattern_grid([pattern])
    for patterns in ([], [np.zeros((0, 3, 3), np.float32)]):
        with refuses(ValueError, "figures.grid.no_map"):
            draw_pattern_grid(patterns)


def test_one_row_of_a_long_text_stays_a_small_picture():
    assert draw_pattern_grid([np.full((2, 1, 500), 0.5)]).shape == (1, 2 * 500 + LINE)
    assert draw_pattern_grid([np.full((1, 1, 20), 0.5)]).shape == (19, 380)
