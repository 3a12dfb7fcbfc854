"""Any documents, kept apart: from tables, directories or the hub."""

from collections.abc import Mapping

import numpy as np

from attnlab.corpus import hub, source, store
from attnlab.corpus.documents import split_documents
from attnlab.dataset.base import Corpus
from attnlab.ranges import Seed, ShareBelowOne, Tokens, ranged
from attnlab.split import Split, Windows
from attnlab.tokenizer.base import Tokenizer
from attnlab.tokenizer.boundary import BOUNDARY, WithBoundary


@ranged
class Documents(Corpus):
    """Continues documents: each begins with the token `<document>` and is in one split alone.

    `path` is a table with a text `column`, of which each row is a document; a directory or a
    pattern (`*.txt`) of files, each a document or a table; a directory of `save_to_disk`; or
    `hub:NAME[:CONFIG][@REVISION]`. Documents without a text are left out, and so are those that an
    earlier split (test, validation) has; `notes` says how many. What is read is kept by its
    `sha256`, as in `text`.

    `validation` and `test` are shares of the documents, each of which is drawn by a hash of its
    content and `seed`: so its split does not depend on the others. Null takes the split that the
    data bring, as in `text`. Without a test share, runs report validation.

    Training reads `length` tokens from any place, so a window has parts of several documents; the
    other splits are read once, each token but the first asked exactly once. A model reads
    `<document>` as a token, and predicts it where a document ends; `objective.document_mask=true`
    lets attention see its own document alone. `<document>` stands for no byte in bits per byte.
    """

    boundary = BOUNDARY

    def __init__(
        self,
        *,
        path: str | None = None,
        column: str = "text",
        sha256: str | None = None,
        tokenizer: Tokenizer,
        length: Tokens = 128,
        validation: ShareBelowOne | None = 0.1,
        test: ShareBelowOne | None = 0.1,
        seed: Seed = 0,
    ) -> None:
        shares = {"validation": validation, "test": test}
        if validation == 0 or sum(share or 0 for share in shares.values()) >= 1:
            raise ValueError(
                f"validation={validation} and test={test} must be shares that leave some documents "
                "for training; only test may be 0, and null takes the data's own split"
            )
        if test == 0:
            del shares["test"]
            self.split_names = ("validation", "train")
        self.max_length, self.seed, self.shares = length, seed, shares
        self.tokenizer = WithBoundary(tokenizer)
        self._notes: list[str] = []
        self.sha256, tokenised = self._load_tokens(path, column, sha256)
        self.tokens, self._tokens_by_split = tokenised.vocabulary, tokenised.tokens_by_part
        boundary_id = len(self.tokens) - 1
        self.num_documents = {
            split: int(np.count_nonzero(token_ids == boundary_id))
            for split, token_ids in self._tokens_by_split.items()
        }
        self.origin = self._describe_splits()
        for split in reversed(self.split_names):
            if not self.num_documents[split]:
                raise ValueError(
                    f"none of the {sum(self.num_documents.values()):,} documents is in {split}; "
                    "give more of them, a larger share, or dataset=text, which cuts one text"
                )
            self.require_learnable(split, self._tokens_by_split[split], length)

    @property
    def content_identity(self) -> dict[str, str | None]:
        return {"path": None, "sha256": self.sha256}

    @property
    def notes(self) -> list[str]:
        return self._notes

    def build_split(self, split: str, earlier: Mapping[str, Split]) -> Windows:
        stride = 1 if split == "train" else self.max_length
        return Windows(self._tokens_by_split[split], self.max_length, stride)

    def _describe_splits(self) -> str:
        """Return where the splits come from."""
        own_splits = [split for split, share in self.shares.items() if share is None]
        drawn_splits = [f"{split} ({share:g})" for split, share in self._drawn_shares.items()]
        origins = [f"{' and '.join(own_splits)} as the data have them"] if own_splits else []
        if drawn_splits:
            population = "train" if own_splits else "all documents"
            origins.append(
                f"{' and '.join(drawn_splits)} of {population}, by the hash of each and "
                f"seed={self.seed}"
            )
        return "; ".join(origins)

    @property
    def _drawn_shares(self) -> dict[str, float]:
        """The shares that are drawn from the documents, by split."""
        return {split: share for split, share in self.shares.items() if share is not None}

    def _load_tokens(
        self, path: str | None, column: str, sha256: str | None
    ) -> tuple[str, store.Tokenised]:
        """Load or tokenise the documents; return their SHA-256 and their tokens."""
        shares = [store.OWN if share is None else str(share) for share in self.shares.values()]
        partition = "-".join([*shares, str(self.seed)])
        is_local = path is not None and not path.startswith(hub.HUB)
        if sha256 and not is_local and (cached := store.load(sha256, self.tokenizer, partition)):
            return sha256, cached
        if path is None:
            raise ValueError(
                f"the documents with sha256={sha256} are not kept in {store.directory()}; give "
                "them once with dataset.path=PATH"
                if sha256
                else "it needs dataset.path=PATH, a directory or a table with its dataset.column, "
                "or dataset.path=hub:NAME"
            )
        sources = source.find_sources(path, column, self.shares)
        documents = split_documents(sources, self._drawn_shares, self.seed)
        self._notes += documents.notes
        if sha256 not in (None, documents.sha256):
            raise ValueError(
                f"path={path} has sha256 {documents.sha256}, expected {sha256}; "
                "dataset.sha256=null takes other documents"
            )
        parts = {split: documents.source_by_split[split] for split in reversed(self.split_names)}
        try:
            return documents.sha256, store.load_or_tokenise(
                parts, documents.sha256, self.tokenizer, partition
            )
        except ValueError as error:
            raise source.name_unreadable_file(error, sources.values()) from error
