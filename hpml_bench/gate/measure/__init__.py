"""Measurement: installations, processes that train in them, times and counts; imports only `records` of the gate."""
