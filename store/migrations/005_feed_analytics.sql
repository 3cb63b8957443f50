-- Cursors of the journal's consumers, and analytics.
set local lock_timeout = '3s';
