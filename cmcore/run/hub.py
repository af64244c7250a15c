"""Models from and to the Hugging Face hub, by its own library, an extra: ``pip install "cmcore[hub]"``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cmcore.errors import Error


def fetched(repository: str, name: str, **settings: Any) -> Path:
    """Return the path of a repository's file, downloaded or of the cache; `Error` where there is none."""
    hub = _library(f"read {repository!r}, which is no folder or file here,")
    try:
        return Path(hub.hf_hub_download(repository, name, **settings))
    # The HTTP client below changes from version to version, and its errors with it.
    except Exception as failure:
        raise Error(
            f"There is no folder or file {repository!r}, and the hub does not give its {name}: {_first_line(failure)}."
        ) from failure


def pushed(folder: Path, repository: str, *, private: bool | None = None, token: Any = None, **settings: Any) -> str:
    """Upload the files of a folder to a repository, made if need be, and return its address."""
    hub = _library("upload a model")
    interface = hub.HfApi(token=token)
    try:
        address = interface.create_repo(repository, private=private, exist_ok=True)
        interface.upload_folder(repo_id=address.repo_id, folder_path=folder, **settings)
    except Exception as failure:
        raise Error(f"The hub does not take {repository!r}: {_first_line(failure)}.") from failure
    return str(address)


def _first_line(failure: Exception) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0].rstrip(".")


def _library(purpose: str) -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as missing:
        raise Error(f'To {purpose} cmcore needs huggingface_hub: pip install "cmcore[hub]".') from missing
    return huggingface_hub
