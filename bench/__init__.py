"""Holdfast measured against its neighbours. Not shipped; `make bench` runs it.

Each module of this package that has a `SCENARIO` is one table of docs/benchmarks.md, each module of `neighbours` one
contestant. The contestants of a scenario take turns in one run, on the same messages; figures are medians over the
rounds, and a figure counts only if the bodies that were read are the bodies that were written.
"""
