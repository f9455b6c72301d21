"""A set on the Hub is looked at without being downloaded: only what the page shows is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.edited_run import good_run
from tests.hub_server import hub_server
from tests.test_hub import hub, said


def data_of(page: Path) -> Any:
    return json.loads(page.read_text().split('id="data">')[1].split("</script>")[0])


@pytest.mark.slow
def test_a_report_from_the_hub_is_that_of_the_run(tmp_path: Path) -> None:
    with hub_server() as server:
        pushed = hub(server, "push", good_run(), "me/set", home=tmp_path)
        assert pushed.code == 0, pushed.err
        pages = [tmp_path / "run.html", tmp_path / "hub.html"]
        for where, page in zip((good_run(), "hf://datasets/me/set@main"), pages, strict=True):
            ended = hub(server, "report", where, "--out", page, home=tmp_path)
            assert ended.code == 0, ended.err
        run, published = (data_of(page) for page in pages)
        assert run.pop("name") != published.pop("name") == "me/set"
        assert published == run
        absent = hub(server, "view", "hf://me/none", home=tmp_path)
        assert "no data set me/none on the Hub" in said(absent)
        assert "not a name for a data set" in said(hub(server, "report", "hf://none", home=tmp_path))
