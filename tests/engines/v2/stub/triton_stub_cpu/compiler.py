"""A compiler without a stage."""

from typing import Any

from triton.backends.compiler import BaseBackend


class StubBackend(BaseBackend):  # type: ignore[misc]
    @staticmethod
    def supports_target(target: Any) -> bool:
        return bool(target.backend == "cpu")

    def hash(self) -> str:
        return "stub"

    def parse_options(self, options: dict[str, Any]) -> Any:
        return options

    def add_stages(self, stages: dict[str, Any], options: Any) -> None:
        raise NotImplementedError

    def load_dialects(self, context: Any) -> None:
        raise NotImplementedError

    def get_module_map(self) -> dict[str, Any]:
        return {}
