"""Fetching an image from a registry: manifest, configuration, layers, each from the first server that has it.

Layers are downloaded by a few threads, in order, into the staging area, and unpacked here one after the other
while the next ones still arrive (a layer may need those below it, see store/overlay_view.py).
"""

from __future__ import annotations

import os
import threading
from typing import BinaryIO

from pyrun.errors import ImageError, NotFound, PyrunError, RegistryError
from pyrun.registry import client, manifests, mirrors
from pyrun.store import image_writer, layers, platforms, references

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.store.image_json import Image

    from .pull import Progress, State

THREADS = 3


def fetch(
    reference: references.Reference, names: list[str], wanted: platforms.Platform, progress: Progress | None
) -> Image:
    """Fetch the image and give it those full names: image.json as a value.

    A mirror that says of it what cannot be used is passed over like one that says nothing, while there is another
    server. Raises NotFound if no server has it, RegistryError if they failed otherwise, ImageError if it is unusable.
    """
    servers = mirrors.endpoints(reference.domain)
    failures: list[PyrunError] = []
    for number, server in enumerate(servers):
        mirrored = server != mirrors.upstream(reference.domain)
        asked = server if mirrored else mirrors.settled(server)
        repository = client.Repository(asked, reference.domain, reference.path, mirrored)
        described = None
        try:
            described = _describe(repository, reference, wanted)
            image = _fetch_from(repository, described, names, progress)
            base = f"{reference.domain}/{reference.path}"
            image_writer.note_digests(image, [f"{base}@{digest}" for digest in repository.digests])
            return image
        except PyrunError as error:
            unusable = isinstance(error, ImageError) and described is None and number + 1 < len(servers)
            if not isinstance(error, NotFound | RegistryError) and not unusable:
                raise
            failures.append(error)
        finally:
            repository.abort()
    kind = NotFound if all(isinstance(error, NotFound) for error in failures) else RegistryError
    message = "; ".join(error.message for error in failures)
    raise kind(message, failures[-1].hint) from failures[-1]


def _describe(
    repository: client.Repository, reference: references.Reference, wanted: platforms.Platform
) -> tuple[manifests.Manifest, bytes, list[str]]:
    """What the server has for that name: manifest, configuration, diff ids. Raises NotFound, ImageError."""
    manifest = repository.image(reference.digest or reference.tag, wanted)
    config_text = repository.small_blob(manifest.config)
    config = image_writer.parse_config(config_text, repository.what)
    diff_ids = config["rootfs"]["diff_ids"]
    if len(diff_ids) != len(manifest.layers):
        raise ImageError(f"{repository.what}: {len(manifest.layers)} layers, but {len(diff_ids)} diff ids")
    manifests.check_platform(config, wanted, repository.what)
    return manifest, config_text, diff_ids


def _fetch_from(
    repository: client.Repository,
    described: tuple[manifests.Manifest, bytes, list[str]],
    names: list[str],
    progress: Progress | None,
) -> Image:
    manifest, config_text, diff_ids = described
    with (
        layers.Staging() as staging,
        Downloads(repository, manifest, staging, progress, names[0]) as downloads,
    ):
        chain = layers.chain_ids(diff_ids)
        downloads.begin([n for n, layer in enumerate(chain) if not os.path.isdir(layers.directory(layer))])
        return image_writer.install(
            config_text, downloads.open, names, staging, downloads.tell, repository.stop
        )


class Downloads:
    """The layers of a manifest on their way; use as a context manager, whose end stops what still runs."""

    def __init__(
        self,
        repository: client.Repository,
        manifest: manifests.Manifest,
        staging: layers.Staging,
        progress: Progress | None,
        name: str,
    ) -> None:
        self._repository = repository
        self._layers = manifest.layers
        self._staging = staging
        self._progress = progress
        self._name = references.familiar(name)
        self._queue: list[int] = []
        self._ready = [threading.Event() for _ in manifest.layers]
        self._errors: dict[int, BaseException] = {}
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Downloads:
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.clear()
        self._repository.abort()
        for thread in self._threads:
            thread.join(5.0)

    def begin(self, numbers: list[int]) -> None:
        """Start to fetch those layers, in that order."""
        self._queue = list(numbers)
        for number in numbers:
            self.tell(number, "waiting")
        for _ in range(min(THREADS, len(numbers))):
            thread = threading.Thread(target=self._work, name="download", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while self._queue:
            try:
                number = self._queue.pop(0)
            except IndexError:
                return
            self._fetch(number)

    def _fetch(self, number: int) -> None:
        try:
            self.tell(number, "downloading")
            with open(self._path(number), "w+b") as file:
                self._repository.blob(
                    self._layers[number], file, lambda done: self.tell(number, "downloading", done)
                )
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that opens the layer
            self._errors[number] = error
            self._queue.clear()  # the image is lost: begin no more
        finally:
            self._ready[number].set()

    def _path(self, number: int) -> str:
        return f"{self._staging.path}/blob-{number}"

    def open(self, number: int) -> BinaryIO:
        """The downloaded layer, once it is there. Raises what went wrong with any layer."""
        while not self._ready[number].wait(0.2):
            if self._errors:
                break
            if number not in self._queue and not any(thread.is_alive() for thread in self._threads):
                self._fetch(number)  # it was there when the downloads began, and was removed since
        if self._errors:
            raise self._failure()
        file = open(self._path(number), "rb")
        os.unlink(self._path(number))  # its space is free as soon as it is unpacked
        return file

    def _failure(self) -> BaseException:
        error = next(iter(self._errors.values()))
        if isinstance(error, OSError):
            return ImageError(
                f"{self._name}: a layer cannot be stored: {error.strerror}",
                "free some space below pyrun's root",
            )
        return error

    def tell(self, number: int, state: State, current: int = 0) -> None:
        """Report how far a layer is."""
        if self._progress:
            layer = self._layers[number]
            self._progress({"image": self._name, "layer": layer.digest[7:19], "state": state,
                            "current": current, "total": layer.size_bytes})  # fmt: skip
