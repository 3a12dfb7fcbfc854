"""Laws of what is asked: the same noise for the same example, and what each objective hides."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from attnlab.dataset.loader import Loader
from attnlab.dataset.mqar import MQAR
from attnlab.dataset.pronoun import Pronoun
from attnlab.dataset.reversal import Reversal
from attnlab.objective.autoencoder import Autoencoder
from attnlab.objective.autoregressive import Autoregressive
from attnlab.objective.base import noise
from attnlab.objective.classification import Classification
from attnlab.objective.denoising import Denoising
from attnlab.objective.masked import Masked
from attnlab.objective.seq2seq import Seq2Seq
from attnlab.split import IGNORE, Batch
from tests.prose import refuses

ROWS = 4096


@pytest.fixture(scope="module")
def dataset() -> Pronoun:
    return Pronoun(num_train=ROWS, num_validation=200, num_test=200)


@pytest.fixture(scope="module")
def batch(dataset) -> Batch:
    """The training split, whose sentences are of several lengths."""
    index = np.arange(ROWS)
    return dataset.splits["train"].batch(index)._replace(noise_key=torch.from_numpy(index))


def splitmix64(seed: int, count: int) -> list[int]:
    """The generator as its authors print it (Steele et al. 2014, fig. 16), in whole numbers."""
    out, word = [], 2**64 - 1
    for n in range(1, count + 1):
        z = (seed + n * 0x9E3779B97F4A7C15) & word
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & word
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
        out.append(z ^ (z >> 31))
    return out


def test_noise_mixes_as_splitmix64_does():
    keys = [0, 1, 2**40 + 17, 2**62]
    for draw in (0, 1, 2):
        drawn = noise(torch.tensor(keys), 3, draw).double()
        for row, key in enumerate(keys):
            # A draw counts the generator on; its number, plus the position, seeds the next.
            (inner,) = splitmix64(key, draw + 1)[-1:]
            expected = [splitmix64(inner + at, 1)[0] >> 40 for at in range(3)]
            assert [int(u * 2**24) for u in drawn[row]] == expected


def test_noise_is_uniform_and_one_draw_says_nothing_of_another():
    key = torch.arange(400)
    first, second = (noise(key, 50, draw).double() for draw in (0, 1))
    assert first.min() >= 0
    assert first.max() < 1
    assert stats.kstest(first.flatten().numpy(), "uniform").pvalue > 1e-3
    for other in (second, first.roll(1, 0), first.roll(1, 1)):
        pairs = torch.stack((first.flatten(), other.flatten()))
        # Five standard errors of a correlation of 20,000 pairs that have none.
        assert abs(float(torch.corrcoef(pairs)[0, 1])) < 5 / 20_000**0.5


def test_noise_hangs_on_key_and_position_alone():
    key = torch.tensor([5, 9, 2])
    whole = noise(key, 20, 1)
    assert torch.equal(noise(key, 7, 1), whole[:, :7])
    assert torch.equal(noise(key.flip(0), 20, 1), whole.flip(0))


@pytest.mark.parametrize("kind", [Masked, Denoising])
def test_what_is_hidden_hangs_on_the_example_and_not_on_its_batch(dataset, batch, kind):
    objective = kind(dataset)
    whole = objective.training_batch(batch)
    some = torch.tensor([7, 3000, 12])
    picked = objective.training_batch(
        Batch._make(None if part is None else part[some] for part in batch)
    )
    assert torch.equal(picked.inputs, whole.inputs[some])
    assert torch.equal(picked.targets, whole.targets[some])


@pytest.mark.parametrize("kind", [Masked, Denoising])
def test_another_key_hides_other_tokens(dataset, batch, kind):
    objective = kind(dataset)
    assert batch.noise_key is not None
    again = objective.training_batch(batch._replace(noise_key=batch.noise_key + ROWS))
    assert not torch.equal(again.inputs, objective.training_batch(batch).inputs)


def test_a_masked_token_is_asked_and_the_shares_are_the_papers(dataset, batch):
    objective = Masked(dataset)
    asked, mask = objective.training_batch(batch), len(dataset.tokens)
    hidden = asked.targets != IGNORE
    assert torch.equal(asked.targets[hidden], batch.inputs[hidden])
    assert torch.equal(asked.inputs[~hidden], batch.inputs[~hidden])
    assert batch.valid is not None
    assert not hidden[~batch.valid].any()
    assert hidden.any(dim=1).all()
    share = float(hidden.sum() / batch.valid.sum())
    # A few short sentences hide their first-ranked token although none fell below the rate.
    assert 0.15 < share < 0.165
    read = asked.inputs[hidden]
    told = float((read == mask).double().mean())
    same = float((read == batch.inputs[hidden]).double().mean())
    assert told == pytest.approx(0.8, abs=0.015)
    assert same == pytest.approx(0.1 + 0.1 / len(dataset.tokens), abs=0.012)


def test_without_a_swap_or_a_rest_every_asked_token_reads_mask(dataset, batch):
    asked = Masked(dataset, rate=0.5, kept=0.0, swapped=0.0).training_batch(batch)
    hidden = asked.targets != IGNORE
    assert (asked.inputs[hidden] == len(dataset.tokens)).all()


def test_a_damaged_sequence_is_asked_whole(dataset, batch):
    asked = Denoising(dataset, rate=0.3).training_batch(batch)
    assert batch.valid is not None
    assert torch.equal(asked.targets[batch.valid], batch.inputs[batch.valid])
    assert (asked.targets[~batch.valid] == IGNORE).all()
    changed = (asked.inputs != batch.inputs)[batch.valid].double().mean()
    # A token drawn anew is sometimes the old one.
    assert float(changed) == pytest.approx(0.3 * (1 - 1 / len(dataset.tokens)), abs=0.01)


@pytest.mark.parametrize("kind", [Masked, Denoising])
def test_a_text_without_a_key_is_read_as_it_is(dataset, batch, kind):
    assert torch.equal(
        kind(dataset).training_batch(batch._replace(noise_key=None)).inputs, batch.inputs
    )


def test_training_never_repeats_a_key_nor_meets_one_of_evaluation(dataset):
    keys: list[int] = []
    for seed in (0, 1):
        loader = Loader(dataset.splits["train"], 64, seed)
        for number in range(3 * (ROWS // 64)):
            key = loader.batch(number).noise_key
            assert key is not None
            keys += key.tolist()
    assert len(set(keys)) == len(keys)
    assert min(keys) > 2**40
    first, again = (Loader(dataset.splits["train"], 64, 3).batch(7).noise_key for _ in range(2))
    assert first is not None
    assert again is not None
    assert torch.equal(first, again)


def test_an_autoencoder_gives_blanks_and_asks_for_what_it_read(dataset, batch):
    asked = Autoencoder(dataset).training_batch(batch)
    assert batch.valid is not None
    assert torch.equal(asked.inputs, batch.inputs)
    assert asked.prefix is not None
    assert (asked.prefix == len(dataset.tokens)).all()
    assert asked.prefix_valid is not None
    assert torch.equal(asked.prefix_valid, batch.valid)
    assert torch.equal(asked.targets[batch.valid], batch.inputs[batch.valid])
    assert (asked.targets[~batch.valid] == IGNORE).all()


def test_each_place_of_an_answer_has_the_ones_before_it():
    data = Reversal(num_train=50, num_validation=5, num_test=5)
    objective = Seq2Seq(data)
    asked = objective.training_batch(data.splits["train"].batch(np.arange(50)))
    assert asked.prefix is not None
    assert (asked.prefix[:, 0] == objective.begin).all()
    counted = asked.targets[:, :-1] != IGNORE
    assert torch.equal(asked.prefix[:, 1:][counted], asked.targets[:, :-1][counted])
    assert asked.prefix.max() <= objective.begin
    assert asked.prefix_valid is not None
    assert torch.equal(asked.prefix_valid[:, 1:], asked.targets[:, 1:] != IGNORE)
    assert asked.prefix_valid[:, 0].all()
    assert not asked.prefix_valid.all(), "some answers are shorter than others"
    assert len(objective.inputs) == objective.begin + 1


def test_a_decoder_reads_an_answer_behind_what_it_answers_and_is_asked_for_it_alone():
    data = Reversal(num_train=50, num_validation=5, num_test=5)
    objective = Autoregressive(data)
    batch = data.splits["train"][:]
    asked = objective.training_batch(batch)
    assert asked.at is not None
    assert asked.valid is not None
    assert batch.valid is not None
    assert torch.equal(asked.targets, batch.targets)
    assert asked.inputs.shape[1] == objective.max_length
    for row in range(50):
        source = batch.inputs[row][batch.valid[row]].tolist()
        answer = [t for t in batch.targets[row].tolist() if t != IGNORE]
        read = asked.inputs[row][asked.valid[row]].tolist()
        assert read == [*source, len(data.tokens), *answer[:-1]]
        begin = len(source)
        assert asked.at[row, : len(answer)].tolist() == [*range(begin, begin + len(answer))]
    assert list(objective.outputs) == [*data.tokens, "[BEGIN]"]


def test_what_is_looked_at_is_read_whole(dataset):
    text = "The dog did not see the road because it was too tired ."
    for kind in (Autoregressive, Denoising):
        objective = kind(dataset)
        probe = objective.inspection_batch(objective.batch_of_text(text))
        assert [dataset.tokens[t] for t in probe.inputs[0]] == text.lower().split()


def test_a_text_is_asked_at_its_own_masks(dataset):
    objective = Masked(dataset)
    probe = objective.inspection_batch(
        objective.batch_of_text("The [MASK] did not see the [MASK] because it was too tired")
    )
    assert probe.at is not None
    assert probe.at.tolist() == [[1, 6]]
    assert [objective.inputs[int(probe.inputs[0, at])] for at in (1, 6)] == ["[MASK]", "[MASK]"]
    plain = MQAR(num_train=5, num_validation=5, num_test=5)
    with refuses(ValueError, "objective.unknown_token"):
        Masked(plain).batch_of_text("k1 [MASK],")


def test_an_objective_with_another_training_loss_reports_the_plain_one():
    class Halved(Autoregressive):
        def train_loss(self, logits, targets, reduction="mean"):
            return self.loss(logits, targets, reduction) / 2

    assert (Halved(Reversal()).smooths, Autoregressive(Reversal()).smooths) == (True, False)


def test_label_smoothing_is_in_what_training_minimises_and_in_no_reported_loss():
    data = Reversal(num_train=50, num_validation=5, num_test=5)
    logits, targets = torch.randn(4, 3, 18), torch.randint(17, (4, 3))
    targets[0, 1] = IGNORE
    smooth, plain = Seq2Seq(data, label_smoothing=0.1), Seq2Seq(data)
    # Vaswani et al. 2017, sec. 5.4: a tenth of each target is spread over all outputs.
    wanted = F.one_hot(targets.clamp(min=0), 18).double() * 0.9 + 0.1 / 18
    each = -(wanted * logits.double().log_softmax(-1)).sum(-1)[targets != IGNORE]
    torch.testing.assert_close(smooth.train_loss(logits, targets).double(), each.mean())
    assert torch.equal(smooth.loss(logits, targets), plain.loss(logits, targets))
    assert torch.equal(plain.train_loss(logits, targets), plain.loss(logits, targets))


@pytest.mark.parametrize(
    ("key", "build"),
    [
        ("mask_rate", lambda d: Masked(d, rate=0.0)),
        ("mask_shares", lambda d: Masked(d, kept=0.6, swapped=0.6)),
        ("noise_rate", lambda d: Denoising(d, rate=1.0)),
        ("no_latent", lambda d: Autoencoder(d, num_latents=0)),
        ("no_answer", lambda d: Seq2Seq(d)),
        ("no_class", lambda d: Classification(Reversal())),
        ("label_smoothing", lambda d: Seq2Seq(Reversal(), label_smoothing=1.0)),
    ],
)
def test_what_cannot_be_asked_is_refused(dataset, key, build):
    with refuses(ValueError, f"objective.impossible.{key}"):
        build(dataset)


def test_a_document_mask_needs_documents(dataset):
    assert Autoregressive(dataset).arrangement.boundary is None
    with refuses(ValueError, "objective.document_mask_without_documents"):
        Autoregressive(dataset, document_mask=True)
