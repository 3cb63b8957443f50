-- One-time codes, throttling of sign-ins, the log of what concerns security.
set local lock_timeout = '3s';

-- The newest code of a user for a purpose (evently.CodePurpose). Only a MAC of it is stored, and it stays when it is used, for
-- sent_at: the times of the last codes, oldest first, as many as an hour may have.
create table one_time_codes (
    user_id    int8 not null references users (user_id) on delete cascade,
    purpose    int2 not null,
    mac        bytea not null,
    expires_at timestamptz not null,
    tries      int2 not null default 0,
    used_at    timestamptz,
    sent_at    timestamptz[] not null,
    primary key (user_id, purpose)
);
create index one_time_codes_by_expiry on one_time_codes (expires_at);

-- Failed sign-ins with an address, whether it belongs to a user or not. The key is half of its SHA-256. Sign-ins are refused until
-- free_at, which is the time of the last failure when that brought no delay.
create table sign_in_throttles (
    key      uuid primary key,
    failures int4 not null,
    free_at  timestamptz not null
);
create index sign_in_throttles_by_age on sign_in_throttles (free_at);

-- What happened to accounts. Rows are added in the transaction of what they tell, never changed, and removed by retention alone.
create table security_log (
    id         int8 generated always as identity primary key,
    at         timestamptz not null,  -- by the clock of the node
    user_id    int8,                  -- whose account; null: an address without one
    kind       text not null,         -- evently.SecurityKind
    actor      int8,                  -- who did it; null: nobody was signed in
    session_id uuid,                  -- by which the actor was signed in, or that is what it is about
    ip         text not null,
    user_agent text not null,
    request_id text not null,
    detail     jsonb                  -- an object of texts, by kind; null: none
);
create index security_log_by_user on security_log (user_id, id);
create index security_log_by_age on security_log (at, id);

-- Rows can be deleted only in a transaction that says it is a sweep: `set local evently.sweep = 'on'`.
create function security_log_is_append_only() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and current_setting('evently.sweep', true) = 'on' then
        return null;
    end if;
    raise exception 'the security log is append-only';
end
$$;
create trigger append_only before update or delete or truncate on security_log
    for each statement execute function security_log_is_append_only();

-- The refresh token before the present one, and when it was spent.
alter table sessions add column spent bytea, add column spent_at timestamptz;

create index users_by_age on users (created_at, user_id);
create index users_admins on users (user_id) where role = 2;
