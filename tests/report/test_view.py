"""`stepconf view`: the server answers what the report holds, to this machine only."""

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import create_connection
from typing import Any
from urllib.parse import urlencode

import pytest

from stepconf.errors import StepconfError
from stepconf.report.server import ViewServer
from stepconf.report.source import open_source
from tests.edited_run import good_run
from tests.tiny import stepconf


@contextmanager
def serving(where: Path | str) -> Iterator[ViewServer]:
    with ViewServer(open_source(str(where), False), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def server() -> Iterator[ViewServer]:
    with serving(good_run()) as server:
        yield server


def ask(server: ViewServer, path: str, headers: dict[str, str] | None = None, **query: str) -> Any:
    request = urllib.request.Request(server.address + path + "?" + urlencode(query), headers=headers or {})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def status_of(server: ViewServer, path: str, headers: dict[str, str] | None = None, **query: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(server, path, headers, **query)
    refused.value.close()
    return refused.value.code


def test_what_is_served_is_what_the_report_holds(server: ViewServer, tmp_path: Path) -> None:
    assert stepconf("report", good_run(), "--out", tmp_path / "page.html").code == 0
    html = (tmp_path / "page.html").read_text()
    data = json.loads(html.split('id="data">')[1].split("</script>")[0])
    assert ask(server, "api/overview") == data["overview"]
    assert ask(server, "api/problems")["problems"] == data["problems"]
    for details in data["details"]:
        problem = ask(server, "api/problem", id=details["problem_id"])
        for held, own in zip(details["solutions"], problem["solutions"], strict=True):
            steps = held.pop("steps")
            assert own == held
            assert ask(server, "api/solution", id=own["solution_id"]) == {"steps": steps, "notes": []}


def test_only_this_machine_is_answered(server: ViewServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert status_of(server, "api/problems", {"Host": "example.com"}) == 403
    assert status_of(server, "", {"Host": f"example.com:{server.server_address[1]}"}) == 403
    assert ask(server, "api/problems", {"Host": f"localhost:{server.server_address[1]}"})["total"] == 6


def test_half_open_connections_keep_nobody_out(server: ViewServer) -> None:
    """Those silent for longest are ended, and few have a thread."""
    before = threading.active_count()
    with ExitStack() as stack:
        for sent in (b"", b"GET / HTTP/1.1\r\nHost: ") * 150:
            one = stack.enter_context(socket.create_connection(("127.0.0.1", server.server_address[1]), 60))
            one.sendall(sent)
        assert ask(server, "api/problems")["total"] == 6
        assert threading.active_count() - before < 150


def test_questions_without_an_answer(server: ViewServer) -> None:
    assert status_of(server, "api/problem", id="none") == 404
    assert status_of(server, "api/solution", id="none") == 404
    assert status_of(server, "../../etc/passwd") == 404
    assert status_of(server, "api/problems", label="right") == 400
    for page in ("-1", "x", "9" * 5000):
        assert status_of(server, "api/problems", page=page) == 400
    assert status_of(server, "api/problems", q="x" * 501) == 400
    assert ask(server, "api/problems", page="9")["problems"] == []


@pytest.mark.parametrize(
    "target",
    [
        "http://[::1",
        "http://[x]/api/problems",
        "/api/problems?page=" + "9" * 5000,
        "/api/problems?page=%D9%A3",
    ],
)
def test_a_request_that_makes_no_sense_is_answered(
    server: ViewServer, target: str, capfd: pytest.CaptureFixture[str]
) -> None:
    host = f"127.0.0.1:{server.server_address[1]}"
    with create_connection(server.server_address[:2]) as sent:
        sent.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert sent.makefile("rb").readline().startswith(b"HTTP/1.0 400 ")
    assert "Traceback" not in capfd.readouterr().err


def test_a_published_folder_is_viewed_as_the_run(tmp_path: Path, server: ViewServer) -> None:
    assert stepconf("push", good_run(), "me/set", "--dry-run", "--out", tmp_path / "set").code == 0
    with serving(tmp_path / "set") as published:
        assert ask(published, "api/overview") == ask(server, "api/overview")
        assert ask(published, "api/problems", label="incorrect") == ask(
            server, "api/problems", label="incorrect"
        )
    (tmp_path / "other" / "data" / "steps").mkdir(parents=True)
    with pytest.raises(StepconfError, match="no tables"):
        open_source(str(tmp_path / "other"), False)


def test_a_port_that_is_taken(server: ViewServer) -> None:
    ended = stepconf("view", good_run(), "--port", server.server_address[1])
    assert ended.code == 1 and "--port" in ended.err
