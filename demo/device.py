"""Add a meter to Home Assistant the way its user does, and find its entities."""

from dataclasses import dataclass
from typing import Any

from . import DemoError
from .client import Client
from .meters import DemoMeter

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
    """Go through the forms until they have made an entry and it is loaded."""
    answers = {"port": port, **meter.form}
    step = await client.post(FLOW, {"handler": DOMAIN})
    while step["type"] == "form":
        form = {
            field["name"]: answers[field["name"]]
            for field in step["data_schema"]
            if field["name"] in answers
        }
        step = await client.post(f"{FLOW}/{step['flow_id']}", form)
        if step.get("errors"):
            raise DemoError(f"The form to add a meter answered {step['errors']} to {form}.")
    if step["type"] != "create_entry":
        reason = step.get("reason", step["type"])
        raise DemoError(f"The form to add a meter ended with {reason}, not with an entry.")

    entry_id = step["result"]["entry_id"]
    found = await client.command("config_entries/get_single", entry_id=entry_id)
    entry = found["config_entry"]
    if entry["state"] != "loaded":
        raise DemoError(f"{entry['title']} is in state {entry['state']}: {entry['reason']}.")
    return Device(client=client, meter=meter, title=entry["title"], entry_id=entry_id)
