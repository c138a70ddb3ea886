"""Files that are whole or not there: frames, states, logs."""
