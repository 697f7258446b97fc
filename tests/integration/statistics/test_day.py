"""A day on which everything goes wrong, as Home Assistant's statistics have it.

Faults come in spells of some minutes, any number of them at a time: damage that the checksum
sees and that it does not see, wrong values, silence, another meter, zeros after a power cut, an
adapter that is unplugged. In the middle of them Home Assistant is restarted or killed. Between
the spells the calculation code is changed, the counter is reset and the meter is cleared, in
Home Assistant and at the meter.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from random import Random
from typing import Any

from homeassistant.util import dt as dt_util
import pytest

from custom_components.klefr.const import DOMAIN
from simulator.faults import (
    ANSWER_FAULTS,
    SCENE_FAULTS,
    TIMING_FAULTS,
    Faults,
    MBusCodec,
    ModbusCodec,
    Scene,
)
from simulator.line import Line
from simulator.mbus import MBusFace
from simulator.meter import CalculationCode, Tariff, VirtualMeter
from simulator.modbus import Framing, ModbusFace

from ..test_settings import press, select
from .house import START, House

HOURS = 14
CODES = [code for code in CalculationCode if code is not CalculationCode.FORWARD_MINUS_REVERSE_NET]
ANSWERS = tuple(ANSWER_FAULTS)
UNSEEN = tuple(kind for kind in ANSWERS if kind.startswith(("unseen", "value", "words", "all")))
TIMING = tuple(TIMING_FAULTS)
# A serial port has no connection that ends.
SCENES = [fault for kind, fault in SCENE_FAULTS.items() if kind != "connection ended"]


class Day:
    """A house, and what goes wrong there."""

    def __init__(self, house: House, line: Line, files: dict[str, Any], random: Random) -> None:
        self._house = house
        self._files = files
        self._random = random
        self.faults: Counter[str] = Counter()
        meter = house.meter
        other = VirtualMeter(
            model=meter.model, serial_number="22091040", address=meter.address, clock=lambda: 0.0
        )
        scene = Scene(line=line, meter=meter, random=random, other=other)
        if meter.model.speaks_mbus:
            self._faults = Faults(scene, MBusCodec(), MBusFace([other], answer_delay=0))
        else:
            self._faults = Faults(scene, ModbusCodec(), ModbusFace([other], Framing.RTU))

    @property
    def _minutes(self) -> float:
        return (dt_util.utcnow() - START).total_seconds() / 60

    async def _live(self, seconds: float) -> None:
        await self._house.until(self._minutes + seconds / 60)

    async def pass_by(self) -> None:
        while self._minutes < HOURS * 60 - 30:
            await self._spell()
            await self._calm()
            await self._change()
            await self._live(self._random.uniform(60, 300))

    async def _spell(self) -> None:
        random = self._random
        severity = random.choice((0.3, 0.6, 0.9))
        several = random.choice((0.2, 0.5, 0.7))
        kinds = random.choice((ANSWERS, UNSEEN))

        def following() -> tuple[Sequence[str], str | None]:
            if random.random() >= severity:
                return (), None
            chosen = [random.choice(kinds)]
            while random.random() < several:
                chosen.append(random.choice(kinds))
            timing = random.choice(TIMING) if random.random() < 0.15 else None
            self.faults.update(filter(None, (*chosen, timing)))
            return chosen, timing

        self._faults.next = following
        scenes = []
        for _ in range(random.randint(2, 8)):
            if random.random() < 0.3:
                scene = random.choice(SCENES)
                self.faults[scene.__name__] += 1
                scenes.append(asyncio.create_task(_happen(scene, self._faults.scene)))
            if random.random() < 0.15:
                await self._restart()
            await self._live(random.uniform(20, 90))
        self._faults.next = None
        for task in scenes:
            await self._until_done(task)
        await self._live(5)

    async def _until_done(self, task: asyncio.Task[None]) -> None:
        while not task.done():
            await self._live(1)
        await task

    async def _restart(self) -> None:
        """Restart Home Assistant, or kill it: then its disk is up to a minute old."""
        house, key = self._house, f"{DOMAIN}.{self._house.entry.entry_id}.energies"
        kill = self._random.random() < 0.6
        self.faults["kill" if kill else "restart"] += 1
        while not house.entry.state.recoverable:
            await self._live(1)
        left = deepcopy(self._files.get(key))
        await house.unload()
        if kill and left:
            self._files[key] = left
        await self._live(self._random.choice((0.1, self._random.uniform(0, 400))))
        await house.load()

    async def _calm(self) -> None:
        """Wait until the truth is back."""
        for _ in range(20):
            if self._house.is_loaded:
                await self._house.poll()
                if self._house.shows_the_truth:
                    return
            await self._live(30)
        raise AssertionError("the truth does not come back")

    async def _change(self) -> None:
        house, random = self._house, self._random
        change = random.choice((self._reset, self._change_code, self._replace_memory, None))
        if change is None:
            return
        self.faults[change.__name__] += 1
        # What flows between the last reading and the change is not lost.
        house.meter_clock.stop()
        await house.poll()
        with house.leap():
            await change()
            await house.poll()
        house.meter_clock.start()
        # Nor is what flows until it is believed, if it is not disturbed.
        await self._calm()

    async def _reset(self) -> None:
        if self._random.random() < 0.5:
            self._house.meter.day_counter = 0
        else:
            await press(self._house.hass, "reset_resettable_counter")

    async def _change_code(self) -> None:
        code = self._random.choice(CODES)
        if self._random.random() < 0.5:
            self._house.meter.calculation_code = code
        else:
            await select(self._house.hass, "calculation_code", code.name.lower())

    async def _replace_memory(self) -> None:
        meter, random = self._house.meter, self._random
        self._house.clear_meter()
        if random.random() < 0.5:
            return
        for energy in (meter.active_energy, meter.reactive_energy):
            for count in (energy.forward, energy.reverse):
                count.phases = [random.uniform(1000, 3000) for _ in count.phases]
                t1 = random.uniform(0.2, 0.8) * sum(count.phases)
                count.tariffs = {Tariff.T1: t1, Tariff.T2: sum(count.phases) - t1}


async def _happen(fault: Any, scene: Scene) -> None:
    await fault(scene)


@pytest.mark.parametrize(("update_interval", "speed"), [(60, 1)])
@pytest.mark.parametrize("seed", [1])
async def test_a_day_of_faults_makes_the_meters_kwh(
    house: House, line: Line, hass_storage: dict[str, Any], seed: int
) -> None:
    day = Day(house, line, hass_storage, Random(seed))
    await day.pass_by()
    assert not await house.miscounted()
