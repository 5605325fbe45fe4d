"""The Hugging Face Hub: repositories of worlds are named ``hf://owner/name``, perhaps with ``@revision`` behind it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnem_world.errors import CheckpointError, ConfigError, DependencyError, OutputError

HUB = "hf://"
"""How the name of a repository begins."""

_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def parse_repository(name: str) -> tuple[str, str | None]:
    """Takes ``hf://owner/name@revision`` apart; the revision, a branch, tag or commit, may be left out.

    Raises:
        ConfigError: If it is something else.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigError(f"{name!r} names no repository of the Hugging Face Hub: expected hf://owner/name")
    return match[1], match[2]


def _client(name: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise DependencyError(
            f"{name} is a repository of the Hugging Face Hub, and huggingface_hub isn't installed: "
            'pip install "rnem-world[hub]"'
        ) from error
    return huggingface_hub


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def download(name: str) -> Path:
    """Downloads a repository, or finds it in the user's cache.

    A world is the whole folder: beside model and configuration whatever else ``rnem-world export`` writes.

    Raises:
        CheckpointError: If it can't be had.
        ConfigError: If the name isn't one of a repository.
        DependencyError: If huggingface_hub isn't installed.
    """
    client = _client(name)
    repository, revision = parse_repository(name)
    options = {} if revision is None else {"revision": revision}
    try:
        return Path(client.snapshot_download(repository, **options))
    except Exception as error:  # the Hub, the network and the cache raise errors of many kinds
        raise CheckpointError(f"{name} can't be had from the Hugging Face Hub ({_reason(error)})") from error


def upload(folder: Path, name: str, *, replaces: Sequence[str], message: str, private: bool = False) -> str:
    """Makes a repository, if there is none, and puts a folder's files into it, by one commit.

    Args:
        folder: The files.
        name: ``hf://owner/name``; with ``@branch`` a branch that is there.
        replaces: Patterns of files of an earlier commit that go, where the folder hasn't them.
        message: What the commit says.
        private: Whether a new repository is private.

    Returns:
        The address of the commit.

    Raises:
        ConfigError: If the name isn't one of a repository.
        DependencyError: If huggingface_hub isn't installed.
        OutputError: If the Hub refuses, or can't be reached.
    """
    client = _client(name)
    repository, revision = parse_repository(name)
    api = client.HfApi(library_name="rnem-world")
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            delete_patterns=list(replaces),
            commit_message=message,
        )
    except Exception as error:  # the Hub and the network raise errors of many kinds
        raise OutputError(
            f"can't push to {name} ({_reason(error)}): log in with `hf auth login`, or set HF_TOKEN to a token that "
            "may write there"
        ) from error
    return str(commit.commit_url)
