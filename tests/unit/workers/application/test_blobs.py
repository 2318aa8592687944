"""The blob store of the settings: errors name the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspex.errors import SettingsError
from workers.application.blobs import check_blobs, open_blobs
from workers.settings import Settings


def test_there_is_none_by_default() -> None:
    assert open_blobs(Settings()) is None
    check_blobs(Settings())


def test_a_folder_is_made_and_the_cap_is_the_settings(tmp_path: Path) -> None:
    settings = Settings(blobs=str(tmp_path / "a" / "b"), blob_max_bytes=2000)
    check_blobs(settings)
    store = open_blobs(settings)
    assert store is not None
    assert store.max_bytes == 2000
    assert (tmp_path / "a" / "b").is_dir()


def test_a_store_that_does_not_work_is_told_with_its_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"DSPEX_BLOBS: the folder of blobs .*/file: Not a directory"):
        open_blobs(Settings(blobs=str(tmp_path / "file")))
    with pytest.raises(SettingsError, match=r"DSPEX_BLOBS: blobs in s3://bucket/: "):
        check_blobs(Settings(blobs="s3://bucket?endpoint=http://127.0.0.1:1&region=eu-west-1"))
