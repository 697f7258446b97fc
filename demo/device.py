"""Add a meter to Home Assistant the way its user does, and find its entities."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import DemoError
from .client import Client
from .meters import DemoMeter
from .waiting import POLL_SECONDS

DOMAIN = "klefr"
FLOW = "config/config_entries/flow"


@dataclass(frozen=True, kw_only=True)
class Device:
    """A meter that Home Assistant knows."""

    client: Client
    meter: DemoMeter
    title: str
    entry_id: str

    async def entities(self) -> list[dict[str, Any]]:
        """What the entity registry has of it."""
        return [
            entity
            for entity in await self.client.command("config/entity_registry/list")
            if entity["config_entry_id"] == self.entry_id
        ]

    async def find(self, platform: str, key: str) -> str | None:
        """The id of the entity of one of the meter's values, if it has that."""
        unique_id = f"{self.meter.virtual.serial_number}_{key}"
        for entity in await self.entities():
            entity_id: str = entity["entity_id"]
            if entity["unique_id"] == unique_id and entity_id.startswith(f"{platform}."):
                return entity_id
        return None

    async def entity_id(self, platform: str, key: str) -> str:
        """The id of the entity of one of the meter's values."""
        if (entity_id := await self.find(platform, key)) is None:
            raise DemoError(f"{self.title} has no {platform} entity for {key}.")
        return entity_id

    async def state(self, platform: str, key: str) -> str | None:
        """What the entity of one of the meter's values shows, if the meter has that."""
        if (entity_id := await self.find(platform, key)) is None:
            return None
        state: str = (await self.client.states())[entity_id]["state"]
        return state


async def add(client: Client, meter: DemoMeter, port: str) -> Device:
    """Go through menus and forms until they have made an entry and it is loaded."""
    step = await _begin(client, meter)
    step = await _walk(client, step, meter.choices, {"port": port, **meter.form})
    if step["type"] != "create_entry":
        reason = step.get("reason", step["type"])
        raise DemoError(f"The form to add a meter ended with {reason}, not with an entry.")
    entry_id = step["result"]["entry_id"]
    title = await _loaded(client, entry_id)
    return Device(client=client, meter=meter, title=title, entry_id=entry_id)


async def give_address(device: Device, address: int) -> None:
    """Let the meter have another address, and its entry follow it."""
    client = device.client
    step = await client.post(FLOW, {"handler": DOMAIN, "entry_id": device.entry_id})
    step = await _walk(client, step, ("communication",), {"address": address})
    if step.get("reason") != "changed":
        reason = step.get("reason", step["type"])
        raise DemoError(f"The form to change the address of {device.title} ended with {reason}.")
    await _loaded(client, device.entry_id)


async def _walk(
    client: Client, step: Any, choices: Sequence[str], answers: Mapping[str, object]
) -> Any:
    """Go through menus and forms, and return what ends them."""
    while step["type"] in ("menu", "form", "progress"):
        path = f"{FLOW}/{step['flow_id']}"
        if step["type"] == "progress":
            await asyncio.sleep(POLL_SECONDS)
            step = await client.get(path)
            continue
        if step["type"] == "menu":
            choice = next(each for each in choices if each in step["menu_options"])
            form: dict[str, Any] = {"next_step_id": choice}
        else:
            form = {}
            for field in step["data_schema"]:
                suggested = (field.get("description") or {}).get("suggested_value")
                answer = answers.get(field["name"], suggested)
                if answer is not None:
                    form[field["name"]] = answer
        step = await client.post(path, form)
        if step.get("errors"):
            raise DemoError(f"The form answered {step['errors']} to {form}.")
    return step


async def _loaded(client: Client, entry_id: str) -> str:
    """Make sure that an entry is loaded, and return its title."""
    found = await client.command("config_entries/get_single", entry_id=entry_id)
    entry = found["config_entry"]
    title: str = entry["title"]
    if entry["state"] != "loaded":
        raise DemoError(f"{title} is in state {entry['state']}: {entry['reason']}.")
    return title


async def _begin(client: Client, meter: DemoMeter) -> Any:
    if meter.choices:
        return await client.post(FLOW, {"handler": DOMAIN})
    for flow in await client.command("config_entries/flow/progress"):
        if (
            flow["handler"] == DOMAIN
            and flow["context"]["unique_id"] == meter.virtual.serial_number
        ):
            return await client.get(f"{FLOW}/{flow['flow_id']}")
    raise DemoError(f"The meter {meter.virtual.serial_number} has not been discovered.")
