"""Any text, from a file, a directory or the hub."""

import hashlib
from collections.abc import Mapping

import numpy as np

from attnlab.corpus import hub, source, store
from attnlab.dataset.base import Corpus
from attnlab.ranges import ShareBelowOne, Tokens, ranged
from attnlab.split import Split, Windows
from attnlab.tokenizer.base import Tokenizer


@ranged
class Text(Corpus):
    """Continues a text: its last parts are for validation and test, in that order.

    `path` is a text file, a table (.csv, .tsv, .json, .jsonl, .ndjson, .parquet) with a text
    `column`, either packed too (.gz, .bz2, .xz, .zst), a directory or a pattern (`*.txt`) of such
    files, a directory of `save_to_disk`, or `hub:NAME[:CONFIG][@REVISION]`, read through the
    `datasets` library. Rows and files are joined, each ends with its line; rows without a text are
    left out; `notes` says both. A byte order mark is no part of a text. The text is tokenised once
    and kept by its SHA-256; where `sha256` is given, no other text is taken, and one that was read
    before needs no path. `obtain` says where a person gets it.

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
        column: str = source.COLUMN,
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
        self.whole, self.tokens = text.tokens, text.vocabulary
        self._tokens_by_split = text.tokens_by_part
        self.origin = self._describe_splits()
        for split in reversed(self.split_names):
            self.require_learnable(split, self._split_tokens(split), length)

    @property
    def content_identity(self) -> dict[str, str | None]:
        return {"path": None, "obtain": None, "sha256": self.sha256}

    @property
    def notes(self) -> list[str]:
        return self._notes

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

    def _describe_splits(self) -> str:
        """Return where the splits come from."""
        own = [split for split, share in self.shares.items() if share is None]
        cut = [f"{split} ({share:g})" for split, share in self._cut_shares.items()]
        origins = [f"{' and '.join(own)} as the data have them"] if own else []
        if cut:
            origins.append(f"{' and '.join(cut)} from the end of {'train' if own else 'the text'}")
        return "; ".join(origins)

    def _parting_name(self) -> str:
        """Return a name for how the text is split before it is tokenised, for the cache."""
        if self.tokenizer.learns or None in self.shares.values():
            return "-".join(
                store.OWN if share is None else str(share) for share in self.shares.values()
            )
        return store.WHOLE

    def _load_tokens(
        self, path: str | None, column: str, sha256: str | None, obtain: str | None
    ) -> tuple[str, store.Tokenised]:
        """Load or tokenise the text; return its SHA-256 and its tokens."""
        instruction = f"; obtain {obtain}, and give dataset.path=FILE" if obtain else ""
        is_local = path is not None and not path.startswith(hub.HUB)
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
        try:
            return text_sha256, store.load_or_tokenise(parts, text_sha256, self.tokenizer, parting)
        except ValueError as error:
            raise source.name_unreadable_file(error, parts.values()) from error

    @property
    def _cut_shares(self) -> dict[str, float]:
        """The shares that are cut from the text, by split."""
        return {name: share for name, share in self.shares.items() if share is not None}

    def _find_sources(self, path: str, column: str) -> tuple[str, dict[str, source.Source]]:
        """Return the SHA-256 of the text that is read, and its parts."""
        parts = source.find_sources(path, column, self.shares)
        if None not in self.shares.values():
            text = parts["train"]
            sha256 = text.sha256()
            self._note_rows({store.WHOLE: text})
            return sha256, {store.WHOLE: text}
        sha = hashlib.sha256()
        for name, part in parts.items():
            sha.update(f"{part.sha256()}  {name}\n".encode())
        self._note_rows(parts)
        if self._cut_shares:
            parts |= source.split_text_by_shares(parts["train"], self._cut_shares)
        return sha.hexdigest(), parts

    def _note_rows(self, parts: Mapping[str, source.Source]) -> None:
        """Add notes for each part of many rows or files: which are left out, and how they join."""
        for name, part in parts.items():
            if not isinstance(part, source.JoinedSource):
                continue
            prefix, counts = f"{name}: " if name else "", part.counts()
            if counts.missing:
                self._notes.append(
                    f"{prefix}{counts.missing:,} of {counts.rows:,} {part.unit} are left out "
                    "(without a text)"
                )
            if (num_joined := counts.rows - counts.missing) > 1:
                self._notes.append(
                    f"{prefix}{num_joined:,} {part.unit} are joined into one text, each ends with "
                    "its line; dataset=documents keeps them apart"
                )
