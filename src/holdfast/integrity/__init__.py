"""Proofs that what is stored is what was written: checks over records, and scans over everything a corpus holds."""

from holdfast.integrity.checks import Finding
from holdfast.integrity.scan import Scan, verify_corpus

__all__ = ["Finding", "Scan", "verify_corpus"]
