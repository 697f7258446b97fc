"""Constants of the KLEFR integration."""

import logging
from typing import Final

DOMAIN: Final = "klefr"
LOGGER: Final = logging.getLogger(__package__)

NAME: Final = "KLEFR"
INEPRO: Final = "Inepro"
MANUFACTURER: Final = "KLEFR / Inepro"

CONF_BAUD_RATE: Final = "baud_rate"
CONF_PARITY: Final = "parity"
CONF_SECONDARY_ADDRESS: Final = "secondary_address"
CONF_UPDATE_INTERVAL: Final = "update_interval"

DEFAULT_MODBUS_ADDRESS: Final = 1
DEFAULT_MBUS_ADDRESS: Final = "0"
DEFAULT_TCP_PORT: Final = 502
DEFAULT_UPDATE_INTERVAL: Final = 10
MINIMUM_UPDATE_INTERVAL: Final = 5
MAXIMUM_UPDATE_INTERVAL: Final = 3600
"""Seconds, like all update intervals."""

# What was believed last is on the disk after a minute at most, with the shortest interval.
STORE_DELAY: Final = 50  # seconds

EVENT_STATISTICS_CORRECTED: Final = f"{DOMAIN}_statistics_corrected"
EVENT_METER_REPLACED: Final = f"{DOMAIN}_meter_replaced"
EVENT_FIRST_READINGS: Final = f"{DOMAIN}_first_readings"
