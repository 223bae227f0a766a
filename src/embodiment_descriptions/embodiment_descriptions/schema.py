# SPDX-License-Identifier: Apache-2.0
"""The building blocks of the embodiment YAML: strict models and the types of their fields."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """Base of all sections: immutable, and an unknown key is an error instead of a setting without effect."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def require_unique(kind: str, names: list[str]) -> None:
    """Raise ValueError when a name occurs more than once."""
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ValueError(f"{kind} {', '.join(duplicates)} is named more than once")
