"""Measuring: installations, the processes that train in them, times and counts; of the gate it imports `records`."""
