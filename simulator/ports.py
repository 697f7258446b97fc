"""Which line there is, by what is said of its port."""

from pathlib import Path

from .gateway import TcpLine
from .line import Face, Line, Split
from .meter import Parity
from .terminal import PtyLine
from .virtual import NETWORK, VirtualGateway, VirtualLine


def open_line(
    face: Face,
    *,
    baud_rate: int,
    parity: Parity,
    pacing: bool,
    link: str | Path | None,
    tcp: tuple[str, int] | None,
    virtual: str | None,
    split: Split | None = None,
    seed: int,
) -> Line:
    """Connect a face to a line.

    That is one in memory if `virtual` names its port, a gateway that listens if `tcp` is a
    host and a port, and a pseudo-terminal without them.
    """
    if virtual is not None:
        kind = VirtualGateway if virtual.startswith(NETWORK) else VirtualLine
        return kind(
            face,
            port=virtual,
            baud_rate=baud_rate,
            parity=parity,
            pacing=pacing,
            split=split,
            seed=seed,
        )
    if tcp is not None:
        host, tcp_port = tcp
        return TcpLine(
            face,
            host=host,
            tcp_port=tcp_port,
            baud_rate=baud_rate,
            parity=parity,
            pacing=pacing,
            split=split,
            seed=seed,
        )
    return PtyLine(
        face,
        baud_rate=baud_rate,
        parity=parity,
        link=link,
        pacing=pacing,
        split=split,
        seed=seed,
    )
