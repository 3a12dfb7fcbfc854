"""Runs of every objective are asked about a text, or say why they cannot be."""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from attnlab.building import NO_USER_TARGETS
from attnlab.cli import main
from attnlab.errors import RequestError
from attnlab.experiment import Experiment
from attnlab.interp.interventions import knock_out_edge
from attnlab.layers import Axes
from attnlab.loaded_run import _rebuild_config
from tests.prose import refuses, says
from tests.refusals import refusals

TEXT = "The animal didn't cross the street because it was too tired."
MASKED = "The [MASK] didn't cross the street because it was too tired."
SMALL = [f"dataset.num_{split}=20" for split in ("train", "validation", "test")]
RUNS = {
    "masked": ("objective=masked", "evidence=none"),
    "masked lstm": ("objective=masked", "evidence=none", "variant=lstm_attention"),
    "denoising": ("objective=denoising", "evidence=none"),
    "denoising lstm": ("objective=denoising", "evidence=none", "variant=lstm"),
    "autoencoder": ("objective=autoencoder", "evidence=none"),
    "seq2seq": ("dataset=reversal",),
    "seq2seq lstm": ("dataset=reversal", "variant=lstm"),
    "seq2seq lstm attention": ("dataset=reversal", "variant=lstm_attention"),
    "autoregressive": ("objective=autoregressive", "evidence=none", "variant=lstm"),
    "classification": ("variant=lstm_attention",),
}


def as_json(capsys, *words: str) -> dict[str, Any]:
    assert main([*words, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", RUNS)
def test_every_objective_answers_every_command_or_says_why_not(offer, capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    run = offer(*RUNS[name], *SMALL)
    text = "d a c" if "dataset=reversal" in RUNS[name] else TEXT
    best = run.objective.outputs[int(run(text).argmax())]
    found = as_json(capsys, "attend", "untrained", text)
    assert found["answer"][0]["output"] == best
    length = 3 if text == "d a c" else 13
    assert len(found["influence"]) == len(found["tokens"]) == length
    assert sum(found["influence"]) == pytest.approx(1, abs=1e-4)
    found = as_json(capsys, "evaluate", "untrained")
    assert found["metrics"] == run.evaluate()
    assert len(as_json(capsys, "embed", "untrained")["neighbours"]) == 12
    refused = {
        "generate": not run.objective.causal or name == "classification",
        "ablate": not run.model.attention_layers(),
    }
    for command, options in (("generate", ["--prompt", text, "--tokens", "3"]), ("ablate", [])):
        code = main([command, "untrained", *options])
        shown = capsys.readouterr()
        # One message, which 80 columns may break.
        assert (code, shown.err.count("Error: ")) == ((2, 1) if refused[command] else (0, 0))
        assert bool(shown.out) != refused[command]
        assert all(len(line) <= 80 for line in shown.out.splitlines())
    assert main(["attend", "untrained", text, "--query", "0"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize("name", ["masked", "masked lstm"])
def test_a_masked_run_answers_at_the_mask(offer, capsys, name):
    run = offer(*RUNS[name])
    tokens = [run.dataset.tokens.index(w) for w in TEXT.lower()[:-1].replace("didn't", "").split()]
    tokens[2:2] = [run.dataset.tokens.index(word) for word in ("did", "not")]
    tokens.append(run.dataset.tokens.index("."))
    assert run.batch_of_text(TEXT).inputs.tolist() == [tokens]
    assert torch.allclose(run(TEXT), run.model(torch.tensor([tokens]))[0][0, -1], atol=1e-5)
    tokens[1] = len(run.dataset.tokens)
    expected = run.model(torch.tensor([tokens]))[0][0, 1]
    assert run.batch_of_text(MASKED).inputs.tolist() == [tokens]
    assert torch.allclose(run(MASKED), expected, atol=1e-5)
    seen, patterns = run.capture(MASKED)
    assert (seen.answer_position, patterns[-1].answer_position) == (1, 1)
    assert patterns[-1].tokens[:3] == ["the", "[MASK]", "did"]
    assert torch.allclose(seen.answer, expected, atol=1e-5)
    found = as_json(capsys, "attend", "untrained", MASKED)
    assert (found["query"], found["tokens"][1]) == (1, "[MASK]")
    assert found["answer"][0]["output"] == run.objective.outputs[int(expected.argmax())]
    twice = run.batch_of_text("[MASK] [MASK] it").at
    assert twice is not None
    assert twice.tolist() == [[0, 1]]
    texts = {"mask_and_no_token": "the [MASK] did nt", "masks": "[MASK]" * 40}
    requests = {of: ["attend", "untrained", text] for of, text in texts.items()}
    refusals(capsys, "trained.masked.{}", requests)


def test_the_influence_at_a_mask_is_that_on_its_answer(offer):
    run = offer(*RUNS["masked"])
    seen, _ = run.capture(MASKED)
    vectors = run.embeddings.vectors[seen.inputs][None].requires_grad_()
    model: Any = run.model
    x = model.position.embed(vectors, torch.arange(len(seen.inputs)))
    for block in model.blocks:
        x, _ = block(x)
    best = model.head(model.norm(x))[0, 1].max()
    (gradient,) = torch.autograd.grad(best, vectors)
    shares = (gradient * vectors)[0].sum(dim=1).abs()
    torch.testing.assert_close(seen.influence, shares / shares.sum())


@pytest.mark.parametrize("tokenizer", ["characters", "bytes"])
def test_a_mask_stands_for_one_token_of_a_text_without_spaces(offer, tmp_path, tokenizer):
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 50)
    words = ["dataset=text", f"dataset.path={path}", f"dataset/tokenizer={tokenizer}"]
    run = offer(*words, "dataset.length=16", "objective=masked", "evidence=none")
    numbers = [*run.dataset.encode("to b"), len(run.dataset.tokens)]
    assert run.batch_of_text("to b[MASK]").inputs.tolist() == [numbers]


@pytest.mark.parametrize("name", ["seq2seq", "autoencoder"])
def test_the_edges_that_attend_cuts_are_the_encoders(offer, capsys, name):
    run = offer(*RUNS[name])
    text = "d a c" if name == "seq2seq" else TEXT
    found = as_json(capsys, "attend", "untrained", text, "--query", "1")
    every = run.model.attention_layers()
    layers = [layer.index for layer in every if layer.axes == Axes("inputs", "inputs")]
    assert layers == [layer.index for layer in every if layer.path.startswith("encoder.")]
    assert len(layers) == 2 < len(every)
    assert len(found["heads"]) == 2 * 4
    assert found["cuts"]
    for one in found["cuts"]:
        with knock_out_edge(run.model, torch.tensor([1]), torch.tensor([one["key"]]), layers):
            answers = run.answers(run(text))
        assert [(a["output"], a["probability"]) for a in one["answer"]] == [
            (output, pytest.approx(p)) for output, p in answers
        ]
    assert main(["attend", "untrained", text]) == 0
    shown = capsys.readouterr().out
    says(f"trained.encoder.{name}", shown.splitlines()[1].partition(": ")[0])
    (legend,) = re.findall(r"in each layer[a-z ]*", " ".join(shown.split()))
    says("trained.encoder.legend", legend)


def test_the_answer_to_a_sequence_is_told_from_its_beginning(offer):
    run = offer(*RUNS["seq2seq"])
    source = torch.tensor([run.dataset.encode("d a c")])
    begin = torch.tensor([[run.objective.inputs.index("[BEGIN]")]])
    logits = run.model(source, prefix=begin)[0][0, 0]
    assert torch.allclose(run("d a c"), logits)
    assert torch.allclose(run.capture("d a c")[0].answer, logits, atol=1e-5)


LATER = {"cross", "query_key_norm", "attention"}
"""Knobs that a record from before them does not have."""


def without(node: Any) -> Iterator[str]:
    """Take the later knobs out of an identity; name those that were there."""
    for key in list(node) if isinstance(node, dict) else []:
        if key in LATER:
            del node[key]
            yield key
        else:
            yield from without(node[key])


@pytest.mark.parametrize("variant", ["moe", "lstm"])
def test_a_record_from_before_a_part_is_read_as_it_was_meant(once, variant):
    made = Experiment(once(f"variant={variant}", "model.d_model=16"))
    old = copy.deepcopy(made.identity)
    assert set(without(old["model"])) == (
        {"attention"} if variant == "lstm" else {"cross", "query_key_norm"}
    )
    again = Experiment(_rebuild_config(old, NO_USER_TARGETS))
    assert again.config.values["model"] == made.config.values["model"]
    again.model.load_state_dict(made.model.state_dict())
    inputs = torch.tensor([[1, 2, 3]])
    assert torch.equal(again.model.eval()(inputs)[0], made.model.eval()(inputs)[0])


def test_a_run_of_another_task_cannot_be_searched(offer):
    with refuses(RequestError, "trained.search"):
        offer(*RUNS["denoising"]).search("the animal")
