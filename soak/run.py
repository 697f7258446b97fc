"""Run meters with everything going wrong, and see that only true energies come out.

A run is made of houses. In each a meter with moving energies is polled as Home Assistant
polls it: the bus, the meter and the guard are the integration's, down to what it would
publish. Faults come in spells of a few polls, any number of them at a time. After a spell
the line is left alone until the truth is back. Time is virtual.

What has to hold:

- No energy is published that the meter never had: its own registers, as they were when a
  request reached it, in steps of 0.01 kWh.
- Nothing is published that the meter cannot measure.
- No counter falls by more than 0.04 kWh without the guard saying that it believes a jump.
- Two polls after a spell, what is published is what the meter shows. Three minutes after it
  where a surprise stays: what the meter counts was changed, or its calculation code was
  misread, or the guard took a value for true that it could not tell from the truth.

That last thing is what no guard can know: damage that the checksum does not see, and that
lies within the rounding. Such a value may be off by 0.02 kWh, of a phase by 0.04 kWh, from
what the meter showed in the same poll or in the one before, whose answer may have been
waiting for a second one. It counts separately: as early if the meter has it later, and as
never had if the meter is changed first, or has not had it a day after the last fault. All
that the guard takes for true is looked at, published or not.
"""

import argparse
import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
import contextlib
from dataclasses import dataclass, field
import json
import logging
from random import Random
import time
from typing import Final

from custom_components.klefr.meter import (
    Bus,
    CalculationCode,
    Decision,
    GuardedReader,
    KlefrError,
    MBusBus,
    Memory,
    Meter,
    ModbusBus,
    ModbusTcpBus,
    Moment,
    Quantity,
    SerialLink,
    Setting,
    Verdict,
    WrongMeterError,
    identify,
)
from custom_components.klefr.meter.relations import PHASE_ENERGIES, TOTALS
from simulator import mbus, modbus
from simulator.faults import (
    ANSWER_FAULTS,
    SCENE_FAULTS,
    TIMING_FAULTS,
    Codec,
    Faults,
    MBusCodec,
    ModbusCodec,
    ModbusTcpCodec,
    Scene,
)
from simulator.gateway import Gateway
from simulator.line import Face
from simulator.mbus import MBusFace
from simulator.meter import Energy, Tariff, VirtualMeter
from simulator.modbus import Framing, ModbusFace
from simulator.virtual_time import VirtualTimeLoop

FAULTS_PER_HOUSE: Final = 1000
SINGLE_PHASE_EVERY: Final = 5
"""Each fifth house on Modbus has a single-phase meter."""
ADDRESS: Final = 5
SERIAL_NUMBER: Final = "22091039"
OTHER_SERIAL_NUMBER: Final = "22091040"
SERIAL_PORT: Final = "virtual://meter"
GATEWAY: Final = "socket://gateway:502"
MIDNIGHT: Final = 1_800_000_000.0
"""When the loop's clock would have shown zero, in seconds since 1970."""

STORE_DELAY: Final = 50.0
"""Seconds until what was believed is on the disk, as in Home Assistant."""
QUIET_AT_FIRST: Final = 120.0
"""Seconds in a new house without a fault."""
SETTINGS_INTERVAL: Final = 300.0
"""Seconds between two looks at the settings, as in Home Assistant."""
POLLS_UNTIL_TRUE: Final = 2
SECONDS_UNTIL_TRUE: Final = 180.0
LATEST_ANSWER: Final = 5.0
"""Seconds after which the last answer of a spell has arrived."""

HOME_ASSISTANT_FAULTS: Final = ("restart", "kill", "clock set")
METER_CHANGES: Final = ("counter reset", "data memory replaced", "calculation code changed")
"""What the meter really shows from then on."""

ENERGY: Final = "energy"
DEFAULT_QUANTITIES: Final = frozenset(
    {
        *(
            Quantity(f"{direction}_active_energy{tariff}")
            for direction in ("forward", "reverse")
            for tariff in ("", "_t1", "_t2")
        ),
        Quantity.RESETTABLE_COUNTER,
        Quantity.ACTIVE_POWER,
        Quantity.VOLTAGE_L1,
        Quantity.VOLTAGE,
    }
)
FEW_QUANTITIES: Final = frozenset(
    {
        Quantity.FORWARD_ACTIVE_ENERGY,
        Quantity.REVERSE_ACTIVE_ENERGY,
        Quantity.TOTAL_ACTIVE_ENERGY,
    }
)

LATEST: Final = 24 * 3600.0
"""Seconds after the last fault in which the meter may have what was taken for true early."""
LATER: Final = 300.0
"""Seconds between two looks for that."""
LONGEST_WAY: Final = 10_000
"""Steps that a counter may take between two looks at it. Beyond that it was set."""
MOST_UNSAID: Final = 4
"""Steps by which a counter may fall without a word."""
MOST_STEPS: Final = 99_999_999 * 100


class Failure(Exception):  # noqa: N818
    """Something that must not be."""


@dataclass(kw_only=True)
class Tally:
    """What happened."""

    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    within_rounding: Counter[str] = field(default_factory=Counter)
    """Values that were off but could not be told from the truth, by how much."""

    def add(self, other: Tally) -> None:
        self.faults += other.faults
        self.counts += other.counts
        self.within_rounding += other.within_rounding


@dataclass(frozen=True, kw_only=True)
class Task:
    """One house, and how many faults it has to bear."""

    protocol: str
    seed: int
    house: int
    faults: int
    trace: bool
    """Whether to say all that happens."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a house."""

    task: Task
    tally: Tally
    failure: str | None
    seconds: float


def _steps_of(values: Energy, name: str, meter: VirtualMeter) -> Iterator[tuple[Quantity, int]]:
    """Give what a meter shows of one kind of energy."""
    forward, reverse = values.forward, values.reverse
    columns = [
        ("", forward.total, reverse.total),
        *(
            (f"_t{tariff}", count, reverse.tariffs[tariff])
            for tariff, count in forward.tariffs.items()
        ),
        *(
            (f"_l{number}", *counts)
            for number, counts in enumerate(zip(forward.phases, reverse.phases, strict=True), 1)
            if meter.model.kind.phases == 3
        ),
    ]
    mbus_rounding = meter.model.speaks_mbus
    for column, to_meter, from_meter in columns:
        for direction, energy in (
            ("total", meter.combine(to_meter, from_meter)),
            ("forward", to_meter),
            ("reverse", from_meter),
        ):
            shown = energy if mbus_rounding else round(energy, 2)
            yield Quantity(f"{direction}_{name}{column}"), round(shown * 100)


def shown_by(meter: VirtualMeter) -> dict[Quantity, int]:
    """Return the energies in a meter's registers at this moment, in steps."""
    return {
        **dict(_steps_of(meter.active_energy, "active_energy", meter)),
        **dict(_steps_of(meter.reactive_energy, "reactive_energy", meter)),
        Quantity.RESETTABLE_COUNTER: round(round(meter.day_counter, 2) * 100),
    }


class Truth:
    """What a meter has shown."""

    def __init__(self, meter: VirtualMeter) -> None:
        self._meter = meter
        self.had: dict[Quantity, set[int]] = defaultdict(set)
        self.lately: list[Mapping[Quantity, int]] = []
        """Since the last poll began."""
        self._last: Mapping[Quantity, int] = {}

    def leap(self) -> None:
        """Expect that the meter shows something else without having counted up to it."""
        self._last = {}

    def look(self, _request: bytes) -> None:
        """Remember what the meter shows now."""
        if not self._meter.powered:
            return
        shown = shown_by(self._meter)
        for quantity, steps in shown.items():
            before = self._last.get(quantity, steps)
            # Counters stop at every step on their way.
            way = range(min(before, steps), max(before, steps) + 1)
            self.had[quantity].update(way if len(way) <= LONGEST_WAY else (steps,))
        self._last = shown
        self.lately.append(shown)


class HomeAssistant:
    """Polls a meter as the integration does, and keeps on its disk what the integration does."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._disk: str | None = None
        self._next_store = 0.0
        self._store_at: float | None = None
        self._bus: Bus | None = None
        self._reader: GuardedReader | None = None
        self._meter: Meter | None = None
        self._next_settings = 0.0
        self.clock = MIDNIGHT
        self.read_again_after: float | None = None
        self.code: CalculationCode | None = None
        """As the meter said last when its settings were read."""

    def _now(self) -> Moment:
        now = self._loop.time()
        return Moment(monotonic=now, wall=self.clock + now)

    @property
    def memory(self) -> Memory:
        """What the guard remembers."""
        return self._reader.memory if self._reader else Memory()

    @property
    def stored(self) -> Memory:
        """What the guard remembers after a kill."""
        return Memory.from_json(json.loads(self._disk) if self._disk else None)

    async def poll(self) -> Verdict | None:
        """Return what would be published, None if the poll fails."""
        try:
            if self._reader is None or self._meter is None:
                self._reader, self._meter = await self._start()
            elif self._loop.time() >= self._next_settings:
                await self._read_settings(self._reader, self._meter)
            self._store_if_due(self._reader)
            quantities = self._house.quantities & self._meter.quantities
            before = self._reader.memory.accepted
            verdict = await self._reader.read(quantities)
        except WrongMeterError:
            # The entry is loaded again.
            await self.stop()
            return None
        except KlefrError:
            return None
        if verdict.jumps:
            self._store(self._reader)
        elif before != self._reader.memory.accepted and self._loop.time() >= self._next_store:
            self._next_store = self._store_at = self._loop.time() + STORE_DELAY
        self.read_again_after = verdict.read_again_after
        return verdict

    async def _start(self) -> tuple[GuardedReader, Meter]:
        if self._bus is None:
            self._bus = self._house.bus()
            self._bus.hold()
        meter = await identify(self._bus, ADDRESS)
        if meter.identity.serial_number != SERIAL_NUMBER:
            raise WrongMeterError(expected=SERIAL_NUMBER, found=meter.identity.serial_number)
        reader = GuardedReader(meter, self.stored, self._now)
        await self._read_settings(reader, meter)
        return reader, meter

    async def _read_settings(self, reader: GuardedReader, meter: Meter) -> None:
        code = (await meter.read_settings())[Setting.CALCULATION_CODE]
        self.code = code if isinstance(code, CalculationCode) else None
        reader.assume_code(self.code)
        self._next_settings = self._loop.time() + SETTINGS_INTERVAL

    def _store_if_due(self, reader: GuardedReader) -> None:
        if self._store_at is not None and self._loop.time() >= self._store_at:
            self._store(reader)

    def _store(self, reader: GuardedReader) -> None:
        self._store_at = None
        self._disk = json.dumps(reader.memory.to_json())

    async def stop(self) -> None:
        """Stop it with all that it knows on the disk."""
        if self._reader is not None:
            self._store(self._reader)
        await self.kill()

    async def kill(self) -> None:
        """End it with what happens to be on the disk."""
        if self._reader is not None:
            self._store_if_due(self._reader)
        self._reader = self._meter = None
        self._store_at = None
        self._next_store = 0.0
        self.read_again_after = None
        if self._bus is not None:
            await self._bus.release()
            self._bus = None


class House:
    """A meter, a line and Home Assistant."""

    def __init__(self, task: Task) -> None:
        loop = asyncio.get_running_loop()
        self._task = task
        self._random = random = Random(f"{task.protocol}/{task.seed}/{task.house}")  # noqa: S311
        self.tally = Tally()
        speaks_mbus = task.protocol == "mbus"
        direct, transformers = ("6933", "6943") if speaks_mbus else ("6934", "6944")
        model = random.choice((direct, direct, transformers))
        code = random.choice((1, 1, 4, 5, 5, 6, 9, 10, 11))
        speed = random.choice((1, 1, 1, 4))
        # By number: drawn at random it would change what happens in all houses.
        if not speaks_mbus and task.house % SINGLE_PHASE_EVERY == SINGLE_PHASE_EVERY - 1:
            model = "pro2" if task.house % 2 else "pro1"
        self.meter = VirtualMeter(
            model=model,
            serial_number=SERIAL_NUMBER,
            address=ADDRESS,
            calculation_code=code,
            # Faster, its load would be more than transformers or a single phase can carry.
            speed=speed if model == direct else 1,
            clock=loop.time,
            seed=random.randrange(2**32),
        )
        other = VirtualMeter(
            model=self.meter.model,
            serial_number=OTHER_SERIAL_NUMBER,
            address=ADDRESS,
            clock=lambda: 0.0,
            seed=random.randrange(2**32),
        )
        self.interval = random.choice((1, 10, 10, 10, 30, 60))
        self.quantities = random.choice(
            (frozenset(Quantity), frozenset(Quantity), DEFAULT_QUANTITIES, FEW_QUANTITIES)
        )
        self._way = random.choice(("serial", "serial", "gateway", "network"))
        self._other = other
        if speaks_mbus and random.random() < 0.2:
            self.meter.records_per_telegram = other.records_per_telegram = random.randint(2, 8)
        self._published: dict[Quantity, int] = {}
        self._unnoticed: set[tuple[Quantity, int]] = set()
        """What was published although it was off, and could not be told from the truth."""
        self._early: dict[tuple[Quantity, int], int] = {}
        """Those that the meter has not had yet, and by how many steps they are off."""
        self._before: Sequence[Mapping[Quantity, int]] = []
        """What the meter showed in the poll before."""
        self._surprised = False
        """Whether something may have to stay for a while before it is believed."""

    @property
    def _port(self) -> str:
        return SERIAL_PORT if self._way == "serial" else GATEWAY

    def bus(self) -> Bus:
        link = SerialLink(port=self._port)
        if self.meter.model.speaks_mbus:
            return MBusBus(link)
        return ModbusTcpBus(link) if self._way == "network" else ModbusBus(link)

    @contextlib.asynccontextmanager
    async def _faults(self) -> AsyncIterator[Faults]:
        if self.meter.model.speaks_mbus:
            codec: Codec = MBusCodec()
            other_face: Face = MBusFace([self._other], answer_delay=0)
            serving = mbus.serve(self.meter, virtual=self._port)
        else:
            framing = Framing.SOCKET if self._way == "network" else Framing.RTU
            codec = ModbusTcpCodec() if self._way == "network" else ModbusCodec()
            other_face = ModbusFace([self._other], framing)
            serving = modbus.serve(self.meter, virtual=self._port, framing=framing)
        async with serving as line:
            scene = Scene(line=line, meter=self.meter, random=self._random, other=self._other)
            yield Faults(scene, codec, other_face)

    async def live(self) -> None:
        """Bear the faults. Raises Failure."""
        self._truth = Truth(self.meter)
        self._ha = HomeAssistant(self)
        async with self._faults() as faults:
            faults.scene.line.before_hearing = self._truth.look
            # What is believed at first has to reach the disk.
            for _ in range(round(QUIET_AT_FIRST / self.interval) + 2):
                await self._poll()
                await self._wait()
            while self.tally.faults.total() < self._task.faults:
                await self._spell(faults)
                await self._calm()
            await self._ha.stop()
            ends = asyncio.get_running_loop().time() + LATEST
            while self._early and asyncio.get_running_loop().time() < ends:
                self.meter.tariff = self._random.choice((Tariff.T1, Tariff.T2))
                await asyncio.sleep(LATER)
                self._truth.look(b"")
                self._count_early()
            self._count_never()

    async def _spell(self, faults: Faults) -> None:
        """Let things go wrong for some polls."""
        random = self._random
        severity = random.choice((0.3, 0.6, 0.9))
        several = random.choice((0.2, 0.5, 0.7))
        answer_kinds = random.choice((_ANSWER_KINDS, _UNSEEN_KINDS))
        faults.next = lambda: self._next(severity, several, answer_kinds)
        scenes: list[asyncio.Task[None]] = []
        for _ in range(random.randint(2, 12)):
            if random.random() < 0.08:
                scenes.append(asyncio.create_task(self._happen(faults.scene)))
            if random.random() < 0.02:
                self._change_meter()
            if random.random() < 0.02:
                self.meter.tariff = random.choice((Tariff.T1, Tariff.T2))
            match random.random():
                case chance if chance < 0.02:
                    await self._ha.stop()
                    self._count("restart")
                    await self._restarted()
                case chance if chance < 0.06:
                    poll = asyncio.create_task(self._poll())
                    await asyncio.sleep(random.choice((random.uniform(0, 0.5), 0.0, 3.0)))
                    poll.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await poll
                    await self._ha.kill()
                    self._count("kill")
                    await self._restarted()
                case chance if chance < 0.065:
                    self._ha.clock += random.choice((3600, -3600))
                    self._count("clock set")
                case _:
                    pass
            await self._poll()
            await self._wait()
        faults.next = None
        for task in scenes:
            await task
        if isinstance(faults.scene.line, Gateway):
            faults.scene.line.hang_up_next = 0
        await asyncio.sleep(LATEST_ANSWER)

    async def _restarted(self) -> None:
        self._published.clear()
        await asyncio.sleep(self._random.choice((0.0, self._random.uniform(0, 120))))

    def _say(self, text: str) -> None:
        if self._task.trace:
            print(f"{asyncio.get_running_loop().time():10.2f} {text}")

    def _count(self, kind: str) -> None:
        self._say(kind)
        self.tally.faults[kind] += 1

    def _next(
        self, severity: float, several: float, kinds: Sequence[str]
    ) -> tuple[Sequence[str], str | None]:
        """Choose the faults of the next answer."""
        random = self._random
        if random.random() >= severity:
            return (), None
        chosen = [random.choice(kinds)]
        while random.random() < several:
            chosen.append(random.choice(kinds))
        timing = random.choice(_TIMING_KINDS) if random.random() < 0.15 else None
        for kind in (*chosen, *filter(None, (timing,))):
            self._count(kind)
        return chosen, timing

    async def _happen(self, scene: Scene) -> None:
        kinds = [
            kind
            for kind in SCENE_FAULTS
            if kind != "connection ended" or isinstance(scene.line, Gateway)
        ]
        kind = self._random.choice(kinds)
        self._count(kind)
        await SCENE_FAULTS[kind](scene)

    def _change_meter(self) -> None:
        meter, kind = self.meter, self._random.choice(METER_CHANGES)
        if kind == "counter reset":
            if meter.day_counter < 1:
                return
            meter.day_counter = 0
        elif kind == "data memory replaced":
            for energy in (meter.active_energy, meter.reactive_energy):
                for count in (energy.forward, energy.reverse):
                    count.phases = [self._random.uniform(1, 3000) for _ in count.phases]
                    t1 = self._random.uniform(0.2, 0.8) * sum(count.phases)
                    count.tariffs = {Tariff.T1: t1, Tariff.T2: sum(count.phases) - t1}
            meter.day_counter = 0
        elif meter.calculation_code != 10:
            meter.calculation_code = self._random.choice((1, 4, 5, 6, 9, 11))
        self._count_early()
        if kind == "data memory replaced":
            self._count_never()
        self._truth.leap()
        self._surprised = True
        self._count(kind)

    async def _calm(self) -> None:
        """Poll an undisturbed line until the truth is back."""
        loop = asyncio.get_running_loop()
        began, polls = loop.time(), 0
        while True:
            polls += 1
            off = await self._poll()
            if not off and polls >= POLLS_UNTIL_TRUE:
                break
            # Settings have no relation that shows damage which the checksum does not see.
            misled = not self.meter.model.speaks_mbus and self._ha.code != int(
                self.meter.calculation_code
            )
            patient = self._surprised or bool(self._unnoticed) or misled
            passed = loop.time() - began
            if polls >= POLLS_UNTIL_TRUE and not (patient and passed < SECONDS_UNTIL_TRUE):
                raise Failure(
                    f"{polls} polls and {passed:.0f} s after the faults still not the truth: {off}"
                )
            await self._wait()
        self.tally.counts["spells"] += 1
        # What is not published may still have to stay before it is believed.
        self._surprised = self._surprised and bool(self._behind(self._ha.memory))
        # After a kill, what is on the disk counts again.
        self._unnoticed &= self._behind(self._ha.memory) | self._behind(self._ha.stored)

    def _behind(self, memory: Memory) -> set[tuple[Quantity, int]]:
        """Return what a memory takes for true and the meter does not show."""
        return {
            (quantity, round(accepted.value * 100))
            for quantity, accepted in memory.accepted.items()
        } - {entry for shown in self._truth.lately for entry in shown.items()}

    async def _wait(self) -> None:
        await asyncio.sleep(min(self.interval, self._ha.read_again_after or self.interval))

    async def _poll(self) -> str:
        """Poll once, and say what of the truth is not published."""
        self._before, self._truth.lately = self._truth.lately, []
        verdict = await self._ha.poll()
        self._check_memory()
        self.tally.counts["polls"] += 1
        if verdict is None:
            self.tally.counts["failed polls"] += 1
            self._say("the poll failed")
            return "the poll failed"
        self.tally.counts["suspect readings"] += verdict.suspect
        self.tally.counts["jumps believed"] += len(verdict.jumps)
        off = self._check(verdict)
        self._say(f"polled: {off or 'the truth'}")
        for quantity, decision in verdict.decisions.items():
            if decision not in (Decision.STEADY, Decision.PLAUSIBLE):
                self._say(f"    {quantity}: {decision}, {verdict.readings[quantity]}")
        return off

    def _check_memory(self) -> None:
        """See that the guard takes nothing for true that is not, published or not."""
        answers = (*self._before, *self._truth.lately)
        errors: dict[Quantity, int] = {}
        for quantity, accepted in self._ha.memory.accepted.items():
            steps = round(accepted.value * 100)
            if steps in self._truth.had[quantity] or (quantity, steps) in self._unnoticed:
                continue
            errors[quantity] = min(
                (steps - shown[quantity] for shown in answers), key=abs, default=MOST_STEPS
            )
        for quantity, error in errors.items():
            steps = round(self._ha.memory.accepted[quantity].value * 100)
            if abs(error) > _rounding(quantity):
                shown = sorted({shown[quantity] for shown in answers})
                raise Failure(f"{quantity} is taken for {steps / 100}, the meter shows {shown}")
            self._unnoticed.add((quantity, steps))
            self._early[quantity, steps] = error

    def _count_early(self) -> None:
        """Count what the meter has had since it was taken for true."""
        for (quantity, steps), error in list(self._early.items()):
            if steps in self._truth.had[quantity]:
                self.tally.within_rounding[f"0.0{abs(error)} early"] += 1
                del self._early[quantity, steps]

    def _count_never(self) -> None:
        """Count what the meter has not had, and will not have any more."""
        for error in self._early.values():
            self.tally.within_rounding[f"0.0{abs(error)} off, never had"] += 1
        self._early.clear()

    def _check(self, verdict: Verdict) -> str:
        jumped = {jump.quantity for jump in verdict.jumps}
        off = []
        for quantity, value in verdict.readings.items():
            if quantity not in self._truth.had:
                self._check_range(quantity, value)
                continue
            self.tally.counts["energies published"] += value is not None
            now = {shown[quantity] for shown in self._truth.lately}
            if value is None:
                if quantity in self.quantities:
                    off.append(f"{quantity} is unknown")
                continue
            assert isinstance(value, int | float)
            steps = round(value * 100)
            if abs(steps) > MOST_STEPS:
                raise Failure(f"{quantity} is published as {value}")
            if steps not in self._truth.had[quantity] and (quantity, steps) not in self._unnoticed:
                raise Failure(f"{quantity} is published as {value}, the meter shows {sorted(now)}")
            last = self._published.get(quantity, steps)
            fallen = last - steps > MOST_UNSAID and quantity not in TOTALS
            if fallen and quantity not in jumped:
                raise Failure(f"{quantity} fell from {last / 100} to {steps / 100}")
            self._published[quantity] = steps
            if steps not in now and quantity in self.quantities:
                off.append(f"{quantity} is {value}, the meter shows {sorted(now)}")
        return "; ".join(off)

    def _check_range(self, quantity: Quantity, value: object) -> None:
        self.tally.counts["other values published"] += value is not None
        if not isinstance(value, float):
            return
        lowest, highest = _range_of(quantity, self.meter)
        if not lowest <= value <= highest:
            raise Failure(f"{quantity} is published as {value}")


def _rounding(quantity: Quantity) -> int:
    """Return the steps in which damage may hide."""
    return 4 if quantity in PHASE_ENERGIES else 2


_ANSWER_KINDS: Final = tuple(ANSWER_FAULTS)
_UNSEEN_KINDS: Final = tuple(
    kind for kind in ANSWER_FAULTS if kind.startswith(("unseen", "value", "words", "all"))
)
_TIMING_KINDS: Final = tuple(TIMING_FAULTS)


def _range_of(quantity: Quantity, meter: VirtualMeter) -> tuple[float, float]:
    """Return what a meter can measure, and not more."""
    kind = meter.model.kind
    greatest = meter.ct_primary * 6 / meter.ct_secondary if meter.ct_primary else kind.rated_current
    most = 1.2 * greatest
    if quantity.startswith("voltage"):
        return 0, 500
    if quantity.startswith("current"):
        return -most, most
    if quantity.startswith("power_factor"):
        return -1, 1
    if quantity is Quantity.FREQUENCY:
        return 40, 70
    if quantity.startswith("apparent_power"):
        return 0, 1.5 * most
    return -1.5 * most, 1.5 * most


def run(task: Task) -> Result:
    """Let one house live, in virtual time."""
    logging.disable(logging.CRITICAL)
    began = time.process_time()

    async def main() -> Result:
        house = House(task)
        failure = None
        try:
            await house.live()
        except Failure as err:
            failure = str(err)
        except Exception as err:  # noqa: BLE001  # none may come out
            failure = f"{type(err).__name__}: {err}"
        return Result(
            task=task,
            tally=house.tally,
            failure=failure,
            seconds=time.process_time() - began,
        )

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--protocol", choices=("modbus", "mbus"), required=True)
    parser.add_argument("--faults", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--house", type=int, help="run this one only, and say what happens")
    return parser.parse_args()


def _tasks(arguments: argparse.Namespace) -> list[Task]:
    if arguments.house is not None:
        sizes = {arguments.house: arguments.faults}
    else:
        number = -(-arguments.faults // FAULTS_PER_HOUSE)
        sizes = dict.fromkeys(range(number), FAULTS_PER_HOUSE)
    return [
        Task(
            protocol=arguments.protocol,
            seed=arguments.seed,
            house=house,
            faults=faults,
            trace=arguments.house is not None,
        )
        for house, faults in sizes.items()
    ]


def main() -> int:
    """Run the soak; 1 if anything was wrong."""
    arguments = _arguments()
    began = time.monotonic()
    print(f"{arguments.protocol}, seed {arguments.seed}")
    total, failures, seconds = Tally(), [], 0.0
    with ProcessPoolExecutor(arguments.processes) as pool:
        for done in as_completed([pool.submit(run, task) for task in _tasks(arguments)]):
            result = done.result()
            total.add(result.tally)
            seconds += result.seconds
            if result.failure:
                failures.append(result)
                print(_how_to_repeat(result), flush=True)
    _report(total)
    print(
        f"{total.faults.total()} faults in {time.monotonic() - began:.0f} s"
        f" ({seconds:.0f} s of computing)"
    )
    if failures:
        shortest = min(failures, key=lambda result: result.tally.faults.total())
        print(f"{len(failures)} houses failed. The shortest:\n{_how_to_repeat(shortest)}")
    else:
        print("No wrong energy, and the truth back.")
    return 1 if failures else 0


def _how_to_repeat(result: Result) -> str:
    task = result.task
    return (
        f"FAILED: {result.failure}\n    scripts/soak --protocol {task.protocol}"
        f" --seed {task.seed} --house {task.house} --faults {result.tally.faults.total()}"
    )


def _report(tally: Tally) -> None:
    for counter in (tally.faults, tally.counts, tally.within_rounding):
        for kind, count in sorted(counter.items()):
            print(f"{count:>10}  {kind}")
        print()
