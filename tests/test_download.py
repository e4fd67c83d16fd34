"""CIFAR-10 as torchvision keeps it, and its download from servers on this machine that misbehave in every way."""

import errno
import hashlib
import io
import os
import pickle
import shutil
import socket
import ssl
import tarfile
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvision import datasets
from torchvision.datasets import CIFAR10

from vgg_course import certificates, download, sources
from vgg_course.data import CIFAR10_CLASSES, load_dataset


class TestTorchvisionFolder:
    @pytest.fixture
    def batches_py(self, tmp_path, monkeypatch, images_for_validation):
        """torchvision's own format with 20 images a file, and the hashes that torchvision checks."""
        folder = tmp_path / CIFAR10.base_folder
        folder.mkdir()

        def write(name: str, content: dict) -> list:
            (folder / name).write_bytes(pickle.dumps(content))
            return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

        rng = np.random.default_rng(0)
        names = [[name for name, _ in files] for files in (CIFAR10.train_list, CIFAR10.test_list)]
        lists = [
            [
                write(n, {"data": rng.integers(0, 256, (40, 3072), dtype=np.uint8), "labels": 4 * list(range(10))})
                for n in ns
            ]
            for ns in names
        ]
        meta = write("batches.meta", {"label_names": list(CIFAR10_CLASSES)})
        monkeypatch.setattr(CIFAR10, "train_list", lists[0])
        monkeypatch.setattr(CIFAR10, "test_list", lists[1])
        monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
        images_for_validation(50)
        return tmp_path

    def test_it_is_read(self, batches_py):
        assert CIFAR10.base_folder == sources.BATCHES_FOLDER
        dataset = load_dataset("cifar10", batches_py, verbose=False)
        assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [150, 50, 40]
        image, label = CIFAR10(batches_py, train=False)[7]
        assert torch.equal(dataset.test.images[7], torch.from_numpy(np.array(image)).permute(2, 0, 1))
        assert dataset.test.labels[7] == label

    def test_where_the_lecture_has_put_it_it_is_read(self, batches_py, tmp_path_factory):
        """Its root is "./cifar10"."""
        root = tmp_path_factory.mktemp("data")
        (root / "cifar10").mkdir()
        shutil.copytree(batches_py / CIFAR10.base_folder, root / "cifar10" / CIFAR10.base_folder)
        assert len(load_dataset("cifar10", root, verbose=False).test) == 40

    def test_a_wrong_hash_is_refused(self, batches_py):
        file = batches_py / CIFAR10.base_folder / "data_batch_3"
        file.write_bytes(file.read_bytes() + b"x")
        with pytest.raises(OSError, match="cifar-10-batches-py is damaged: delete it"):
            load_dataset("cifar10", batches_py)

    def test_a_file_that_may_not_be_read_is_not_damaged(self, batches_py, monkeypatch):
        def refuse(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied", "data_batch_1")

        monkeypatch.setattr(download, "CIFAR10", refuse)
        refuse.base_folder, refuse.filename = CIFAR10.base_folder, CIFAR10.filename
        with pytest.raises(PermissionError, match=r"data_batch_1 may not be read: ask its owner"):
            load_dataset("cifar10", batches_py)


@pytest.mark.skipif(os.name == "nt", reason="Windows itself knows authorities")
def test_where_python_knows_no_authorities_certifis_are_taken(tmp_path, monkeypatch):
    """As on a Mac with the Python of python.org, before its "Install Certificates.command" has been run."""
    taken = []
    monkeypatch.setattr(urllib.request, "install_opener", taken.append)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "nobody"))
    (tmp_path / "empty").mkdir()
    for folder in ("nobody", "empty"):
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / folder))
        certificates.trust_known_authorities()
        https = next(h for h in taken.pop().handlers if isinstance(h, urllib.request.HTTPSHandler))
        assert len(https._context.get_ca_certs()) > 50 and https._context.verify_mode == ssl.CERT_REQUIRED
    (tmp_path / "mine.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "mine.pem"))  # a school's own
    certificates.trust_known_authorities()
    assert not taken


class TestDownload(TestTorchvisionFolder):
    """The real way of torchvision's download, from a server on this machine that misbehaves first."""

    test_it_is_read = test_a_wrong_hash_is_refused = test_where_the_lecture_has_put_it_it_is_read = None
    test_a_file_that_may_not_be_read_is_not_damaged = None

    @pytest.fixture
    def server(self, batches_py, tmp_path_factory, monkeypatch):
        good = tmp_path_factory.mktemp("archive") / CIFAR10.filename
        with tarfile.open(good, "w:gz") as archive:
            archive.add(batches_py / CIFAR10.base_folder, CIFAR10.base_folder)
        monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(good.read_bytes()).hexdigest())
        evil = io.BytesIO()
        with tarfile.open(fileobj=evil, mode="w:gz") as archive:
            for name in ("../outside", "/tmp/vgg_course_outside", f"{CIFAR10.base_folder}/../../outside"):
                archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        bodies = {"good": good.read_bytes(), "evil": evil.getvalue(), "html": b"<html>Log in first</html>"}

        class Answer(BaseHTTPRequestHandler):
            mode = "good"
            bodies: ClassVar[dict] = {}

            def do_GET(self):
                body = (bodies | self.bodies)["good" if self.mode == "half" else self.mode]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body[: len(body) // 2] if self.mode == "half" else body)

            do_HEAD = do_GET
            log_message = staticmethod(lambda *_: None)

        with HTTPServer(("127.0.0.1", 0), Answer) as running:
            threading.Thread(target=running.serve_forever, daemon=True).start()
            monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{running.server_port}/{CIFAR10.filename}")
            Answer.archive = bodies["good"]
            yield Answer
            running.shutdown()

    @pytest.mark.parametrize("inner", ["", "cifar10"])  # the latter: where the lecture's code puts it
    def test_an_archive_that_somebody_has_brought_needs_no_network(self, inner, server, tmp_path, monkeypatch, capsys):
        root = tmp_path / "data" / inner
        root.mkdir(parents=True)
        archive = root / CIFAR10.filename
        archive.write_bytes(server.archive)
        monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/nobody-is-there")
        assert len(load_dataset("cifar10", tmp_path / "data").test) == 40
        assert f"unpacking {archive}, once" in capsys.readouterr().out
        assert sorted(path.name for path in root.iterdir()) == sorted([CIFAR10.base_folder, CIFAR10.filename])
        shutil.rmtree(root / CIFAR10.base_folder)
        archive.write_bytes(b"half")
        with pytest.raises(OSError, match=r"cifar-10-python\.tar\.gz is damaged, or not all there yet: delete it"):
            load_dataset("cifar10", root)
        monkeypatch.delenv("VGG_COURSE_DATASET")
        assert load_dataset("auto", root).name == "digits"
        assert archive.read_bytes() == b"half"

    @pytest.mark.parametrize("mode", ["half", "evil", "html"])
    def test_a_bad_download_is_refused_and_the_next_one_heals_it(self, mode, server, tmp_path, capsys):
        server.mode, root = mode, tmp_path / "inside" / "data"
        with pytest.raises(ConnectionError) as error:
            load_dataset("cifar10", root, verbose=False)
        assert "\n" not in str(error.value) and "cannot be had" in str(error.value)
        assert not (root / CIFAR10.base_folder).exists()
        assert not list(tmp_path.rglob("outside")) and not os.path.exists("/tmp/vgg_course_outside")
        server.mode = "good"
        assert len(load_dataset("cifar10", root).test) == 40
        assert f"downloading CIFAR-10 (170 MB) to {root}: some minutes, once" in capsys.readouterr().out

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.binary(max_size=200)
        | st.lists(
            st.tuples(
                st.sampled_from(
                    ["../outside", "/tmp/vgg_course_outside", "cifar-10-batches-py/data_batch_1", "a/../../b"]
                ),
                st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE]),
            ),
            max_size=4,
        )
    )
    def test_archives_of_anything(self, server, tmp_path, content):
        if not isinstance(content, bytes):
            memory = io.BytesIO()
            with tarfile.open(fileobj=memory, mode="w:gz") as archive:
                for name, kind in content:
                    member = tarfile.TarInfo(name)
                    member.type, member.linkname = kind, "../../outside"
                    archive.addfile(member, io.BytesIO())
            content = memory.getvalue()
        server.mode, server.bodies["any"], root = "any", content, tmp_path / "inside" / "data"
        with pytest.raises(ConnectionError, match="cannot be had") as error:
            load_dataset("cifar10", root, verbose=False)
        assert "\n" not in str(error.value)
        assert [path.name for path in root.rglob("*")] in ([], [CIFAR10.filename])
        assert [path.name for path in root.parent.iterdir()] == ["data"]
        assert not os.path.exists("/tmp/vgg_course_outside")

    @pytest.mark.parametrize(
        ("number", "told"),
        [
            (errno.ENOSPC, "the disk is full: CIFAR-10 needs 350 MB"),
            (errno.EDQUOT, "the disk is full: CIFAR-10 needs 350 MB"),
            (errno.EROFS, "cannot write to the data folder"),
            (errno.EACCES, "cannot write to the data folder"),
        ],
    )
    def test_a_disk_that_does_not_take_it(self, server, tmp_path, monkeypatch, capsys, number, told):
        def full(*_, **__):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as small_disk:
            small_disk.setattr(shutil, "copyfileobj", full)  # extracting
            small_disk.setattr("torchvision.datasets.utils.extract_archive", full)
            small_disk.setattr("torchvision.datasets.cifar.download_and_extract_archive", full)
            with pytest.raises(OSError, match=told):
                load_dataset("cifar10", tmp_path / "data", verbose=False)
            small_disk.delenv("VGG_COURSE_DATASET", raising=False)
            assert load_dataset("auto", tmp_path / "data").name == "digits"
            assert told in capsys.readouterr().out
        assert len(load_dataset("cifar10", tmp_path / "data", verbose=False).test) == 40

    def test_while_another_process_downloads(self, server, batches_py, tmp_path, monkeypatch):
        """torchrun starts several at once: who has waited finds all that it needs."""
        root, acquire = tmp_path / "data", FileLock.acquire

        def wait(lock):
            acquire(lock)
            shutil.copytree(batches_py / CIFAR10.base_folder, root / CIFAR10.base_folder)

        monkeypatch.setattr(FileLock, "acquire", wait)
        monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", lambda *_, **__: pytest.fail())
        assert len(load_dataset("cifar10", root, verbose=False).test) == 40
        assert [path.name for path in root.iterdir()] == [CIFAR10.base_folder]

    def test_what_other_processes_see_meanwhile(self, server, tmp_path, monkeypatch):
        """That somebody is at work, and no half of the data."""
        root, download = tmp_path / "data", datasets.cifar.download_and_extract_archive

        def look(*arguments, **more):
            download(*arguments, **more)
            assert not (root / CIFAR10.base_folder).exists()
            with pytest.raises(Timeout):
                FileLock(root / "cifar10.lock", timeout=0).acquire()

        monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", look)
        assert len(load_dataset("cifar10", root, verbose=False).test) == 40
        assert [path.name for path in root.iterdir()] == [CIFAR10.base_folder]

    def test_a_drive_without_locks(self, server, tmp_path, monkeypatch):
        def no_locks(*_):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", no_locks)
        assert len(load_dataset("cifar10", tmp_path / "data", verbose=False).test) == 40

    def test_an_answer_in_another_language_than_http(self, tmp_path, monkeypatch, capsys):
        monkeypatch.delenv("VGG_COURSE_DATASET", raising=False)
        with socket.create_server(("127.0.0.1", 0)) as portal:
            monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{portal.getsockname()[1]}/x")

            def answer():
                with portal.accept()[0] as connection:
                    connection.recv(9999)
                    connection.sendall(b"log in first\r\n\r\n")

            threading.Thread(target=answer, daemon=True).start()
            assert load_dataset("auto", tmp_path).name == "digits"
        assert "cannot be had (log in first)" in capsys.readouterr().out

    def test_a_server_that_says_nothing(self, tmp_path, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/x")
            timeout, asked = download._socket_timeout, []
            monkeypatch.setattr(download, "_socket_timeout", lambda seconds: asked.append(seconds) or timeout(0.2))
            with pytest.raises(ConnectionError, match="timed out"):
                load_dataset("cifar10", tmp_path)
        assert socket.getdefaulttimeout() is None and 5 <= asked[0] <= 60  # seconds: slow is not silent

    def test_a_proxy_that_answers_html(self, tmp_path, monkeypatch):
        class LogInFirst(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(b"<html>Log in first</html>")

            do_HEAD = do_GET
            log_message = staticmethod(lambda *_: None)

        with HTTPServer(("127.0.0.1", 0), LogInFirst) as proxy:
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
            monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{proxy.server_port}/x.tar.gz")
            with pytest.raises(ConnectionError, match=r"cannot be had \(File not found or corrupted"):
                load_dataset("cifar10", tmp_path, verbose=False)
            proxy.shutdown()

    def test_a_folder_that_may_not_be_written(self, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setattr(download.urllib.request, "urlopen", lambda url: io.BytesIO())
        with pytest.raises(OSError, match=r"cannot write to the data folder .*file[/\\]data"):
            download._download(tmp_path / "file" / "data", verbose=False)
