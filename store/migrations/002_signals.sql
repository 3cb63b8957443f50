-- A migration that waits for a lock on a table has everybody else wait behind it: it gives up soon and is tried again.
set local lock_timeout = '3s';

-- Programs older than a schema may use it when they know migrations up to program_min at least. A migration that breaks
-- older programs raises it to the first number that goes with it. See Migrate in package store.
create table schema_compatibility (
    single      bool primary key default true check (single),
    program_min int4 not null
);
insert into schema_compatibility (program_min) values (1);

-- Signals tell the nodes of changes that they cache: a kind, a space and an id. Listeners ignore kinds that they do not
-- know and what follows the id. Bookings touch neither of these columns and tables: a transaction that signals waits at its
-- commit for all others that do.
create function signal_session_ended() returns trigger language plpgsql as $$
begin
    perform pg_notify('evently_signals', 'session_ended ' || new.session_id);
    return null;
end
$$;
create trigger signal_session_ended after update of revoked_at on sessions
    for each row when (old.revoked_at is null and new.revoked_at is not null) execute function signal_session_ended();

create function signal_event_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('evently_signals', 'event_changed ' || coalesce(new.event_id, old.event_id));
    return null;
end
$$;
create trigger signal_event_changed after insert or update or delete on events
    for each row execute function signal_event_changed();

-- What tells this database from others: nodes of one cluster have it in common.
create table installation (
    single bool primary key default true check (single),
    id     uuid not null default gen_random_uuid()
);
insert into installation default values;
