"""Data sets from the Hugging Face hub, by its own client."""

from __future__ import annotations

import shutil
from pathlib import Path

from petl_bench.data.archive import Notify
from petl_bench.data.prepare import Folders, complete, exclusive, place
from petl_bench.errors import UserError

DOWNLOADS = ".petl-bench-download"


def fetch(repo: str, target: Path, report: Notify) -> None:
    """Download a data set repository ("owner/name") of the hub at HF_ENDPOINT into the folder `target`.

    Files that an earlier, interrupted call has finished are not downloaded again.

    Raises:
        UserError: the hub cannot be reached, or does not give the repository out.
        OSError: the disk.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    report(f"downloading the data set {repo} from {constants.ENDPOINT} to {target}")
    try:
        # Asked first, because snapshot_download passes a half-filled folder off as complete when the hub
        # cannot be reached; for the same reason the files are counted afterwards.
        info = HfApi().dataset_info(repo, timeout=30)
        snapshot_download(repo, repo_type="dataset", revision=info.sha, local_dir=target)
    except Exception as error:  # the client lets the errors of its HTTP and Xet libraries through
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the hub
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
    """What went wrong, in words, and what to do."""
    from huggingface_hub import errors

    login = "log in by `hf auth login` or HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return f"it is gated; accept its terms on its page and {login}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no such data set, or it is private; check the name (owner/name), or {login}"
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return f"access was refused; {login} with a token that may read it"
    if isinstance(error, errors.HFValidationError):
        return "this is no repository name; it has the form owner/name"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it to download"
    return (
        "the download failed; check the connection and HF_ENDPOINT (a mirror's address, or unset) and run "
        "the same command again, or download it by other means and give it as --archive"
    )


def prepare_from_hub(repo: str, root: Path, folders: Folders, report: Notify) -> list[str]:
    """`fetch` a data set repository, then go on as `prepare` does; the download is removed at the end.

    It is kept in `root/.petl-bench-download` when something fails, for the next call to go on from.

    Returns:
        The canonical names of the folders placed.

    Raises:
        UserError: as `fetch` and `prepare`.
        OSError: the disk.
    """
    with exclusive(root, report) as staging:
        if complete(root, folders, report):
            return []
        download = root / DOWNLOADS / repo.replace("/", "--")
        fetch(repo, download, report)
        placed = place(download, staging, root, folders, report)
        shutil.rmtree(root / DOWNLOADS)
        return placed
