"""A meter that is deleted from Home Assistant while one of its dialogs is open."""

import asyncio
from typing import Any

from homeassistant.config_entries import SOURCE_RECONFIGURE
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
import pytest
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.klefr.const import DOMAIN
from simulator.line import Line

from .test_communication import through
from .test_config_flow import with_words

# The steps of dialogs: what is chosen from a menu, or entered in a form.
SERIAL: dict[str, Any] = {"port": "virtual://meter", "protocol": "modbus"}
GATEWAY: dict[str, Any] = {"host": "gateway", "protocol": "modbus"}
ANOTHER_BAUD_RATE: dict[str, Any] = {"baud_rate": "1200", "parity": "even"}
DIALOGS: dict[str, list[str | dict[str, Any]]] = {
    "address": ["reach", "reach_serial", SERIAL, "reach_modbus", {"address": 1}],
    "other line settings": [
        *("reach", "reach_serial", SERIAL, "reach_modbus"),
        {"address": 1, "line_settings": ANOTHER_BAUD_RATE},
    ],
    "gateway": ["reach", "reach_gateway", GATEWAY],
    "search": ["reach", "reach_serial", SERIAL, "search", ANOTHER_BAUD_RATE],
    "search and follow": ["reach", "reach_serial", SERIAL, "search", {}, {}],
    "change": ["communication", {"address": 5, **ANOTHER_BAUD_RATE}],
    "change on a shared bus": [
        "communication",
        {"address": 1, "baud_rate": "1200", "parity": "even"},
        "changing",
    ],
}
STEPS = [(dialog, done) for dialog, steps in DIALOGS.items() for done in range(len(steps))]


@pytest.fixture(autouse=True)
def neighbour(hass: HomeAssistant, line: Line) -> None:
    """Something else that uses the port."""
    MockConfigEntry(domain="zha", title="Stick", data={"path": line.port}).add_to_hass(hass)


async def begin(hass: HomeAssistant, entry: MockConfigEntry) -> Any:
    return await hass.config_entries.flow.async_init(
        DOMAIN, context={"source": SOURCE_RECONFIGURE, "entry_id": entry.entry_id}
    )


async def step(hass: HomeAssistant, result: Any, what: str | dict[str, Any]) -> Any:
    user_input = {"next_step_id": what} if isinstance(what, str) else what
    flows = hass.config_entries.flow
    return await flows.async_configure(result["flow_id"], user_input)


def is_deleted(result: Any) -> bool:
    with_words(result)
    return result["type"] is FlowResultType.ABORT and result["reason"] == "meter_deleted"


@pytest.mark.parametrize(("dialog", "done"), STEPS)
async def test_deleted_between_two_steps(
    hass: HomeAssistant, loaded: MockConfigEntry, dialog: str, done: int
) -> None:
    result = await begin(hass, loaded)
    steps = DIALOGS[dialog]
    for what in steps[:done]:
        result = await through(hass, await step(hass, result, what))
        assert result["type"] in (FlowResultType.MENU, FlowResultType.FORM)
    await hass.config_entries.async_remove(loaded.entry_id)
    result = await through(hass, await step(hass, result, steps[done]))
    assert is_deleted(result)


@pytest.mark.parametrize(
    ("dialog", "requests"),
    [
        ("address", 1),
        *(("other line settings", request) for request in (1, 2, 3)),
        *(("search", request) for request in (1, 2, 5)),
        *(("change", request) for request in (1, 2, 5)),
    ],
)
async def test_deleted_during_the_last_step(
    hass: HomeAssistant, loaded: MockConfigEntry, line: Line, dialog: str, requests: int
) -> None:
    result = await begin(hass, loaded)
    steps = DIALOGS[dialog]
    for what in steps[:-1]:
        result = await through(hass, await step(hass, result, what))
    left = requests

    def delete(_frame: bytes) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            hass.async_create_task(hass.config_entries.async_remove(loaded.entry_id))

    line.before_hearing = delete
    result = await step(hass, result, steps[-1])
    if result["type"] is FlowResultType.MENU:
        result = await step(hass, result, "changing")
    result = await through(hass, result)
    await asyncio.sleep(60)
    assert is_deleted(result)


@pytest.mark.parametrize("interval", [20, "often"])
async def test_deleted_while_its_options_are_open(
    hass: HomeAssistant, loaded: MockConfigEntry, interval: Any
) -> None:
    flows = hass.config_entries.options
    result = await flows.async_init(loaded.entry_id)
    await hass.config_entries.async_remove(loaded.entry_id)
    result = await flows.async_configure(result["flow_id"], {"update_interval": interval})
    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "meter_deleted"
