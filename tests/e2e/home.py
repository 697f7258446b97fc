"""Home Assistant 2026.11 with simulated meters on a serial port, behind a gateway and on M-Bus."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.client import Client, signed_in
from demo.clock import Clock
from demo.device import Device, add
from demo.history import Moment, live_through
from demo.meters import DemoMeter
from demo.process import ADDRESS, CHECKOUT, OUTPUT, home_assistant, prepare_folder
from demo.start import first_session, free_port
from simulator import mbus, modbus
from simulator.meter import VirtualMeter

PYTHON: Final = CHECKOUT / ".venv-demo" / "bin" / "python"

LANGUAGE: Final = "en-GB"

BY_HAND: Final = 1
ENERGY: Final = 2
"""Addresses on the serial port."""


@dataclass(frozen=True, kw_only=True)
class Home:
    """A running Home Assistant, and what its user finds in the cellar."""

    url: str
    folder: Path
    token: str
    modbus_port: str
    mbus_port: str
    gateway: str
    """The TCP port of a gateway at ADDRESS that speaks Modbus TCP."""
    other_gateway: str
    meters: Mapping[int, VirtualMeter]
    """Those behind the gateway, by their addresses at first."""
    energy: VirtualMeter
    """The one at address ENERGY on the serial port."""
    history: list[Moment]
    """What that one has shown since yesterday."""

    @property
    def log(self) -> Path:
        """What Home Assistant logs."""
        return self.folder / OUTPUT

    def api(self) -> AbstractAsyncContextManager[Client]:
        """Sign in beside the user."""
        return signed_in(self.url, self.token)

    async def add(self, address: int) -> Device:
        """Add the meter at an address behind the gateway, without its user."""
        meter = DemoMeter(
            virtual=self.meters[address],
            choices=("gateway", "modbus"),
            form={"host": ADDRESS, "port": int(self.gateway), "address": address},
        )
        async with self.api() as client:
            return await add(client, meter, self.gateway)


@asynccontextmanager
async def home(folder: Path) -> AsyncIterator[Home]:
    """Serve the meters, start Home Assistant in a new folder, and stop all on leaving."""
    clock = Clock(days=1)
    energy = VirtualMeter(serial_number="22091047", address=ENERGY, clock=clock)
    meters = {
        address: VirtualMeter(serial_number=f"220911{address:02}", address=address, seed=address)
        for address in range(10, 30)
    }
    modbus_port, mbus_port = folder / "ttyUSB0", folder / "ttyUSB1"
    port = free_port(None)
    prepare_folder(folder, port, LANGUAGE)
    async with AsyncExitStack() as stack:
        on_port = modbus.serve(VirtualMeter(address=BY_HAND), energy, link=modbus_port)
        on_mbus = mbus.serve(
            VirtualMeter(serial_number="22091040", model="6933", address=1, seed=2),
            VirtualMeter(serial_number="22091056", model="6943", address=2, seed=3),
            link=mbus_port,
        )
        gateway = modbus.serve(*meters.values(), tcp=(ADDRESS, 0), framing="socket")
        other_gateway = modbus.serve(
            VirtualMeter(serial_number="22091203", model="6944", address=3, seed=3),
            VirtualMeter(serial_number="22091204", address=20, seed=4),
            tcp=(ADDRESS, 0),
            framing="socket",
        )
        lines = [
            await stack.enter_async_context(line)
            for line in (on_port, on_mbus, gateway, other_gateway)
        ]
        history = asyncio.create_task(asyncio.to_thread(live_through, [energy], clock))
        process = await stack.enter_async_context(home_assistant(folder, str(PYTHON)))
        url = f"http://{ADDRESS}:{port}"
        client = await stack.enter_async_context(first_session(process, url, LANGUAGE))
        yield Home(
            url=url,
            folder=folder,
            token=client.token,
            modbus_port=str(modbus_port),
            mbus_port=str(mbus_port),
            gateway=lines[2].port.rpartition(":")[2],
            other_gateway=lines[3].port.rpartition(":")[2],
            meters=meters,
            energy=energy,
            history=(await history)[0],
        )
