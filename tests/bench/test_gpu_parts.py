"""The parts of `make gpu-check` run, and look at what they say that they look at."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._C._autograd import DeviceType

from attnlab.callbacks.cadence import Cadence
from attnlab.recurrence import base
from attnlab.run_record.record import find_runs
from bench.gpu import events, results, runner, table
from bench.gpu.models import decoder, mixer_words, mixers
from bench.gpu.part import Given
from bench.gpu.parts import PARTS, decode, kernels, shakespeare, step
from bench.gpu.scans import plain
from bench.gpu.timing import autocast, largest
from tests.model.law import law
from tests.prose import refuses, says

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@law(PARTS)
def test_a_part_can_be_done_in_one_call_and_its_settings_are_data(part):
    assert part.resumes or part.seconds < 540 - runner.GRACE
    assert [p.name for p in PARTS].count(part.name) == 1
    assert part.dry.keys() == part.real.keys()
    assert results.settings_hash(part.dry) != results.settings_hash(part.real)
    assert json.loads(json.dumps(part.real)) == part.real


def test_every_mixer_is_looked_into_and_every_peer_with_fused_attention_takes_part():
    parts = {part.name: part for part in PARTS}
    assert set(parts["inside_a_step"].real["mixers"]) == set(mixers())
    assert {"lean GPT, SDPA", "Llama (transformers), sdpa"} <= set(step.FUSED)
    assert "lean GPT, masked_fill" not in step.FUSED


def event(name: str, start: float, end: float | None = None, device: Any = DeviceType.CPU) -> Any:
    times = SimpleNamespace(start=start, end=start if end is None else end)
    return SimpleNamespace(name=name, time_range=times, device_type=device)


FLASH = "void pytorch_flash::flash_fwd_kernel<Traits<64, 128>, true>(pytorch_flash::Params)"
SEEN = [
    event("cudaDeviceSynchronize", 1),
    event("step", 10, 20),
    event("aten::item", 12),
    event("cudaStreamSynchronize", 13),
    event("Memcpy DtoH (Device -> Pageable)", 13, device=DeviceType.CUDA),
    event("cudaLaunchKernel", 14),
    event("cuLaunchKernelEx", 14),
    event(FLASH, 15, device=DeviceType.CUDA),
    event("void cutlass::Kernel2<ampere_bf16_s16816>(Params)", 16, device=DeviceType.CUDA),
    event("aten::_flash_attention_forward", 15),
    event("step", 11, 40, DeviceType.CUDA),
    event("cudaDeviceSynchronize", 30),
]


def test_waits_are_counted_inside_of_the_steps_and_not_where_the_profiler_waits():
    inside = events.within(SEEN, "step")
    assert events.waits(inside) == {"cudaStreamSynchronize": 1}
    assert events.copies(inside) == {"Memcpy DtoH (Device -> Pageable)": 1}
    assert events.launches(inside) == 2
    assert events.waits(SEEN)["cudaDeviceSynchronize"] == 2
    with refuses(ValueError, "bench.nothing_marked"):
        events.within(SEEN, "another")


def test_kernels_of_fused_attention_are_named_from_what_ran_on_the_device():
    assert events.attention(SEEN) == "flash_fwd_kernel"
    assert events.attention(SEEN[:5]) == "none"
    cudnn = event("cudnn_generated_fort_native_sdpa_sm90_flash_fprop", 1, device=DeviceType.CUDA)
    assert events.attention([cudnn]) == cudnn.name


def test_the_largest_size_that_fits_is_taken():
    tried = []

    def work(size: int) -> None:
        tried.append(size)
        if size > 4:
            raise torch.OutOfMemoryError

    assert (largest([16, 8, 4, 2], work), tried) == (4, [16, 8, 4])
    with pytest.raises(torch.OutOfMemoryError):
        largest([16, 8], work)


@law(("multihead", "latent", "gated_delta", "lstm"))
def test_a_repeated_state_is_that_of_sequences_which_have_read_the_same(mixer):
    words = [*mixer_words(mixer, 2), "model.num_layers=1", "model.d_model=16"]
    model = decoder(words, 7, 9).eval()
    state = decode.write(model, CPU, 1, 0, 3, None)
    with torch.no_grad(), autocast(CPU):
        logits, _ = model.step(torch.tensor([[1], [2]]), 3, decode.repeated(state, 2))
        whole, _ = model(torch.tensor([[0, 0, 0, 1], [0, 0, 0, 2]]))
    torch.testing.assert_close(logits[:, 0], whole[:, -1], rtol=0, atol=0.05)
    assert not torch.allclose(logits[0], logits[1], atol=0.01)


def test_the_plain_form_is_taken_though_the_kernels_are_installed(monkeypatch):
    monkeypatch.setattr(base, "_is_installed", lambda: True)
    monkeypatch.setattr(base, "_kernel_dtype", lambda x: torch.bfloat16)
    with plain():
        assert base.kernel("simple_gla", torch.zeros(1)) is None
    if find_spec("fla") is None:
        with pytest.raises(ModuleNotFoundError) as raised:
            base.kernel("simple_gla", torch.zeros(1))
        assert (raised.value.name or "").startswith("fla")


def test_kernels_that_are_not_installed_are_said_to_be_lacking(monkeypatch):
    monkeypatch.setattr(kernels, "installed", lambda: None)
    given = Given(torch.device("cuda"), {})
    says("bench.no_kernels", kernels.lacks(given))
    monkeypatch.setattr(kernels, "installed", lambda: "0.4")
    assert kernels.lacks(given) is None


def environment(tmp_path: Path) -> dict[str, str]:
    own = {name: str(tmp_path / name.lower()) for name in ("ATTNLAB_RUNS", "ATTNLAB_CACHE")}
    return {**os.environ, **own, "PYTHONWARNINGS": "default"}


# One of those that are measured alike.
KINDS = list({part.measure: part for part in reversed(PARTS)}.values())
DRY = """
import sys, torch
from pathlib import Path
from bench.gpu.one import one
from bench.gpu.parts import PARTS
out, text, *names = sys.argv[1:]
for part in PARTS:
    if part.name in names:
        one(part, torch.device("cpu"), Path(out), Path(text))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_kind_of_part_runs_dry(tmp_path):
    text = tmp_path / "text"
    text.write_text(2 * (ROOT / "LICENSE").read_text())
    arguments = ["-c", DRY, str(tmp_path), str(text), *(part.name for part in KINDS)]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for part in KINDS:
        written = results.read(tmp_path, part.name)
        assert written is not None, part.name
        assert (written["part"], written["device"]) == (part.name, "cpu")
        assert written["settings"] == part.dry, part.name
        columns = {tuple(row) for row in written["rows"]}
        assert len(columns) == 1, part.name
        times = [row[key] for row in written["rows"] for key in row if key.startswith("ms")]
        assert None not in times, part.name
        # Where the matrix rate was measured too, a column beside these says the share of it.
        heading = next(
            line for line in table.text([part], tmp_path).splitlines() if line.startswith("| ")
        )
        assert {*columns.pop()} <= {cell.strip() for cell in heading.split("|")}


@pytest.mark.slow
def test_the_steps_that_are_looked_into_are_whole_and_not_logged():
    from bench.gpu.watched import FIRST, MARK, STEPS, watch

    cadence = Cadence(FIRST + 2 * STEPS + 2, 1_000_000)
    watched = range(FIRST + 1, FIRST + 2 * STEPS + 1)
    assert not any(cadence.logs(n) or cadence.writes(n) or cadence.saves(n) for n in watched)
    words = [*mixer_words("multihead", 2), "model.num_layers=1", "model.d_model=16", "batch_size=2"]
    inside = events.within(watch(words, 8, CPU).events, MARK)
    steps = [e for e in inside if e.name.startswith("Optimizer.step#")]
    assert len(steps) == STEPS


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_is_interrupted_goes_on_the_next_time(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNLAB_RUNS", str(tmp_path / "runs"))
    text = tmp_path / "text"
    text.write_text(2 * (ROOT / "LICENSE").read_text())
    seed = shakespeare.PARTS[1]
    words = [*seed.dry["words"], "trainer.max_steps=400", "trainer.val_check_interval=400"]
    given = Given(CPU, {**seed.dry, "words": words}, text)

    def interrupt() -> None:
        while not any(attempt.beat[1] for run in find_runs(place) for attempt in run.attempts):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    place = tmp_path / "runs" / seed.dry["runs"]
    place.mkdir(parents=True)
    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        shakespeare.measure(given)
    thread.join()
    (row,) = shakespeare.measure(given).rows
    assert (row["seed"], row["steps"], row["at step"]) == (1, 400, 400)
    first, second = find_runs(place)[0].attempts
    assert first.summary is not None
    assert first.summary.status == "interrupted"
    assert second.claim["resumed_from"]["step"] > 0
