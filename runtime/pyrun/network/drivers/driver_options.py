"""What `network create -o` asks for: Docker's own keys where a bridge of pyrun has the like, a notice about all others.

Compose files and scripts carry keys for Docker's bridges, and Docker takes whatever it does not know without a word:
so none is refused here, but none is ignored in silence. The drivers on a card refuse what they do not know
(drivers/macvlan.py, drivers/ipvlan.py). Source: docs.docker.com/engine/network/drivers/bridge, strconv.ParseBool of Go.
"""

from __future__ import annotations

from pyrun import notice
from pyrun.errors import UsageError
from pyrun.network.design import Wanted
from pyrun.safe import is_number

MTU = "com.docker.network.driver.mtu"
NAME = "com.docker.network.bridge.name"
_ICC = "com.docker.network.bridge.enable_icc"
_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
_TRUE = ("1", "t", "true")
_FALSE = ("0", "f", "false")


def settle(wanted: Wanted) -> None:
    """Its mtu and icc as the options say: --mtu is stronger than its key; without --icc a key decides. Raises
    UsageError."""
    options, mtu = wanted.options, str(wanted.mtu)
    if not wanted.mtu and options.get(MTU):
        mtu, wanted.mtu_told = options[MTU], f"-o {MTU}"
    if not is_number(mtu):
        raise UsageError(f"{wanted.mtu_told} {mtu:.60}: is no number of bytes", "1500, say")
    wanted.mtu = int(mtu)
    if wanted.driver == "bridge":
        wanted.icc = wanted.icc and _yes(options, _ICC)


def say_ignored(wanted: Wanted) -> None:
    """A line for every option that has no effect on a network that was made of *wanted*."""
    six = any(":" in text for text in wanted.subnets)
    if wanted.driver != "bridge" and wanted.ipv6 and not six:
        notice.say(
            f"--ipv6: the driver {wanted.driver} chooses no subnet, ignored; --subnet names the segment's"
        )
    if wanted.driver not in ("bridge", "none"):
        return
    options = wanted.options
    known = [MTU, NAME, _ICC] if wanted.driver == "bridge" else []
    if known and str(options.get(_MASQUERADE, "")).lower() in _TRUE:  # which is what every bridge here does
        known.append(_MASQUERADE)
    for name in options:
        if name not in known:
            notice.say(f"-o {name}: no setting of the driver {wanted.driver}, ignored")


def _yes(options: dict[str, str], name: str) -> bool:
    """What a key of Docker says; one that is not given says yes. Raises UsageError."""
    word = options.get(name, "true")
    if word.lower() not in _TRUE + _FALSE:
        raise UsageError(f"-o {name}={word:.60}: is true or false", f"-o {name}=false")
    return word.lower() in _TRUE
