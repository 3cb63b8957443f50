package store

import (
	"testing"
	"time"

	"github.com/evently/evently"
)

func TestRetention_CutsTheLogOfWebhooks(t *testing.T) {
	h := newHooks(t)
	ctx := t.Context()
	owner := h.user(evently.RoleAdmin)
	kept, paused, gone := h.hook(owner), h.hook(owner), h.hook(owner)
	add := func(id evently.WebhookID, count int, createdAt time.Time, due bool) {
		t.Helper()
		h.exec(`
			insert into webhook_deliveries (delivery_id, webhook_id, type, event_id, seq, payload, status, created_at, due_at, give_up_at, ended_at)
			select gen_random_uuid(), $1, 1, 1, 1, '', case when $4 then 0 else 1 end, $2, case when $4 then $2::timestamptz end,
			    $2::timestamptz + interval '3 days', case when not $4 then $2::timestamptz end
			from generate_series(1, $3)`, int64(id), createdAt, count, due)
	}
	day := 24 * time.Hour
	add(kept.ID, 3, h.now.Add(-31*day), false)
	add(kept.ID, 4, h.now.Add(-29*day), false)
	add(kept.ID, 2, h.now.Add(-40*day), true) // still tried, as after a redelivery
	add(paused.ID, 5, h.now.Add(-4*day), true)
	add(paused.ID, 6, h.now.Add(-2*day), true)
	add(gone.ID, sweptRowsMax+10, h.now.Add(-day), true)
	h.exec(`insert into webhook_backlog (webhook_id, event_id, after_seq, upto_seq) values ($1, 1, 0, 5), ($2, 1, 0, 5)`, int64(gone.ID), int64(kept.ID))
	if _, err := h.ReviseWebhook(ctx, 0, &evently.Webhook{ID: paused.ID, Ended: evently.WebhookPaused, UpdatedAt: h.now}); err != nil {
		t.Fatal(err)
	}
	if err := h.DeleteWebhook(ctx, 0, gone.ID); err != nil {
		t.Fatal(err)
	}
	retention := NewRetention(h.bench.pool, discard)
	sweep := func(keep time.Duration, want Swept) {
		t.Helper()
		retention.Policies.Webhooks = keep
		if swept, err := retention.Sweep(ctx, h.now); err != nil || swept != want {
			t.Errorf("kept for %s: %+v was removed, %v; want %+v", keep, swept, err, want)
		}
	}
	const never = 0
	sweep(never, Swept{Deliveries: sweptRowsMax + 10}) // of what is gone
	sweep(never, Swept{})
	sweep(30*day, Swept{Deliveries: 3})
	sweep(30*day, Swept{})
	for statement, want := range map[string]int{
		`select count(*) from webhook_deliveries where status = 0 and due_at is not null`:                      2 + 6,
		`select count(*) from webhook_deliveries where status = 2 and due_at is null and ended_at is not null`: 5,
		`select count(*) from webhook_deliveries where status = 1`:                                             4,
		`select count(*) from webhook_backlog`:                                                                 1,
	} {
		if got := h.count(statement); got != want {
			t.Errorf("%s: %d, want %d", statement, got, want)
		}
	}
	// The log of one webhook is bounded whatever its age.
	add(kept.ID, webhookLogMax+7, h.now.Add(-time.Hour), false)
	add(kept.ID, 1, h.now, false)
	sweep(never, Swept{Deliveries: 4}) // those of a moment stay together
	add(kept.ID, webhookLogMax, h.now.Add(time.Hour), false)
	sweep(never, Swept{Deliveries: webhookLogMax + 8})
	if got := h.count(`select count(*) from webhook_deliveries where status = 1`); got != webhookLogMax {
		t.Errorf("%d are left, want %d", got, webhookLogMax)
	}
}
