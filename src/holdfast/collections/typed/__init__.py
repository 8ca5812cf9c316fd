"""Collections of values of one type: schemas with versions and migrations, conditions, orders, pages, sums."""

from holdfast.collections.typed.collection import Collection
from holdfast.collections.typed.found import Item, Page, Unfit
from holdfast.collections.typed.schema import SCHEMAS, Declared, Schema, declared, schema_of
from holdfast.collections.typed.sums import Sums

__all__ = ["SCHEMAS", "Collection", "Declared", "Item", "Page", "Schema", "Sums", "Unfit", "declared", "schema_of"]
