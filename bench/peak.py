"""How many bytes of tensors are alive at once."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Counts what the operations within it make, while it lives; what was there before counts 0."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.most = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {
            leaf.untyped_storage()._cdata
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, torch.Tensor)
        }
        out = func(*args, **(kwargs or {}))
        for tensor in (leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._known and storage._cdata not in given:
                self.alive += storage.nbytes()
                self._known[storage._cdata] = weakref.ref(storage, self._gone(storage))
        self.most = max(self.most, self.alive)
        return out

    def _gone(self, storage: torch.UntypedStorage) -> Any:
        key, size = storage._cdata, storage.nbytes()

        def forget(_: Any) -> None:
            self.alive -= size
            del self._known[key]

        return forget
