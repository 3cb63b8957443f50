-- Waitlists, pricing rules and limits of a user.
set local lock_timeout = '3s';
