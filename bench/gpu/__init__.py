"""Everything that only a GPU can show, in parts that are measured once: `make gpu-check`."""
