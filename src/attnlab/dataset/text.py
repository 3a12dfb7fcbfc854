"""Any text, from a file or from the hub."""

from collections.abc import Mapping

import numpy as np

from attnlab.corpus import source, store
from attnlab.dataset.base import Corpus, Split, Windows
from attnlab.tokenizer.base import Tokenizer


class Text(Corpus):
    """Continues a text: its last parts are for validation and test, in that order.

    `path` is a text file, a table (.parquet, .csv, .json, .jsonl) with a text `column`, or
    `hub:NAME[:CONFIG][@REVISION]`, read through the `datasets` library. The text is tokenised once
    and kept by its SHA-256; where `sha256` is given, no other text is taken, and one that was read
    before needs no path. `obtain` says where a person gets it. The vocabulary is that of the whole
    text. `validation` and `test` are shares of its tokens; without a test share, runs report
    validation. Training reads `length` tokens from any place; the other splits are read once, each
    token but the first asked exactly once.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        column: str = "text",
        sha256: str | None = None,
        obtain: str | None = None,
        tokenizer: Tokenizer,
        length: int = 128,
        validation: float = 0.05,
        test: float = 0.05,
    ) -> None:
        if length < 1:
            raise ValueError(f"length={length} must be at least 1 token")
        if validation <= 0 or test < 0 or validation + test >= 1:
            raise ValueError(
                f"validation={validation} and test={test} must be shares that leave some text for "
                "training; only test may be 0"
            )
        self.max_length, self.tokenizer = length, tokenizer
        self.sha256, text = _tokenised(path, column, sha256, obtain, tokenizer)
        self.whole, self.tokens = text.tokens, text.vocabulary
        self.shares = {"validation": validation, "test": test}
        if not test:
            self.split_names = ("validation", "train")
        for split in self.split_names:
            if (size := len(self._part(split))) <= length:
                raise ValueError(
                    f"length={length} is too long: the {split} text has {size:,} tokens"
                )

    @property
    def located(self) -> dict[str, str | None]:
        return {"path": None, "obtain": None, "sha256": self.sha256}

    def draw(self, split: str, earlier: Mapping[str, Split]) -> Windows:
        stride = 1 if split == "train" else self.max_length
        return Windows(self._part(split), self.max_length, stride)

    def _part(self, split: str) -> np.ndarray:
        count, held = len(self.whole), sum(self.shares.values())
        # Rounded, since 1 - .05 - .05 is not quite .9.
        train = int(count * round(1 - held, 12))
        test = train + int((count - train) * self.shares["validation"] / held)
        bounds = {"train": (0, train), "validation": (train, test), "test": (test, count)}
        return self.whole[slice(*bounds[split])]


def _tokenised(
    path: str | None, column: str, sha256: str | None, obtain: str | None, tokenizer: Tokenizer
) -> tuple[str, store.Tokenised]:
    """Give the SHA-256 of the text, and its tokens."""
    how = f"; obtain {obtain}, and give dataset.path=FILE" if obtain else ""
    local = path is not None and not path.startswith(source.HUB)
    if sha256 and not local and (kept := store.load(sha256, tokenizer)):
        return sha256, kept
    if path is None:
        raise ValueError(
            f"the text with sha256={sha256} is not kept in {store.directory()}; give its file once "
            "with dataset.path=FILE"
            if sha256
            else "it needs dataset.path=FILE, a text or a table with its dataset.column, or "
            "dataset.path=hub:NAME"
        )
    try:
        text = source.find(path, column)
    except ValueError as error:
        raise ValueError(f"{error}{'' if local else how}") from error
    found = text.sha256()
    if sha256 not in (None, found):
        raise ValueError(
            f"path={path} has sha256 {found}, expected {sha256}{how}; dataset.sha256=null takes "
            "another text"
        )
    return found, store.make(text, found, tokenizer)
