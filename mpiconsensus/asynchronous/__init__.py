"""Runs without rounds: each vertex at its own pace, under the clock of the machine or a modelled one."""
