"""The parts of `make gpu-check`, the most wanted first; another one is a file and a line here."""

from bench.gpu.part import Part
from bench.gpu.parts import (
    decode,
    decoder_124m,
    inside_a_step,
    kernels,
    linear,
    matrix_rate,
    moe,
    shakespeare,
    step,
)

PARTS: list[Part] = [
    *matrix_rate.PARTS,
    *decoder_124m.PARTS,
    *inside_a_step.PARTS,
    *step.PARTS,
    *moe.PARTS,
    *decode.PARTS,
    *linear.PARTS,
    *kernels.PARTS,
    *shakespeare.PARTS,
]
