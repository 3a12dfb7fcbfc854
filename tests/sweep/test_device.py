"""A run says on which processor it was made."""

import platform

import pytest
import torch

from attnlab.sweep import run

CPU = torch.device("cpu")
SAID = """\
processor\t: 0
model\t\t: 143
model name\t: Intel(R)  Xeon(R) Platinum 8481C CPU @ 2.70GHz
stepping\t: 8

processor\t: 1
model name\t: another
"""


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    """What Linux would say of a processor; there is no such file until it is written."""
    monkeypatch.setattr(run, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "processor", lambda: "")
    return tmp_path / "cpuinfo"


def test_a_cpu_is_called_by_its_model_in_one_line(cpuinfo):
    cpuinfo.write_text(SAID)
    assert run.device_name(CPU) == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz (x86_64 cpu)"


@pytest.mark.parametrize("text", [None, "processor\t: 0\nBogoMIPS\t: 50.00\n"])
def test_where_no_model_is_said_the_platform_is_asked(cpuinfo, monkeypatch, text):
    if text:
        cpuinfo.write_text(text)
    assert run.device_name(CPU) == "x86_64 cpu"
    monkeypatch.setattr(platform, "processor", lambda: "x86_64")
    assert run.device_name(CPU) == "x86_64 cpu"
    monkeypatch.setattr(platform, "processor", lambda: "i386")
    assert run.device_name(CPU) == "i386 (x86_64 cpu)"
