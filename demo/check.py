"""See that a meter works: every entity, what can be set, the Energy dashboard and the log."""

from collections.abc import Set as AbstractSet

from simulator.meter import Tariff

from . import DemoError
from .client import Client
from .device import DOMAIN, Device, give_address
from .waiting import settle

# Home Assistant loads a meter again half a minute after its entities were enabled.
RELOAD_SECONDS = 75
ACTION_SECONDS = 20
MOST_DIFFERENCE = 0.1  # kWh, between what is read now and a moment later

SOURCES = (f"custom_components.{DOMAIN}", f"custom_components/{DOMAIN}", "pymodbus", "serialx")
# It warns of every integration that is not one of Home Assistant's own.
LOADER = "homeassistant.loader"


async def enable(device: Device) -> int:
    """Enable what starts disabled, and count it."""
    disabled = [each["entity_id"] for each in await device.entities() if each["disabled_by"]]
    for entity_id in disabled:
        await device.client.command(
            "config/entity_registry/update", entity_id=entity_id, disabled_by=None
        )
    return len(disabled)


async def check(device: Device, enabled: int) -> str:
    """Try everything, print what the entities show, and sum up."""
    client = device.client
    entity_ids = {entity["entity_id"] for entity in await device.entities()}

    # A button has no state until it is pressed, and where a meter does not report what it is
    # set to, a select has none until it is used.
    others = {each for each in entity_ids if not each.startswith(("button.", "select."))}
    await settle(RELOAD_SECONDS, lambda: _missing_states(client, others))
    await _set_unknown(client, entity_ids)
    tariff = await _switch_tariff(device)
    await _reset_counters(device)
    await _act(device)
    address = await _move(device)
    await settle(ACTION_SECONDS, lambda: _missing_states(client, entity_ids))

    states = await client.states()
    for entity_id in sorted(entity_ids):
        unit = states[entity_id]["attributes"].get("unit_of_measurement", "")
        print(f"{entity_id:<60} {states[entity_id]['state']} {unit}".rstrip())

    # Statistics are stored in the background.
    await settle(ACTION_SECONDS, lambda: _statistics_issues(client, entity_ids))
    await _check_log(client)
    return (
        f"{device.title}: {len(entity_ids)} entities have a state ({enabled} of them start"
        f" disabled), tariff switched to {tariff}, counters reset, read by an action, moved to"
        f" address {address}, Energy dashboard and log fine."
    )


async def _missing_states(client: Client, entity_ids: AbstractSet[str]) -> str:
    states = await client.states()
    missing = [
        f"{entity_id} ({states[entity_id]['state']})" if entity_id in states else entity_id
        for entity_id in sorted(entity_ids)
        if entity_id not in states or states[entity_id]["state"] in ("unavailable", "unknown")
    ]
    return f"Entities without a state: {', '.join(missing)}" if missing else ""


async def _set_unknown(client: Client, entity_ids: AbstractSet[str]) -> None:
    states = await client.states()
    for entity_id in entity_ids & states.keys():
        if entity_id.startswith("select.") and states[entity_id]["state"] == "unknown":
            option = states[entity_id]["attributes"]["options"][0]
            await client.call("select.select_option", entity_id, option=option)


async def _switch_tariff(device: Device) -> str:
    entity_id = await device.entity_id("select", "tariff")
    before = device.meter.virtual.tariff
    option = "t2" if before == Tariff.T1 else "t1"
    await device.client.call("select.select_option", entity_id, option=option)

    async def complaint() -> str:
        tariff = device.meter.virtual.tariff
        shown = await device.state("select", "tariff")
        if tariff != before and shown == option:
            return ""
        return (
            f"{entity_id} was set to {option}: it shows {shown}, and the meter's tariff is"
            f" {tariff}, before it was {before}"
        )

    await settle(ACTION_SECONDS, complaint)
    return option


async def _reset_counters(device: Device) -> None:
    virtual = device.meter.virtual
    before = virtual.day_counter
    for key in ("reset_resettable_counter", "reset_power_down_counter"):
        await device.client.call("button.press", await device.entity_id("button", key))

    async def complaint() -> str:
        counter, restarts = virtual.day_counter, virtual.power_down_counter
        shown = await device.state("sensor", "resettable_counter")
        if counter < before and shown in (None, str(round(counter, 2))) and not restarts:
            return ""
        return (
            f"The counters were reset: {device.title} shows {shown}, the meter has {counter} kWh"
            f" after {before} kWh, and {restarts} power-downs"
        )

    await settle(ACTION_SECONDS, complaint)


async def _act(device: Device) -> None:
    virtual = device.meter.virtual
    entity_id = await device.entity_id("select", "tariff")
    wanted = {"s0_rate": 100, "calculation_code": "forward_plus_reverse"}
    for action, data in (("change_settings", wanted), ("read_registers", {})):
        response = await device.client.ask(f"{DOMAIN}.{action}", entity_id, **data)
        report = response["meters"][virtual.serial_number]
        if report.get("not_changed") or "error" in report:
            raise DemoError(f"{action} answered {report}.")
    values, energy = report["values"], virtual.forward_active_energy
    if abs(values["forward_active_energy"] - energy) > MOST_DIFFERENCE or virtual.s0_rate != 100:
        raise DemoError(f"{device.title} has {energy} kWh, but the action read {values}.")


async def _move(device: Device) -> int:
    address = device.meter.virtual.address + 100
    await give_address(device, address)
    if device.meter.virtual.address != address:
        raise DemoError(f"{device.title} did not accept the address {address}.")
    return address


async def _statistics_issues(client: Client, entity_ids: AbstractSet[str]) -> str:
    validated = await client.command("energy/validate")
    issues = [
        f"{issue['type']} {issue['affected_entities']}"
        for source in validated["energy_sources"]
        for issue in source
    ]
    statistics = await client.command("recorder/validate_statistics")
    issues += [f"{statistics[each]}" for each in statistics.keys() & entity_ids]
    return f"Home Assistant finds fault with the statistics: {', '.join(issues)}" if issues else ""


async def _check_log(client: Client) -> None:
    trouble = []
    for record in await client.command("system_log/list"):
        message = " ".join(record["message"])
        named = DOMAIN in message or any(source in str(record) for source in SOURCES)
        if named and record["name"] != LOADER:
            trouble.append(f"{record['level']} {record['name']}: {message}\n{record['exception']}")
    if trouble:
        raise DemoError("\n".join(["The log has this of the integration:", *trouble]))
