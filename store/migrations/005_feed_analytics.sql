-- Cursors of the journal's consumers, and analytics.
set local lock_timeout = '3s';

-- The consumers of the feed, see Feed in package store. The runner is the process that runs it, until stepped_at is too old.
-- Everything that was committed before as_of is consumed; every head whose last writer is before horizon was seen then.
create table consumers (
    name       text primary key,
    from_now   bool not null, -- entries from before started_at are not consumed
    started_at timestamptz not null,
    runner     uuid not null default '00000000-0000-0000-0000-000000000000',
    stepped_at timestamptz not null default '-infinity',
    as_of      timestamptz, -- null: not yet known
    horizon    xid8,
    behind     int8 not null default 0 -- entries that were known and not consumed at stepped_at
) with (fillfactor = 20);

-- The last entry of an event that a consumer has consumed.
create table feed_cursors (
    consumer text not null,
    event_id int8 not null,
    seq      int8 not null check (seq > 0),
    primary key (consumer, event_id)
) with (fillfactor = 60);

-- Entries that a consumer could not consume, and went past.
create table parked_entries (
    consumer text not null,
    event_id int8 not null,
    seq      int8 not null,
    error    text not null,
    at       timestamptz not null,
    retry    bool not null default false, -- somebody asked to try again
    primary key (consumer, event_id, seq)
);

-- The last entries of events that are deleted, whose heads are gone.
create table deleted_heads (
    event_id int8 primary key,
    seq      int8 not null
);
create function keep_deleted_head() returns trigger language plpgsql as $$
begin
    insert into deleted_heads (event_id, seq) values (old.event_id, old.seq + 1) on conflict do nothing;
    return null;
end
$$;
create trigger keep_deleted_head after delete on event_heads for each row execute function keep_deleted_head();
insert into deleted_heads (event_id, seq) select event_id, seq from journal where kind = 9;

-- What happened, summed up by quarter of an hour and, at -infinity, in all: for everybody (scope 0, id 0), an organizer (1) and
-- an event (2). Only one generation is shown; another one is of a rebuild. See analytics.go in package store.
create table analytics_sums (
    generation       int4 not null,
    scope            int2 not null,
    id               int8 not null,
    bucket           timestamptz not null,
    currency         text not null,
    bookings         int8 not null,
    cancellations    int8 not null,
    tickets_booked   int8 not null,
    tickets_cancelled int8 not null,
    gross_minor      numeric not null,
    cancelled_minor  numeric not null,
    holds            int8 not null,
    holds_expired    int8 not null,
    holds_released   int8 not null,
    waitlist_joined  int8 not null,
    waitlist_left    int8 not null,
    waitlist_served  int8 not null,
    capacity         int8 not null, -- seats of published events; only at -infinity
    primary key (generation, scope, id, bucket, currency)
) with (fillfactor = 60);
-- No column of it ever changes, so that updates stay on their page (HOT).
create index analytics_sums_by_bucket on analytics_sums (generation, scope, bucket, id);

create table analytics_generation (
    single     bool primary key default true check (single),
    generation int4 not null
);
insert into analytics_generation (generation) values (1);
