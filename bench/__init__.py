"""Timings by ratio, interleaved in one run: `make bench`."""
