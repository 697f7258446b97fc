"""How well a meter can be reached: its sensors, and what a bug report says of it."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import product
import json
from random import Random
import re
from typing import Any, Final

from freezegun.api import FrozenDateTimeFactory
from homeassistant.components.sensor import DEVICE_CLASS_UNITS, SensorDeviceClass, SensorStateClass
from homeassistant.const import STATE_UNAVAILABLE, STATE_UNKNOWN, EntityCategory, Platform
from homeassistant.core import Event, HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.json import JSONEncoder
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.diagnostics import async_get_config_entry_diagnostics
from custom_components.klefr.sensor import HEALTH_SENSORS
from simulator import mbus, modbus
from simulator.line import Line, Piece
from simulator.meter import VirtualMeter

from . import SERIAL_NUMBER, enable, entity_id, live, state
from .test_sharing import OTHER, entry_for

FORWARD_ACTIVE_ENERGY: Final = 0x600C
UNKNOWN: Final = "87654321"
"""The serial number of a meter that Home Assistant does not have."""
KEYS: Final = [description.key for description in HEALTH_SENSORS]

PLACES: Final[dict[str, tuple[str, int | str, str, dict[str, Any]]]] = {
    "modbus": ("modbus", 1, "virtual://meter", {}),
    "modbus_gateway": ("modbus", 1, "socket://gateway:502", {}),
    "modbus_tcp": ("modbus_tcp", 1, "socket://gateway:502", {"framing": modbus.Framing.SOCKET}),
    "mbus": ("mbus", 1, "virtual://meter", {}),
    "mbus_secondary": ("mbus", SERIAL_NUMBER, "virtual://meter", {}),
}
"""Protocol, address, port and what serves it, by name."""


@pytest.fixture
def place() -> str:
    return "modbus"


@pytest.fixture
def virtual_meter(place: str) -> VirtualMeter:
    model = "6933" if place.startswith("mbus") else "6934"
    return VirtualMeter(model=model, serial_number=SERIAL_NUMBER, address=1, clock=lambda: 0.0)


@pytest.fixture
def other_meter(virtual_meter: VirtualMeter) -> VirtualMeter:
    """Another meter on the line."""
    return VirtualMeter(
        serial_number=OTHER, model=virtual_meter.model, address=9, clock=lambda: 0.0
    )


@pytest.fixture
async def line(
    place: str, virtual_meter: VirtualMeter, other_meter: VirtualMeter
) -> AsyncIterator[Line]:
    _, _, port, serving = PLACES[place]
    serve = mbus.serve if place.startswith("mbus") else modbus.serve
    async with serve(virtual_meter, other_meter, virtual=port, **serving) as line:
        yield line


@pytest.fixture
def entry_data(line: Line, place: str) -> dict[str, Any]:
    protocol, address, port, _ = PLACES[place]
    return {
        "port": port,
        "protocol": protocol,
        "address": address,
        "baud_rate": 9600,
        "parity": "even",
    }


@pytest.fixture
def entry(entry: MockConfigEntry, hass: HomeAssistant) -> MockConfigEntry:
    """An entry that is polled seldom, so that an hour is over sooner."""
    hass.config_entries.async_update_entry(entry, options={"update_interval": 30})
    return entry


@pytest.fixture
async def shown(hass: HomeAssistant, loaded: MockConfigEntry) -> MockConfigEntry:
    """An entry whose sensors are enabled."""
    await enable(hass, *(entity_id(hass, Platform.SENSOR, key) for key in KEYS))
    return loaded


def states(hass: HomeAssistant) -> dict[str, str | None]:
    return {key: state(hass, Platform.SENSOR, key) for key in KEYS}


# The sensors.


def test_they_are_what_home_assistant_takes() -> None:
    by_key = {description.key: description for description in HEALTH_SENSORS}
    for description in HEALTH_SENSORS:
        assert description.entity_category is EntityCategory.DIAGNOSTIC
        assert not description.entity_registry_enabled_default
    response = by_key["response_time"]
    assert response.device_class is SensorDeviceClass.DURATION
    assert response.native_unit_of_measurement in DEVICE_CLASS_UNITS[SensorDeviceClass.DURATION]
    assert by_key["failed_requests"].native_unit_of_measurement == "%"
    assert by_key["suspect_readings"].state_class is SensorStateClass.TOTAL_INCREASING


@pytest.mark.parametrize("place", ["modbus", "mbus"])
async def test_they_start_disabled(hass: HomeAssistant, loaded: MockConfigEntry) -> None:
    registry = er.async_get(hass)
    for key in KEYS:
        registered = registry.async_get(entity_id(hass, Platform.SENSOR, key))
        assert registered is not None
        assert registered.disabled_by is er.RegistryEntryDisabler.INTEGRATION


@pytest.mark.parametrize("place", PLACES)
async def test_they_say_how_a_good_meter_answers(
    hass: HomeAssistant, shown: MockConfigEntry
) -> None:
    now = states(hass)
    assert now["failed_requests"] == "0"
    assert now["suspect_readings"] == "0"
    assert 0 <= int(now["response_time"] or -1) < 120
    assert int(now["response_time"] or -1) % 5 == 0


async def test_the_response_time_follows_the_meter(
    hass: HomeAssistant, shown: MockConfigEntry, line: Line, freezer: FrozenDateTimeFactory
) -> None:
    before = int(states(hass)["response_time"] or -1)
    line.delay_answer = 0.2
    await live(hass, freezer, minutes=65)
    assert int(states(hass)["response_time"] or -1) == pytest.approx(before + 200, abs=15)


async def test_they_are_available_while_the_meter_does_not_answer(
    hass: HomeAssistant, shown: MockConfigEntry, line: Line, freezer: FrozenDateTimeFactory
) -> None:
    await live(hass, freezer, minutes=5)
    line.silent = True
    await live(hass, freezer, minutes=10)
    assert state(hass, Platform.SENSOR, "active_power") == STATE_UNAVAILABLE
    now = states(hass)
    # A poll that fails is one request, one that succeeds has several.
    assert int(now["failed_requests"] or -1) > 15
    assert STATE_UNAVAILABLE not in now.values()
    await live(hass, freezer, minutes=60)
    assert states(hass)["failed_requests"] == "100"
    # For an hour there was no answer that could have taken a time.
    assert states(hass)["response_time"] == STATE_UNKNOWN


async def test_suspect_readings_are_counted_over_a_reload(
    hass: HomeAssistant,
    shown: MockConfigEntry,
    virtual_meter: VirtualMeter,
    freezer: FrozenDateTimeFactory,
) -> None:
    await live(hass, freezer, minutes=2)
    virtual_meter.overrides = {FORWARD_ACTIVE_ENERGY: 1.0}
    # Home Assistant's own polls come at times with some chance in them.
    await shown.runtime_data.readings.async_refresh()
    virtual_meter.overrides = {}
    await live(hass, freezer, minutes=2)
    count = int(states(hass)["suspect_readings"] or 0)
    assert count >= 1
    await hass.config_entries.async_reload(shown.entry_id)
    await hass.async_block_till_done()
    assert states(hass)["suspect_readings"] == str(count)


async def test_their_states_change_seldom(
    hass: HomeAssistant, shown: MockConfigEntry, line: Line, freezer: FrozenDateTimeFactory
) -> None:
    random = Random(1)
    watched = [entity_id(hass, Platform.SENSOR, key) for key in KEYS]
    written: Counter[str] = Counter()

    def hear(_: bytes) -> None:
        line.delay_answer = random.uniform(0.0, 0.04)

    @callback
    def note(event: Event[Any]) -> None:
        if event.data["entity_id"] in watched:
            written[str(event.event_type)] += 1

    line.before_hearing = hear
    await live(hass, freezer, minutes=10)
    hass.bus.async_listen("state_changed", note)
    hass.bus.async_listen("state_reported", note, event_filter=callback(lambda _: True))
    await live(hass, freezer, minutes=60)
    # They are looked at once a minute, however often the meter is read.
    assert 100 < written.total() <= 3 * 61
    # The recorder keeps a row for each of these.
    assert written["state_changed"] <= 5


# What a bug report says.


def encodings(number: str) -> Iterator[str]:
    """Yield a serial number in every way in which hexadecimal text could show it."""
    digits = bytes.fromhex(number)
    first, second = digits[:2], digits[2:]
    value = int(number)
    for encoded in (
        digits,
        digits[::-1],
        second + first,
        first[::-1] + second[::-1],
        number.encode(),
        number[::-1].encode(),
        value.to_bytes(4, "big"),
        value.to_bytes(4, "little"),
    ):
        yield encoded.hex().upper()
    yield number[::-1]


def frames_of(diagnostics: dict[str, Any]) -> str:
    return " ".join(
        str(value)
        for exchange in diagnostics["around_failures"]
        for name, value in exchange.items()
        if name in ("sent", "received", "received_late")
    )


@pytest.mark.parametrize("place", PLACES)
async def test_the_last_day_is_in_the_diagnostics(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, freezer: FrozenDateTimeFactory
) -> None:
    line.silent = True
    await live(hass, freezer, minutes=1)
    line.silent = False
    await live(hass, freezer, minutes=70)
    diagnostics = await async_get_config_entry_diagnostics(hass, loaded)
    json.dumps(diagnostics, cls=JSONEncoder)
    day = diagnostics["last_day"]
    assert [hour["hours_ago"] for hour in day] == [0, 1] or len(day) == 3
    assert sum(hour["failed"].get("no_answer", 0) for hour in day) > 0
    assert sum(hour["requests"] for hour in day) > 120
    assert diagnostics["last_hour"]["failed"] == {}
    assert 0 <= diagnostics["last_hour"]["response_time_ms"] < 120
    kept = diagnostics["around_failures"]
    assert {exchange["outcome"] for exchange in kept} == {"answered", "no_answer"}
    assert [exchange["seconds_ago"] for exchange in kept] == sorted(
        (exchange["seconds_ago"] for exchange in kept), reverse=True
    )
    assert 4000 < kept[0]["seconds_ago"] < 4400
    failed = next(exchange for exchange in kept if exchange["outcome"] == "no_answer")
    assert failed["sent"]
    assert failed["received"] == ""


def damaging(answers: list[bytes], seed: int) -> Callable[[bytes, bytes], Awaitable[list[Piece]]]:
    """Return what damages most answers, and collects all of them."""
    random = Random(seed)

    def flipped(answer: bytes) -> bytes:
        damaged = bytearray(answer)
        damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
        return b"\x00" * random.randrange(3) + damaged

    # A gateway may also send the answer to another request, maybe of another meter.
    damages: list[Callable[[bytes], Piece]] = [
        lambda answer: (0.0, answer),
        lambda answer: (0.0, answer[: random.randrange(1, len(answer) + 1)]),
        lambda answer: (0.0, answer[random.randrange(len(answer)) :]),
        lambda answer: (0.0, random.choice(answers)),
        lambda answer: (random.uniform(0.5, 3.0), answer),
        lambda answer: (0.0, flipped(answer)),
    ]

    async def damage(_: bytes, answer: bytes) -> list[Piece]:
        answers.append(answer)
        return [random.choice(damages)(answer)]

    return damage


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seed", range(3))
async def test_no_serial_number_is_in_the_frames_in_any_encoding(
    hass: HomeAssistant,
    loaded: MockConfigEntry,
    line: Line,
    virtual_meter: VirtualMeter,
    other_meter: VirtualMeter,
    place: str,
    seed: int,
) -> None:
    protocol, _, port, _ = PLACES[place]
    address = OTHER if place == "mbus_secondary" else 9
    neighbour = entry_for(other_meter, port, protocol=protocol, address=address)
    neighbour.add_to_hass(hass)
    await hass.config_entries.async_setup(neighbour.entry_id)
    answers: list[bytes] = []
    line.change_answer = damaging(answers, seed)
    reports: list[str] = []
    for number, entry in product((SERIAL_NUMBER, UNKNOWN, SERIAL_NUMBER), (loaded, neighbour) * 8):
        virtual_meter.serial_number = number
        await entry.runtime_data.readings.async_refresh()
        with suppress(HomeAssistantError):
            await entry.runtime_data.readings.async_dump(None)
        diagnostics = await async_get_config_entry_diagnostics(hass, entry)
        assert not re.search(
            f"{SERIAL_NUMBER}|{OTHER}|{UNKNOWN}", json.dumps(diagnostics, cls=JSONEncoder)
        )
        reports.append(frames_of(diagnostics))
    text = "\n".join(reports).replace(" ", "")
    assert len(text) > 10_000
    hidden = [*encodings(SERIAL_NUMBER), *encodings(OTHER)]
    assert not [each for each in hidden if each in text]
    # The answers have them.
    sent = b"".join(answers).hex().upper()
    assert [each for each in hidden if each in sent]


async def test_frames_are_bounded(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, freezer: FrozenDateTimeFactory
) -> None:
    line.garble = 0.5
    await live(hass, freezer, minutes=30)
    diagnostics = await async_get_config_entry_diagnostics(hass, loaded)
    assert len(diagnostics["around_failures"]) == 25


async def test_an_entry_that_was_never_set_up_has_no_health(
    hass: HomeAssistant, entry: MockConfigEntry
) -> None:
    diagnostics = await async_get_config_entry_diagnostics(hass, entry)
    assert "last_day" not in diagnostics


async def test_the_frames_of_a_meter_that_cannot_be_set_up_are_there(
    hass: HomeAssistant, entry: MockConfigEntry, line: Line
) -> None:
    line.silent = True
    await hass.config_entries.async_setup(entry.entry_id)
    diagnostics = await async_get_config_entry_diagnostics(hass, entry)
    assert diagnostics["last_hour"]["failed"] == {"no_answer": 3}
    assert diagnostics["around_failures"][-1]["sent"].startswith("01 03 40 00 00 02")
