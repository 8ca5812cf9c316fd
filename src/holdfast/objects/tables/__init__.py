"""Rows by two keys, in SQLite or in Azure Table Storage, behind one port.

`SqliteTables` and `AzureTables` are the stores, `Insert`, `Upsert`, `Update` and `Delete` the parts of a transaction;
`quote` and `starts_with` help with filters.
"""

from holdfast.objects.tables.filters import quote, starts_with
from holdfast.objects.tables.port import Delete, Entity, Insert, Page, TableStore, Update, Upsert

__all__ = ["Delete", "Entity", "Insert", "Page", "TableStore", "Update", "Upsert", "quote", "starts_with"]
