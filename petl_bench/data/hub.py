"""Download of data sets from the Hugging Face hub, by its own client."""

from __future__ import annotations

import shutil
from pathlib import Path

from petl_bench.data.file_facts import Notify
from petl_bench.data.prepare import Folders, complete, exclusive, place
from petl_bench.errors import UserError

DOWNLOADS = ".petl-bench-download"


def fetch(repo: str, target: Path, notify: Notify) -> None:
    """Download a data set repository of the hub at HF_ENDPOINT into the folder `target`.

    Files that an earlier, interrupted call has finished are not downloaded again.

    Args:
        repo: name of the repository, "owner/name".
        notify: called with messages for the user.

    Raises:
        UserError: the hub cannot be reached, or refuses access to the repository.
        OSError: an error of the disk.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    notify(f"downloading the data set {repo} from {constants.ENDPOINT} to {target}")
    try:
        # The file list is requested first and compared afterwards, because snapshot_download takes an
        # incomplete folder for a complete one if the hub cannot be reached.
        info = HfApi().dataset_info(repo, timeout=30)
        snapshot_download(repo, repo_type="dataset", revision=info.sha, local_dir=target)
    except Exception as error:  # the client also raises errors of its HTTP and Xet libraries
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the disk, not of the hub
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"hub data set {repo!r} at {constants.ENDPOINT}: {_advice(error)}; the cause: {reason}"
        ) from error
    names = [sibling.rfilename for sibling in info.siblings or ()]
    missing = [name for name in names if not (target / name).is_file()]
    if missing or not names:
        raise UserError(
            f"hub data set {repo!r} at {constants.ENDPOINT}: {len(missing)} of {len(names)} files did not "
            f"arrive{', first ' + missing[0] if missing else ''}; run the same command again"
        )


def _advice(error: Exception) -> str:
    """Return the reason of a failed download in words, and advice."""
    from huggingface_hub import errors

    login = "log in by `hf auth login` or HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return f"it is gated; accept its terms on its page and {login}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no such data set, or it is private; check the name (owner/name), or {login}"
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return f"access was refused; {login} with a token that may read it"
    if isinstance(error, errors.HFValidationError):
        return "this is no repository name; names have the form owner/name"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "the variable HF_HUB_OFFLINE is set; unset it to download"
    return (
        "the download failed; check the connection and HF_ENDPOINT (address of a mirror, or unset) and run "
        "the same command again, or download the files by other means and give them as --archive"
    )


def prepare_from_hub(repo: str, root: Path, folders: Folders, notify: Notify) -> list[str]:
    """Download a data set repository and put its folders where they belong; see `fetch` and `prepare`.

    The download is removed at the end. After a failure it stays in `root/.petl-bench-download`, and the next
    call continues it.

    Returns:
        The canonical names of the folders that were placed.

    Raises:
        UserError: as `fetch` and `prepare`.
        OSError: an error of the disk.
    """
    with exclusive(root, notify) as staging:
        if complete(root, folders, notify):
            return []
        download = root / DOWNLOADS / repo.replace("/", "--")
        fetch(repo, download, notify)
        placed = place(download, staging, root, folders, notify)
        shutil.rmtree(root / DOWNLOADS)
        return placed
