-- Retention policies.
set local lock_timeout = '3s';

-- Of entries that change an event, or that are done by somebody who manages it: few, so that the bookings' entries cost these indexes
-- no more than the look at their kind.
create index journal_of_details on journal (event_id, seq) where kind in (1, 2, 3, 4, 14, 15);
create index journal_by_who on journal (who, at, event_id, seq) where kind in (1, 2, 3, 4, 9, 11, 14, 15);
create index journal_of_priorities on journal (event_id, token, seq) where kind = 11;

-- The journal is written in the order of time, nearly, and never changed. So the ranges of this index are narrow, and it costs
-- next to nothing to keep.
create index journal_by_age on journal using brin (at) with (pages_per_range = 32, autosummarize = on);

create index security_log_by_user_age on security_log (user_id, at, id);
create index security_log_by_actor_age on security_log (actor, at, id) where actor is not null;

-- The role of the program needs no right to delete from the security log: this function, which is the owner's, removes its oldest
-- rows, and never any that are younger than 30 days.
create function sweep_security_log(before timestamptz, most int4) returns int8
language plpgsql security definer as $$
declare
    swept int8;
begin
    if before > clock_timestamp() - interval '30 days' then
        raise exception 'the security log is kept for 30 days at least';
    end if;
    perform set_config('evently.sweep', 'on', true);
    delete from security_log where id = any (array(select id from security_log where at < before order by at, id limit most));
    get diagnostics swept = row_count;
    perform set_config('evently.sweep', '', true);
    return swept;
end
$$;
-- Whoever calls it cannot put other tables in the way.
do $$
begin
    execute format('alter function sweep_security_log set search_path = %I, pg_temp', current_schema());
end
$$;
revoke execute on function sweep_security_log from public;

-- grant_program gives a role the rights that the program needs, and takes all others on this schema from it. See Grant in package store.
create function grant_program(program name) returns void
language plpgsql as $$
declare
    home text := (select quote_ident(n.nspname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = 'journal'::regclass);
    appended text := home || '.journal, ' || home || '.security_log';
    held regclass;
begin
    execute format('revoke all on schema %s from %I', home, program);
    execute format('revoke all on all tables in schema %s from %I', home, program);
    execute format('revoke all on all sequences in schema %s from %I', home, program);
    execute format('grant usage on schema %s to %I', home, program);
    execute format('grant select, insert, update, delete on all tables in schema %s to %I', home, program);
    execute format('grant usage, select on all sequences in schema %s to %I', home, program);
    execute format('grant execute on function %s.sweep_security_log to %I', home, program);
    execute format('revoke update, delete on %s from %I', appended, program);
    -- What says how the schema is, and which installation this is, is for reading.
    foreach held in array array['evently_schema_version', 'schema_compatibility', 'installation']::regclass[] loop
        execute format('revoke insert, update, delete on %s from %I', held, program);
    end loop;
end
$$;
revoke execute on function grant_program from public;
