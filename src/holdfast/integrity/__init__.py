"""Proofs that what is stored is what was written: checks over records, and scans over everything a corpus holds."""

from holdfast.integrity.checks import CHECKS, SEED_CHECKS, Finding
from holdfast.integrity.scan import Acked, Outside, Scan, verify_corpus
from holdfast.integrity.scanner import Progress, Scanner

__all__ = ["CHECKS", "SEED_CHECKS", "Acked", "Finding", "Outside", "Progress", "Scan", "Scanner", "verify_corpus"]
