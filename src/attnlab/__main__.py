"""`python -m attnlab`: the program `attnlab`."""

from attnlab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
