"""`dspex blob`: stores, reads, shows and prunes blobs. All but the last need the blob store alone, no database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from workers.cli.entities import as_json, tenant

if TYPE_CHECKING:
    from dspex.blobs import Blob, BlobStore

digest = click.argument("digest", metavar="DIGEST")


@click.group()
def blob() -> None:
    """Blobs: put, get, show, prune. (DSPEX_BLOBS says where they are.)"""


@blob.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--media-type", help="By default what the file's name says.")
@tenant
@as_json
def put(file: Path, media_type: str | None, tenant: str | None, as_json: bool) -> None:
    """Store FILE (- is standard input), and print its digest, size and media type."""
    import sys

    from dspex.blobs.reference import OCTETS
    from dspex.client.blob_verbs import guessed

    store, owner = _opened(tenant)
    if str(file) == "-":
        stored = store.put(sys.stdin.buffer, tenant=owner, media_type=media_type or OCTETS)
    else:
        stored = store.put(file, tenant=owner, media_type=media_type or guessed(file))
    _show(stored, as_json)


@blob.command()
@digest
@click.option("--output", type=click.Path(path_type=Path), help="A file; standard output by default.")
@tenant
def get(digest: str, output: Path | None, tenant: str | None) -> None:
    """Write the body of a blob, after it was compared with its digest."""
    import sys

    from dspex.errors import InvalidBlob

    store, owner = _opened(tenant)
    body = store.get(digest, tenant=owner)
    if output is None:
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
        return
    try:
        output.write_bytes(body)
    except OSError as error:
        raise InvalidBlob(f"--output: {output}: {error.strerror}") from None


@blob.command()
@digest
@tenant
@as_json
def show(digest: str, tenant: str | None, as_json: bool) -> None:
    """Show the size and the media type of a blob."""
    store, owner = _opened(tenant)
    _show(store.find(digest, tenant=owner), as_json)


@blob.command()
@click.option("--adopt", is_flag=True, help="The other databases that have used this store are gone.")
def prune(adopt: bool) -> None:
    """Remove the blobs that no execution of this database refers to, older than DSPEX_BLOB_DAYS. Workers do so, too."""
    from workers.application.wiring import bootstrap
    from workers.cli.begin import check_servers
    from workers.cli.output import say
    from workers.maintenance.blobs import remove_unused
    from workers.settings import load_settings

    settings = load_settings()
    store, _ = _opened(None)
    check_servers(settings)
    app = bootstrap(settings, run_others=False)
    try:
        say(f"{remove_unused(app, store, adopt=adopt)} removed.")
    finally:
        app.close()


def _opened(tenant: str | None) -> tuple[BlobStore, str]:
    """The store and the tenant.

    Raises:
        SettingsError: there is no store, it cannot be opened, or a tenant is named although tenancy is off.
    """
    from dspex.errors import SettingsError
    from workers.application.blobs import open_blobs
    from workers.cli.operator import operator_of
    from workers.settings import load_settings

    settings = load_settings()
    store = open_blobs(settings)
    if store is None:
        raise SettingsError("DSPEX_BLOBS: there is no blob store: set it to a folder, or to s3://bucket/prefix")
    return store, operator_of(settings, tenant).tenant


def _show(found: Blob, as_json: bool) -> None:
    from workers.cli.output import say, say_json

    if as_json:
        say_json(found.model_dump_json(indent=2))
    else:
        say(f"{found.digest} {found.size} bytes {found.media_type}")
