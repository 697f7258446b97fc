"""Play a KLEFR or PRO380 meter on a pseudo-terminal or behind a TCP gateway."""

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
import re
import signal
import sys
from threading import Thread
import time
from typing import Any

from . import feed, mbus, modbus
from .line import Line
from .mbus import PRIMARY_ADDRESSES
from .meter import BAUD_RATES, CalculationCode, Model, Parity, VirtualMeter
from .modbus import Framing
from .registers import ADDRESSES, load_image, put_image

CT_PRIMARIES = range(10000)  # A, four digits
CT_SECONDARIES = (1, 5)  # A


def _eight_digits(text: str) -> str:
    if not re.fullmatch("[0-9]{8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} does not have 8 digits")
    return text


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return speed


def _ct_primary(text: str) -> int:
    if not text.isdecimal() or int(text) not in CT_PRIMARIES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a current from 0 to 9999 A")
    return int(text)


def _image(text: str) -> dict[int, int]:
    try:
        return load_image(Path(text))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"cannot use {text}: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    parser.add_argument("--protocol", choices=["modbus", "mbus"], default="modbus")

    meter = parser.add_argument_group("the meter")
    meter.add_argument(
        "--model", choices=[str(model) for model in Model], help="default 6934, for M-Bus 6933"
    )
    meter.add_argument("--serial-number", type=_eight_digits, help="8 digits")
    meter.add_argument(
        "--address", type=int, help="1 to 247, default 1; for M-Bus 0 to 250, default 0"
    )
    meter.add_argument(
        "--secondary-address", type=_eight_digits, help="M-Bus only, default the serial number"
    )
    meter.add_argument("--baud", type=int, choices=BAUD_RATES, help="default 9600")
    meter.add_argument(
        "--parity", choices=[str(parity) for parity in Parity], help="Modbus only, default E"
    )
    meter.add_argument(
        "--calculation-code", type=int, choices=[int(code) for code in CalculationCode]
    )
    meter.add_argument("--ct-primary", type=_ct_primary, help="A, CT meters only, default 250")
    meter.add_argument("--ct-secondary", type=int, choices=CT_SECONDARIES, help="A, default 5")
    meter.add_argument(
        "--registers",
        type=_image,
        metavar="FILE",
        help="Modbus only: serve these registers instead of a house",
    )
    meter.add_argument(
        "--live",
        action="store_true",
        default=None,
        help="Modbus only: show what comes on standard input, a JSON object a line, such as"
        ' {"0x5012": -1.25, "L1 current": 5.4}',
    )
    meter.add_argument("--speed", type=_speed, default=1.0, help="how much faster its clock runs")
    meter.add_argument("--seed", type=int, default=1, help="another house for every number")

    line = parser.add_argument_group("the line")
    where = line.add_mutually_exclusive_group()
    where.add_argument("--link", type=Path, help="a link to make to the pseudo-terminal")
    where.add_argument(
        "--tcp", type=_host_and_port, metavar="HOST:PORT", help="be a gateway instead"
    )
    line.add_argument(
        "--framing", choices=[str(framing) for framing in Framing], help="of a Modbus gateway"
    )
    line.add_argument("--no-pacing", action="store_true", help="answer as fast as possible")
    return parser


def _local_time() -> float:
    """Return seconds since a midnight here, so that the sun rises in the morning."""
    offset = datetime.now().astimezone().utcoffset()
    return time.time() + (offset.total_seconds() if offset else 0)


def _meter(arguments: argparse.Namespace) -> VirtualMeter:
    """Make the meter. With an image, only what was asked for differs from it."""
    asked = {
        "ct_primary": arguments.ct_primary,
        "ct_secondary": arguments.ct_secondary,
    }
    meter = VirtualMeter(
        model=arguments.model,
        speed=arguments.speed,
        seed=arguments.seed,
        clock=_local_time,
        **{name: value for name, value in asked.items() if value is not None},
    )
    if arguments.registers is not None:
        put_image(meter, arguments.registers)
    for name in ("serial_number", "address", "secondary_address", "calculation_code"):
        if (value := getattr(arguments, name)) is not None:
            setattr(meter, name, value)
    return meter


def _serve(meter: VirtualMeter, arguments: argparse.Namespace) -> AbstractAsyncContextManager[Line]:
    line: dict[str, Any] = {
        "baud_rate": arguments.baud,
        "pacing": not arguments.no_pacing,
        "link": arguments.link,
        "tcp": arguments.tcp,
        "seed": arguments.seed,
    }
    if meter.model.speaks_mbus:
        return mbus.serve(meter, **line)
    framing = arguments.framing or Framing.RTU
    return modbus.serve(meter, parity=arguments.parity, framing=framing, **line)


def _show(meter: VirtualMeter, line: str) -> None:
    try:
        feed.show(meter, line)
    except ValueError as error:
        print(f"simulator: {line.strip()}: {error}", file=sys.stderr, flush=True)


def _follow_input(meter: VirtualMeter) -> None:
    """Show what comes on standard input. What came last stays when it ends."""
    loop = asyncio.get_running_loop()

    def follow() -> None:
        for line in sys.stdin:
            if line.strip():
                loop.call_soon_threadsafe(_show, meter, line)

    # Nothing can interrupt a thread that waits for input.
    Thread(target=follow, daemon=True).start()


async def _run(arguments: argparse.Namespace) -> None:
    meter = _meter(arguments)
    stop = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    async with _serve(meter, arguments) as line:
        if arguments.live:
            _follow_input(meter)
        address = f"address {meter.address}"
        if meter.model.speaks_mbus:
            address = f"primary {address}, secondary address {meter.secondary_address}"
        print(
            f"{meter.model.printed} {meter.serial_number} is ready on {line.port}: "
            f"{address}, {meter.baud_rate} baud, 8{meter.parity}1",
            flush=True,
        )
        await stop.wait()


def main(argv: Sequence[str] | None = None) -> None:
    """Run until interrupted, by default with the arguments of the command line."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    speaks_mbus = arguments.protocol == "mbus"
    arguments.model = Model(arguments.model or ("6933" if speaks_mbus else "6934"))
    if arguments.model.speaks_mbus is not speaks_mbus:
        parser.error(f"a {arguments.model} does not speak {arguments.protocol}")
    for name in (
        ("parity", "framing", "registers", "live") if speaks_mbus else ("secondary_address",)
    ):
        if getattr(arguments, name) is not None:
            parser.error(f"--{name.replace('_', '-')} is not for {arguments.protocol}")
    addresses = PRIMARY_ADDRESSES if speaks_mbus else ADDRESSES
    if arguments.address is not None and arguments.address not in addresses:
        parser.error(f"--address is from {addresses[0]} to {addresses[-1]}")
    if arguments.framing and not arguments.tcp:
        parser.error("--framing needs --tcp")
    if not arguments.model.has_current_transformers and (
        arguments.ct_primary is not None or arguments.ct_secondary is not None
    ):
        parser.error(f"a {arguments.model} has no current transformers")
    try:
        asyncio.run(_run(arguments))
    except (OSError, ValueError) as error:
        sys.exit(f"simulator: {error}")


if __name__ == "__main__":
    main()
