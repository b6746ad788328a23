"""What a value of a spec, or of any file that elson reads, may be: names, addresses, shares; and the class that refuses keys nobody declared."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from runners import outside
from runners.errors import UserError

Fraction = Annotated[float, Field(ge=0, le=1)]
NAME = r"^[a-z0-9][a-z0-9.-]{1,80}$"
Name = Annotated[str, StringConstraints(pattern=NAME)]
#: Ids of artifacts: they become parts of paths.
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9._-]{0,120}$")]
GsUri = Annotated[str, StringConstraints(pattern=r"^gs://[a-z0-9][a-z0-9._-]+(/[^/].*)?$")]


def _range(text: str) -> str:
    ipaddress.ip_network(text)
    return text


def _host_name(text: str) -> str:
    if not outside.is_host_name(text):
        raise ValueError("a host name like api.example.org")
    return text


Range = Annotated[str, AfterValidator(_range)]
HostName = Annotated[str, AfterValidator(_host_name)]


class Strict(BaseModel):
    """Frozen, and a key nobody declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @classmethod
    def from_yaml(cls, file: Path, expected: str, *, text_keys: bool = True) -> Self:
        """What a YAML file holds. Raises UserError naming each bad key."""
        try:
            return cls.model_validate(outside.read_yaml(file, text_keys=text_keys))
        except ValidationError as error:
            raise UserError(f"{file}: {wrong(error)}", expected, f"edit {file}") from None


def wrong(error: ValidationError) -> str:
    """Each bad key with what is wrong with it."""
    found = [(".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in error.errors()]
    return "; ".join(f"{key}: {why}" if key else why for key, why in found)
