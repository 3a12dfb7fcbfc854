"""What a served page shows, as its address says it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from urllib.parse import urlencode


@dataclass(frozen=True)
class PageView:
    """What a page shows: its fields are those of the query of the page's address."""

    PATH: ClassVar[str]

    def address(self, path: str | None = None, **changes: Any) -> str:
        """Return the address of the page with some changes, or of another path with this query.

        Fields with their default are left out.
        """
        return address_of(path or self.PATH, replace(self, **changes).fields())

    def fields(self) -> dict[str, Any]:
        """Return the fields of the query of its address."""
        default = type(self)()
        return {
            name: int(value) if isinstance(value, bool) else value
            for name, value in vars(self).items()
            if value != getattr(default, name)
        }


def address_of(path: str, fields: Mapping[str, Any]) -> str:
    """Return the address of a page with the fields of its query."""
    return f"{path}{'?' if fields else ''}{urlencode(fields, doseq=True)}"
