"""What every other package rests on: labels, errors, configuration, files, tables, progress."""
