"""Beam search finds what it should; whatever can be causal writes with the state that it keeps."""

import json
from collections.abc import Callable
from functools import partial
from itertools import islice, product

import pytest
import torch

from attnlab.analysis.generation_report import SearchSettings, search_report
from attnlab.cli import main
from attnlab.generate import Hypothesis, beam_search, draw_token, generate
from attnlab.model.base import DECODER, ENCODER_DECODER, Model
from attnlab.objective.seq2seq import Seq2Seq
from attnlab.split import IGNORE
from tests.choices import choices
from tests.model.build import LENGTH, TOKENS, recurrent, transformer
from tests.refusals import refusals, refused

BEGIN, END = TOKENS - 1, TOKENS - 2
SOURCE = torch.tensor([[3, 0, 5, 2]])
MODELS: dict[str, Callable[..., Model]] = {
    "transformer": transformer,
    "parallel": partial(transformer, block="parallel", position="rope"),
    "short_convolution": partial(transformer, mixer="short_convolution"),
    "lstm": recurrent,
    "lstm with attention": partial(recurrent, attention="additive"),
}


def scaled(model: Model, times: float = 3.0) -> Model:
    """Take larger weights, so that choices differ, in float64, so that sums can be compared."""
    with torch.no_grad():
        for weights in model.parameters():
            weights *= times
    return model.double().eval()


def answering(name: str, ends: float = 0.0, times: float = 3.0) -> Model:
    """Build a model whose logit of the end is that much higher."""
    model = scaled(MODELS[name](ENCODER_DECODER, num_outputs=TOKENS), times)
    with torch.no_grad():
        model.get_parameter("head.bias")[END] += ends
    return model


def log_probabilities(model: Model, answers: list[list[int]]) -> list[float]:
    """Read each answer as training would, with the right tokens before each; all of one length."""
    tokens = torch.tensor(answers)
    begin = torch.full_like(tokens[:, :1], BEGIN)
    prefix = torch.cat((begin, tokens[:, :-1]), dim=1)
    with torch.no_grad():
        logits, _ = model(SOURCE.expand(len(tokens), -1), prefix=prefix)
    each = logits.log_softmax(dim=-1).gather(-1, tokens[..., None])
    return each.sum(dim=(1, 2)).tolist()


def ranked(model: Model, answers: list[list[int]], alpha: float) -> list[Hypothesis]:
    found = []
    for length in {len(answer) for answer in answers}:
        same = [answer for answer in answers if len(answer) == length]
        for answer, total in zip(same, log_probabilities(model, same), strict=True):
            finished = answer[-1] == END
            score = total / ((5 + length) / (5 + 1)) ** alpha
            text = answer[:-1] if finished else answer
            found.append(Hypothesis(text, finished, total, score))
    return sorted(found, key=lambda hypothesis: -hypothesis.score)


def naive(model: Model, longest: int, beams: int, alpha: float) -> list[Hypothesis]:
    """Search with lists and whole forward passes, to the longest answer."""
    beam, over = [[]], []
    for _ in range(longest):
        ways = [[*text, token] for text in beam for token in range(TOKENS) if token != BEGIN]
        totals = log_probabilities(model, ways)
        best = sorted(range(len(ways)), key=lambda way: -totals[way])[:beams]
        over += [ways[way] for way in best if ways[way][-1] == END]
        beam = [ways[way] for way in best if ways[way][-1] != END]
        if not beam:
            break
    return ranked(model, over + beam, alpha)[:beams]


def assert_same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    for which in (2, 3):
        wanted = [one[which] for one in expected]
        assert [one[which] for one in found] == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(("name", "alpha"), [("lstm with attention", 0.7), ("transformer", 0.0)])
def test_a_beam_as_wide_as_all_answers_ranks_all_of_them(name, alpha):
    model, tokens = answering(name), [token for token in range(TOKENS) if token != BEGIN]
    every = [list(answer) for length in (1, 2, 3) for answer in product(tokens, repeat=length)]
    whole = [a for a in every if END not in a[:-1] and (len(a) == 3 or a[-1] == END)]
    options = {"beams": len(tokens) ** 3, "length_penalty": alpha}
    found = beam_search(model, SOURCE, BEGIN, END, 3, **options)
    assert len(found) == len(whole) == 1 + 9 + 81 + 729
    assert_same(found, ranked(model, whole, alpha))
    if not alpha:
        assert sum(torch.tensor([one.log_probability for one in found]).exp()) < 1


@pytest.mark.parametrize("name", MODELS)
def test_a_narrow_beam_keeps_the_best_ways_and_their_states(name):
    model = answering(name, ends=2.0)
    for beams, alpha in ((1, 0.0), (2, 2.0), (5, 0.0)):
        found = beam_search(model, SOURCE, BEGIN, END, 7, beams=beams, length_penalty=alpha)
        assert_same(found, naive(model, 7, beams, alpha))


def test_a_longer_answer_wins_when_length_is_paid_for():
    model = answering("transformer", ends=3.0, times=1.0)
    lengths = [
        len(beam_search(model, SOURCE, BEGIN, END, 7, beams=50, length_penalty=alpha)[0].tokens)
        for alpha in (0.0, 1.0, 10.0)
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def greedy(model: Model, prompt: list[int], count: int) -> list[int]:
    pick = partial(draw_token, generator=torch.Generator(), temperature=0.0)
    return list(islice(generate(model, prompt, pick), count))


def anew(model: Model, prompt: list[int], count: int) -> list[int]:
    text = list(prompt)
    for _ in range(count):
        whole = text if model.max_length is None else text[-model.max_length :]
        with torch.no_grad():
            text.append(int(model(torch.tensor([whole]))[0][0, -1].argmax()))
    return text[len(prompt) :]


@pytest.mark.parametrize("mixer", choices("model/mixer"))
def test_every_causal_mixer_writes_what_the_text_read_anew_would(mixer):
    model = scaled(transformer(DECODER, mixer=mixer, num_outputs=TOKENS))
    for prompt, count in ((3, LENGTH), (LENGTH + 3, 2)):
        start = [number % TOKENS for number in range(prompt)]
        assert greedy(model, start, count) == anew(model, start, count)


@pytest.mark.parametrize("position", choices("model/position"))
def test_every_position_scheme_lets_a_text_grow_beyond_the_window(position):
    model = scaled(transformer(DECODER, position=position, num_outputs=TOKENS))
    assert greedy(model, [1, 2, 3], LENGTH + 4) == anew(model, [1, 2, 3], LENGTH + 4)


def test_what_has_a_state_of_all_keeps_no_text():
    prompt = list(range(TOKENS)) * 3
    for model, kept in (
        (scaled(recurrent(DECODER, num_outputs=TOKENS)), 1),
        (scaled(transformer(DECODER, num_outputs=TOKENS)), LENGTH),
    ):
        writing = generate(model, prompt, lambda logits: int(logits.argmax()))
        assert list(islice(writing, 20)) == anew(model, prompt, 20)
        held = writing.gi_frame.f_locals  # pyright: ignore[reportAttributeAccessIssue]
        assert len(held["window"]) == kept
        assert "text" not in held
        if model.max_length is not None:
            assert held["state"] is None


REVERSAL = ("dataset=reversal", "dataset.vocab_size=4", "dataset.length=6")


@pytest.mark.parametrize("variant", ["multihead", "moe", "lstm", "lstm_attention"])
def test_a_run_answers_alike_by_beam_by_step_and_by_training(offer, variant):
    run = offer(*REVERSAL, f"variant={variant}")
    (one,) = run.search("d a c", beams=1)
    assert "".join(run.generate("d a c", temperature=0.0)) == run.dataset.decode(one.tokens)
    assert "".join(run.generate("d a c", top_k=1, seed=5)) == run.dataset.decode(one.tokens)
    for found in run.search("d a c", beams=4):
        end = [run.dataset.tokens.index("<end>")] if found.finished else []
        answer = torch.tensor([[*found.tokens, *end]])
        asked = run.objective.training_batch(run.batch_of_text("d a c")._replace(targets=answer))
        with torch.no_grad():
            loss = run.objective.loss(run.model(*asked.model_inputs)[0], asked.targets, "sum")
        assert found.log_probability == pytest.approx(-loss.item(), rel=1e-4)
        assert found.score == found.log_probability
        assert len(answer[0]) <= run.dataset.answer_length


def test_an_answer_ends_at_the_end_and_never_names_its_beginning(offer):
    run = offer(*REVERSAL)
    assert isinstance(run.objective, Seq2Seq)
    with torch.no_grad():
        run.model.get_parameter("head.bias")[run.objective.begin] = 100.0
    texts = ["".join(run.generate("a b", seed=seed)) for seed in range(8)]
    texts += [run.dataset.decode(one.tokens) for one in run.search("a b", beams=13)]
    assert {word for text in texts for word in text.split()} <= set("abcd")
    assert len(set(texts)) > 13
    assert max(len(text.split()) for text in texts) == run.dataset.answer_length
    assert min(len(text.split()) for text in texts) < 5
    assert all(len("".join(run.generate("a b", 2, seed=s)).split()) <= 2 for s in range(5))


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_a_search_works_in_the_precision_of_the_run(offer, precision):
    run = offer(*REVERSAL, f"trainer.precision={precision}")
    if precision == "bf16-true":
        run.model.bfloat16()
    best, *others = run.search("a b", beams=3)
    assert best.log_probability >= others[0].log_probability
    assert len("".join(run.generate("a b", seed=1))) > 0


def test_the_command_prints_the_answers_and_their_scores(offer, capsys):
    run = offer(*REVERSAL)
    words = ["generate", "untrained", "--prompt", "d a c", "--beams", "3", "--length-penalty", "1"]
    assert main([*words, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = run.search("d a c", 3, length_penalty=1.0)
    assert found == {
        "schema": 2,
        "run": "untrained",
        "step": 7,
        "prompt": "d a c",
        "settings": {"beams": 3, "length_penalty": 1.0},
        "hypotheses": [
            {
                "text": run.dataset.decode(one.tokens),
                "finished": one.finished,
                "log_probability": one.log_probability,
                "score": one.score,
            }
            for one in expected
        ],
    }
    assert search_report(run, "d a c", SearchSettings(3, 1.0)).to_json() == found
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [float(line.split()[0]) for line in lines] == pytest.approx(
        [one.score for one in expected], abs=1e-4
    )
    assert [line.endswith(" ...") for line in lines] == [not one.finished for one in expected]


def test_the_command_prints_a_drawn_answer_alone(offer, capsys):
    run = offer(*REVERSAL)
    assert main(["generate", "untrained", "--prompt", "d a c", "--samples", "2"]) == 0
    texts = ["".join(run.generate("d a c", seed=seed)) for seed in (0, 1)]
    assert capsys.readouterr().out == "---\n".join(f"{text}\n" for text in texts)


SEARCHES = {
    "beams": ["--beams", "0"],
    "length_penalty": ["--beams", "2", "--length-penalty", "-1"],
    "length_penalty_nan": ["--beams", "2", "--length-penalty", "nan"],
    "draws_of_beams": ["--beams", "2", "--temperature", "1", "--top-k", "3"],
    "samples_of_beams": ["--beams", "2", "--samples", "1"],
    "length_penalty_alone": ["--length-penalty", "1"],
    "no_text": ["--beams", "2"],
    "long_text": ["--prompt", "a a a a a a a"],
    "token": ["--prompt", "a x"],
}


def test_what_cannot_be_searched_is_refused(offer, capsys):
    offer(*REVERSAL)
    requests = {name: ["generate", "untrained", *words] for name, words in SEARCHES.items()}
    refusals(capsys, "generate.search.{}", requests)
    for name, overrides, words in (
        ("autoregressive", ["dataset=mqar"], ["--beams", "2"]),
        ("classification", ["dataset=pronoun"], ["--beams", "2"]),
        ("masked", ["objective=masked", "evidence=none"], ["--prompt", "it"]),
    ):
        offer(*overrides)
        refused(capsys, f"generate.search.{name}", ["generate", "untrained", *words])


def test_what_stands_after_an_answer_has_no_influence_on_what_is_recorded(offer):
    from attnlab.callbacks.patterns import PatternRecorder

    run = offer(*REVERSAL)
    recorder = PatternRecorder(run.subject, texts=["d a c"])
    asked = {name: run.objective.inspection_batch(probe) for name, probe in recorder.probes.items()}
    assert {probe.targets.shape for probe in asked.values()} == {(1, 1)}
    first = asked["validation-0"]
    assert first.targets.item() == first.inputs[0, -1].item() != IGNORE


def test_a_decoder_answers_behind_what_it_read(offer):
    run = offer(*REVERSAL, "objective=autoregressive")
    data, begin = run.dataset, len(run.dataset.tokens)
    numbers, expected = [*data.encode("d a c"), begin], []
    for _ in range(data.answer_length or 0):
        with torch.no_grad():
            logits = run.model(torch.tensor([numbers]))[0][0, -1]
        logits[begin] = -torch.inf
        numbers.append(int(logits.argmax()))
        if data.tokens[numbers[-1]] == data.end:
            break
        expected.append(data.tokens[numbers[-1]])
    assert expected
    assert "".join(run.generate("d a c", temperature=0.0)).split() == expected
