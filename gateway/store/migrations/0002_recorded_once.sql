-- An attempt is recorded once, also when the answer to the COMMIT was lost and the recording repeated.

DELETE FROM attempt a USING attempt b
WHERE a.notice_id = b.notice_id AND a.started_at = b.started_at AND a.id > b.id;
CREATE UNIQUE INDEX attempt_once ON attempt (notice_id, started_at);
DROP INDEX attempt_notice_id_idx;

-- Which open cases a terminal's fix moves.
CREATE INDEX ON alarm (terminal_uid);
