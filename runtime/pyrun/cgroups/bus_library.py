"""The cold half of the systemd driver's D-Bus, by jeepney: new properties for a unit.

The connection is bus.py's; jeepney encodes what goes out and decodes what comes back, and a test holds
bus_messages.py to its bytes. Not here: starting and stopping a unit, which is the hot half.
Source: org.freedesktop.systemd1(5), jeepney's documentation (jeepney.low_level is free of I/O).
"""

from __future__ import annotations

from typing import Any

from pyrun import boot

boot.site_packages()

from jeepney import DBusAddress, MessageType, Parser, new_method_call  # noqa: E402

from pyrun.cgroups import bus, bus_messages  # noqa: E402

_SYSTEMD = DBusAddress(bus.MANAGER[1], bus_name=bus.MANAGER[0], interface=bus.MANAGER[2])


def set_properties(connection: bus.Bus, unit: str, properties: list[tuple[str, Any]]) -> None:
    """SetUnitProperties, until the next boot (a scope does not outlive it). Raises bus.Refused, PyrunError."""
    call = new_method_call(_SYSTEMD, "SetUnitProperties", "sba(sv)", (unit, True, properties))
    _answer(connection, call, "SetUnitProperties")


def _answer(connection: bus.Bus, call: Any, doing: str) -> tuple[Any, ...]:
    connection.serial += 1
    connection.outgoing += call.serialise(serial=connection.serial)
    serial = connection.serial
    while True:
        for incoming in Parser().feed(connection.receive(doing).data):
            fields = {key.value: value for key, value in incoming.header.fields.items()}
            if fields.get(bus_messages.REPLY_SERIAL) != serial:
                continue
            if incoming.header.message_type is MessageType.error:
                text = str(incoming.body[0]) if incoming.body else ""
                raise bus.Refused(str(fields.get(bus_messages.ERROR_NAME)), text, doing)
            return tuple(incoming.body)
