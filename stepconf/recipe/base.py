"""What all parts of a recipe have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, lt=1 << 32)]  # vLLM seeds numpy with it, which takes no more


class Strict(BaseModel):
    """Unknown keys are errors; a recipe does not change once it is loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True)
