"""Upload of exported models to the Hugging Face hub, by its own client.

The token is the one that huggingface_hub finds: HF_TOKEN, or that of `hf auth login`. It is never printed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from petl_bench.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

OF_EVERY = {".gitattributes"}
"""Files that the hub itself puts into a new repository."""


@dataclass(frozen=True)
class Repository:
    """A model repository of the hub that may be filled: it is new, or holds nothing yet.

    Attributes:
        name: its name, "owner/name".
        exists: whether the hub has it already.
    """

    name: str
    exists: bool

    def fill(self, files: Mapping[str, bytes], message: str) -> str:
        """Upload files in one commit; a repository that does not exist is created, as a private one.

        Args:
            files: content by name.
            message: message of the commit.

        Returns:
            The address of the repository.

        Raises:
            UserError: the hub cannot be reached or refuses the files.
        """
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()
        with _client(self.name) as api:
            if not self.exists:
                api.create_repo(self.name, private=True)
            operations = [CommitOperationAdd(name, data) for name, data in files.items()]
            api.create_commit(self.name, operations, commit_message=message)
            return f"{api.endpoint}/{self.name}"


def writable(name: str) -> Repository:
    """Return a repository of the hub that an export may be written to; nothing is changed there.

    Args:
        name: name of the repository, "owner/name".

    Raises:
        UserError: this is no name, there is no token, it may not write, the hub cannot be reached, or the
            repository holds files already.
    """
    from huggingface_hub import errors, get_token
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except errors.HFValidationError as error:
        raise UserError(f"--push {name}: this is no name of a repository; give OWNER/NAME") from error
    if "/" not in name:
        raise UserError(f"--push {name}: names the repository without its owner; give OWNER/NAME")
    if get_token() is None:
        raise UserError(f"--push {name}: no token of the hub is known; {_LOGIN}")
    with _client(name) as api:
        role = api.whoami().get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise UserError(f"--push {name}: the token may only read; {_LOGIN} with one that may write")
        try:
            held = set(api.list_repo_files(name)) - OF_EVERY
        except errors.RepositoryNotFoundError:
            return Repository(name, exists=False)
    if held:
        raise UserError(
            f"--push {name}: the repository holds files already ({min(held)}), and export does not "
            "overwrite; choose another name"
        )
    return Repository(name, exists=True)


_LOGIN = "log in by `hf auth login`, or set HF_TOKEN"


@contextmanager
def _client(name: str) -> Iterator[HfApi]:
    """Yield a client of the hub at HF_ENDPOINT.

    Raises:
        UserError: for every error of the client, with advice and without the token.
    """
    from huggingface_hub import HfApi, constants, get_token

    try:
        yield HfApi()
    except UserError:
        raise
    except Exception as error:  # the client also raises errors of its HTTP and Xet libraries
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        for token in filter(None, [get_token()]):
            reason = reason.replace(token, "***")
        raise UserError(
            f"--push {name} to {constants.ENDPOINT}: {_advice(error)}; the cause: {reason}"
        ) from error


def _advice(error: Exception) -> str:
    """Return the reason of a failed upload in words, and advice."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return "the variable HF_HUB_OFFLINE is set; unset it to upload"
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403, 404):
        return f"access was refused; {_LOGIN} with a token that may write there"
    return "the hub failed; check the connection and HF_ENDPOINT, and run the same command again"
