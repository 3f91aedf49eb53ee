"""Files: a checkpoint as plain data, written durably, verified when read, whole or sharded."""
