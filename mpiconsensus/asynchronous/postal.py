"""What an asynchronous algorithm exchanges through, under the clock of the machine."""
