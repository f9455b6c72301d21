"""The Hugging Face Hub: the published form of a run goes up in one commit, or comes down. Nothing else speaks to it.

Files that have arrived are not sent again: the Hub knows them by their hash, so the same command after a
failure goes on where it was. Tokens are the client's own business; they are never read or shown here.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from stepconf.errors import StepconfError

ATTEMPTS = 5  # of a step that failed for a reason that may pass
_PASSING = {408, 429, 500, 502, 503, 504}
_OURS = ("data/", "stepconf/")  # what an earlier push may have left there and this one replaces
_MARK = "stepconf/manifests.jsonl"  # in all that push has published
_CLIENTS = {"httpx", "httpx2", "requests"}  # over which versions of huggingface_hub speak
_LOGIN = "Type: hf auth login (or set HF_TOKEN to a token that may write)."
T = TypeVar("T")


def check_card(text: str) -> None:
    """Raise where huggingface_hub does not read the card's metadata as they were written.

    Raises:
        StepconfError: a bug of ours; the card is not to be published.
    """
    import yaml
    from huggingface_hub import DatasetCard

    try:
        read = DatasetCard(text).data.to_dict()
    except ValueError as error:
        raise StepconfError(f"the dataset card is not valid: {error}") from error
    if read != yaml.safe_load(text.split("---\n")[1]):
        raise StepconfError("the dataset card's metadata do not come back as they were written.")


def check_name(repo_id: str) -> None:
    """Raise StepconfError where `repo_id` is not OWNER/NAME in the Hub's letters."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise StepconfError(
            f"{repo_id!r} is not a name for a data set: {error}", "Give OWNER/NAME."
        ) from error
    if repo_id.count("/") != 1:
        raise StepconfError(f"{repo_id!r} is not a name for a data set.", "Give OWNER/NAME.")


def check_login(repo_id: str) -> None:
    """Raise before any work is done where the Hub cannot be reached or does not know the user.

    Raises:
        StepconfError: no token, one that is not valid, or a network that stays down.
    """
    from huggingface_hub import HfApi

    def ask() -> None:
        HfApi(library_name="stepconf").whoami()

    _persist(ask, repo_id, "write to")


def upload(folder: Path, repo_id: str, private: bool, revision: str | None, message: str) -> str:
    """Push all files of `folder` in one commit, and take away what an earlier push left; the commit's address.

    Args:
        folder: the published form of a run.
        repo_id: OWNER/NAME; made if absent.
        private: make it private; an existing public one is refused.
        revision: branch; made if absent. None is the main one.
        message: of the commit.

    Raises:
        StepconfError: no token, no rights, a wrong name, a network that stays down, or a set that has files in the
            places of ours and was not published by `push`.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    check_name(repo_id)
    api = HfApi(library_name="stepconf")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = {file.relative_to(folder).as_posix(): file for file in files}

    def prepare() -> None:
        api.create_repo(repo_id, repo_type="dataset", private=private or None, exist_ok=True)
        if private and not api.dataset_info(repo_id).private:
            raise StepconfError(
                f"{repo_id} is public, and --private was given.",
                "Make it private in its settings on the Hub, or give another name.",
            )
        if revision is not None:
            api.create_branch(repo_id, repo_type="dataset", branch=revision, exist_ok=True)

    def commit() -> str:
        # Made again each time: what the Hub holds by now is asked again, so that nothing is committed twice.
        there = api.list_repo_files(repo_id, repo_type="dataset", revision=revision)
        ours = [name for name in there if name.startswith(_OURS)]
        if ours and _MARK not in ours:
            raise StepconfError(
                f"{repo_id} was not published by stepconf push, which would delete its files, such as {ours[0]}.",
                "Give another name; or delete the set's data/ and stepconf/ on the Hub, then type it again.",
            )
        stale = [name for name in ours if name not in names]
        operations: list[Any] = [CommitOperationDelete(path_in_repo=name) for name in stale]
        operations += [CommitOperationAdd(path_in_repo=n, path_or_fileobj=file) for n, file in names.items()]
        done = api.create_commit(
            repo_id, operations, commit_message=message, repo_type="dataset", revision=revision
        )
        return str(done.commit_url)

    _persist(prepare, repo_id, "write to")
    return _persist(commit, repo_id, "write to")


def commit_of(repo_id: str, revision: str | None) -> str:
    """The commit that a branch, a tag or (None) the main branch means now.

    Raises:
        StepconfError: no such set or revision, no rights, or a network that stays down.
    """
    return str(_info(repo_id, revision).sha)


def download(repo_id: str, folder: Path, commit: str) -> None:
    """Bring what `push` has published into `folder`; files that are there already are not fetched again.

    Args:
        repo_id: OWNER/NAME.
        folder: for this commit alone: files of another one stay, and where the Hub does not answer, the client takes
            what is there for what was asked.
        commit: of `commit_of`.

    Raises:
        StepconfError: no such set or commit, no rights, or a network that stays down.
    """
    from huggingface_hub import snapshot_download

    def fetch() -> None:
        snapshot_download(
            repo_id,
            repo_type="dataset",
            revision=commit,
            local_dir=folder,
            allow_patterns=[name + "**" for name in _OURS],
            library_name="stepconf",
        )

    _persist(fetch, repo_id, "read")


def open_files(repo_id: str, revision: str | None) -> tuple[list[str], Callable[[str], Any]]:
    """The names of a set's files, and a function that opens one of them: of large ones only what is read comes.

    All are of the one commit that `revision` means now.

    Raises:
        StepconfError: no such set or revision, no rights, or a network that stays down.
    """
    from huggingface_hub import HfFileSystem

    info = _info(repo_id, revision)
    names = sorted(one.rfilename for one in info.siblings or [])
    root = f"datasets/{repo_id}@{info.sha}"
    files = HfFileSystem()

    def opened(name: str) -> Any:
        return _persist(lambda: files.open(f"{root}/{name}", "rb"), repo_id, "read")

    return names, opened


def _info(repo_id: str, revision: str | None) -> Any:
    """What the Hub says of a set: its commit and its files."""
    from huggingface_hub import HfApi

    check_name(repo_id)
    api = HfApi(library_name="stepconf")
    return _persist(lambda: api.dataset_info(repo_id, revision=revision), repo_id, "read")


def _persist(step: Callable[[], T], repo_id: str, what: str) -> T:
    """Do it, again if what went wrong may pass; say what went wrong in a line if it does not."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return step()
        except StepconfError:
            raise
        except (
            Exception
        ) as error:  # the client wraps what its transport raises in classes without a common base
            if attempt == ATTEMPTS or not _may_pass(error):
                raise _explained(error, repo_id, what) from error
            time.sleep(_wait(error, attempt))
    raise AssertionError("unreachable")


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error and its causes."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _status(error: BaseException) -> int | None:
    """The HTTP status that caused an error, if there was one."""
    for one in _causes(error):
        response = getattr(one, "response", None)
        if response is not None:
            return int(response.status_code)
    return None


def _is_network(error: BaseException) -> bool:
    modules = {base.__module__.partition(".")[0] for one in _causes(error) for base in type(one).__mro__}
    return bool(modules & _CLIENTS) and _status(error) is None


def _may_pass(error: BaseException) -> bool:
    status = _status(error)
    return _is_network(error) if status is None else status in _PASSING


def _wait(error: BaseException, attempt: int) -> float:
    """Seconds: what the Hub asks for, else doubling from one."""
    for one in _causes(error):
        asked = getattr(getattr(one, "response", None), "headers", {}).get("Retry-After", "")
        if asked.isdigit():
            return min(float(asked), 300.0)
    return float(2 ** (attempt - 1))


def _explained(error: Exception, repo_id: str, what: str) -> StepconfError:
    from huggingface_hub.errors import (
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    chain, status = _causes(error), _status(error)

    def is_a(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in chain)

    if is_a(OfflineModeIsEnabled):
        return StepconfError(
            "HF_HUB_OFFLINE is set, so the Hub is not asked.", "Unset it, and type it again."
        )
    if is_a(RevisionNotFoundError):
        return StepconfError(f"{repo_id} has no such revision.", "Give a branch, tag or commit of it.")
    if is_a(LocalTokenNotFoundError) or (status == 401 and what != "read"):
        return StepconfError(f"the Hub does not know you, so you cannot {what} {repo_id}.", _LOGIN)
    if status == 403:
        return StepconfError(
            f"your token has no right to {what} {repo_id}.",
            "Give a name of your own, or a token with that right: hf auth login.",
        )
    if is_a(RepositoryNotFoundError) or status in (401, 404):
        return StepconfError(
            f"there is no data set {repo_id} on the Hub that you may {what}.",
            "Check OWNER/NAME; for a private one: hf auth login.",
        )
    if status is not None:
        return StepconfError(
            f"the Hub answered {status} for {repo_id}, {ATTEMPTS} times."
            if status in _PASSING
            else f"the Hub refused to {what} {repo_id} ({status}): {_short(error)}",
            "Type the same command again later; what has arrived is not sent again.",
        )
    if _is_network(error) or is_a(LocalEntryNotFoundError):
        return StepconfError(
            f"the Hub cannot be reached, or the connection breaks: {_short(error)}",
            "Type the same command again; what has arrived is not sent again.",
        )
    return StepconfError(
        f"{repo_id}: {type(error).__name__}: {_short(error)}", "STEPCONF_DEBUG=1 shows where."
    )


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "…"
