"""Any text, from a file, a directory or the hub."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from attnlab.corpus import source, store
from attnlab.dataset.base import Corpus
from attnlab.ranges import ShareBelowOne, Tokens, ranged
from attnlab.split import Split, Windows
from attnlab.tokenizer.base import Tokenizer
from attnlab.tokenizer.words import UNKNOWN

OWN = "own"
COLUMN = "text"
NEAR = 1 << 16
"""Tokens that are looked at at once, to see whether there are different ones."""


@ranged
class Text(Corpus):
    """Continues a text: its last parts are for validation and test, in that order.

    `path` is a text file, a table (.csv, .tsv, .json, .jsonl, .ndjson, .parquet) with a text
    `column`, either packed too (.gz, .bz2, .xz, .zst), or `hub:NAME[:CONFIG][@REVISION]`, read
    through the `datasets` library. Rows without a text are left out, which `notes` says; a byte
    order mark is no part of a text. The text is tokenised once and kept by its SHA-256; where
    `sha256` is given, no other text is taken, and one that was read before needs no path. `obtain`
    says where a person gets it.

    `validation` and `test` are shares of the text (of its tokens; of its bytes, then to the end of
    the line, for a tokenizer that learns from the training part). Null takes the split that the
    corpus brings: `path` is then a directory with a file for each, or the hub, and shares are cut
    from the end of train; its SHA-256 is that of the lines `SHA256  SPLIT`. Nothing is left out or
    moved, so what a corpus says twice can stand in two splits. Without a test share, runs report
    validation. Training reads `length` tokens from any place; the other splits are read once, each
    token but the first asked exactly once.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        column: str = COLUMN,
        sha256: str | None = None,
        obtain: str | None = None,
        tokenizer: Tokenizer,
        length: Tokens = 128,
        validation: ShareBelowOne | None = 0.05,
        test: ShareBelowOne | None = 0.05,
    ) -> None:
        held = (validation or 0) + (test or 0)
        if validation == 0 or held >= 1:
            raise ValueError(
                f"validation={validation} and test={test} must be shares that leave some text for "
                "training; only test may be 0, and null takes the corpus's own split"
            )
        self.max_length, self.tokenizer = length, tokenizer
        self._notes: list[str] = []
        self.shares = {"validation": validation, "test": test}
        if test == 0:
            del self.shares["test"]
            self.split_names = ("validation", "train")
        self.sha256, text = self._tokenised(path, column, sha256, obtain)
        self.whole, self.tokens, self._parts = text.tokens, text.vocabulary, text.parts
        for split in self.split_names:
            if (size := len(self._part(split))) <= length:
                raise ValueError(
                    f"length={length} is too long: the {split} text has {size:,} tokens"
                )
        for split in reversed(self.split_names):
            self._require_something(split)

    @property
    def located(self) -> dict[str, str | None]:
        return {"path": None, "obtain": None, "sha256": self.sha256}

    @property
    def notes(self) -> list[str]:
        return self._notes

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over the contents of all splits, and over a vocabulary that was learnt."""
        tokens = super().data_hash
        if not self.tokenizer.learns:
            return tokens
        learnt = "\n".join([tokens, *self.tokens, self.tokenizer.learnt])
        return hashlib.sha256(learnt.encode()).hexdigest()

    def draw(self, split: str, earlier: Mapping[str, Split]) -> Windows:
        stride = 1 if split == "train" else self.max_length
        return Windows(self._part(split), self.max_length, stride)

    def _part(self, split: str) -> np.ndarray:
        if self._parts:
            return self._parts[split]
        count, shares = len(self.whole), {name: share or 0 for name, share in self.shares.items()}
        held = sum(shares.values())
        # Rounded, since 1 - .05 - .05 is not quite .9.
        train = int(count * round(1 - held, 12))
        test = train + int((count - train) * shares["validation"] / held)
        bounds = {"train": (0, train), "validation": (train, test), "test": (test, count)}
        return self.whole[slice(*bounds[split])]

    def _require_something(self, split: str) -> None:
        """Refuse a text of white space alone; for training, one of one token or unknown words."""
        part, seen = self._part(split), set[int]()
        nothing, enough = (("", UNKNOWN), 2) if split == "train" else (("",), 1)
        for start in range(0, len(part), NEAR):
            seen.update(np.unique(part[start : start + NEAR]).tolist())
            if len(seen) >= enough and any(self.write([n]).strip() not in nothing for n in seen):
                return
        told = ", ".join(repr(self.tokens[number]) for number in sorted(seen))
        raise ValueError(
            f"the {split} text has no other token than {told}, {len(part):,} tokens in all; there "
            "is nothing to learn"
        )

    def _parting(self) -> str:
        """Say how the text is parted before it is tokenised."""
        if self.tokenizer.learns or None in self.shares.values():
            told = (OWN if share is None else str(share) for share in self.shares.values())
            return "-".join(told)
        return store.WHOLE

    def _tokenised(
        self, path: str | None, column: str, sha256: str | None, obtain: str | None
    ) -> tuple[str, store.Tokenised]:
        """Give the SHA-256 of the text, and its tokens."""
        how = f"; obtain {obtain}, and give dataset.path=FILE" if obtain else ""
        local = path is not None and not path.startswith(source.HUB)
        parting = self._parting()
        if sha256 and not local and (kept := store.load(sha256, self.tokenizer, parting)):
            return sha256, kept
        if path is None:
            raise ValueError(
                f"the text with sha256={sha256} is not kept in {store.directory()}; give its file "
                f"once with dataset.path=FILE{how}"
                if sha256
                else "it needs dataset.path=FILE, a text or a table with its dataset.column, or "
                f"dataset.path=hub:NAME{how}"
            )
        try:
            found, parts = self._found(path, column)
        except ValueError as error:
            raise ValueError(f"{error}{'' if local else how}") from error
        if sha256 not in (None, found):
            raise ValueError(
                f"path={path} has sha256 {found}, expected {sha256}{how}; dataset.sha256=null "
                "takes another text"
            )
        if self.tokenizer.learns and store.WHOLE in parts:
            parts = source.cut(parts[store.WHOLE], self._cuts)
        return found, store.make(parts, found, self.tokenizer, parting)

    @property
    def _cuts(self) -> dict[str, float]:
        return {name: share for name, share in self.shares.items() if share is not None}

    def _found(self, path: str, column: str) -> tuple[str, dict[str, source.Source]]:
        """Give the SHA-256 of the text that is used, and its parts."""
        own = [name for name, share in self.shares.items() if share is None]
        if not own:
            text = source.find(path, column)
            self._require_column_applies(path, column, [text])
            sha256 = text.sha256()
            self._tell_missing({store.WHOLE: text})
            return sha256, {store.WHOLE: text}
        there = source.splits(path, column)
        for name in ("train", *own):
            if name not in there:
                raise ValueError(
                    f"path={path} has no split named {name}; there is "
                    f"{', '.join(there) or 'none'}"
                    + (f"; give dataset.{name} as a share" if name != "train" else "")
                )
        used = {name: there[name] for name in ("train", *own)}
        self._require_column_applies(path, column, list(used.values()))
        sha = hashlib.sha256()
        for name, part in used.items():
            sha.update(f"{part.sha256()}  {name}\n".encode())
        self._tell_missing(used)
        if self._cuts:
            used |= source.cut(used["train"], self._cuts)
        return sha.hexdigest(), used

    def _require_column_applies(
        self, path: str, column: str, sources: Sequence[source.Source]
    ) -> None:
        """Refuse a column that was chosen where no table is read."""
        if column != COLUMN and not any(isinstance(part, source.Rows) for part in sources):
            raise ValueError(
                f"column={column!r} is for tables, and path={path} holds plain text; leave it out, "
                f"or name a table (.csv, .tsv, .jsonl, .parquet)"
            )

    def _tell_missing(self, parts: Mapping[str, source.Source]) -> None:
        for name, part in parts.items():
            if isinstance(part, source.Rows) and (missing := part.counts().missing):
                of = f"{name}: " if name else ""
                self._notes.append(
                    f"{of}{missing:,} of {part.counts().rows:,} rows are left out (without a text)"
                )
