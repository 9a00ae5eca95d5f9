"""Who spoke to whom on a bridge: every frame that comes out of a machine's cable is looked at.

Runs inside the bridge's namespace: `python -m scripts.benchmarks._namespaces_packets OUT`, until
SIGTERM; then OUT has what was seen, as JSON. Only headers are read, and nothing is kept of them but
addresses, ports and counts.
"""

import json
import signal
import socket
import struct
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_ALL: Final = 0x0003  # ETH_P_ALL, linux/if_ether.h
_IPV4: Final = 0x0800
_ARP: Final = 0x0806
_OUTGOING: Final = 4  # PACKET_OUTGOING, linux/if_packet.h
_SOL_PACKET: Final = 263
_STATISTICS: Final = 6  # PACKET_STATISTICS: packets and drops since the last call
_NAMES: Final = {1: "icmp", 6: "tcp", 17: "udp"}
_SYN, _ACK = 0x02, 0x10
_HEADERS: Final = 96
"""Bytes read of a frame: Ethernet 14, IPv4 up to 60, and TCP's first 14."""


class Seen:
    """Counts of frames."""

    def __init__(self) -> None:
        self.frames: Counter[tuple[str, str, str]] = Counter()
        self.asked: Counter[tuple[str, str, str, int]] = Counter()
        self.other: Counter[str] = Counter()

    def note(self, kind: int, frame: bytes) -> None:
        """Count one frame.

        Args:
            kind: of its content, as Ethernet has it.
            frame: from the first byte of Ethernet's head; may end after `_HEADERS` bytes.
        """
        if kind != _IPV4:
            self.other["arp" if kind == _ARP else f"ether {kind:#06x}"] += 1
            return
        packet = frame[14:]
        head = (packet[0] & 15) * 4
        number = packet[9]
        name = _NAMES.get(number, f"ip {number}")
        source, to = (socket.inet_ntoa(packet[i : i + 4]) for i in (12, 16))
        self.frames[source, to, name] += 1
        inner = packet[head:]
        if name == "udp" or (name == "tcp" and inner[13] & (_SYN | _ACK) == _SYN):
            (port,) = struct.unpack("!H", inner[2:4])
            self.asked[source, to, name, port] += 1

    def to_json(self, drops: int) -> dict[str, Any]:
        """All counts.

        Args:
            drops: frames that the kernel could not hand over.
        """
        return {
            "frames": [[*key, count] for key, count in sorted(self.frames.items())],
            "asked": [[*key, count] for key, count in sorted(self.asked.items())],
            "other": dict(self.other),
            "dropped": drops,
        }


def _stop(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main(out: Path) -> None:
    """Look until SIGTERM."""
    seen = Seen()
    signal.signal(signal.SIGTERM, _stop)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        print("looking", flush=True)
        with suppress(KeyboardInterrupt):
            while True:
                frame, (interface, kind, way, *_) = link.recvfrom(_HEADERS)
                if interface.startswith("port") and way != _OUTGOING:
                    seen.note(kind, frame)
        _, drops = struct.unpack("II", link.getsockopt(_SOL_PACKET, _STATISTICS, 8))
    out.write_text(json.dumps(seen.to_json(drops)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
