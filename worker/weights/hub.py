"""Download published weights from ModelScope's hub by the client of the `modelscope` package (`modelscope_hub`).

The package is optional: `pip install sceneworks[modelscope]`. It follows its own settings for the address of the hub,
tokens and proxies. `modelscope` itself is not imported: it pulls in many frameworks, and its own list of files
leaves out the hashes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.errors import InvalidRequest, ModelUnavailable, SourceUnreachable, WeightsCorrupt
from worker.weights import WeightsManifest
from worker.weights.pinned import file_sha256


def download_weights(manifest: WeightsManifest, folder: Path) -> list[Path]:
    """Download the published files into a folder and compare each with the hash that the hub lists for it.

    Raises:
        InvalidRequest: these weights are on no hub; the detail names the command that gets them.
        ModelUnavailable: the `modelscope` package is not installed.
        SourceUnreachable: the hub does not answer, or not with these files.
        WeightsCorrupt: a downloaded file differs from what the hub lists, or the hub lists no hash.
    """
    if manifest.repository is None:
        raise InvalidRequest(f"The weights of {manifest.model_name} are on no hub. Get them with: {manifest.spec.how}")
    try:
        from modelscope_hub import FileIntegrityError, HubApi, HubError
    except ImportError:
        raise ModelUnavailable(
            "Pulling needs the modelscope package: pip install 'modelscope>=1.40'. "
            f"Files you have are imported with: sceneworks-worker weights import {manifest.model_name} PATH..."
        ) from None
    try:
        return _download_files(HubApi(), manifest, manifest.repository, folder)
    except FileIntegrityError as error:
        raise WeightsCorrupt(f"What came of {manifest.repository} is not what the hub lists.") from error
    except (HubError, OSError) as error:
        raise SourceUnreachable(
            f"The hub did not give {manifest.repository} ({type(error).__name__}). "
            f"Files you have are imported with: sceneworks-worker weights import {manifest.model_name} PATH..."
        ) from error


def _download_files(api: Any, manifest: WeightsManifest, repository: str, folder: Path) -> list[Path]:
    hub_files = {file.path: file for file in api.list_repo_files(repository, "model")}
    paths = []
    for name in (published_file.name for published_file in manifest.all_files):
        file = hub_files.get(name)
        if file is None:
            raise SourceUnreachable(f"{repository} has no {name} any more.")
        if not file.sha256:
            raise WeightsCorrupt(f"The hub lists no hash for {name}, so what it gives cannot be verified.")
        path = Path(
            api.download_file(
                repository, "model", name, local_dir=folder, expected_sha256=file.sha256, file_size=file.size
            )
        )
        if file_sha256(path) != file.sha256:
            raise WeightsCorrupt(f"{name} is not the file that the hub lists: its hash differs.")
        paths.append(path)
    return paths
