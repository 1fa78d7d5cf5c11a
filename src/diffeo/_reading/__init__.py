"""Reading files that may be anything: opened without waiting, within a budget, every failure one line."""

from diffeo._reading.door import Room, check_room, cleaned, opened, reading
from diffeo._reading.numpy_files import Stored, arrays_in

__all__ = ["Room", "Stored", "arrays_in", "check_room", "cleaned", "opened", "reading"]
