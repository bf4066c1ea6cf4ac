"""config.json and its sections as types, for readers and the type checker: no start loads them.

A config that somebody else wrote becomes a `Config` in check.py, which has a rule for each field; that of an image's
container is one from the beginning (config.py). null means absent, and check.py takes it out. seccomp alone is checked
later, when its program is compiled (seccomp_check.py).
Source: runtime-spec config.md, config-linux.md.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

Object = dict[str, Any]  # of JSON that was not checked yet


class Mapping(TypedDict):
    """A row of uid_map or gid_map."""

    containerID: int
    hostID: int
    size: int


class Namespace(TypedDict, total=False):
    """One to be made, or with a path one to join."""

    type: str
    path: str


class User(TypedDict, total=False):
    """Who the process is; umask: its mode bits."""

    uid: int
    gid: int
    umask: int
    additionalGids: list[int]
    username: str


class Rlimit(TypedDict):
    """type: RLIMIT_*; infinity is 2**64 - 1."""

    type: str
    soft: int
    hard: int


class ConsoleSize(TypedDict):
    """In characters."""

    height: int
    width: int


class Scheduler(TypedDict, total=False):
    """config.md#linux-process; policy is always there. runtime, deadline, period: in nanoseconds."""

    policy: str
    nice: int
    priority: int
    flags: list[str]
    runtime: int
    deadline: int
    period: int


IoPriority = TypedDict("IoPriority", {"class": str, "priority": int}, total=False)  # class is always there


class Process(TypedDict, total=False):
    """config.md#process"""

    terminal: bool
    consoleSize: ConsoleSize
    cwd: str
    env: list[str]
    args: list[str]
    user: User
    capabilities: dict[str, list[str]]
    rlimits: list[Rlimit]
    noNewPrivileges: bool
    apparmorProfile: str
    selinuxLabel: str
    oomScoreAdj: int
    scheduler: Scheduler
    ioPriority: IoPriority
    execCPUAffinity: dict[str, str]


class Root(TypedDict, total=False):
    """path: absolute, or relative to the bundle."""

    path: str
    readonly: bool


class Mount(TypedDict, total=False):
    """config.md#mounts"""

    destination: str
    type: str
    source: str
    options: list[str]
    uidMappings: list[Mapping]
    gidMappings: list[Mapping]


class Hook(TypedDict, total=False):
    """timeout: in seconds."""

    path: str
    args: list[str]
    env: list[str]
    timeout: int


class Device(TypedDict, total=False):
    """A node below /dev; fileMode: permission bits."""

    type: str
    path: str
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class DeviceRule(TypedDict, total=False):
    """Who may use which devices. type: a, b or c; no number means any; access: of rwm."""

    allow: bool
    type: str
    major: int
    minor: int
    access: str


class Memory(TypedDict, total=False):
    """In bytes, -1 is no limit; swap: memory and swap together."""

    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    useHierarchy: bool
    checkBeforeUpdate: bool


class Cpu(TypedDict, total=False):
    """Times in microseconds; cpus and mems: lists such as 0-3,7."""

    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class Pids(TypedDict, total=False):
    """limit: -1 is none."""

    limit: int


class WeightDevice(TypedDict, total=False):
    """major and minor are always there."""

    major: int
    minor: int
    weight: int
    leafWeight: int


class ThrottleDevice(TypedDict):
    """rate: bytes or operations a second."""

    major: int
    minor: int
    rate: int


Throttle = Literal[
    "throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice"
]


class BlockIO(TypedDict, total=False):
    """config-linux.md#block-io"""

    weight: int
    leafWeight: int
    weightDevice: list[WeightDevice]
    throttleReadBpsDevice: list[ThrottleDevice]
    throttleWriteBpsDevice: list[ThrottleDevice]
    throttleReadIOPSDevice: list[ThrottleDevice]
    throttleWriteIOPSDevice: list[ThrottleDevice]


class HugepageLimit(TypedDict):
    """pageSize: such as 2MB; limit: in bytes."""

    pageSize: str
    limit: int


class Priority(TypedDict):
    """Of what goes out by the network device *name*."""

    name: str
    priority: int


class NetworkClass(TypedDict, total=False):
    """config-linux.md#network"""

    classID: int
    priorities: list[Priority]


class Rdma(TypedDict, total=False):
    """Of one device."""

    hcaHandles: int
    hcaObjects: int


class Resources(TypedDict, total=False):
    """config-linux.md#control-groups; rdma: by device, unified: by file of cgroup v2."""

    devices: list[DeviceRule]
    memory: Memory
    cpu: Cpu
    pids: Pids
    blockIO: BlockIO
    hugepageLimits: list[HugepageLimit]
    network: NetworkClass
    rdma: dict[str, Rdma]
    unified: dict[str, str]


class IntelRdt(TypedDict, total=False):
    """config-linux.md#intelrdt"""

    closID: str
    schemata: list[str]
    l3CacheSchema: str
    memBwSchema: str
    enableMonitoring: bool


class MemoryPolicy(TypedDict, total=False):
    """config-linux.md#memory-policy; mode is always there. nodes: a list such as 0-3,7."""

    mode: str
    nodes: str
    flags: list[str]


class Personality(TypedDict, total=False):
    """config-linux.md#personality; domain is always there."""

    domain: str
    flags: list[str]


class SyscallArgument(TypedDict, total=False):
    """op: SCMP_CMP_*; all but valueTwo are always there."""

    index: int
    value: int
    valueTwo: int
    op: str


class SyscallRule(TypedDict, total=False):
    """An entry of syscalls: names and action are always there."""

    names: list[str]
    action: str
    errnoRet: int
    args: list[SyscallArgument]


class Seccomp(TypedDict, total=False):
    """config-linux.md#seccomp"""

    defaultAction: str
    defaultErrnoRet: int
    architectures: list[str]
    flags: list[str]
    listenerPath: str
    listenerMetadata: str
    syscalls: list[SyscallRule]


class Linux(TypedDict, total=False):
    """config-linux.md"""

    namespaces: list[Namespace]
    uidMappings: list[Mapping]
    gidMappings: list[Mapping]
    timeOffsets: dict[str, dict[str, int]]
    devices: list[Device]
    netDevices: dict[str, dict[str, str]]
    cgroupsPath: str
    resources: Resources
    intelRdt: IntelRdt
    memoryPolicy: MemoryPolicy
    personality: Personality
    seccomp: Seccomp
    sysctl: dict[str, str]
    rootfsPropagation: str
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str


class State(TypedDict, total=False):
    """A container's state as hooks and agents get it: runtime.md#state. No pid: there is no process."""

    pid: int
    ociVersion: str
    id: str
    status: str
    bundle: str
    annotations: dict[str, str]


class Config(TypedDict, total=False):
    """The whole file."""

    ociVersion: str
    process: Process
    root: Root
    hostname: str
    domainname: str
    mounts: list[Mount]
    hooks: dict[str, list[Hook]]
    annotations: dict[str, str]
    linux: Linux
