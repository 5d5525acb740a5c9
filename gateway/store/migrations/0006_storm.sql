-- What many alarms at once and a long history cost.

-- Who leases looks for what is nobody's, and for what dead workers left, and never through what others are sending.
CREATE INDEX notice_due_of ON notice (worker, due_at) WHERE state = 'due';
DROP INDEX notice_due;
