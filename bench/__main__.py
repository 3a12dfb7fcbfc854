"""Print every ratio, with the machine, the date and the commit."""

import datetime
import platform
import subprocess

import torch

from bench import generation, recording, step

commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, commit {commit.stdout.strip() or 'none'}")
for part in (step, recording, generation):
    print(f"\n{(part.__doc__ or '').splitlines()[0]}")
    for name, value in part.ratios().items():
        print(f"  {name:<60} {value:8.3f}")
