-- What a long history costs.

-- Whether a copy of an alarm came before is asked by its bytes: a terminal that stands for years has many others.
CREATE INDEX ON alarm (terminal_id, digest);
DROP INDEX alarm_terminal_id_received_at_idx;
