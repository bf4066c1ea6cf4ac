"""cni:NAME, a network somebody configured for other engines: its plugins are run, and they do the wiring.

    ADD    every plugin of the list in order, each told the result of the one before; the last result says which
           addresses the container has
    DEL    every plugin in the other order, each told that result; also after an ADD that failed half way

What DEL needs is written to run/containers/ID/cni.json before the first plugin runs. The undo list cannot run plugins;
it has the line `finish`, by which the monitor starts `pyrun system finish FILE`, which comes back to `finish` below.
The namespace's name in /run/netns is what plugins are told, and it outlives the container's last process until then.
Source: the CNI specification 1.0.0 (SPEC.md), sections 2, 4 and 5. Not here: the configuration (cni_config.py).
"""

from __future__ import annotations

import json
import os
import subprocess
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from pyrun import boot, notice
from pyrun.errors import NetworkError, PyrunError, UsageError
from pyrun.network import attach, live_undo, netns, resolver, wiring
from pyrun.network.drivers import cni_config
from pyrun.network.publishing import choosing, ports
from pyrun.network.requests import Request
from pyrun.network.wiring import Claimed, NetworkPlan
from pyrun.plan.operations import Operation
from pyrun.safe import is_number
from pyrun.spec import check_rules as rules
from pyrun.spec import config_file
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Required, TypedDict

    from pyrun.store.record import Record

    class Job(TypedDict, total=False):
        """What ADD and DEL have in common; run/containers/ID/cni.json."""

        id: Required[str]
        hostname: str
        network: Required[cni_config.Network]
        path: Required[str]  # where plugins are looked for
        ifname: Required[str]
        arguments: Required[Object]  # capabilities' arguments
        namespace: Required[str]
        result: Result | None


_PATIENCE_S = 60
_OUTPUT_BYTES = 1 << 20
# What a plugin may need of the environment beside the CNI_ variables: where iptables is.
_SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Object = dict[str, Any]
Result = Object  # _RESULT has made sure of its types


def _address(value: object, path: str) -> None:
    rules.text(value, path)
    _, slash, prefix = str(value).partition("/")
    try:
        ip_interface(str(value))
    except ValueError:
        slash, prefix = "/", ""
    if slash and not is_number(prefix):
        raise rules.wrong(path, "must be an address such as 10.1.0.5/16", value)


_LINES = rules.Each(rules.one_line)
# What pyrun itself reads of a plugin's answer, and of what it has noted for DEL.
_RESULT = rules.Fields(
    {
        "interfaces": rules.Each(rules.Fields({"mac": rules.text, "sandbox": rules.text})),
        "ips": rules.Each(rules.Fields({"address": _address, "gateway": rules.text})),
        "dns": rules.Fields(
            {"nameservers": _LINES, "domain": rules.one_line, "search": _LINES, "options": _LINES}
        ),
    }
)
_JOB = rules.Fields(
    {
        **dict.fromkeys(("id", "path", "namespace", "ifname"), rules.name),
        "network": cni_config.NETWORK, "arguments": rules.Fields({}), "result": rules.Fields({}),
    },
    needed="id path namespace ifname network arguments",
)  # fmt: skip


def claim(request: Request, had: Claimed) -> None:
    """The namespace's name and the ports, which the plugins publish: nobody else of ours may. Raises as `plan`, and
    Conflict."""
    _settle(request, had)
    wiring.claim_name(request, had, [f"name {request.name}", *ports.lines(had.ports)], had.ports)


def look(request: Request, had: Claimed) -> None:
    """What `claim` would give. Raises as that."""
    _settle(request, had)
    ports.refuse_taken(had.ports)


def _settle(request: Request, had: Claimed) -> None:
    network, path = cni_config.load(request.target), cni_config.search_path()
    had.ports = choosing.settle(request.ports, keep=False)
    _refuse_incomplete(network, path, had.ports)


def plan(request: Request, had: Claimed) -> NetworkPlan:
    """The whole plan of a container on a CNI network. Raises: NotFound, UsageError."""
    network, path = cni_config.load(request.target), cni_config.search_path()
    name, owner, file = request.name, had.owner, f"{request.run_dir}/cni.json"
    planned, published = NetworkPlan(had), had.ports
    planned.before = [Operation("PORT", each[0], each[1], each[3]) for each in published]
    told = json.dumps(_job(request, network, path, published))
    planned.outside = [
        Operation("NETNS_NAME", netns.path(name), owner),
        Operation("CARD_UP", "lo"),
        Operation("CNI", network["name"], file, netns.path(name), request.keep, told),
    ]
    planned.undo = [
        live_undo.undo_line(request.id),
        f"finish\t{boot.binary()}\t{file}",
        *[f"unlink-if\t{ports.path(port)}\t{owner}" for port in published],
        *netns.undo(name, owner),
    ]
    planned.resolv = resolver.chosen(request.dns, resolver.reachable(fall_back=False))
    return planned


def _refuse_incomplete(network: cni_config.Network, path: str, published: list[ports.Port]) -> None:
    """Raises NotFound for a plugin that is not here, UsageError for ports that no plugin publishes."""
    told = f"--network cni:{network['name']}"
    for plugin in network["plugins"]:
        cni_config.program(plugin["type"], path, told)
    if published and not cni_config.declares(network, "portMappings"):
        raise UsageError(
            f"{told}: no plugin of {network['file']} can publish ports",
            'the plugin portmap with "capabilities": {"portMappings": true} can',
        )


def _job(request: Request, network: cni_config.Network, path: str, published: list[ports.Port]) -> Job:
    """What ADD and DEL have in common."""
    mappings = [
        {"hostPort": number, "containerPort": inside, "protocol": protocol, "hostIP": "" if host == ports.ANY else host}
        for host, number, inside, protocol in published
    ]  # fmt: skip
    return {
        "id": request.id,
        "namespace": netns.path(request.name),
        "hostname": request.hostname,
        "network": network,
        "path": path,
        "ifname": "eth0",
        "arguments": {"portMappings": mappings} if mappings else {},
    }


def add(link: attach.Attachment, network: str, file: str, namespace: str, keep: str, text: str) -> None:
    """Run the chain, and tell the container's files what came of it. Raises NetworkError naming the plugin."""
    del link, network
    job: Job = json.loads(text)
    job["namespace"], job["result"] = namespace, None
    paths.write(file, json.dumps(job).encode())
    result: Result | None = None
    for number in range(len(job["network"]["plugins"])):
        result = _run(job, "ADD", number, result)
    job["result"] = result
    paths.replace(file, json.dumps(job).encode())
    if keep:
        _record(job, keep, result or {})


def finish(file: str) -> list[str]:
    """DEL in the other order, for the undo list; returns what failed, a line each. Done again, it does nothing."""
    try:
        job: Any = config_file.parse(Path(file).read_bytes(), file)
        _JOB(job, f"{file}: ")
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{file}: {error.strerror}"]
    except UsageError:
        return [f"{file}: is torn; the plugins of its network were not told that the container is gone"]
    failed = []
    for number in reversed(range(len(job["network"]["plugins"]))):
        try:
            _run(job, "DEL", number, job.get("result"))
        except PyrunError as error:
            failed.append(error.message)
    if not failed:
        os.unlink(file)
    return failed


def _run(job: Job, command: str, number: int, previous: Result | None) -> Result | None:
    """One plugin. Raises NetworkError with what it says."""
    network = job["network"]
    kind = network["plugins"][number]["type"]
    told = f"cni:{network['name']}: plugin {kind}: {command}"
    program = cni_config.program(kind, job["path"], told)
    environment = {
        "PATH": _SEARCHED, "CNI_COMMAND": command, "CNI_CONTAINERID": job["id"], "CNI_NETNS": job["namespace"],
        "CNI_IFNAME": job["ifname"], "CNI_PATH": job["path"], "CNI_ARGS": "",
    }  # fmt: skip
    given = json.dumps(cni_config.request(network, number, job["arguments"], previous))
    try:
        done = subprocess.run(
            [program], input=given.encode(), capture_output=True, env=environment, timeout=_PATIENCE_S, check=False,
            cwd="/",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NetworkError(f"{told}: has not ended after {_PATIENCE_S} s") from None
    except OSError as error:
        raise NetworkError(f"{told}: {program}: {error.strerror}") from None
    if done.returncode:
        raise NetworkError(f"{told}: {_complaint(done.stdout, done.stderr)}")
    if command == "DEL" or not done.stdout.strip():
        return previous
    try:
        result: Any = config_file.parse(done.stdout[:_OUTPUT_BYTES], f"{told}: its result")
        _RESULT(result, f"{told}: its result: ")
    except UsageError as error:
        raise NetworkError(error.message) from None
    checked: Result = result
    return checked


def _complaint(output: bytes, errors: bytes) -> str:
    """What a plugin that failed says: the error object of the specification, or the last line it wrote."""
    try:
        error: Any = config_file.parse(output[:_OUTPUT_BYTES])
        words = [str(error.get("msg") or f"error {error.get('code')}"), str(error.get("details") or "")]
        return ": ".join(filter(None, words)).replace("\n", " ")[:500]
    except (UsageError, AttributeError):
        said = (errors or output).decode("utf-8", "replace").strip().splitlines()
        return said[-1][:500] if said else "failed without a word"


def _record(job: Job, keep: str, result: Result) -> None:
    """Addresses and servers of the result go into container.json, /etc/hosts and /etc/resolv.conf."""
    addresses = [str(each.get("address") or "") for each in result.get("ips") or []]
    bare = [address.partition("/")[0] for address in addresses if address]
    inside = [each for each in result.get("interfaces") or [] if each.get("sandbox")]
    wire = _wire(job, result, inside)
    try:
        with live_undo.locked(job["id"]):
            live_undo.change_record(job["id"], lambda record: _note(record, wire, bare))
    except PermissionError:
        notice.say(f"cni:{job['network']['name']}: the addresses could not be noted")
    if bare and os.path.exists(f"{keep}/hosts"):
        # In place: the file is what the container has, not its name.
        with open(f"{keep}/hosts", "a") as hosts:
            hosts.write("".join(f"{address}\t{job['hostname']}\n" for address in bare))
    servers = resolver_lines(result.get("dns") or {})
    if servers and os.path.exists(f"{keep}/resolv.conf"):
        paths.write(f"{keep}/resolv.conf", "".join(f"{line}\n" for line in servers).encode(), 0o644)


def _wire(job: Job, result: Result, inside: list[Object]) -> Object:
    """The interface as container.json tells of every one."""
    mac = str(inside[0].get("mac") or "") if inside else ""
    network = f"cni:{job['network']['name']}"
    wire: Object = {
        "network": network,
        "ifname": job["ifname"],
        "link": "",
        "aliases": [],
        "mac": mac,
    }
    for six in ("", "6"):
        wire.update({f"address{six}": "", f"prefix{six}": 0, f"gateway{six}": ""})
    for each in result.get("ips") or []:
        address, _, prefix = str(each.get("address") or "").partition("/")
        six = "6" if ":" in address else ""
        if address and not wire[f"address{six}"]:
            wire.update({f"address{six}": address, f"prefix{six}": int(prefix or 0),
                         f"gateway{six}": str(each.get("gateway") or "")})  # fmt: skip
    return wire


def _note(record: Record, wire: Object, addresses: list[str]) -> None:
    record["networks"] = [wire]
    record["address"] = addresses[0] if addresses else ""
    record["mac"] = wire["mac"]


def resolver_lines(dns: Object) -> list[str]:
    """resolv.conf as a result's dns part wants it; [] when it names no server."""
    servers = [str(each) for each in dns.get("nameservers") or []]
    if not servers:
        return []
    lines = [f"nameserver {server}" for server in servers]
    search = [str(each) for each in dns.get("search") or ([dns["domain"]] if dns.get("domain") else [])]
    lines += [f"search {' '.join(search)}"] if search else []
    return lines + ([f"options {' '.join(map(str, dns['options']))}"] if dns.get("options") else [])
