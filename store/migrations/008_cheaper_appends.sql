-- What every append pays.
set local lock_timeout = '3s';

-- As before, but a function of SQL with a subquery was parsed and planned anew by every append. An element that is missing fails.
create or replace function tiers_fit(capacity int4[], held int4[], booked int4[]) returns bool
language plpgsql immutable parallel safe as $$
begin
    if cardinality(held) <> cardinality(capacity) or cardinality(booked) <> cardinality(capacity) then
        return false;
    end if;
    for i in 1 .. cardinality(capacity) loop
        if (held[i] >= 0 and booked[i] >= 0 and held[i] + booked[i] <= capacity[i]) is not true then
            return false;
        end if;
    end loop;
    return true;
end
$$;
