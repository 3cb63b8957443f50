-- One-time codes, throttling of sign-ins, the log of what concerns security.
set local lock_timeout = '3s';
