"""Vectors of several steps are compared up to a turn, which changes nothing that a model does."""

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from attnlab.interp.embeddings import (
    Embeddings,
    align,
    align_history,
    neighbour_turnover,
    principal_components,
    vector_drift,
)
from tests.prose import refuses


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turn(size: int, seed: int = 0, mirrored: bool = False) -> torch.Tensor:
    """Draw a rotation, or a reflection."""
    turned, _ = torch.linalg.qr(drawn(size, size, seed=seed))
    turned[:, 0] *= torch.linalg.det(turned) * (-1 if mirrored else 1)
    return turned


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_and_shifted_copy_is_the_reference(mirrored):
    seed = 1
    reference = drawn(30, 6, seed=seed) + 2
    copy = (reference - 5) @ turn(6, seed + 9, mirrored) + drawn(6, seed=seed)
    aligned, disparity = align(copy, reference)
    assert disparity == pytest.approx(0, abs=1e-10)
    torch.testing.assert_close(aligned, reference, atol=1e-10, rtol=0)
    assert vector_drift(copy, reference) == pytest.approx(0, abs=1e-10)
    assert neighbour_turnover((reference @ turn(6, seed, mirrored)), reference, 4) == 0


def test_no_other_turn_comes_nearer_and_lengths_stay():
    vectors, reference = drawn(30, 6), drawn(30, 6, seed=1)
    aligned, disparity = align(vectors, reference)
    middle = reference.mean(dim=0)
    one, other = vectors - vectors.mean(dim=0), reference - middle
    best, singular = orthogonal_procrustes(one.numpy(), other.numpy())
    torch.testing.assert_close(aligned, one @ torch.from_numpy(best) + middle)
    lengths = float(one.square().sum() + other.square().sum())
    assert disparity == pytest.approx(1 - 2 * singular / lengths)
    torch.testing.assert_close((aligned - middle).norm(dim=1), one.norm(dim=1))
    for seed in range(50):
        left = (one @ turn(6, seed, mirrored=seed % 2 == 0) - other).square().sum() / lengths
        assert float(left) > disparity


def test_noise_is_not_aligned_and_what_shares_no_direction_least():
    assert 0.3 < align(drawn(400, 6), drawn(400, 6, seed=1))[1] < 1
    assert 0.6 < vector_drift(drawn(400, 6), drawn(400, 6, seed=1)) < 1
    assert neighbour_turnover(drawn(400, 6), drawn(400, 6, seed=1)) > 0.9
    # What one has, the other lacks: no turn of the one meets the other.
    apart = torch.zeros(4, 2, dtype=torch.float64)
    one, other = apart.clone(), apart.clone()
    one[:, 0], other[:, 1] = torch.tensor([1.0, 1, -1, -1]), torch.tensor([1.0, -1, 1, -1])
    assert align(one, other)[1] == pytest.approx(1)
    assert align(apart, apart)[1] == 0


def test_no_measure_hangs_on_how_either_is_turned_or_shifted():
    vectors, reference = drawn(40, 5), drawn(40, 5, seed=1)
    elsewhere = vectors @ turn(5, 3) + 7, reference @ turn(5, 4, mirrored=True) - 3
    assert align(*elsewhere)[1] == pytest.approx(align(vectors, reference)[1])
    assert vector_drift(*elsewhere) == pytest.approx(vector_drift(vectors, reference))
    turned = vectors @ turn(5, 3), reference @ turn(5, 4, mirrored=True)
    assert neighbour_turnover(*turned) == pytest.approx(neighbour_turnover(vectors, reference))
    assert neighbour_turnover(vectors, reference) == neighbour_turnover(reference, vectors)


def test_the_drift_is_the_mean_angle_that_is_left():
    reference = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    # A mirrored copy of other lengths has the same angles.
    vectors = reference[[0, 1, 3, 2]] * torch.tensor([2.0, 2, 1, 1])[:, None]
    assert vector_drift(vectors, reference) == pytest.approx(0)
    # Two axes fell into one: nearest is a turn by 45 degrees, which is left for all.
    assert vector_drift(reference[[0, 1, 0, 1]], reference) == pytest.approx(1 - 0.5**0.5)
    # What points away is further than what stands across.
    noise, other = drawn(9, 3), drawn(9, 3, seed=1)
    middle = other.mean(dim=0)
    pairs = zip(align(noise, other)[0] - middle, other - middle, strict=True)
    cosines = [float(one @ its / one.norm() / its.norm()) for one, its in pairs]
    assert min(cosines) < 0
    assert vector_drift(noise, other) == pytest.approx(1 - sum(cosines) / 9)


def test_the_turnover_is_that_of_the_named_neighbours():
    vectors, reference = drawn(25, 4), drawn(25, 4) + 0.4 * drawn(25, 4, seed=1)
    names = [str(number) for number in range(25)]
    lost = []
    for name in names:
        one, other = (
            {near for near, _ in Embeddings(names, which).neighbours(name, 5)}
            for which in (vectors, reference)
        )
        lost.append(1 - len(one & other) / len(one | other))
    assert neighbour_turnover(vectors, reference, 5) == pytest.approx(sum(lost) / len(lost))
    assert 0.1 < sum(lost) / len(lost) < 0.9


def test_no_token_is_a_neighbour_of_itself_however_far_the_others_are():
    far, near = torch.tensor([[1.0, 0], [-1, 0]]), torch.tensor([[1.0, 0], [1, 0.1]])
    assert neighbour_turnover(far, near, 1) == 0


def test_a_large_vocabulary_is_compared_in_parts(monkeypatch):
    vectors, reference = drawn(50, 4), drawn(50, 4) + 0.4 * drawn(50, 4, seed=1)
    whole = neighbour_turnover(vectors, reference)
    monkeypatch.setattr("attnlab.interp.embeddings.TOKENS_AT_ONCE", 7)
    assert neighbour_turnover(vectors, reference) == pytest.approx(whole)


def test_a_course_ends_on_the_principal_components_of_the_last_step():
    last = drawn(20, 5) * torch.tensor([3.0, 2, 1, 1, 1]) + 4
    halfway = 0.5 * last @ turn(5, 2, mirrored=True) + 1
    places = align_history([halfway.float(), last @ turn(5, 1), last])
    assert places.shape == (3, 20, 2)
    torch.testing.assert_close(places[2], principal_components(last)[0])
    # What was turned alone never moved; what was half as far from the mean came straight out.
    torch.testing.assert_close(places[1], places[2])
    torch.testing.assert_close(places[0], places[2] / 2, atol=1e-6, rtol=1e-5)


def test_what_cannot_be_compared_is_refused():
    with refuses(ValueError, "evidence.embeddings.align"):
        align(drawn(4, 3), drawn(5, 3))
    with refuses(ValueError, "evidence.embeddings.no_steps"):
        align_history([])
    with refuses(ValueError, "evidence.embeddings.course"):
        align_history([drawn(4, 3), drawn(5, 3)])
    with refuses(ValueError, "evidence.embeddings.turnover"):
        neighbour_turnover(drawn(4, 3), drawn(5, 3), 2)
    for count in (0, 4):
        with refuses(ValueError, f"evidence.embeddings.count.{count}"):
            neighbour_turnover(drawn(4, 3), drawn(4, 3), count)
    assert np.isfinite(align_history([torch.ones(5, 3), torch.ones(5, 3)]).numpy()).all()
