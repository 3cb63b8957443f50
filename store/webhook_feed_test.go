package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
)

func TestWebhooks_DraftsAreNotTold(t *testing.T) {
	h := newHooks(t)
	organizer := h.user(evently.RoleOrganizer)
	webhook := h.hook(organizer)
	event := newEvent(5)
	event.Organizer, event.Status = organizer, evently.EventDraft
	if _, err := h.events.CreateEvent(t.Context(), event, organizer, "create"); err != nil {
		t.Fatal(err)
	}
	deleted := newEvent(5)
	deleted.Organizer, deleted.Status = organizer, evently.EventDraft
	if _, err := h.events.CreateEvent(t.Context(), deleted, organizer, "create"); err != nil {
		t.Fatal(err)
	}
	o := h.acquire(event.ID)
	o.decide(&evently.Revise{Version: 1, Details: event.EventDetails}, o.Now)
	o.MustFlush()
	h.consume(event.ID, deleted.ID)
	if got := h.drain(webhook.ID); len(got) != 0 {
		t.Errorf("told %+v", got)
	}
	if err := h.events.DeleteDraft(t.Context(), deleted.ID, organizer, "delete"); err != nil {
		t.Fatal(err)
	}
	h.step(Span{deleted.ID, 1, 2})
	o.decide(&evently.Publish{}, o.Now)
	o.MustFlush()
	h.consume(event.ID)
	if got := h.drain(webhook.ID); len(got) != 1 || got[0].Type != "event.published" {
		t.Errorf("told %+v", got)
	}
}

// Who hears of what: administrators of all events, organizers of theirs, those who are neither any more of nothing.
func TestWebhooks_HearOfTheirOwnersEvents(t *testing.T) {
	h := newHooks(t)
	ann, ben, boss, user := h.user(evently.RoleOrganizer), h.user(evently.RoleOrganizer), h.user(evently.RoleAdmin), h.user(evently.RoleUser)
	hearer := map[string]*evently.Webhook{
		"ann": h.hook(ann), "ben": h.hook(ben), "boss": h.hook(boss), "user": h.hook(user),
		"few":    h.hook(ann, evently.WebhookBookingConfirmed, evently.WebhookEventCancelled),
		"paused": h.hook(ann),
	}
	if _, err := h.ReviseWebhook(t.Context(), ann, &evently.Webhook{ID: hearer["paused"].ID, Ended: evently.WebhookPaused, UpdatedAt: h.now}); err != nil {
		t.Fatal(err)
	}
	anns, bens := h.of(ann, 10), h.of(ben, 10)
	sell := func(want map[string]int) {
		t.Helper()
		anns.sell(1)
		bens.sell(1)
		h.consume(anns.Ledger.Event().ID, bens.Ledger.Event().ID)
		got := make(map[string]int)
		for name, webhook := range hearer {
			if n := len(h.drain(webhook.ID)); n > 0 {
				got[name] = n
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	sell(map[string]int{"ann": 3, "ben": 3, "boss": 6, "few": 1})
	h.exec(`update users set role = $2 where user_id = $1`, int64(boss), evently.RoleOrganizer)
	h.exec(`update users set role = $2 where user_id = $1`, int64(ben), evently.RoleUser)
	sell(map[string]int{"ann": 2, "few": 1})
	if err := h.DeleteWebhook(t.Context(), ann, hearer["ann"].ID); err != nil {
		t.Fatal(err)
	}
	sell(map[string]int{"few": 1})
}

// The step is repeated after a crash before its commit, and whatever else happens: one delivery for an entry.
func TestWebhooks_OneDeliveryForAnEntry(t *testing.T) {
	h := newHooks(t)
	organizer := h.user(evently.RoleOrganizer)
	webhook := h.hook(organizer)
	o := h.of(organizer, 100)
	o.sell(4)
	event := o.Ledger.Event().ID
	spans := h.spans(1000, event)
	ctx, cancel := context.WithCancel(t.Context())
	err := pgx.BeginFunc(ctx, h.bench.pool, func(tx pgx.Tx) error {
		if err := queueWebhooks(ctx, tx, spans, h.now); err != nil {
			return err
		}
		cancel()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) || h.count(`select count(*) from webhook_deliveries`) != 0 {
		t.Fatalf("%v", err)
	}
	h.step(spans...)
	first := h.claim(webhook.ID)
	h.record(first, "")
	h.step(spans...)
	h.step(spans...)
	got := h.drain(webhook.ID)
	if want := int(spans[0].Upto) - 1; len(got) != want {
		t.Errorf("%d more messages, want %d", len(got), want)
	}
}

// A dead webhook has a bounded queue; what is beyond stays in the journal, nothing is left out, and others do not notice.
func TestWebhooks_BacklogOfADeadOneIsBoundedAndComplete(t *testing.T) {
	t.Parallel()
	h := newHooks(t)
	organizer := h.user(evently.RoleOrganizer)
	dead, alive := h.hook(organizer), h.hook(organizer)
	few := h.hook(organizer, evently.WebhookBookingCancelled)
	var events []evently.EventID
	var owners []*owner
	for range 3 {
		o := h.of(organizer, 100_000)
		owners, events = append(owners, o), append(events, o.Ledger.Event().ID)
	}
	entries, heard := 0, 0
	for range 10 {
		for i, o := range owners {
			o.sell(40 + i)
		}
		for _, span := range h.spans(150, events...) {
			h.step(span)
			entries += int(span.Upto - span.After)
		}
		heard += len(h.drain(alive.ID))
	}
	pending := h.count(`select count(*) from webhook_deliveries where webhook_id = $1`, int64(dead.ID))
	ranges := h.count(`select count(*) from webhook_backlog`)
	if entries < 2*webhookPendingMax || pending > webhookPendingMax || pending < webhookPendingMax-webhookStepMax || ranges != len(events) {
		t.Errorf("of %d entries %d wait, and %d ranges", entries, pending, ranges)
	}
	if heard != entries {
		t.Errorf("the other one heard of %d of %d entries", heard, entries)
	}
	cancelled := len(h.drain(few.ID))

	// It comes back while bookings go on.
	ids := make(map[string]bool)
	told := 0
	take := func() {
		for _, message := range h.drain(dead.ID) {
			ids[fmt.Sprint(message.Data["event_id"], message.Data["seq"])] = true
			told++
		}
	}
	var group sync.WaitGroup
	more := h.spans(1000, events...)
	for _, o := range owners {
		o.sell(20)
	}
	more = append(more, h.spans(5, events...)...)
	for _, span := range more {
		entries += int(span.Upto - span.After)
	}
	group.Go(func() {
		for _, span := range more {
			if err := pgx.BeginFunc(t.Context(), h.bench.pool, func(tx pgx.Tx) error { return queueWebhooks(t.Context(), tx, []Span{span}, h.now) }); err != nil {
				t.Error(err)
			}
		}
	})
	take()
	group.Wait()
	take()
	if len(ids) != entries || told != entries {
		t.Errorf("told %d times of %d entries, there are %d", told, len(ids), entries)
	}
	if n := h.count(`select count(*) from webhook_backlog`); n != 0 {
		t.Errorf("%d ranges are left", n)
	}
	if want := h.count(`select count(*) from journal where kind = 7 and token in (select token from reservations where confirmed_at is not null)`); cancelled+len(h.drain(few.ID)) != want {
		t.Errorf("one that hears little was told %d times, want %d", cancelled, want)
	}
}

// Ranges of an event follow each other in one row, also where a webhook does not hear of what they hold.
func TestWebhooks_BacklogDoesNotFallApart(t *testing.T) {
	h := newHooks(t)
	organizer := h.user(evently.RoleOrganizer)
	webhook := h.hook(organizer, evently.WebhookBookingConfirmed)
	o := h.of(organizer, 100_000)
	event := o.Ledger.Event().ID
	h.exec(`insert into webhook_backlog (webhook_id, event_id, after_seq, upto_seq) values ($1, 1, 0, 1)`, int64(webhook.ID)) // of another event
	for range 5 {
		o.sell(8)
	}
	for _, span := range h.spans(1, event) {
		h.step(span)
	}
	if n := h.count(`select count(*) from webhook_backlog where event_id = $1`, int64(event)); n != 1 {
		t.Errorf("%d ranges", n)
	}
	h.exec(`delete from webhook_backlog where event_id = 1`)
	want := h.count(`select count(*) from journal where kind = 6`)
	if got := h.drain(webhook.ID); len(got) != want || want == 0 {
		t.Errorf("%d messages, want %d", len(got), want)
	}
}

func TestWebhooks_FeedTellsOfWhatHappensFromNowOn(t *testing.T) {
	h := newHooks(t)
	boss := h.user(evently.RoleAdmin)
	webhook := h.hook(boss)
	o := h.of(boss, 1000)
	o.sell(3)
	before := h.count(`select count(*) from journal`)
	_, stop := h.feeding(h.bench.pool, h.Consumer(time.Now))
	h.waitUntil("the consumer has enrolled", func() bool { return h.count(`select count(*) from consumers where name = 'webhooks'`) == 1 })
	late := h.of(boss, 1000)
	late.sell(3)
	o.sell(20)
	want := h.count(`select count(*) from journal`) - before
	h.waitUntil("all is queued", func() bool { return h.count(`select count(*) from webhook_deliveries`) >= want })
	stop()
	h.now = time.Now()
	if got := len(h.drain(webhook.ID)); got != want {
		t.Errorf("told of %d entries, want %d", got, want)
	}
}
