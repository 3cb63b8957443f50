-- Identifiers are 64 random bits, stored as int8 bit for bit. Times are whole milliseconds.

-- tiers_fit is the last line of defence against overselling: no tier holds more than its capacity.
create function tiers_fit(capacity int4[], held int4[], booked int4[]) returns bool
language sql immutable parallel safe as $$
    select case
        when cardinality(capacity) = 1 and cardinality(held) = 1 and cardinality(booked) = 1
            then held[1] >= 0 and booked[1] >= 0 and held[1] + booked[1] <= capacity[1]
        else cardinality(capacity) = cardinality(held) and cardinality(capacity) = cardinality(booked)
            and (select bool_and(h >= 0 and b >= 0 and h + b <= c) from unnest(capacity, held, booked) as t (c, h, b))
    end
$$;

-- raise_error fails the statement that calls it; the code tells the store what the failure means.
create function raise_error(code text, message text) returns bool
language plpgsql volatile as $$
begin
    raise exception '%', message using errcode = code;
end
$$;

create table events (
    event_id        int8 primary key,
    organizer       int8 not null,
    status          int2 not null check (status between 0 and 2),
    version         int8 not null,
    created_at      timestamptz not null,
    name            text not null,
    description     text not null,
    category        text not null,
    venue           text not null,
    city            text not null,
    timezone        text not null,
    currency        text not null,
    starts_at       timestamptz not null,
    ends_at         timestamptz not null,
    sales_start_at  timestamptz,
    sales_end_at    timestamptz,
    hold_ttl_ms     int8 not null,
    max_per_booking int4 not null,
    tiers           jsonb not null
);
create index events_by_start on events (starts_at, event_id);
create index events_by_organizer on events (organizer, starts_at, event_id);

-- folded is what texts are compared by where case does not matter. The database's own locale may know ASCII only.
do $$
begin
    if exists (select from pg_collation where collname = 'und-x-icu') then
        create function folded(text) returns text language sql immutable strict parallel safe
            as 'select lower($1 collate "und-x-icu") collate "C"';
    else
        create function folded(text) returns text language sql immutable strict parallel safe
            as 'select lower($1)';
    end if;
end
$$;

-- The head of an event: who owns it, its last entry and its seat counts. Every batch of entries updates it, and
-- nothing here but the primary key is indexed, so that the updates stay on the page (HOT).
create table event_heads (
    event_id int8 primary key references events (event_id) on delete cascade,
    epoch    int8 not null default 0,
    owner    uuid not null default '00000000-0000-0000-0000-000000000000',
    seq      int8 not null,
    last_at  timestamptz not null,
    capacity int4[] not null,
    held     int4[] not null,
    booked   int4[] not null,
    next_due timestamptz,
    constraint never_oversold check (tiers_fit(capacity, held, booked))
) with (fillfactor = 40);

-- One row from hold to booking to end. The first line item stands in columns, further ones in more.
create table reservations (
    event_id      int8 not null,
    token         int8 not null,
    user_id       int8 not null,
    status        int2 not null check (status between 0 and 3),
    tier          int2 not null,
    quantity      int4 not null check (quantity > 0),
    unit_price    int8 not null,
    more          jsonb,
    created_at    timestamptz not null,
    expires_at    timestamptz not null,
    confirmed_at  timestamptz,
    ended_at      timestamptz,
    created_seq   int8 not null,
    confirmed_seq int8,
    seq           int8 not null,
    key           uuid,
    primary key (event_id, token)
) with (fillfactor = 85);
create unique index reservations_by_key on reservations (event_id, key) where key is not null;
create index reservations_by_event on reservations (event_id, created_seq);
create index reservations_by_user on reservations (user_id, created_at, event_id, token);

-- What happened, in order and without a gap for each event. Held entries carry the reservation in columns; entries of
-- the event itself carry the event in data.
create table journal (
    event_id   int8 not null,
    seq        int8 not null,
    epoch      int8 not null,
    kind       int2 not null,
    at         timestamptz not null,
    who        int8 not null,
    request_id text not null,
    token      int8,
    user_id    int8,
    tier       int2,
    quantity   int4,
    unit_price int8,
    expires_at timestamptz,
    data       jsonb,
    primary key (event_id, seq)
);

create function journal_is_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'the journal is append-only';
end
$$;
create trigger append_only before update or delete or truncate on journal
    for each statement execute function journal_is_append_only();

create table users (
    user_id        int8 primary key,
    email          text not null unique,
    name           text not null,
    role           int2 not null,
    password_hash  text not null,
    email_verified bool not null,
    created_at     timestamptz not null
);

create table sessions (
    session_id   uuid primary key,
    user_id      int8 not null references users (user_id),
    created_at   timestamptz not null,
    last_used_at timestamptz not null,
    expires_at   timestamptz not null,
    user_agent   text not null,
    ip           text not null,
    refresh      bytea not null,
    revoked_at   timestamptz
);
create index sessions_by_user on sessions (user_id, created_at);
create index sessions_by_revocation on sessions (revoked_at) where revoked_at is not null;
create index sessions_by_expiry on sessions (expires_at);

-- First answers to requests with an Idempotency-Key, other than bookings.
create table answers (
    key         uuid primary key,
    fingerprint bytea not null,
    status      int2 not null,
    header      jsonb not null,
    body        bytea not null,
    created_at  timestamptz not null
);
create index answers_by_age on answers (created_at);

-- How far idempotency keys have been cleared: every reservation that ended with an entry up to seq has none any more.
create table key_sweeps (
    event_id int8 primary key references events (event_id) on delete cascade,
    seq      int8 not null
);
