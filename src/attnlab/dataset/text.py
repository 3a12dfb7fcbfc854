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
"""The number of tokens that are checked at once for different ones."""


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
        held_share = (validation or 0) + (test or 0)
        if validation == 0 or held_share >= 1:
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
        self.sha256, text = self._load_tokens(path, column, sha256, obtain)
        self.whole, self.tokens, self._tokens_by_split = text.tokens, text.vocabulary, text.parts
        for split in self.split_names:
            if (size := len(self._split_tokens(split))) <= length:
                raise ValueError(
                    f"length={length} is too long: the {split} text has {size:,} tokens"
                )
        for split in reversed(self.split_names):
            self._require_different_tokens(split)

    @property
    def content_identity(self) -> dict[str, str | None]:
        return {"path": None, "obtain": None, "sha256": self.sha256}

    @property
    def notes(self) -> list[str]:
        return self._notes

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over the contents of all splits, and over a learnt vocabulary."""
        tokens_hash = super().data_hash
        if not self.tokenizer.learns:
            return tokens_hash
        hashed_text = "\n".join([tokens_hash, *self.tokens, self.tokenizer.state])
        return hashlib.sha256(hashed_text.encode()).hexdigest()

    def build_split(self, split: str, earlier: Mapping[str, Split]) -> Windows:
        stride = 1 if split == "train" else self.max_length
        return Windows(self._split_tokens(split), self.max_length, stride)

    def _split_tokens(self, split: str) -> np.ndarray:
        """Return the token ids of a split."""
        if self._tokens_by_split:
            return self._tokens_by_split[split]
        count, shares = len(self.whole), {name: share or 0 for name, share in self.shares.items()}
        held_share = sum(shares.values())
        # Rounded, since 1 - .05 - .05 is not quite .9.
        train_end = int(count * round(1 - held_share, 12))
        validation_end = train_end + int((count - train_end) * shares["validation"] / held_share)
        bounds = {
            "train": (0, train_end),
            "validation": (train_end, validation_end),
            "test": (validation_end, count),
        }
        return self.whole[slice(*bounds[split])]

    def _require_different_tokens(self, split: str) -> None:
        """Refuse a text of white space alone; for training, one of one token or unknown words."""
        tokens, distinct_ids = self._split_tokens(split), set[int]()
        empty_texts, min_distinct = (("", UNKNOWN), 2) if split == "train" else (("",), 1)
        for start in range(0, len(tokens), NEAR):
            distinct_ids.update(np.unique(tokens[start : start + NEAR]).tolist())
            texts = (self.decode([token_id]).strip() for token_id in distinct_ids)
            if len(distinct_ids) >= min_distinct and any(text not in empty_texts for text in texts):
                return
        token_names = ", ".join(repr(self.tokens[token_id]) for token_id in sorted(distinct_ids))
        raise ValueError(
            f"the {split} text has no other token than {token_names}, {len(tokens):,} tokens in "
            "all; there is nothing to learn"
        )

    def _parting_name(self) -> str:
        """Return a name for how the text is split before it is tokenised, for the cache."""
        if self.tokenizer.learns or None in self.shares.values():
            return "-".join(OWN if share is None else str(share) for share in self.shares.values())
        return store.WHOLE

    def _load_tokens(
        self, path: str | None, column: str, sha256: str | None, obtain: str | None
    ) -> tuple[str, store.Tokenised]:
        """Load or tokenise the text; return its SHA-256 and its tokens."""
        instruction = f"; obtain {obtain}, and give dataset.path=FILE" if obtain else ""
        is_local = path is not None and not path.startswith(source.HUB)
        parting = self._parting_name()
        if sha256 and not is_local and (cached := store.load(sha256, self.tokenizer, parting)):
            return sha256, cached
        if path is None:
            raise ValueError(
                f"the text with sha256={sha256} is not kept in {store.directory()}; give its file "
                f"once with dataset.path=FILE{instruction}"
                if sha256
                else "it needs dataset.path=FILE, a text or a table with its dataset.column, or "
                f"dataset.path=hub:NAME{instruction}"
            )
        try:
            text_sha256, parts = self._find_sources(path, column)
        except ValueError as error:
            raise ValueError(f"{error}{'' if is_local else instruction}") from error
        if sha256 not in (None, text_sha256):
            raise ValueError(
                f"path={path} has sha256 {text_sha256}, expected {sha256}{instruction}; "
                "dataset.sha256=null takes another text"
            )
        if self.tokenizer.learns and store.WHOLE in parts:
            parts = source.split_text_by_shares(parts[store.WHOLE], self._cut_shares)
        return text_sha256, store.load_or_tokenise(parts, text_sha256, self.tokenizer, parting)

    @property
    def _cut_shares(self) -> dict[str, float]:
        """The shares that are cut from the text, by split."""
        return {name: share for name, share in self.shares.items() if share is not None}

    def _find_sources(self, path: str, column: str) -> tuple[str, dict[str, source.Source]]:
        """Return the SHA-256 of the text that is read, and its parts."""
        own_splits = [name for name, share in self.shares.items() if share is None]
        if not own_splits:
            text = source.find_source(path, column)
            self._require_column_applies(path, column, [text])
            sha256 = text.sha256()
            self._note_missing_rows({store.WHOLE: text})
            return sha256, {store.WHOLE: text}
        sources = source.find_split_sources(path, column)
        for name in ("train", *own_splits):
            if name not in sources:
                raise ValueError(
                    f"path={path} has no split named {name}; there is "
                    f"{', '.join(sources) or 'none'}"
                    + (f"; give dataset.{name} as a share" if name != "train" else "")
                )
        parts = {name: sources[name] for name in ("train", *own_splits)}
        self._require_column_applies(path, column, list(parts.values()))
        sha = hashlib.sha256()
        for name, part in parts.items():
            sha.update(f"{part.sha256()}  {name}\n".encode())
        self._note_missing_rows(parts)
        if self._cut_shares:
            parts |= source.split_text_by_shares(parts["train"], self._cut_shares)
        return sha.hexdigest(), parts

    def _require_column_applies(
        self, path: str, column: str, sources: Sequence[source.Source]
    ) -> None:
        """Refuse a column that was set although no table is read. Raises ValueError."""
        if column != COLUMN and not any(isinstance(part, source.RowSource) for part in sources):
            raise ValueError(
                f"column={column!r} is for tables, and path={path} holds plain text; leave it out, "
                f"or name a table (.csv, .tsv, .jsonl, .parquet)"
            )

    def _note_missing_rows(self, parts: Mapping[str, source.Source]) -> None:
        """Add a note for each part that has rows without a text."""
        for name, part in parts.items():
            if isinstance(part, source.RowSource) and (missing := part.counts().missing):
                prefix = f"{name}: " if name else ""
                self._notes.append(
                    f"{prefix}{missing:,} of {part.counts().rows:,} rows are left out (without a "
                    "text)"
                )
