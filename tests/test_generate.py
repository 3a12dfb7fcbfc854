"""A trained run writes: what it draws from, that steps are the model, and the command around it."""

import io
import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from attnlab.analysis.generation_report import DrawSettings, generation_report
from attnlab.cli import main
from attnlab.errors import RequestError
from attnlab.generate import decode_pieces, distribution, draw_token, generate
from attnlab.loaded_run import LoadedRun
from tests.choices import causal_variants
from tests.prose import refuses, says
from tests.refusals import refusals, refused
from tests.untrained import untrained

Make = Callable[..., LoadedRun]
PYDOCS = ("dataset=pydocs", "dataset.length=16")
SMALL = ("model.num_layers=2", "model.d_model=16")
PROMPT = "The import statement"
LOGITS = st.lists(st.floats(-8, 8) | st.integers(-3, 3).map(float), min_size=1, max_size=12)
WRITTEN = st.text("a\n\u00e9\u20ac\U0001f642", min_size=1)
"""Characters of one to four bytes."""


@pytest.fixture
def make(once) -> Make:
    """Give an untrained run as if it were loaded."""
    return lambda *overrides: untrained(once(*SMALL, *overrides))


@pytest.fixture
def loaded(make, monkeypatch) -> Make:
    """Let the command find an untrained run."""

    def offer(*overrides: str) -> LoadedRun:
        run = make(*overrides)
        monkeypatch.setattr("attnlab.loaded_run.load", lambda *_, **__: run)
        return run

    return offer


def joined(run: LoadedRun, prompt: str = PROMPT, tokens: int = 12, **settings) -> str:
    return "".join(run.generate(prompt, tokens, **settings))


def filtered(
    logits: Sequence[float], temperature: float, top_k: int | None, top_p: float | None
) -> tuple[np.ndarray, float]:
    """The distribution from the definitions, token by token, and how far `top_p` is from a border.

    Nearer to one than rounding errors, either side of it is right.
    """
    ranking = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    kept = ranking[:1] if temperature == 0 else ranking[:top_k]
    weight = {t: math.exp((logits[t] - max(logits)) / (temperature or 1)) for t in kept}
    margin = 1.0
    if top_p is not None:
        whole, reached, nucleus = math.fsum(weight.values()), 0.0, {}
        for token in kept:
            nucleus[token] = weight[token]
            reached += weight[token] / whole
            if token != kept[-1]:
                margin = min(margin, abs(reached - top_p))
            if reached >= top_p:
                break
        weight = nucleus
    found = np.zeros(len(logits))
    found[list(weight)] = np.array(list(weight.values())) / math.fsum(weight.values())
    return found, margin


@given(
    LOGITS,
    st.just(0.0) | st.floats(0.05, 5),
    st.none() | st.integers(1, 12),
    st.none() | st.floats(0.01, 1),
)
def test_the_distribution_is_that_of_the_definitions(logits, temperature, top_k, top_p):
    tensor = torch.tensor(logits)
    expected, margin = filtered(tensor.tolist(), temperature, top_k, top_p)
    assume(margin > 1e-9)
    found = distribution(tensor, temperature, top_k, top_p)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_token_that_crosses_p_is_included():
    logits = torch.tensor([0.125, 0.5, 0.25, 0.125], dtype=torch.float64).log()
    for top_p, kept in ((0.49, [1]), (0.51, [1, 2]), (0.74, [1, 2]), (0.76, [0, 1, 2])):
        assert distribution(logits, top_p=top_p).nonzero().flatten().tolist() == kept


def test_top_p_counts_what_top_k_left():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    # Of .4 and .3 the first is .57, which reaches .5; of all four it would be .4, which does not.
    assert distribution(logits, 1.0, 2, 0.5).tolist() == [1, 0, 0, 0]
    assert distribution(logits, 1.0, None, 0.5).count_nonzero() == 2


@given(LOGITS)
def test_one_token_a_tiny_nucleus_and_no_temperature_are_the_likeliest_token(logits):
    tensor = torch.tensor(logits)
    greedy = torch.nn.functional.one_hot(tensor.argmax(), len(logits)).double()
    for knobs in ((0.0, None, None), (1.0, 1, None), (2.0, None, 1e-12), (0.0, 3, 0.9)):
        assert torch.equal(distribution(tensor, *knobs), greedy)


@given(LOGITS)
def test_temperature_goes_from_the_likeliest_to_all_alike(logits):
    tensor = torch.tensor(logits)
    best = (tensor == tensor.max()).double()
    torch.testing.assert_close(distribution(tensor, 1e-300), best / best.sum())
    even = torch.full((len(logits),), 1 / len(logits), dtype=torch.float64)
    torch.testing.assert_close(distribution(tensor, 1e12), even)
    torch.testing.assert_close(distribution(tensor), tensor.double().softmax(dim=0))


def test_tokens_are_drawn_as_often_as_their_probability_says():
    logits = torch.tensor([0.3, -1.0, 2.0, 1.1, 0.0, -3.0, 1.9])
    generator = torch.Generator().manual_seed(0)
    draws = [draw_token(logits, generator, 1.5, 6, 0.95) for _ in range(2000)]
    counts, (expected, _) = np.bincount(draws, minlength=7), filtered(logits.tolist(), 1.5, 6, 0.95)
    kept = expected > 0
    assert kept.sum() == 5
    assert counts[~kept].sum() == 0
    assert chisquare(counts[kept], 2000 * expected[kept]).pvalue > 0.01


@pytest.mark.parametrize("variant", causal_variants())
@pytest.mark.parametrize("prompt", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_steps_write_what_the_whole_text_read_anew_would(make, variant, prompt):
    model = make(*PYDOCS, f"variant={variant}").model.double()
    start = list(range(3, 3 + prompt))
    seen: list[list[Tensor]] = [[], []]

    def pick(arm: int) -> Callable[[Tensor], int]:
        generator = torch.Generator().manual_seed(1)

        def record(logits: Tensor) -> int:
            seen[arm].append(logits)
            return draw_token(logits, generator, 1.0)

        return record

    written = list(islice(generate(model, start, pick(0)), 13))
    text, by_forward = list(start), pick(1)
    with torch.no_grad():
        for _ in written:
            whole = text if model.max_length is None else text[-model.max_length :]
            text.append(by_forward(model(torch.tensor([whole]))[0][0, -1]))
    assert written == text[prompt:]
    # In float64, but for routers: they work in float32, and large weights multiply its rounding.
    torch.testing.assert_close(*map(torch.stack, seen), rtol=0, atol=1e-3)


@pytest.mark.parametrize("variant", causal_variants())
def test_a_model_reads_as_many_tokens_as_it_says(make, variant):
    model = make(*PYDOCS, f"variant={variant}").model
    long = torch.zeros(1, 17, dtype=torch.long)
    if model.max_length is None:
        assert model(long)[0].shape[1] == 17
        return
    assert model.max_length == 16
    with refuses(ValueError, "generate.window"):
        model(long)


def test_the_seed_decides_what_is_drawn_and_nothing_else_does(make):
    run = make(*PYDOCS)
    first = joined(run, seed=3)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    assert joined(run, seed=3) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert joined(run, seed=4) != first
    assert joined(run, seed=4, top_k=1) == joined(run, temperature=0.0)
    assert joined(run, tokens=9, seed=3) == first[:9]


def test_between_two_pieces_the_callers_settings_hold(make, monkeypatch):
    run = make(*PYDOCS, "trainer.precision=bf16-mixed", "trainer.matmul_precision=medium")
    seen = []

    def spy(logits: Tensor, **settings) -> int:
        seen.append((logits.dtype, logits.requires_grad))
        return draw_token(logits, **settings)

    monkeypatch.setattr("attnlab.loaded_run.draw_token", spy)
    for _ in run.generate(PROMPT[:10], 12):
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "highest"
    assert seen == [(torch.bfloat16, False)] * 12


def test_of_a_prompt_beyond_the_window_the_end_counts(make):
    run = make(*PYDOCS)
    assert joined(run, PROMPT) == joined(run, PROMPT[-16:])
    assert joined(run, PROMPT) != joined(run, PROMPT[-15:])


def test_a_model_without_a_window_remembers_the_start(make):
    model = make(*PYDOCS, "variant=lstm").model.double()
    seen: list[Tensor] = []

    def pick(logits: Tensor) -> int:
        seen.append(logits)
        return 0

    for first in (1, 2):
        assert list(islice(generate(model, [first, *range(3, 20)], pick), 3)) == [0, 0, 0]
    assert not torch.equal(seen[2], seen[5])


def test_an_empty_prompt_is_a_line_feed(make):
    run = make(*PYDOCS)
    assert joined(run, "") == joined(run, "\n") != joined(run, " ")


@pytest.mark.parametrize("data", ["mqar", "pronoun objective=autoregressive evidence=none"])
def test_words_are_written_with_spaces(make, data):
    run = make(*f"dataset={data}".split())
    prompt = " ".join(run.dataset.tokens[3:6])
    words = (prompt + joined(run, prompt, 8)).split(" ")
    assert len(words) == 3 + 8
    assert set(words) <= set(run.dataset.tokens)


def decoded(numbers: Sequence[int]) -> str:
    return bytes(numbers).decode(errors="replace")


@given(WRITTEN, WRITTEN)
def test_a_character_of_several_bytes_comes_whole(prompt, text):
    assert list(decode_pieces(text.encode(), list(prompt.encode()), decoded)) == list(text)


@given(WRITTEN, st.binary())
def test_pieces_make_the_whole_whatever_the_bytes(prompt, content):
    start = list(prompt.encode())
    assert prompt + "".join(decode_pieces(content, start, decoded)) == decoded([*start, *content])


def said(capsys, *words: str) -> dict:
    assert main(["generate", "untrained", *words, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_printed_pieces_are_the_prompt_and_the_samples_of_json(loaded, capsys):
    run = loaded(*PYDOCS)
    words = ["--prompt", PROMPT, "--tokens", "10", "--top-k", "9", "--top-p", ".9", "--seed", "5"]
    words += ["--temperature", "0.7", "--samples", "3"]
    found = said(capsys, *words)
    asked: dict[str, Any] = {"tokens": 10, "temperature": 0.7, "top_k": 9, "top_p": 0.9, "seed": 5}
    assert found == {
        "schema": 2,
        "run": "untrained",
        "step": 7,
        "prompt": PROMPT,
        "settings": asked,
        "samples": [joined(run, **{**asked, "seed": seed}) for seed in (5, 6, 7)],
    }
    assert len(set(found["samples"])) == 3
    report = generation_report(run, PROMPT, DrawSettings(**asked, samples=3))
    assert report.to_json() == found
    assert main(["generate", "untrained", *words]) == 0
    shown = capsys.readouterr().out
    assert shown == "---\n".join(f"{PROMPT}{sample}\n" for sample in found["samples"])


def test_a_prompt_comes_from_standard_input_as_it_is(loaded, capsys, monkeypatch):
    loaded(*PYDOCS, "variant=lstm")
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    found = said(capsys, "--prompt", "-")
    assert found["prompt"] == "two\nlines\n"
    assert [len(sample) for sample in found["samples"]] == [500]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="utf-8"))
    assert main(["generate", "untrained", "--prompt", "-"]) == 2
    # What is wrong with the bytes is said by Python.
    says("generate.no_text", capsys.readouterr().err.rpartition(": ")[0].partition(": 'utf")[0])


def test_an_interruption_leaves_what_was_written_and_ends_its_line(loaded, capsys, monkeypatch):
    run, drawn = loaded(*PYDOCS), iter("abc")

    def interrupted(*_, **__) -> int:
        letter = next(drawn, None)
        if letter is None:
            raise KeyboardInterrupt
        assert capsys.readouterr().out == {"a": PROMPT, "b": "a", "c": "b"}[letter]
        return run.dataset.tokens.index(letter)

    monkeypatch.setattr("attnlab.loaded_run.draw_token", interrupted)
    assert main(["generate", "untrained", "--prompt", PROMPT]) == 130
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("c\n", "interrupted\n")


SETTINGS = {
    "tokens": ["--tokens", "0"],
    "samples": ["--samples", "0"],
    "temperature": ["--temperature", "-0.1"],
    "temperature_nan": ["--temperature", "nan"],
    "temperature_inf": ["--temperature", "inf"],
    "top_k": ["--top-k", "0"],
    "top_p_0": ["--top-p", "0"],
    "top_p_above_1": ["--top-p", "1.1"],
    "seed": ["--seed", "-1"],
}


def test_settings_that_cannot_be_are_refused_before_anything_is_loaded(capsys, monkeypatch):
    monkeypatch.setattr("attnlab.loaded_run.load", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.setattr("sys.stdin", None)
    asked = ["generate", "untrained", "--prompt", "-"]
    requests = {name: [*asked, *words] for name, words in SETTINGS.items()}
    refusals(capsys, "generate.settings.{}", requests)


def test_what_this_run_cannot_write_is_refused(loaded, capsys):
    for name, overrides, words in (
        ("more_than_all", PYDOCS, ["--top-k", "1000"]),
        ("tokens_of_prompt", PYDOCS, ["--prompt", "na\u00efve \u00e9"]),
        ("empty_prompt", ["dataset=mqar"], []),
        ("blank_prompt", ["dataset=mqar"], ["--prompt", " "]),
        ("token_of_prompt", ["dataset=mqar"], ["--prompt", "k1 k99x"]),
        ("classification", ["dataset=pronoun"], ["--prompt", "the"]),
        ("causal", ["dataset=pronoun", "objective.causal=true"], ["--prompt", "the"]),
    ):
        run = loaded(*overrides)
        hidden = [len(run.dataset.tokens)] if name == "more_than_all" else []
        refused(capsys, f"generate.{name}", ["generate", "untrained", *words], *hidden)


def test_a_refusal_does_not_wait_for_the_first_piece(make):
    run = make(*PYDOCS)
    run.dataset.tokens = [token for token in run.dataset.tokens if token != "\n"]
    with refuses(RequestError, "generate.no_line_feed"):
        run.generate("")
    with refuses(RequestError, "generate.temperature_of_python"):
        run.generate(PROMPT, temperature=-1.0)


@pytest.mark.slow
def test_a_real_run_streams_until_the_reader_leaves_or_ctrl_c(tmp_path):
    words = ["debug=tiny", *PYDOCS, *SMALL, "trainer.max_steps=2", f"runs_dir={tmp_path}"]
    assert main(["train", *words]) == 0
    command = [sys.executable, "-m", "attnlab.cli", "generate", "pydocs"]
    command += ["--runs-dir", str(tmp_path), "--prompt", PROMPT, "--tokens", "1000000"]
    for interrupt in (True, False):
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(40).startswith(PROMPT.encode())
            if interrupt:
                process.send_signal(signal.SIGINT)
                assert process.stdout.read().endswith(b"\n")
                assert process.stderr.read() == b"interrupted\n"
                assert process.wait() == 130
            else:
                process.stdout.close()
                assert process.stderr.read() == b""
                assert process.wait() == 0
