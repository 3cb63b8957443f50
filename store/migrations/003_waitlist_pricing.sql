-- Waitlists, pricing rules and limits of a user.
set local lock_timeout = '3s';

alter table events
    add max_per_user int4 not null default 0, -- 0: no limit
    add pricing      jsonb;
create index events_by_pricing on events (event_id) where pricing is not null;

-- Not indexed, see event_heads.
alter table event_heads add waiting int4 not null default 0 check (waiting >= 0);

-- Of the entries of waiters; in a held entry waiter says that it serves the waiter of the same token.
alter table journal
    add on_release int2,
    add position   int4,
    add priority   int4,
    add waiter     bool;

-- One row for each time that a user waits. The reservation that serves a waiter has the same token. Nobody is served before
-- those of a lower rank, nor, of one rank, before those who joined earlier.
create table waitlist (
    event_id   int8 not null,
    token      int8 not null,
    user_id    int8 not null,
    status     int2 not null check (status between 0 and 3),
    tier       int2 not null,
    quantity   int4 not null check (quantity > 0),
    more       jsonb,
    on_release int2 not null check (on_release between 0 and 1),
    priority   int4 not null,
    rank       int4 not null generated always as (-priority) stored,
    position   int4 not null,
    joined_at  timestamptz not null,
    ended_at   timestamptz,
    joined_seq int8 not null,
    seq        int8 not null,
    key        uuid,
    primary key (event_id, token),
    check ((status = 0) = (ended_at is null))
);
create unique index waitlist_by_key on waitlist (event_id, key) where key is not null;
create unique index waitlist_waiting_once on waitlist (event_id, user_id) where status = 0;
create index waitlist_in_order on waitlist (event_id, status, rank, joined_seq);
create index waitlist_by_user on waitlist (user_id, joined_at, event_id, token);
