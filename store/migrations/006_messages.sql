-- Mail and webhooks.
set local lock_timeout = '3s';

-- When the jobs that one node does again and again are due. The jobs themselves are in the tables of River, see migrateJobs.
create table periodic_jobs (
    name    text primary key,
    due_at  timestamptz not null,
    done_at timestamptz
);

-- The part of an event whose change its holders are told of, from each entry on that changed it. before and after of a change are
-- two neighbours here; cancelled tells the entries that end bookings of a cancelled event from those of users.
create table mail_events (
    event_id  int8 not null,
    seq       int8 not null,
    name      text not null,
    venue     text not null,
    city      text not null,
    timezone  text not null,
    starts_at timestamptz not null,
    ends_at   timestamptz not null,
    cancelled bool not null,
    primary key (event_id, seq)
);

-- Mails of machines without a mail server, the newest 1,000.
create table mailbox (
    number      int8 generated always as identity primary key,
    message_id  text not null,
    kind        int2 not null,
    sender      text not null,
    recipient   text not null,
    subject     text not null,
    body        text not null,
    html        text not null,
    attachments jsonb not null,
    at          timestamptz not null
);
create unique index mailbox_by_message on mailbox (message_id);
create index mailbox_by_recipient on mailbox (recipient, number);

-- Webhooks: where messages go. Their signing secrets are sealed, see package store.
create table webhooks (
    webhook_id    int8 primary key,
    owner         int8 not null references users (user_id),
    url           text not null,
    description   text not null,
    types         int8 not null, -- a bit for each type of message
    ended         int2 not null default 0,
    ended_at      timestamptz,
    failing_since timestamptz,
    secret        bytea not null,
    past_secret   bytea,
    overlap_until timestamptz,
    created_at    timestamptz not null,
    updated_at    timestamptz not null
);
create index webhooks_by_owner on webhooks (owner, created_at, webhook_id);
create index webhooks_by_age on webhooks (created_at, webhook_id);

-- Messages to webhooks, and the log of what became of them. due_at is null when nothing is to be done. Those of a webhook that
-- is deleted are removed later.
create table webhook_deliveries (
    delivery_id uuid primary key,
    webhook_id  int8 not null,
    type        int2 not null,
    event_id    int8 not null,
    seq         int8 not null,
    payload     bytea not null,
    status      int2 not null default 0,
    tried       int4 not null default 0,
    attempts    jsonb not null default '[]',
    created_at  timestamptz not null,
    due_at      timestamptz,
    give_up_at  timestamptz not null,
    ended_at    timestamptz
) with (fillfactor = 85);
create index webhook_deliveries_due on webhook_deliveries (webhook_id, due_at) where due_at is not null;
create index webhook_deliveries_by_age on webhook_deliveries (webhook_id, created_at, delivery_id);

-- Entries of the journal that are not made deliveries yet, because their webhook has as many as it may: those of an event with
-- after_seq < seq <= upto_seq.
create table webhook_backlog (
    backlog_id int8 generated always as identity primary key,
    webhook_id int8 not null,
    event_id   int8 not null,
    after_seq  int8 not null,
    upto_seq   int8 not null
);
create index webhook_backlog_by_event on webhook_backlog (webhook_id, event_id, upto_seq);
