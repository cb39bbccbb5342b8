"""Downloads and archives that go wrong in every way they can."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from partseg.acquire.archive_members import ArchiveError
from partseg.acquire.archives import Limits, unpack
from partseg.acquire.disk import DiskFull, need_room
from partseg.acquire.download import ChecksumError, Wanted, download
from partseg.acquire.remote import DownloadError, NotThere
from partseg.datasets.facts import InnerArchive, Unpack
from partseg.errors import PartsegError, SourceError
from tests.http_server import Web, serve

ROOT = Path(__file__).resolve().parents[2]
KB = 1024
CONTENT = np.random.default_rng(0).bytes(24 * KB + 123)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def web():
    web = Web(files={"data.bin": CONTENT})
    server = serve(web)
    yield web
    server.shutdown()
    server.server_close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "raw" / "data.bin"


def get(web, target, *, sha256=SHA256, size=None, attempts=6, name="data.bin", md5=None):
    wanted = Wanted(bytes=size, sha256=sha256, md5=md5, said_by="the test")
    return download([f"{web.url}/{name}"], target, wanted=wanted, attempts=attempts, wait=0.0)


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


class TestBrokenConnections:
    @pytest.mark.parametrize("boundary", range(25))
    def test_dropped_at_any_kilobyte_the_next_call_goes_on_there(self, web, target, boundary):
        web.drops = [boundary * KB]
        with pytest.raises(DownloadError, match="run the command again"):
            get(web, target, attempts=1)
        assert not target.exists()
        assert get(web, target, attempts=1).sha256 == SHA256
        assert target.read_bytes() == CONTENT
        assert web.seen[-1][1] == (f"bytes={boundary * KB}-" if boundary else None)
        assert left_in(target.parent) == ["data.bin"]

    @pytest.mark.parametrize("known", [SHA256, None])
    def test_dropped_after_every_kilobyte_one_call_is_enough(self, web, target, known):
        web.always_drop = KB
        get(web, target, sha256=known, attempts=2)
        assert target.read_bytes() == CONTENT
        assert len(web.seen) == 25

    def test_a_server_that_never_gets_further_is_given_up(self, web, target):
        web.ranges, web.always_drop = False, 5 * KB
        with pytest.raises(DownloadError, match="tried 3 times in a row"):
            get(web, target, attempts=3)

    def test_without_ranges_it_starts_again(self, web, target):
        web.ranges, web.drops = False, [7 * KB]
        get(web, target)
        assert target.read_bytes() == CONTENT

    def test_an_error_of_the_server_is_waited_out(self, web, target):
        web.statuses = [500, 503, 429]
        get(web, target)
        assert target.read_bytes() == CONTENT
        assert len(web.seen) == 4

    def test_a_file_that_is_not_there_is_not_asked_for_again(self, web, target):
        with pytest.raises(NotThere, match="404"):
            get(web, target, name="other.bin")
        assert len(web.seen) == 1
        assert left_in(target.parent) == []

    def test_nobody_listens(self, target):
        with pytest.raises(DownloadError, match=r"refused.*tried 2 times"):
            download(["http://127.0.0.1:9/x"], target, attempts=2, wait=0.0)


class TestTheWrongFile:
    def test_a_wrong_checksum_names_file_expected_and_found(self, web, target):
        with pytest.raises(ChecksumError) as error:
            get(web, target, sha256="0" * 64)
        assert "data.bin" in str(error.value)
        assert f"has sha256 {SHA256}, expected {'0' * 64} (the test)" in str(error.value)
        assert left_in(target.parent) == []

    def test_md5_where_there_is_nothing_better(self, web, target):
        with pytest.raises(ChecksumError, match="has md5"):
            get(web, target, sha256=None, md5="0" * 32)
        get(web, target, sha256=None, md5=hashlib.md5(CONTENT).hexdigest())

    def test_a_wrong_size_is_noticed_before_anything_is_read(self, web, target):
        with pytest.raises(ChecksumError, match=f"{len(CONTENT)} bytes, expected 17"):
            get(web, target, size=17)
        assert left_in(target.parent) == []

    def test_a_server_that_promises_more_than_it_has(self, web, target):
        web.more = 10
        with pytest.raises(DownloadError, match="broke after"):
            get(web, target, attempts=2, sha256=None)
        assert not target.exists()

    def test_a_file_that_changes_in_between_is_never_pieced_together(self, web, target):
        for honours in (True, False):
            web.files["data.bin"], web.drops, web.honours_if_range = CONTENT, [9 * KB], honours
            with pytest.raises(DownloadError):
                get(web, target, sha256=None, attempts=1)
            web.files["data.bin"] = other = CONTENT[::-1]
            get(web, target, sha256=None, attempts=1)
            assert target.read_bytes() == other
            target.unlink()

    def test_nothing_to_tell_versions_apart_means_starting_again(self, web, target):
        web.etags, web.drops = False, [9 * KB]
        with pytest.raises(DownloadError):
            get(web, target, sha256=None, attempts=1)
        get(web, target, sha256=None, attempts=1)
        assert web.seen[-1][1] is None
        assert target.read_bytes() == CONTENT

    def test_a_part_that_went_bad_on_disk_costs_a_second_try_only(self, web, target):
        web.drops = [9 * KB]
        with pytest.raises(DownloadError):
            get(web, target, attempts=1)
        part = target.with_name("data.bin.part")
        part.write_bytes(b"?" + part.read_bytes()[1:])
        get(web, target, attempts=1)
        assert target.read_bytes() == CONTENT

    def test_the_second_address_is_used_when_the_first_has_another_file(self, web, target):
        web.files["mirror.bin"] = b"not it"
        urls = [f"{web.url}/mirror.bin", f"{web.url}/data.bin"]
        got = download(urls, target, wanted=Wanted(sha256=SHA256), wait=0.0)
        assert got.url == urls[1]
        assert target.read_bytes() == CONTENT

    def test_what_has_arrived_is_not_lost_to_an_address_that_fails(self, web, target):
        web.files["short.bin"], web.drops = b"short", [9 * KB]
        with pytest.raises(DownloadError):
            get(web, target, sha256=None, attempts=1)
        urls = [f"{web.url}/nothing", f"{web.url}/short.bin", f"{web.url}/data.bin"]
        download(urls, target, wanted=Wanted(bytes=len(CONTENT)), attempts=1)
        assert web.seen[-1] == ("data.bin", f"bytes={9 * KB}-")
        assert target.read_bytes() == CONTENT


class TestOtherAddresses:
    def test_a_folder_and_an_fsspec_url(self, tmp_path):
        import fsspec

        (tmp_path / "copy.bin").write_bytes(CONTENT)
        fsspec.filesystem("memory").pipe_file("/copy.bin", CONTENT)
        for number, url in enumerate([str(tmp_path / "copy.bin"), "memory://copy.bin"]):
            out = tmp_path / f"out{number}"
            download([url], out, wanted=Wanted(sha256=SHA256))
            assert out.read_bytes() == CONTENT

    def test_a_part_is_continued_from_there_too(self, tmp_path):
        (tmp_path / "copy.bin").write_bytes(CONTENT)
        (tmp_path / "out.part").write_bytes(CONTENT[: 9 * KB])
        download([str(tmp_path / "copy.bin")], tmp_path / "out", wanted=Wanted(sha256=SHA256))
        assert (tmp_path / "out").read_bytes() == CONTENT

    @pytest.mark.parametrize(
        "url", ["http://a b/", "nowhere://x", "/does/not/exist", "http://", "http://[", ""]
    )
    def test_what_is_no_address_is_said(self, url, target):
        with pytest.raises(DownloadError):
            download([url], target, attempts=1)


# Downloads argv[1] to argv[2]; with argv[3], it may write no more than so many bytes into a file.
CHILD = """
import resource, sys
from pathlib import Path
from partseg.acquire.download import Wanted, download
if len(sys.argv) > 3:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
from partseg.errors import PartsegError
try:
    download([sys.argv[1]], Path(sys.argv[2]), wanted=Wanted(), wait=0.0)
except PartsegError as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(2)
"""


def child(web, target, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, f"{web.url}/data.bin", str(target), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


class TestTheMachine:
    def test_a_full_disk_is_one_sentence_and_what_has_arrived_stays(self, web, target):
        process = child(web, target, str(10 * KB))
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 2
        assert output.startswith("DiskFull: ")
        assert "it goes on where it stopped" in output
        assert target.with_name("data.bin.part").stat().st_size == 10 * KB
        get(web, target)
        assert web.seen[-1][1] == f"bytes={10 * KB}-"
        assert target.read_bytes() == CONTENT

    def test_too_little_room_is_said_before_the_download(self, tmp_path):
        with pytest.raises(DiskFull, match=r"huge needs 1000000000.0 GB, but only"):
            need_room(tmp_path / "not yet", 10**18, "huge")

    def test_a_killed_download_goes_on(self, web, target):
        web.files["data.bin"] = content = CONTENT * 4000  # 100 MB: long enough to be killed within
        process = child(web, target)
        part = target.with_name("data.bin.part")
        until = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > 1 << 20):
            assert time.monotonic() < until
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not target.exists()
        had = part.stat().st_size
        assert 0 < had < len(content)
        get(web, target, sha256=hashlib.sha256(content).hexdigest())
        assert int(web.seen[-1][1].removeprefix("bytes=").removesuffix("-")) >= 1 << 20
        assert left_in(target.parent) == ["data.bin"]

    def test_two_at_once_do_not_write_into_each_other(self, web, target):
        import fcntl

        target.parent.mkdir(parents=True)
        with target.with_name("data.bin.part").open("wb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with pytest.raises(SourceError, match="by another process"):
                get(web, target)
        get(web, target)


FILES = {"data/a.txt": b"a" * 5000, "data/b/c.txt": CONTENT, "readme": b"no"}


def write_zip(path, files, *, link=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(zipfile.ZipInfo(name, (2020, 1, 2, 3, 4, 6)), content, zipfile.ZIP_DEFLATED)
        if link:
            info = zipfile.ZipInfo(link[0])
            info.external_attr = 0o120777 << 16
            file.writestr(info, link[1])
    return path


def write_tar(path, files, *, extra=()):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_600_000_000
            file.addfile(info, io.BytesIO(content))
        for info in extra:
            file.addfile(info)
    return path


@pytest.fixture(params=["x.zip", "x.tar", "x.tar.gz"])
def archive(request, tmp_path):
    path = tmp_path / request.param
    return write_zip(path, FILES) if path.suffix == ".zip" else write_tar(path, FILES)


DATA = Unpack(keep=("data",))


def tree(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


WANTED = {name: content for name, content in FILES.items() if name != "readme"}


class TestArchives:
    def test_the_kept_members_and_nothing_else(self, archive, tmp_path):
        out = tmp_path / "out"
        unpack(archive, out, DATA)
        assert tree(out) == WANTED
        unpack(archive, out, DATA)
        assert tree(out) == WANTED

    def test_wrapping_folders_and_litter_do_not_matter(self, tmp_path):
        files = {f"release-2/{name}": content for name, content in FILES.items()}
        litter = {"__MACOSX/release-2/data/._a.txt": b"x", "release-2/data/.DS_Store": b"x"}
        path = write_zip(tmp_path / "x.zip", {**files, **litter})
        unpack(path, tmp_path / "out", Unpack(keep=("data",), into="deep/er"))
        assert tree(tmp_path / "out") == {f"deep/er/{name}": c for name, c in WANTED.items()}

    def test_archives_in_archives(self, tmp_path):
        inner = {name: write_tar(tmp_path / name, {"1.JPEG": name.encode()}) for name in ("n1.tar", "n2.tar")}
        path = write_tar(tmp_path / "x.tar", {name: file.read_bytes() for name, file in inner.items()})
        how = Unpack(keep=("n*.tar",), inner=(InnerArchive(match="n*.tar", keep=("*.JPEG",), into="{stem}"),))
        unpack(path, tmp_path / "out", how)
        assert tree(tmp_path / "out") == {"n1/1.JPEG": b"n1.tar", "n2/1.JPEG": b"n2.tar"}

    @pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.98])
    def test_a_cut_off_archive_is_named_and_leaves_nothing(self, archive, tmp_path, keep):
        whole = archive.read_bytes()
        if archive.suffix == ".tar":  # its end is padding
            whole = whole[: -8 * KB]
        archive.write_bytes(whole[: int(len(whole) * keep)])
        with pytest.raises(ArchiveError, match=f"{archive.name}.*the archive is still there"):
            unpack(archive, tmp_path / "out", DATA)
        assert archive.exists()
        assert tree(tmp_path / "out") == {}

    def test_a_tar_cut_off_between_two_members(self, tmp_path):
        path = write_tar(tmp_path / "x.tar", FILES)
        with tarfile.open(path) as file:
            second = file.getmembers()[1].offset
        path.write_bytes(path.read_bytes()[:second])
        with pytest.raises(ArchiveError, match="cut off"):
            unpack(path, tmp_path / "out", DATA)

    def test_any_flipped_byte_is_an_error_or_changes_nothing_that_is_checked(self, archive, tmp_path):
        whole = archive.read_bytes()
        for number, position in enumerate(range(0, len(whole), 97)):
            bad = bytearray(whole)
            bad[position] ^= 0x55
            archive.write_bytes(bad)
            out = tmp_path / f"out{number}"
            try:
                unpack(archive, out, DATA)
            except PartsegError:
                assert not out.exists() or tree(out) == {}
                continue
            if archive.suffix != ".tar":  # a tar has no checksums of its content
                assert set(tree(out).values()) <= set(WANTED.values())

    @pytest.mark.parametrize("name", ["../evil", "/etc/evil", "data/../../evil", "data/../../../../tmp/evil"])
    @pytest.mark.parametrize("suffix", [".zip", ".tar"])
    def test_no_path_leads_out(self, tmp_path, name, suffix):
        path = tmp_path / f"x{suffix}"
        (write_zip if suffix == ".zip" else write_tar)(path, {**FILES, name: b"evil"})
        with pytest.raises(ArchiveError, match="leads out of the folder"):
            unpack(path, tmp_path / "out" / "raw", Unpack(keep=("data", "evil", "..", "*")))
        assert not list(tmp_path.rglob("evil"))
        assert tree(tmp_path / "out") == {}

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
    def test_no_links_and_devices_in_a_tar(self, tmp_path, kind):
        info = tarfile.TarInfo("data/link")
        info.type, info.linkname = kind, "/etc/passwd"
        path = write_tar(tmp_path / "x.tar", FILES, extra=[info])
        with pytest.raises(ArchiveError, match="data/link is a link or a device"):
            unpack(path, tmp_path / "out", DATA)
        assert tree(tmp_path / "out") == {}

    def test_no_links_in_a_zip(self, tmp_path):
        path = write_zip(tmp_path / "x.zip", FILES, link=("data/link", "/etc/passwd"))
        with pytest.raises(ArchiveError, match="data/link is a link"):
            unpack(path, tmp_path / "out", DATA)

    @pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
    def test_bombs_do_not_go_off(self, tmp_path, suffix):
        path = tmp_path / f"x{suffix}"
        (write_zip if suffix == ".zip" else write_tar)(path, {"data/zeros": bytes(50 << 20)})
        with pytest.raises(ArchiveError, match="swells to more than"):
            unpack(path, tmp_path / "out", DATA, limits=Limits(small=1 << 20))
        many = tmp_path / f"y{suffix}"
        (write_zip if suffix == ".zip" else write_tar)(many, {f"data/{n}": b"" for n in range(200)})
        with pytest.raises(ArchiveError, match="more than 100 members"):
            unpack(many, tmp_path / "out", DATA, limits=Limits(members=100))
        assert tree(tmp_path / "out") == {}

    def test_a_web_page_is_not_taken_for_an_archive(self, tmp_path):
        path = tmp_path / "x.zip"
        path.write_text("<!DOCTYPE html><title>Please log in</title>")
        with pytest.raises(ArchiveError, match="is no archive but a web page"):
            unpack(path, tmp_path / "out", DATA)

    def test_a_file_in_the_way_of_a_folder(self, archive, tmp_path):
        out = tmp_path / "out"
        out.mkdir()
        (out / "data").write_text("mine")
        with pytest.raises(SourceError, match="in the way"):
            unpack(archive, out, DATA)
        assert (out / "data").read_text() == "mine"

    def test_an_interrupted_extraction_goes_on_and_shows_nothing_before(self, tmp_path):
        files = {f"data/{n:03}.bin": bytes([n % 256]) * 200_000 for n in range(200)}
        path, out = write_tar(tmp_path / "x.tar", files), tmp_path / "out"
        script = (
            "import sys; from pathlib import Path; from partseg.acquire.archives import unpack;"
            "from partseg.datasets.facts import Unpack;"
            "unpack(Path(sys.argv[1]), Path(sys.argv[2]), Unpack(keep=('data',)))"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(path), str(out)], env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        work = out / ".unpack-x.tar" / "data"
        until = time.monotonic() + 60
        while not (work.exists() and len(list(work.iterdir())) > 10):
            assert time.monotonic() < until
            assert process.poll() is None
        process.kill()
        process.wait()
        assert not (out / "data").exists()
        first = (work / "000.bin").stat().st_ino
        unpack(path, out, DATA)
        assert tree(out) == files
        assert (out / "data" / "000.bin").stat().st_ino == first

    def test_a_full_disk(self, tmp_path):
        path = write_tar(tmp_path / "x.tar", {"data/big": bytes(3 << 20)})
        script = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({1 << 20}, resource.RLIM_INFINITY))
from pathlib import Path
from partseg.acquire.archives import unpack
from partseg.acquire.disk import DiskFull
from partseg.datasets.facts import Unpack
try:
    unpack(Path(sys.argv[1]), Path(sys.argv[2]), Unpack(keep=("data",)))
except DiskFull as error:
    print(error)
"""
        done = subprocess.run(
            [sys.executable, "-c", script, str(path), str(tmp_path / "out")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "cannot be written further" in done.stdout
        unpack(path, tmp_path / "out", DATA)
        assert tree(tmp_path / "out") == {"data/big": bytes(3 << 20)}
