"""What all parts of a recipe have in common."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Unknown keys are errors; a recipe does not change once it is loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True)
