from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile

import pytest
import typer
from typer.testing import CliRunner

from partseg.acquire.archive_members import ArchiveError
from partseg.acquire.disk import DiskFull
from partseg.acquire.download import ChecksumError
from partseg.acquire.get import file_state, get
from partseg.acquire.remote import DownloadError
from partseg.cli import data_get
from partseg.datasets.facts import DataManifest, data_manifest
from partseg.errors import SourceError
from tests.http_server import Web, serve

PHOTOS = {f"pets-1.0/photos/{name}.jpg": name.encode() * 400 for name in "abc"}
LIST = b"a\nb\nc\n"


def zipped(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in files.items():
            file.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


ARCHIVE = zipped(PHOTOS)


@pytest.fixture
def web():
    web = Web(files={"photos.zip": ARCHIVE, "list.txt": LIST})
    server = serve(web)
    yield web
    server.shutdown()
    server.server_close()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "raw" / "pets"


def pets(url, registration=None, **changes):
    archive = {
        "path": "downloads/photos.zip",
        "urls": [f"{url}/photos.zip"],
        "bytes": len(ARCHIVE),
        "sha256": hashlib.sha256(ARCHIVE).hexdigest(),
        "checksum_source": "the test",
        "unpack": {"keep": ["photos"]},
        "provides": {"photos": 3},
    }
    listing = {"path": "lists/list.txt", "urls": [f"{url}/list.txt"]}
    return DataManifest.model_validate(
        {
            "name": "pets",
            "title": "Pets",
            "licence": "free",
            "homepage": url,
            "registration": registration,
            "files": [{**archive, **changes}, listing],
        }
    )


BY_HAND = {
    "urls": [],
    "bytes": None,
    "checksum_source": None,
    "sha256": None,
    "steps": ["Log in.", "Put it into {root}/downloads."],
}


def by_hand(url):
    return pets(url, registration="an account", **BY_HAND)


def run(manifest, root, **settings):
    return {state.file.name: state.state for state in get(manifest, root, attempts=2, wait=0.0, **settings)}


def names(root):
    return sorted(
        p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and ".partseg" not in p.parts
    )


DONE = ["lists/list.txt", "photos/a.jpg", "photos/b.jpg", "photos/c.jpg"]


class TestGet:
    def test_from_nothing_to_a_raw_folder(self, web, root):
        assert run(pets(web.url), root) == {"photos.zip": "ready", "list.txt": "ready"}
        assert names(root) == DONE
        assert (root / "photos/a.jpg").read_bytes() == PHOTOS["pets-1.0/photos/a.jpg"]

    def test_the_second_time_nothing_is_fetched_or_hashed(self, web, root, monkeypatch):
        run(pets(web.url), root)
        asked = len(web.seen)
        monkeypatch.setattr("partseg.hashes.sha256_file", None)
        run(pets(web.url), root)
        assert len(web.seen) == asked

    def test_what_was_lost_is_fetched_again(self, web, root):
        run(pets(web.url), root)
        (root / "photos/b.jpg").unlink()
        assert file_state(pets(web.url).files[0], root).short == {"photos": (2, 3)}
        run(pets(web.url), root)
        assert names(root) == DONE

    def test_archives_are_kept_on_demand(self, web, root):
        run(pets(web.url), root, keep_archives=True)
        assert names(root) == ["downloads/photos.zip", *DONE]

    def test_only_one_file_and_optional_ones_only_by_name(self, web, root):
        run(pets(web.url), root, only=["list.txt"])
        assert names(root) == ["lists/list.txt"]
        with pytest.raises(SourceError, match=r"no file nothing; there are: photos.zip, list.txt"):
            run(pets(web.url), root, only=["nothing"])
        optional = pets(web.url, optional=True)
        assert run(optional, root) == {"list.txt": "ready"}
        assert run(optional, root, only=["photos.zip"]) == {"photos.zip": "ready"}

    def test_a_mirror_comes_first_and_is_a_copy_of_the_folder(self, web, root, tmp_path):
        run(pets(web.url), root, keep_archives=True)
        asked = len(web.seen)
        other = tmp_path / "other"
        run(pets(web.url), other, mirror=str(root))
        assert names(other) == DONE
        assert len(web.seen) == asked

    def test_a_mirror_without_the_file_or_with_another_does_not_matter(self, web, root, tmp_path):
        mirror = tmp_path / "mirror"
        (mirror / "downloads").mkdir(parents=True)
        (mirror / "downloads" / "photos.zip").write_bytes(b"something else")
        run(pets(web.url), root, mirror=str(mirror))
        assert names(root) == DONE

    def test_without_a_published_digest_the_first_download_sets_it(self, web, root):
        run(pets(web.url), root)
        (root / "lists/list.txt").unlink()
        web.files["list.txt"] = LIST.upper()
        with pytest.raises(ChecksumError, match="that of the first download"):
            run(pets(web.url), root)
        assert not (root / "lists/list.txt").exists()

    def test_a_file_that_changed_on_disk_is_noticed_and_not_touched(self, web, root):
        run(pets(web.url), root)
        path = root / "lists/list.txt"
        path.write_bytes(b"other")
        os.utime(path, (1, 1))
        with pytest.raises(ChecksumError, match="delete it and run the command again"):
            run(pets(web.url), root)
        assert path.read_bytes() == b"other"

    def test_an_archive_without_what_it_should_have(self, web, root):
        with pytest.raises(SourceError, match="should have brought 4 files to photos, but there are 3"):
            run(pets(web.url, provides={"photos": 4}), root)

    def test_a_web_page_instead_of_an_archive(self, web, root):
        web.files["photos.zip"] = b"<html>log in</html>"
        with pytest.raises(ArchiveError, match="web page"):
            run(pets(web.url, bytes=None, sha256=None, checksum_source=None), root)

    def test_no_room(self, web, root):
        with pytest.raises(DiskFull):
            run(pets(web.url, bytes=10**18), root)
        assert web.seen == []

    def test_nobody_has_it(self, web, root):
        del web.files["photos.zip"]
        with pytest.raises(DownloadError, match="404"):
            run(pets(web.url), root)


class TestByHand:
    def test_the_rest_is_fetched_and_the_archive_is_waited_for(self, web, root):
        manifest = by_hand(web.url)
        assert run(manifest, root) == {"photos.zip": "by hand", "list.txt": "ready"}
        archive = root / "downloads/photos.zip"
        archive.write_bytes(ARCHIVE)
        assert run(manifest, root)["photos.zip"] == "ready"
        assert names(root) == ["downloads/photos.zip", *DONE]  # a person's file is not deleted

    def test_unpacked_by_a_person_is_as_good(self, web, root):
        (root / "photos").mkdir(parents=True)
        for name in "abc":
            (root / "photos" / name).write_bytes(b"x")
        assert run(by_hand(web.url), root)["photos.zip"] == "ready"

    def test_a_mirror_has_what_needs_a_registration(self, web, root, tmp_path):
        mirror = tmp_path / "mirror"
        (mirror / "downloads").mkdir(parents=True)
        manifest = by_hand(web.url)
        assert run(manifest, root, mirror=str(mirror))["photos.zip"] == "by hand"
        (mirror / "downloads" / "photos.zip").write_bytes(ARCHIVE)
        assert run(manifest, root, mirror=str(mirror))["photos.zip"] == "ready"
        assert names(root) == DONE

    def test_a_wrong_file_put_there_is_named_and_left(self, web, root):
        digest = {"sha256": "0" * 64, "checksum_source": "the page"}
        manifest = pets(web.url, registration="an account", **{**BY_HAND, **digest})
        archive = root / "downloads/photos.zip"
        archive.parent.mkdir(parents=True)
        archive.write_bytes(ARCHIVE)
        with pytest.raises(ChecksumError, match=r"photos.zip: has sha256 .*, expected 0{64} \(the page\)"):
            run(manifest, root)
        assert archive.exists()


class TestCommand:
    @pytest.fixture
    def call(self, web, tmp_path, monkeypatch):
        folder = tmp_path / "manifests"
        folder.mkdir()
        for name, manifest in (("pets", pets(web.url)), ("hand", by_hand(web.url))):
            content = {**json.loads(manifest.model_dump_json()), "name": name}
            (folder / f"{name}.yaml").write_text(json.dumps(content))
        monkeypatch.setattr("partseg.datasets.facts.FOLDER", folder)
        monkeypatch.setenv("PARTSEG_HOME", str(tmp_path / "home"))
        data_manifest.cache_clear()
        app = typer.Typer()
        app.command("get")(data_get.get)
        app.command("list")(data_get.list_)

        def call(*arguments):
            return CliRunner().invoke(app, [str(item) for item in arguments])

        yield call
        data_manifest.cache_clear()

    def test_the_default_folder_is_where_recipes_look(self, call, tmp_path):
        assert call("get", "pets").exit_code == 0
        root = tmp_path / "home" / "raw" / "pets"
        assert names(root) == DONE
        from pipelines.raw import fetched_roots

        assert fetched_roots(tmp_path / "home", ["pets", "dogs"]) == {"pets": root}

    def test_a_dry_run_writes_nothing(self, call, web, tmp_path):
        done = call("get", "pets", "--dry-run", "--json")
        assert [file["state"] for file in json.loads(done.stdout)["files"]] == ["missing", "missing"]
        assert web.seen == []
        assert not (tmp_path / "home").exists()

    def test_steps_are_numbered_and_the_error_is_one_line(self, call, tmp_path):
        done = call("get", "hand", "--to", tmp_path / "x")
        assert f"2. Put it into {tmp_path / 'x'}/downloads." in done.stdout
        assert isinstance(done.exception, SourceError)
        assert "missing: downloads/photos.zip" in str(done.exception)

    def test_the_list_says_what_is_here(self, call):
        call("get", "pets")
        rows = {row["name"]: row for row in json.loads(call("list", "--json").stdout)}
        assert (rows["pets"]["ready"], rows["hand"]["ready"]) == (2, 0)
        assert rows["hand"]["registration"] == "an account"
        assert "pets" in call("list").stdout


class TestManifests:
    @pytest.mark.parametrize(
        "changes",
        [
            {"sha256": "abc"},
            {"path": "../out"},
            {"path": "/etc/passwd"},
            {"unpack": {"keep": []}},
            {"unpack": {"keep": ["x"], "strip": 1}},
            {"provides": {}},
            {"urls": []},
            {"steps": ["both"]},
            {"checksum_source": None},
        ],
    )
    def test_a_manifest_that_makes_no_sense_is_refused(self, changes):
        with pytest.raises(ValueError, match="validation error"):
            pets("http://x", **changes)
