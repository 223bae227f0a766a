"""The building blocks of the embodiment YAML: strict models and the types of their fields."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """Base of all parts: immutable, and an unknown key is an error instead of a setting without effect."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def refuse_twice(kind: str, names: list[str]) -> None:
    """Raise ValueError when a name occurs more than once."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{kind} {', '.join(twice)} is named more than once")
