"""`stepconf serve`: the strategies as an OpenAI-compatible endpoint, all requests over one engine.

The engine runs in a thread of its own (service.py). app.py speaks HTTP, chat.py has the wire format.
"""

import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from socket import socket
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from stepconf.errors import StepconfError
from stepconf.evaluation.infer import open_pool, with_tau
from stepconf.recipe import Recipe
from stepconf.serving.access import access_of, read_key
from stepconf.serving.service import Service
from stepconf.stages.models import open_engine

if TYPE_CHECKING:
    from stepconf.serving.app import App

_ENGINE_ENDS_S = 10.0


def serve(recipe: Recipe, ready: Callable[[str, str], None]) -> None:
    """Answer requests until SIGTERM or SIGINT; those under way may finish within `serve.grace_s`.

    Args:
        recipe: its model, prompt and sampling, `infer` for what a request leaves open, and `serve`.
        ready: called with the address and the model's name once clients can connect.

    Raises:
        StepconfError: the address cannot be had, or not without a key; the model cannot be loaded, or its engine
            failed.
    """
    try:
        from stepconf.serving.app import App, bind
    except ImportError as error:
        raise StepconfError(
            f"the server needs fastapi and uvicorn: {error}", "Type: pip install 'stepconf[serve]'"
        ) from error
    recipe, key = with_tau(recipe), read_key(recipe.serve.api_key_env)
    # Until the server listens to signals itself, one must still end the engine's processes.
    before = signal.signal(signal.SIGTERM, _end)
    try:
        with closing(bind(recipe.serve.host, recipe.serve.port)) as address:
            access = access_of(recipe.serve, address.getsockname()[0], key)
            with closing(open_engine(recipe)) as engine, open_pool(recipe) as pool:
                service = Service(engine, pool, recipe)
                app = App(service, recipe, served_name(recipe.model), access)
                _run(service, app, address, ready)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(service: Service, app: "App", address: socket, ready: Callable[[str, str], None]) -> None:
    thread = threading.Thread(target=service.run, args=(app.end,), daemon=True, name="engine")
    thread.start()
    try:
        app.run(address, ready)
    finally:
        service.live.stop()
        thread.join(_ENGINE_ENDS_S)
    # An interrupt from the keyboard reaches the engine's processes too: that is no fault.
    if service.live.fault is not None and not app.signalled:
        raise service.live.fault


def served_name(model: str) -> str:
    """What clients call the model: its name, and of a local folder the last part."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
