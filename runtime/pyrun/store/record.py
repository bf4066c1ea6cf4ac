"""The types of what is noted of a container on disk. After a crash any field but the id may be missing."""

from __future__ import annotations

from typing import Any, Required, TypedDict


class Process(TypedDict, total=False):
    """The container's first process."""

    pid: int
    start_time: int  # clock ticks since boot


class Record(Process, total=False):
    """container.json (store/containers.py, as engine/prepare.py writes it) with state.json over it."""

    id: Required[str]
    name: str
    # of the image, or of the bundle
    image: str
    image_id: str
    bundle: str
    args: list[str]
    labels: dict[str, str]
    stop_signal: str
    stop_timeout: object  # seconds, as it was given
    group_add: list[str]
    tty: bool
    rm: bool
    detach: bool
    created: float  # unix seconds
    # of its network: as network/endpoint.py, network/requests.py and publishing/ have them
    hostname: str
    mode: str
    network: str
    networks: list[dict[str, Any]]
    ports: list[list[Any]]  # host address, host port, container port, protocol
    exposed: list[Any]
    address: str
    mac: str
    dns: list[str]
    dns_search: list[str]
    dns_option: list[str]
    resolv: list[str]
    names_before: dict[str, list[str]]  # while the files of names are written
    net_rate: object
    net_fault: object
    # state.json
    ociVersion: str
    status: str
    monitor_pid: int
    cgroups: list[str]
    unit: str


class BundleRecord(Process, total=False):
    """state.json of pyrun-oci (engine/oci/prepare.py), with where it is."""

    id: Required[str]
    directory: Required[str]
    ociVersion: str
    bundle: str
    rootfs: str
    created: str  # RFC 3339
    annotations: dict[str, str]
    cgroups: list[tuple[str, str]]  # (controllers, directory)
    driver: str
    unit: str
    namespaces: list[str]
    made: list[str]
    no_new_keyring: bool
    keyring: str
    privileged_wait: bool
    rdt: dict[str, str] | None
