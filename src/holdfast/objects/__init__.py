"""Named bytes. A blob is an object named by its SHA-256; its files lie here, on nodes and hubs alike."""

from holdfast.objects.blobs import BlobFiles
from holdfast.objects.reading import BlobReader

__all__ = ["BlobFiles", "BlobReader"]
